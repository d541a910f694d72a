//! What a caller asks for and gets: requests, streamed bursts, finished sequences.

use super::penalties::Penalties;
use super::sampler::Sampling;
use super::timing::Timing;
use crate::passes::choose_protocol::Protocol;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many meta-contexts the coarse graph goes ahead of the expansion. Changes nothing in the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunAhead {
    /// So many at a time; 0 counts as 1.
    MetaContexts(usize),
    /// All of a request before the first token.
    All,
}

/// What to generate. Prompts of different lengths may share a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Token ids of each prompt, oldest first.
    pub prompts: Vec<Vec<i64>>,
    /// Sequences drawn per prompt, on one coarse trajectory where the protocol allows.
    pub samples: usize,
    /// New tokens per sequence, at most.
    pub max_new_tokens: usize,
    /// How states advance.
    pub protocol: Protocol,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What tokens that have occurred lose. A token sees the prompt, the meta-contexts before its own, and its own chunk of
    /// level 1; where no token feeds a chunk it sees every token before it.
    pub penalties: Penalties,
    /// Tokens taken in place of drawn ones, `max_new_tokens` for each prompt: their logits are what is wanted then.
    pub given: Option<Vec<Vec<i64>>>,
    /// Run-ahead of the coarse graph.
    pub run_ahead: RunAhead,
    /// Token ids that end a sequence on the caller's behalf.
    pub stop: Vec<i64>,
    /// Token ids that end a sequence by the model's convention.
    pub eos: Vec<i64>,
    /// Ends sequences by what their tokens say.
    pub watch: Option<Arc<dyn Watch>>,
    /// What to keep besides the tokens.
    pub keep: Keep,
    /// Makes [`Timing`] exact per graph: waits for the device after each, or has the device note its times where generation
    /// stays there.
    pub profile: bool,
}

/// Ends sequences by what their tokens say, beside ids: stop strings, for instance.
pub trait Watch: fmt::Debug + Send + Sync {
    /// What watches one sequence from its first new token.
    fn watcher(&self) -> Box<dyn Watcher>;
}

/// Watches one sequence.
pub trait Watcher: fmt::Debug + Send {
    /// Takes the next token; whether the sequence ends with it. It is called no more once it does.
    fn ends_with(&mut self, token: i64) -> bool;
}

/// What to keep besides the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Logits of every token drawn, those past the end of a sequence included.
    pub logits: bool,
    /// The states that condition each meta-context.
    pub states: bool,
    /// What `expand_again` needs.
    pub trajectory: bool,
}

impl Request {
    /// A greedy request of one sequence per prompt.
    #[must_use]
    pub fn greedy(protocol: Protocol, prompts: Vec<Vec<i64>>, max_new_tokens: usize) -> Self {
        Request {
            prompts,
            samples: 1,
            max_new_tokens,
            protocol,
            sampling: Sampling::greedy(),
            penalties: Penalties::default(),
            given: None,
            run_ahead: RunAhead::MetaContexts(1),
            stop: Vec::new(),
            eos: Vec::new(),
            watch: None,
            keep: Keep::default(),
            profile: false,
        }
    }
}

impl Request {
    /// Whether it asks, besides its sampling, for what only a sampler outside the graphs does.
    #[must_use]
    pub fn needs_host(&self) -> bool {
        self.given.is_some() || !self.penalties.are_none()
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It has `max_new_tokens` tokens.
    Length,
    /// A stop id was drawn, or a [`Watch`] ended it.
    Stop,
    /// An end-of-sequence id was drawn.
    Eos,
    /// The caller cancelled.
    Cancelled,
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
        }
    }
}

/// New tokens of one sequence, as soon as they are known.
#[derive(Clone, Copy, Debug)]
pub struct Burst<'a> {
    /// Place of the prompt in the request.
    pub prompt: usize,
    /// Number of the sample, from 0.
    pub sample: usize,
    /// The tokens, without the id that ended the sequence; with that of a [`Watch`].
    pub tokens: &'a [i64],
    /// Set with the last burst of a sequence.
    pub finish: Option<Finish>,
}

/// One finished sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Place of the prompt in the request.
    pub prompt: usize,
    /// Number of the sample, from 0.
    pub sample: usize,
    /// New tokens, without the id that ended the sequence; with that of a [`Watch`].
    pub tokens: Vec<i64>,
    /// Why it ended.
    pub finish: Finish,
    /// Oldest tokens of the prompt that alignment dropped.
    pub dropped_left: usize,
    /// Tokens computed after the end and thrown away: the price of whole meta-contexts and of run-ahead.
    pub wasted_tokens: usize,
    /// Logits `[tokens drawn, V]`, row-major, if they were to be kept.
    pub logits: Vec<f64>,
}

/// States that condition one meta-context of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRecord {
    /// Place of the prompt in the request.
    pub prompt: usize,
    /// Number of the sample; 0 for what all samples share.
    pub sample: usize,
    /// The meta-context, from 0 after the prompt.
    pub meta: usize,
    /// Name in the graphs: `top_state`, `carry.1`, `reconstruction`, ...
    pub name: String,
    /// Elements.
    pub values: Vec<f64>,
}

/// Result of a request: the sequences by prompt, then sample.
#[derive(Debug)]
pub struct Generation {
    /// Finished sequences.
    pub sequences: Vec<Sequence>,
    /// States, if they were to be kept.
    pub states: Vec<StateRecord>,
    /// Coarse trajectory, if it was to be kept and the protocol has one.
    pub trajectory: Option<super::trajectory::Trajectory>,
    /// Whether tokens were drawn outside the graphs, which is slower.
    pub host_sampled: bool,
    /// Where the time went.
    pub timing: Timing,
}

/// A switch that ends a generation early; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the generation at the next graph.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
