//! Rows of prompts that generate side by side, in bursts. Owns the one interface that generation drives: graphs on any
//! backend stand behind it (`graphs`), and recordings that stay on a device (`cuda/decode`).

use super::backend::BackendError;
use super::draws::Draws;
use super::logprobs::TokenLogprobs;
use super::request::{Keep, StateRecord};
use super::timing::Timing;
use super::trajectory::Trajectory;
use photonc_compiler::passes::choose_protocol::Protocol;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Shape of a decoder, fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSetup {
    /// How states advance.
    pub protocol: Protocol,
    /// Prompts at once; rows may be empty.
    pub rows: usize,
    /// Sequences at once, over all rows. As many as rows: sequence `i` belongs to row `i`, and a row has no other. More:
    /// a row has any that are free.
    pub sequences: usize,
    /// Meta-contexts that a row holds at most, prompt included. The last burst may go past the end of a sequence, so
    /// count whole bursts.
    pub capacity: usize,
    /// Meta-contexts of one burst, at most.
    pub run_ahead: usize,
}

impl DecoderSetup {
    /// Whether rows may have several sequences.
    #[must_use]
    pub fn shares_rows(&self) -> bool {
        self.sequences > self.rows
    }

    /// The error that a decoder of this shape cannot do something.
    pub fn refuses(&self, message: impl Into<String>) -> BackendError {
        BackendError::Decoder { rows: self.rows, sequences: self.sequences, message: message.into() }
    }
}

/// A prompt for a row.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// The row, empty before.
    pub row: usize,
    /// The places of its sequences, empty before.
    pub sequences: &'a [usize],
    /// Whole meta-contexts to encode, or nothing: then it starts from the start latents.
    pub prompt: &'a [i64],
    /// Tokens behind the prompt to take in place of drawn ones.
    pub forced: &'a [i64],
    /// Only the first meta-context of the first burst is wanted; the row is retired right after it starts.
    pub only_first: bool,
    /// Meta-contexts that are wanted at most.
    pub meta_contexts: usize,
    /// How its sequences are drawn: the `i`-th with the key `(seed, first_sample + i, position)`.
    pub draws: &'a Arc<Draws>,
    /// Number of the first sequence's sample.
    pub first_sample: u64,
    /// What to keep besides the tokens.
    pub keep: Keep,
}

/// Admissions of one prompt.
#[derive(Clone, Debug)]
pub struct SharedPrompt<'s, 'a> {
    /// What is encoded for all of them.
    pub prompt: &'a [i64],
    /// By row.
    pub admissions: Vec<&'s Admission<'a>>,
}

impl<'s, 'a> SharedPrompt<'s, 'a> {
    /// Admissions by their prompts: the shortest first, of those of one length that of the lowest row.
    pub fn of(admissions: impl Iterator<Item = &'s Admission<'a>>) -> Vec<Self>
    where
        'a: 's,
    {
        let mut of_prompts: BTreeMap<&[i64], Vec<&Admission<'a>>> = BTreeMap::new();
        for admission in admissions {
            of_prompts.entry(admission.prompt).or_default().push(admission);
        }
        let mut all: Vec<Self> = of_prompts
            .into_iter()
            .map(|(prompt, mut admissions)| {
                admissions.sort_by_key(|admission| admission.row);
                SharedPrompt { prompt, admissions }
            })
            .collect();
        all.sort_by_key(|shared| (shared.prompt.len(), shared.admissions.first().map(|first| first.row)));
        all
    }
}

/// What a burst gave.
#[derive(Debug)]
pub struct Collected<'d> {
    /// Tokens `[sequences, tokens]`, row-major. Unspecified for sequences that were empty when the burst started, and behind
    /// the first meta-context of rows that want no more; negative where logits are no distribution.
    pub ids: &'d [i64],
    /// What was asked for besides, by sequence.
    pub extras: BTreeMap<usize, Extras>,
}

/// What a sequence gets besides its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    /// Log-probabilities of each token, where they are wanted.
    pub logprobs: Vec<TokenLogprobs>,
    /// Logits `[tokens, V]`, where they are kept.
    pub logits: Vec<f64>,
}

/// What a row kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// States, where they are kept; their samples are counted within the row, their request is 0.
    pub states: Option<Vec<StateRecord>>,
    /// The coarse trajectory.
    pub trajectory: Option<Trajectory>,
}

/// Tokens of prompts that a decoder has encoded, whole meta-contexts, padding left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefillTotals {
    /// Tokens that went through the encoders.
    pub encoded: usize,
    /// Tokens of prompts that were admitted beside an equal one, which was encoded for both.
    pub shared: usize,
}

impl PrefillTotals {
    /// A prompt was encoded for its admissions.
    pub fn count(&mut self, shared: &SharedPrompt<'_, '_>) {
        self.encoded += shared.prompt.len();
        self.shared += shared.prompt.len() * (shared.admissions.len() - 1);
    }
}

impl std::ops::Add for PrefillTotals {
    type Output = PrefillTotals;

    fn add(self, other: PrefillTotals) -> PrefillTotals {
        PrefillTotals { encoded: self.encoded + other.encoded, shared: self.shared + other.shared }
    }
}

/// Rows that generate side by side. Bursts are started and collected in order.
pub trait Decoder {
    /// The shape.
    fn setup(&self) -> DecoderSetup;

    /// Bursts that may be started before the oldest is collected: more than one where a device works beside the host.
    fn depth(&self) -> usize;

    /// Whether tokens drawn so are drawn outside the graphs, which is slower.
    ///
    /// # Errors
    /// They cannot be drawn so here.
    fn draws_on_host(&self, draws: &Draws) -> Result<bool, BackendError>;

    /// Encodes prompts into their rows, equal ones once; they take part from the next burst on.
    ///
    /// # Errors
    /// A row or sequence that is taken, a prompt that does not fit the capacity, or a failure of the device.
    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError>;

    /// What admissions have encoded so far.
    fn prefilled(&self) -> PrefillTotals {
        PrefillTotals::default()
    }

    /// Empties a row and its sequences: it takes part in no burst started from now on.
    fn retire(&mut self, row: usize);

    /// Starts a burst for every row that is taken; how many meta-contexts it has.
    ///
    /// # Errors
    /// A row without room for the burst, too many bursts pending, or a failure of the device.
    fn start(&mut self) -> Result<usize, BackendError>;

    /// Has bursts from now on be of so many meta-contexts at most, no more than the shape says: fewer come sooner, more cost
    /// less. Where bursts are recorded their length is fixed.
    fn set_run_ahead(&mut self, _meta_contexts: usize) {}

    /// Bursts started and not collected.
    fn pending(&self) -> usize;

    /// Waits for the oldest burst and hands out what it gave.
    ///
    /// # Errors
    /// No burst is pending, or the device failed.
    fn collect(&mut self) -> Result<Collected<'_>, BackendError>;

    /// What a row kept, once: asked for when its last burst has been collected.
    fn take_kept(&mut self, _row: usize) -> Kept {
        Kept::default()
    }

    /// Logits `[tokens, V]` of a text of whole meta-contexts, each token's from what stands before it.
    ///
    /// # Errors
    /// The bundle lacks the graph, or the device failed.
    fn score(&mut self, tokens: &[i64]) -> Result<Vec<f64>, BackendError>;

    /// From now on notes how long graphs take on the device, where the decoder can.
    fn measure(&mut self) {}

    /// Times of graphs in bursts that were collected since the last call; on a device nothing unless `measure` was called.
    /// Graphs that are run as one have one name, `decode + reencode`.
    fn take_times(&mut self) -> Timing {
        Timing::default()
    }
}
