//! A decoder that only hashes. Owns what may be asked of rows: none is given away, read or kept out of its time.

use photonc::passes::choose_protocol::Protocol;
use photonc::program::Remainder;
use photonc::runtime::backend::BackendError;
use photonc::runtime::decoder::{Admission, Collected, Decoder, DecoderSetup, Extras, Kept};
use photonc::runtime::draws::Draws;
use photonc::runtime::logprobs::TokenLogprobs;
use photonc::runtime::request::{Keep, StateRecord};
use photonc::runtime::schedule::Limits;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

pub const META_TOKENS: usize = 4;
pub const VOCAB: usize = 24;
pub const LIMITS: Limits =
    Limits { meta_tokens: META_TOKENS, vocab_size: VOCAB, max_tokens: 400, remainder: Remainder::Encoded };
/// First samples of requests are so far apart, so that a log tells whose row was whose.
pub const APART: u64 = 1000;

/// The token at `position`: a hash of all that it may depend on. `encoded` is what the states were encoded from, `near` what
/// stands before it in its meta-context.
pub fn token(encoded: &[i64], near: &[i64], position: usize, draws: (u64, u64), barred: &[i64]) -> i64 {
    let (seed, sample) = draws;
    let words = [encoded, &[-7], near, &[position as i64, seed as i64, sample as i64]].concat();
    let mut hash = 1u64;
    loop {
        for word in &words {
            hash = (hash ^ *word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        let id = (hash % VOCAB as u64) as i64;
        if !barred.contains(&id) {
            return id;
        }
    }
}

/// An admission, as a test looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    pub first_sample: u64,
    pub samples: usize,
    /// Tokens encoded.
    pub encoded: usize,
    /// Tokens drawn for each sample, as far as they are wanted.
    pub drawn: usize,
}

/// What decoders saw.
#[derive(Debug, Default)]
pub struct Log {
    pub admitted: Vec<Admitted>,
    /// Admissions made at once, and bursts started before.
    pub turns: Vec<(usize, usize)>,
    /// Texts scored.
    pub scored: usize,
}

struct Taken {
    /// Place in the log.
    entry: usize,
    encoded: Vec<i64>,
    forced: Vec<i64>,
    only_first: bool,
    /// Meta-contexts wanted still.
    wanted: usize,
    /// Meta-contexts in the caches.
    length: usize,
    draws: Arc<Draws>,
    first_sample: u64,
    keep: Keep,
    /// Places of its sequences, and what stands in each, `encoded` included.
    sequences: Vec<(usize, Vec<i64>)>,
}

struct Burst {
    ids: Vec<i64>,
    extras: BTreeMap<usize, Extras>,
    rows: Vec<usize>,
    sequences: Vec<usize>,
}

pub struct Fake {
    setup: DecoderSetup,
    depth: usize,
    /// Bursts are always whole, as where they are recorded.
    recorded: bool,
    rows: Vec<Option<Taken>>,
    kept: Vec<Option<Kept>>,
    pending: VecDeque<Burst>,
    collected: Vec<i64>,
    started: usize,
    pub log: Arc<Mutex<Log>>,
    breaks_at: Option<usize>,
    broken: Option<(i64, usize)>,
}

impl Fake {
    pub fn new(setup: DecoderSetup, depth: usize, recorded: bool) -> Self {
        Fake {
            setup,
            depth,
            recorded,
            rows: (0..setup.rows).map(|_| None).collect(),
            kept: (0..setup.rows).map(|_| None).collect(),
            pending: VecDeque::new(),
            collected: Vec::new(),
            started: 0,
            log: Arc::default(),
            breaks_at: None,
            broken: None,
        }
    }

    /// So many rows of one sequence each, which draw one meta-context a burst.
    pub fn of_rows(rows: usize) -> Self {
        Fake::new(setup(rows, rows, 1, 100), 2, true)
    }

    /// Writes into this log.
    pub fn logging(self, log: &Arc<Mutex<Log>>) -> Self {
        Fake { log: Arc::clone(log), ..self }
    }

    /// The device breaks at the burst of this number.
    pub fn breaking_at(self, burst: usize) -> Self {
        Fake { breaks_at: Some(burst), ..self }
    }

    /// Prompts with this token have no distribution from a position on.
    pub fn broken_from(self, token: i64, position: usize) -> Self {
        Fake { broken: Some((token, position)), ..self }
    }

    fn burst(&mut self, count: usize) -> Burst {
        let each = count * META_TOKENS;
        // What is nobody's, nobody may look at.
        let mut burst = Burst {
            ids: vec![-1; each * self.setup.sequences],
            extras: BTreeMap::new(),
            rows: Vec::new(),
            sequences: Vec::new(),
        };
        for (row, taken) in self.rows.iter_mut().enumerate() {
            let Some(taken) = taken else { continue };
            assert!(!taken.only_first || taken.wanted > 0, "row {row} was to be retired after a burst");
            burst.rows.push(row);
            taken.length += if taken.only_first && !self.recorded { 1 } else { count };
            assert!(taken.length <= self.setup.capacity, "row {row} is longer than its capacity");
            taken.wanted = taken.wanted.saturating_sub(count);
            let tokens = if taken.only_first { META_TOKENS } else { each };
            self.log.lock().unwrap().admitted[taken.entry].drawn += tokens;
            let kept = self.kept[row].as_mut().unwrap();
            let broken = self.broken.filter(|(id, _)| taken.draws.prompt.contains(id)).map(|(_, from)| from);
            taken.draw(self.setup.protocol, tokens, broken, &mut burst, each, kept);
        }
        burst
    }
}

impl Taken {
    fn draw(
        &mut self,
        protocol: Protocol,
        tokens: usize,
        broken: Option<usize>,
        burst: &mut Burst,
        each: usize,
        kept: &mut Kept,
    ) {
        let start = self.encoded.len();
        let Taken { draws, forced, .. } = self;
        for (number, (place, text)) in self.sequences.iter_mut().enumerate() {
            burst.sequences.push(*place);
            let extras = burst.extras.entry(*place).or_default();
            let sample = self.first_sample + number as u64;
            for at in 0..tokens {
                let position = text.len();
                let meta = position / META_TOKENS * META_TOKENS;
                if let (0, Some(states)) = (position % META_TOKENS, &mut kept.states) {
                    states.push(StateRecord {
                        prompt: 0,
                        sample: number,
                        meta: (position - start) / META_TOKENS,
                        name: "state".to_owned(),
                        values: vec![position as f64],
                    });
                }
                let encoded = match protocol {
                    Protocol::Recgen => &self.encoded[..],
                    Protocol::Hiergen | Protocol::Windowed | Protocol::Chunkgen => &text[..meta],
                };
                let barred = if position < draws.barred_until { &draws.barred[..] } else { &[] };
                let key = (draws.sampling.seed, sample);
                let id = match forced.get(position - start) {
                    _ if broken.is_some_and(|from| position >= from) => -1,
                    Some(forced) => *forced,
                    None => token(encoded, &text[meta..], position, key, barred),
                };
                burst.ids[*place * each + at] = id;
                if draws.logprobs.is_some() {
                    extras.logprobs.push(logprobs_at(id, position));
                }
                if self.keep.logits {
                    extras.logits.push(position as f64);
                }
                text.push(id.max(0));
            }
        }
    }
}

/// Those of a token; they say where it stands.
pub fn logprobs_at(token: i64, position: usize) -> TokenLogprobs {
    TokenLogprobs { token, logprob: -(position as f64), rank: 1, top: Vec::new() }
}

/// A shape for RecGen.
pub fn setup(rows: usize, sequences: usize, run_ahead: usize, capacity: usize) -> DecoderSetup {
    DecoderSetup { protocol: Protocol::Recgen, rows, sequences, capacity, run_ahead }
}

fn broke(message: &str) -> BackendError {
    BackendError::Graphs { message: message.to_owned() }
}

impl Decoder for Fake {
    fn setup(&self) -> DecoderSetup {
        self.setup
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn draws_on_host(&self, draws: &Draws) -> Result<bool, BackendError> {
        if !draws.penalties.are_none() {
            return Err(self.setup.refuses("no penalties here"));
        }
        Ok(draws.sampling.min_p > 0.0)
    }

    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        assert!(!admissions.is_empty(), "nobody is admitted");
        self.log.lock().unwrap().turns.push((admissions.len(), self.started));
        for admission in admissions {
            let Admission { row, sequences, prompt, forced, only_first, meta_contexts, .. } = *admission;
            assert!(self.rows[row].is_none(), "row {row} is taken");
            assert!(self.kept[row].is_none(), "what row {row} kept was not asked for");
            assert!(
                self.pending.iter().all(|burst| !burst.rows.contains(&row)),
                "row {row} was given away while a burst that it took part in is in flight"
            );
            assert!(!sequences.is_empty(), "row {row} has no sequence");
            assert!(self.setup.shares_rows() || *sequences == [row], "a sequence belongs to its row");
            for (at, sequence) in sequences.iter().enumerate() {
                let taken = self.rows.iter().flatten().flat_map(|taken| &taken.sequences);
                let in_flight = self.pending.iter().flat_map(|burst| &burst.sequences);
                assert!(
                    *sequence < self.setup.sequences && !sequences[..at].contains(sequence),
                    "sequence {sequence} is there once"
                );
                assert!(
                    !taken.map(|(place, _)| place).chain(in_flight).any(|place| place == sequence),
                    "sequence {sequence} is taken"
                );
            }
            assert!(prompt.len().is_multiple_of(META_TOKENS), "only whole meta-contexts are encoded");
            assert!(meta_contexts > 0 && (!only_first || meta_contexts == 1));
            assert!(!only_first || (1..=META_TOKENS).contains(&forced.len()));
            let mut log = self.log.lock().unwrap();
            log.admitted.push(Admitted {
                first_sample: admission.first_sample,
                samples: sequences.len(),
                encoded: prompt.len(),
                drawn: 0,
            });
            self.rows[row] = Some(Taken {
                entry: log.admitted.len() - 1,
                encoded: prompt.to_vec(),
                forced: forced.to_vec(),
                only_first,
                wanted: meta_contexts,
                length: prompt.len() / META_TOKENS,
                draws: Arc::clone(admission.draws),
                first_sample: admission.first_sample,
                keep: admission.keep,
                sequences: sequences.iter().map(|place| (*place, prompt.to_vec())).collect(),
            });
            let states = admission.keep.states.then(Vec::new);
            self.kept[row] = Some(Kept { states, trajectory: None });
        }
        Ok(())
    }

    fn retire(&mut self, row: usize) {
        assert!(self.rows[row].take().is_some(), "row {row} was empty");
    }

    fn start(&mut self) -> Result<usize, BackendError> {
        assert!(self.pending.len() < self.depth, "no more bursts in flight than that");
        assert!(self.rows.iter().any(Option::is_some), "a burst for nobody");
        if self.breaks_at == Some(self.started) {
            return Err(broke("broken"));
        }
        self.started += 1;
        let wanted = self.rows.iter().flatten().map(|taken| taken.wanted).max();
        let count = match self.recorded {
            true => self.setup.run_ahead,
            false => wanted.unwrap().clamp(1, self.setup.run_ahead),
        };
        let burst = self.burst(count);
        self.pending.push_back(burst);
        Ok(count)
    }

    fn pending(&self) -> usize {
        self.pending.len()
    }

    fn collect(&mut self) -> Result<Collected<'_>, BackendError> {
        let burst = self.pending.pop_front().ok_or_else(|| broke("nothing is pending"))?;
        self.collected = burst.ids;
        Ok(Collected { ids: &self.collected, extras: burst.extras })
    }

    fn take_kept(&mut self, row: usize) -> Kept {
        assert!(self.rows[row].is_none(), "row {row} was not retired");
        assert!(self.pending.iter().all(|burst| !burst.rows.contains(&row)), "row {row} keeps more still");
        self.kept[row].take().expect("what a row kept is asked for once")
    }

    fn score(&mut self, tokens: &[i64]) -> Result<Vec<f64>, BackendError> {
        assert!(!tokens.is_empty() && tokens.len().is_multiple_of(META_TOKENS), "whole meta-contexts");
        self.log.lock().unwrap().scored += 1;
        let sure = |token: i64| (0..VOCAB as i64).map(move |id| if id == token { 1.0 } else { 0.0 });
        Ok(tokens.iter().copied().flat_map(sure).collect())
    }
}
