//! A row of the decoder and the request that has it. Owns what a burst does to a request.

use super::job::{Finished, Job, Limits, Refusal};
use crate::runtime::batch::{Ends, Growing};
use crate::runtime::decoder::{Admission, DecoderSetup};
use crate::runtime::error::RuntimeError;
use crate::runtime::prompt::Prompt;
use crate::runtime::request::{Burst, Finish};

/// What becomes of a row.
pub(super) enum Row<'j> {
    /// Nobody has it.
    Free,
    /// Its request takes part in every burst that is started.
    Taken(Running<'j>),
    /// Retired; bursts that it took part in may be in flight until burst number `until` is collected.
    Draining { running: Running<'j>, until: usize },
}

impl Row<'_> {
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Row::Free)
    }

    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Row::Taken(_))
    }
}

/// A request that waits or runs.
pub(super) struct Running<'j> {
    number: usize,
    pub job: Job<'j>,
    prompt: Prompt,
    /// Bursts to start until every sequence has its length.
    pub bursts_left: usize,
    samples: Vec<Growing>,
    failed: Option<RuntimeError>,
}

impl<'j> Running<'j> {
    pub(super) fn new(
        number: usize,
        job: Job<'j>,
        limits: Limits,
        setup: DecoderSetup,
    ) -> Result<Self, Refusal> {
        let (prompt, bursts_left) = limits.fit(number, &job, setup)?;
        let grow = |sample| Growing::new(number, sample, prompt.dropped_left, job.watch.as_deref());
        let samples = (0..setup.samples).map(grow).collect();
        Ok(Running { number, job, prompt, bursts_left, samples, failed: None })
    }

    pub(super) fn admission(&self, row: usize) -> Admission<'_> {
        Admission {
            row,
            tokens: &self.prompt.tokens,
            sampling: &self.job.sampling,
            first_sample: self.job.first_sample,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.failed.is_some() || self.samples.iter().all(|sample| sample.done)
    }

    /// Ends the sequences that still grow.
    pub(super) fn end(&mut self, finish: Finish) {
        for growing in self.samples.iter_mut().filter(|sample| !sample.done) {
            growing.sequence.finish = finish;
            growing.done = true;
            let Burst { prompt, sample, .. } = growing.burst(0);
            (self.job.on_burst)(&Burst { prompt, sample, tokens: &[], finish: Some(finish) });
        }
    }

    /// Hands out the ids `[samples, tokens]` of a burst; how many tokens that were.
    pub(super) fn deliver(&mut self, ids: &[i64]) -> usize {
        if self.failed.is_some() {
            return 0;
        }
        let ends = Ends { max_new_tokens: self.job.max_new_tokens, stop: &self.job.stop, eos: &self.job.eos };
        let each = ids.len() / self.samples.len().max(1);
        let mut tokens = 0;
        for (growing, drawn) in self.samples.iter_mut().zip(ids.chunks_exact(each.max(1))) {
            let (before, was_done) = (growing.sequence.tokens.len(), growing.done);
            let broken = drawn.iter().position(|id| *id < 0);
            if let (Some(token), false) = (broken, was_done) {
                self.failed =
                    Some(RuntimeError::NotADistribution { row: self.number, token: before + token });
                return tokens;
            }
            growing.accept(&ends, drawn);
            if !was_done {
                tokens += growing.sequence.tokens.len() - before;
                (self.job.on_burst)(&growing.burst(before));
            }
        }
        tokens
    }

    pub(super) fn finished(self) -> Finished {
        let result = match self.failed {
            Some(error) => Err(error),
            None => Ok(self.samples.into_iter().map(|growing| growing.sequence).collect()),
        };
        Finished { number: self.number, result }
    }
}
