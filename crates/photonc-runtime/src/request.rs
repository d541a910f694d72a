//! What a caller asks for and gets: requests, streamed bursts, finished sequences. A request is one prompt and everything of
//! its own; what is generated beside it changes nothing in it.

use super::logprobs::TokenLogprobs;
use super::penalties::Penalties;
use super::sampler::Sampling;
use super::timing::Timing;
use super::trajectory::Trajectory;
use photonc_compiler::passes::choose_protocol::Protocol;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How many meta-contexts the coarse graph goes ahead of the expansion. Changes nothing in the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunAhead {
    /// So many at a time; 0 counts as 1.
    MetaContexts(usize),
    /// All of a request before the first token.
    All,
}

/// What becomes of the tokens of a prompt behind its last whole meta-context (PHOTON.md section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// The meta-context that they begin is decoded with them forced; every token is used, and any prompt will do.
    #[default]
    Force,
    /// As many of the oldest tokens are dropped, and positions count from what is left.
    DropLeft,
}

/// What to generate from one prompt.
#[derive(Clone, Debug)]
pub struct Request {
    /// Token ids, oldest first; may be empty.
    pub prompt: Vec<i64>,
    /// Tokens of `prompt` that are prompt, where a generation goes on that was cut off: those behind them were generated.
    /// Going on gives the tokens of an undisturbed run.
    pub prompt_length: Option<usize>,
    /// What becomes of a prompt that does not fill whole meta-contexts.
    pub align: Align,
    /// How states advance.
    pub protocol: Protocol,
    /// Sequences to draw, on one coarse trajectory where the protocol allows.
    pub samples: usize,
    /// Number of the first: sample `s` draws with the key `(seed, first_sample + s, position)`.
    pub first_sample: u64,
    /// New tokens per sequence, at most.
    pub max_new_tokens: usize,
    /// Tokens behind the prompt before which no token of `eos` and `stop` is drawn.
    pub min_new_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What tokens that have occurred lose. A token sees the prompt, the meta-contexts before its own, and its own chunk of
    /// level 1; where no token feeds a chunk it sees every token before it.
    pub penalties: Penalties,
    /// Added to the logits of these token ids before anything else.
    pub logit_bias: Vec<(i64, f64)>,
    /// Log-probabilities of each new token and of so many of the most probable ones at its place.
    pub logprobs: Option<usize>,
    /// The same of each token of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// New tokens to take in place of drawn ones, from the first on; at most `max_new_tokens`.
    pub forced: Vec<i64>,
    /// Token ids that end a sequence on the caller's behalf.
    pub stop: Vec<i64>,
    /// Token ids that end a sequence by the model's convention.
    pub eos: Vec<i64>,
    /// Ends sequences by what their tokens say.
    pub stop_condition: Option<Arc<dyn StopCondition>>,
    /// What to keep besides the tokens.
    pub keep: Keep,
    /// Requests of a higher priority get free rows first.
    pub priority: i32,
    /// When the request ends whatever it has.
    pub deadline: Option<Instant>,
    /// Ends the request early.
    pub cancel: Cancel,
}

/// Ends sequences by what their tokens say, beside ids: stop strings, for instance.
pub trait StopCondition: fmt::Debug + Send + Sync {
    /// What follows one sequence from its first new token.
    fn start(&self) -> Box<dyn StopState>;
}

/// A stop condition over the tokens of one sequence.
pub trait StopState: fmt::Debug + Send {
    /// Takes the next token; whether the sequence ends with it. It is called no more once it does.
    fn ends_with(&mut self, token: i64) -> bool;
}

/// What to keep besides the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Logits of every token of its meta-contexts: forced ones and those past the end of a sequence included.
    pub logits: bool,
    /// The states that condition each meta-context.
    pub states: bool,
    /// What `expand_again` needs.
    pub trajectory: bool,
}

impl Request {
    /// A greedy request of one sequence.
    #[must_use]
    pub fn greedy(protocol: Protocol, prompt: Vec<i64>, max_new_tokens: usize) -> Self {
        Request {
            prompt,
            prompt_length: None,
            align: Align::default(),
            protocol,
            samples: 1,
            first_sample: 0,
            max_new_tokens,
            min_new_tokens: 0,
            sampling: Sampling::greedy(),
            penalties: Penalties::default(),
            logit_bias: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            forced: Vec::new(),
            stop: Vec::new(),
            eos: Vec::new(),
            stop_condition: None,
            keep: Keep::default(),
            priority: 0,
            deadline: None,
            cancel: Cancel::default(),
        }
    }
}

impl Request {
    /// Whether it asks for what recorded decoders do not give: then graphs run one by one, which is slower.
    #[must_use]
    pub fn needs_graphs(&self) -> bool {
        self.keep != Keep::default()
            || self.logprobs.is_some()
            || self.prompt_logprobs.is_some()
            || !self.logit_bias.is_empty()
            || self.min_new_tokens > 0
            || !self.penalties.are_none()
    }
}

/// Requests that are generated together, and how. They may differ in everything.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The requests; results are numbered as they are.
    pub requests: Vec<Request>,
    /// Run-ahead of the coarse graph.
    pub run_ahead: RunAhead,
    /// Prompts side by side; by default all of them.
    pub rows: Option<usize>,
    /// Makes [`Timing`] exact per graph: waits for the device after each, or has the device note its times where generation
    /// stays there.
    pub profile: bool,
}

impl Batch {
    /// Requests one meta-context at a time.
    #[must_use]
    pub fn new(requests: Vec<Request>) -> Self {
        Batch { requests, run_ahead: RunAhead::MetaContexts(1), rows: None, profile: false }
    }

    /// One request for each prompt, alike in everything else.
    #[must_use]
    pub fn alike(request: &Request, prompts: &[Vec<i64>], run_ahead: RunAhead) -> Self {
        let with = |prompt: &Vec<i64>| Request { prompt: prompt.clone(), ..request.clone() };
        Batch { run_ahead, ..Batch::new(prompts.iter().map(with).collect()) }
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It has `max_new_tokens` tokens.
    Length,
    /// A stop id was drawn, or a [`StopCondition`] ended it.
    Stop,
    /// An end-of-sequence id was drawn.
    Eos,
    /// The caller cancelled.
    Cancelled,
    /// Its deadline passed.
    Deadline,
}

impl Finish {
    /// Name in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Finish::Length => "length",
            Finish::Stop => "stop",
            Finish::Eos => "eos",
            Finish::Cancelled => "cancelled",
            Finish::Deadline => "deadline",
        }
    }
}

/// New tokens of one sequence, as soon as they are known.
#[derive(Clone, Copy, Debug)]
pub struct Burst<'a> {
    /// Number of the request.
    pub prompt: usize,
    /// Number of the sample, from 0.
    pub sample: usize,
    /// The tokens, without the id that ended the sequence; with that of a [`StopCondition`].
    pub tokens: &'a [i64],
    /// Log-probabilities of the tokens, if they were asked for.
    pub logprobs: &'a [TokenLogprobs],
    /// Set with the last burst of a sequence.
    pub finish: Option<Finish>,
}

/// One finished sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Number of the request.
    pub prompt: usize,
    /// Number of the sample, from 0.
    pub sample: usize,
    /// New tokens, without the id that ended the sequence; with that of a [`StopCondition`].
    pub tokens: Vec<i64>,
    /// Log-probabilities of the tokens, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish: Finish,
    /// Oldest tokens of the prompt that alignment dropped.
    pub dropped_left: usize,
    /// Tokens computed after the end and thrown away: the price of whole meta-contexts and of run-ahead.
    pub wasted_tokens: usize,
    /// Logits `[tokens of its meta-contexts, V]`, row-major, if they were to be kept.
    pub logits: Vec<f64>,
}

/// States that condition one meta-context of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRecord {
    /// Number of the request.
    pub prompt: usize,
    /// Number of the sample; 0 for what all samples share.
    pub sample: usize,
    /// The meta-context, from 0 after the whole ones of the prompt.
    pub meta: usize,
    /// Name in the graphs: `top_state`, `carry.1`, `reconstruction`, ...
    pub name: String,
    /// Elements.
    pub values: Vec<f64>,
}

/// Results of a batch: the sequences by request, then sample.
#[derive(Debug)]
pub struct Generation {
    /// Finished sequences.
    pub sequences: Vec<Sequence>,
    /// Log-probabilities of prompts, by request, if they were asked for.
    pub prompt_logprobs: Vec<Option<Vec<TokenLogprobs>>>,
    /// States, if they were to be kept.
    pub states: Vec<StateRecord>,
    /// Coarse trajectories by request, if they were to be kept and the protocol has one.
    pub trajectories: Vec<Option<Trajectory>>,
    /// Whether tokens were drawn outside the graphs, which is slower.
    pub host_sampled: bool,
    /// Where the time went.
    pub timing: Timing,
}

/// A switch that ends a generation early; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the generation at the next burst.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
