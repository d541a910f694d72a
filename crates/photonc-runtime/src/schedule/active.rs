//! A request on its way, and the parts that it goes through a decoder in. Owns what a burst does to a request, and the order
//! of its parts: the meta-context that its prompt begins first, for all samples together; then, encoded from its tokens,
//! each sample by itself.

use super::fit::{Fit, Refusal, draws};
use super::sequence::{SequenceState, StopRules};
use crate::decoder::{Admission, Collected, DecoderSetup, Extras, Kept};
use crate::draws::Draws;
use crate::error::RuntimeError;
use crate::logprobs::TokenLogprobs;
use crate::request::{Burst, Finish, Request, Sequence, StateRecord};
use crate::trajectory::Trajectory;
use std::ops::Range;
use std::sync::Arc;

/// Told new tokens as soon as they are known.
pub type Sink<'r> = Box<dyn FnMut(&Burst<'_>) + Send + 'r>;

/// A request that waits or runs.
pub(super) struct Active<'r> {
    pub number: usize,
    pub request: Request,
    pub draws: Arc<Draws>,
    pub fit: Fit,
    pub prompt_logprobs: Option<Vec<TokenLogprobs>>,
    /// Parts that wait, run or come.
    pub parts: usize,
    sink: Sink<'r>,
    samples: Vec<SequenceState>,
    failed: Option<RuntimeError>,
    states: Vec<StateRecord>,
    trajectory: Option<Trajectory>,
    on_host: bool,
}

/// A row's worth of a request.
#[derive(Debug)]
pub(super) struct Part {
    /// Key of the request.
    pub key: u64,
    pub priority: i32,
    /// Its samples, by place in the request.
    pub samples: Range<usize>,
    /// Tokens to encode.
    encoded: Vec<i64>,
    /// Tokens taken in place of drawn ones.
    forced: Vec<i64>,
    /// Of them, those that are not new.
    known: usize,
    pub only_first: bool,
    /// Meta-contexts to start still.
    pub left: usize,
    /// Number of its first meta-context, from 0 behind the whole ones of the prompt.
    first_meta: usize,
    /// Places of its sequences in the decoder, once it has a row.
    pub sequences: Vec<usize>,
    /// What the samples of a part that wants one meta-context drew in it, forced tokens included.
    drawn: Vec<Vec<i64>>,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its number.
    pub number: usize,
    /// What it gave, or why it gave nothing.
    pub result: Result<Completion, RuntimeError>,
}

/// What a request gave.
#[derive(Debug)]
pub struct Completion {
    /// Its sequences by sample.
    pub sequences: Vec<Sequence>,
    /// Log-probabilities of the prompt's tokens, if they were asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprobs>>,
    /// States, if they were to be kept.
    pub states: Vec<StateRecord>,
    /// The coarse trajectory, if it was to be kept and there is one.
    pub trajectory: Option<Trajectory>,
    /// Whether tokens were drawn outside the graphs, which is slower.
    pub host_sampled: bool,
}

impl<'r> Active<'r> {
    pub fn new(number: usize, request: Request, fit: Fit, sink: Sink<'r>) -> Self {
        let draws = Arc::new(draws(&request, &fit.prompt));
        let given = &fit.prompt.tokens[fit.prompt.length..];
        let new = |sample| SequenceState::new(number, sample, fit.prompt.dropped_left, &request, given);
        let samples = (0..request.samples).map(new).collect();
        Active {
            number,
            draws,
            fit,
            prompt_logprobs: None,
            parts: 0,
            sink,
            samples,
            failed: None,
            states: Vec::new(),
            trajectory: None,
            on_host: false,
            request,
        }
    }

    /// Whether the decoder can draw so.
    pub fn choose(&mut self, on_host: Result<bool, impl std::fmt::Display>) -> Result<(), Refusal> {
        let refused = |error: &dyn std::fmt::Display| Refusal::Draws {
            number: self.number,
            message: error.to_string(),
        };
        self.on_host = on_host.map_err(|error| refused(&error))?;
        Ok(())
    }

    /// The first parts.
    pub fn begin(&mut self, key: u64, setup: DecoderSetup, meta_tokens: usize) -> Vec<Part> {
        let Fit { prompt, whole, encoded, begun, first_tokens, .. } = &self.fit;
        let (known, forced) = (&prompt.tokens, &self.request.forced);
        let part = match begun {
            true => {
                let start = whole * meta_tokens;
                let new = forced.len().min(*first_tokens);
                Part {
                    encoded: known[..start].to_vec(),
                    forced: [&known[start..], &forced[..new]].concat(),
                    known: known.len() - start,
                    only_first: true,
                    left: 1,
                    ..self.part(key)
                }
            }
            false => {
                let start = encoded * meta_tokens;
                Part {
                    encoded: known[..start].to_vec(),
                    forced: [&known[start..], forced].concat(),
                    known: known.len() - start,
                    left: self.fit.steps,
                    first_meta: encoded - whole,
                    ..self.part(key)
                }
            }
        };
        // A row has no more samples than the decoder has sequences; what goes beyond takes another row.
        let most = if setup.shares_rows() { setup.sequences } else { 1 };
        let samples = self.request.samples;
        let starts = (0..samples).step_by(most);
        let parts: Vec<Part> = starts.map(|from| part.of(from..samples.min(from + most))).collect();
        self.parts = parts.len();
        parts
    }

    fn part(&self, key: u64) -> Part {
        Part {
            key,
            priority: self.request.priority,
            samples: 0..self.request.samples,
            encoded: Vec::new(),
            forced: Vec::new(),
            known: 0,
            only_first: false,
            left: 0,
            first_meta: 0,
            sequences: Vec::new(),
            drawn: Vec::new(),
        }
    }

    /// Takes over what a part's row kept; the parts that follow it.
    pub fn end_part(&mut self, part: Part, kept: Kept) -> Vec<Part> {
        self.parts -= 1;
        for state in kept.states.into_iter().flatten() {
            self.states.push(StateRecord {
                prompt: self.number,
                sample: part.samples.start + state.sample,
                meta: part.first_meta + state.meta,
                ..state
            });
        }
        // Where the samples part, the trajectory is that of the first.
        if part.samples.start == 0 {
            self.trajectory = kept.trajectory.or(self.trajectory.take());
        }
        if !part.only_first || self.fit.steps == 0 {
            return Vec::new();
        }
        let whole = part.encoded.len();
        let forced = self.request.forced.get(self.fit.first_tokens..).unwrap_or(&[]);
        let mut next = Vec::new();
        for (sample, drawn) in part.samples.clone().zip(&part.drawn) {
            if self.failed.is_none() && !self.samples[sample].done {
                next.push(Part {
                    samples: sample..sample + 1,
                    encoded: [&part.encoded[..whole], drawn].concat(),
                    forced: forced.to_vec(),
                    left: self.fit.steps,
                    first_meta: 1,
                    ..self.part(part.key)
                });
            }
        }
        self.parts += next.len();
        next
    }

    /// Whether nothing of these samples is wanted any more.
    pub fn is_done(&self, samples: &Range<usize>) -> bool {
        self.failed.is_some() || self.samples[samples.clone()].iter().all(|sample| sample.done)
    }

    /// Ends the sequences that still grow.
    pub fn end(&mut self, finish: Finish) {
        for state in self.samples.iter_mut().filter(|state| !state.done) {
            state.end(finish);
            let Burst { prompt, sample, .. } = state.burst(state.sequence.tokens.len());
            (self.sink)(&Burst { prompt, sample, tokens: &[], logprobs: &[], finish: Some(finish) });
        }
    }

    /// Tells of sequences that had ended before anything was drawn.
    pub fn tell_ended(&mut self) {
        for state in self.samples.iter().filter(|state| state.done) {
            (self.sink)(&state.burst(0));
        }
    }

    /// Hands out what a burst gave a part; how many tokens that were.
    pub fn deliver(
        &mut self,
        part: &mut Part,
        collected: &mut Collected<'_>,
        each: usize,
        meta_tokens: usize,
    ) -> usize {
        let mut delivered = 0;
        let mine = if part.only_first { meta_tokens } else { each };
        let known = std::mem::take(&mut part.known);
        for (sample, sequence) in part.samples.clone().zip(&part.sequences) {
            let ids = &collected.ids[sequence * each..sequence * each + mine];
            let extras = collected.extras.remove(sequence).unwrap_or_default();
            delivered += self.deliver_one(sample, ids, &extras, known);
            if part.only_first {
                part.drawn.push(ids.to_vec());
            }
        }
        // Tokens that are known may fill more than a burst.
        part.known = known.saturating_sub(mine);
        delivered
    }

    fn deliver_one(&mut self, sample: usize, ids: &[i64], extras: &Extras, known: usize) -> usize {
        if self.failed.is_some() {
            return 0;
        }
        let state = &mut self.samples[sample];
        let (before, was_done) = (state.sequence.tokens.len(), state.done);
        let known = known.min(ids.len());
        let new = &ids[known..];
        let drawn = new.iter().position(|id| *id < 0).unwrap_or(new.len());
        let (drawn, lost) = new.split_at(drawn);
        let rules = StopRules {
            max_new_tokens: self.request.max_new_tokens,
            stop: &self.request.stop,
            eos: &self.request.eos,
            min_new_tokens: self.request.min_new_tokens,
            given: self.fit.prompt.tokens.len() - self.fit.prompt.length,
        };
        state.sequence.logits.extend_from_slice(&extras.logits);
        state.accept(&rules, drawn, extras.logprobs.get(known..).unwrap_or(&[]));
        if !(lost.is_empty() || state.done) {
            let token = before + drawn.len();
            self.failed = Some(RuntimeError::NotADistribution { row: self.number, token });
            return 0;
        }
        // Behind the end of a sequence it does not matter what was drawn.
        state.accept(&rules, lost, &[]);
        if was_done || (known == ids.len() && !state.done) {
            return 0;
        }
        (self.sink)(&state.burst(before));
        state.sequence.tokens.len() - before
    }

    pub fn finished(self) -> Finished {
        let result = match self.failed {
            Some(error) => Err(error),
            None => Ok(Completion {
                sequences: self.samples.into_iter().map(|state| state.sequence).collect(),
                prompt_logprobs: self.prompt_logprobs,
                states: self.states,
                trajectory: self.trajectory,
                host_sampled: self.on_host,
            }),
        };
        Finished { number: self.number, result }
    }
}

impl Part {
    /// The same of these samples alone.
    fn of(&self, samples: Range<usize>) -> Part {
        Part {
            samples,
            encoded: self.encoded.clone(),
            forced: self.forced.clone(),
            sequences: Vec::new(),
            drawn: Vec::new(),
            ..*self
        }
    }

    pub fn tokens_to_encode(&self) -> usize {
        self.encoded.len()
    }

    /// Whether both encode the same tokens.
    pub fn encodes_as(&self, other: &Part) -> bool {
        self.encoded == other.encoded
    }

    pub fn admission<'a>(&'a self, row: usize, active: &'a Active<'_>) -> Admission<'a> {
        Admission {
            row,
            sequences: &self.sequences,
            prompt: &self.encoded,
            forced: &self.forced,
            only_first: self.only_first,
            meta_contexts: self.left,
            draws: &active.draws,
            first_sample: active.request.first_sample + self.samples.start as u64,
            keep: active.request.keep,
        }
    }
}

impl Finished {
    pub(super) fn wasted_tokens(&self) -> usize {
        let sequences = self.result.iter().flat_map(|completion| &completion.sequences);
        sequences.map(|sequence| sequence.wasted_tokens).sum()
    }
}
