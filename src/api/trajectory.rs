//! A coarse trajectory that is kept: states that no sampled token reaches, from which any range of tokens can be drawn again.

use super::error::Error;
use super::model::{Model, Prompt};
use super::sampling::SamplingParams;
use crate::program::Protocol;
use crate::runtime::request::{Batch, Cancel, Keep, Request};
use crate::runtime::sampler::Sampling;
use crate::runtime::trajectory::Trajectory as Stored;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A trajectory of one prompt under RecGen, empty at first.
pub struct Trajectory {
    model: Model,
    request: Request,
    kept: Arc<Mutex<Kept>>,
}

/// What has been computed.
#[derive(Default)]
struct Kept {
    stored: Option<Stored>,
    tokens: Vec<i64>,
}

impl Model {
    /// The trajectory of a prompt, before its first meta-context. `params` says how its tokens are drawn; its lengths, ends and
    /// samples count for nothing.
    ///
    /// # Errors
    /// The bundle has no RecGen, or a parameter has no meaning.
    pub fn trajectory(&self, prompt: &Prompt, params: &SamplingParams) -> Result<Trajectory, Error> {
        let protocol = self.protocol(Some(Protocol::Recgen))?;
        let plain = SamplingParams { n: 1, stop: Vec::new(), stop_token_ids: Vec::new(), ..params.clone() };
        let plain = SamplingParams { ignore_eos: true, logprobs: None, prompt_logprobs: None, ..plain };
        let keep = Keep { trajectory: true, ..Keep::default() };
        let request = Request { protocol, keep, ..self.request(prompt, &plain)? };
        Ok(Trajectory { model: self.clone(), request, kept: Arc::default() })
    }
}

impl Trajectory {
    /// Meta-contexts that it has.
    #[must_use]
    pub fn meta_contexts(&self) -> usize {
        self.with(|kept| kept.stored.as_ref().map_or(0, Stored::meta_contexts))
    }

    /// Position of the first token of its first meta-context, prompt included.
    #[must_use]
    pub fn first_position(&self) -> usize {
        self.with(|kept| kept.stored.as_ref().map_or(self.request.prompt.len(), Stored::encoded_tokens))
    }

    /// The tokens behind the prompt that were drawn on the way.
    #[must_use]
    pub fn tokens(&self) -> Vec<i64> {
        self.with(|kept| kept.tokens.clone())
    }

    fn with<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        read(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on by so many meta-contexts; how many there are. What is there stays as it is: it is computed again from the prompt,
    /// since no sampled token reaches a state.
    ///
    /// # Errors
    /// There is no room for them, or the backend failed; then nothing has changed.
    pub fn advance(&self, meta_contexts: usize) -> Result<usize, Error> {
        if meta_contexts == 0 {
            return Ok(self.meta_contexts());
        }
        let mut request = self.request.clone();
        let meta_tokens = self.model.program().meta_tokens;
        let known = request.prompt.len();
        // The first part of a prompt that ends inside a meta-context fills it, and is no part of the trajectory.
        let filled = if self.meta_contexts() == 0 && known > 0 {
            known.next_multiple_of(meta_tokens)
        } else {
            self.first_position()
        };
        let wanted = self.meta_contexts() + meta_contexts;
        request.max_new_tokens = (filled + wanted * meta_tokens).saturating_sub(known);
        let kept = Arc::clone(&self.kept);
        self.model.at_desk(move |generator| {
            let batch = Batch::new(vec![request]);
            let mut generation = generator.generate(&batch, &mut |_| {}, &Cancel::default())?;
            let sequence = generation.sequences.pop();
            let stored = generation.trajectories.pop().flatten();
            let (Some(sequence), Some(stored)) = (sequence, stored) else {
                return Err(Error::refused(
                    "recgen of this model has no coarse trajectory: its states read the tokens",
                ));
            };
            let count = stored.meta_contexts();
            *kept.lock().unwrap_or_else(PoisonError::into_inner) =
                Kept { stored: Some(stored), tokens: sequence.tokens };
            Ok(count)
        })
    }

    /// The tokens of each meta-context of a range, drawn as sample number `sample` with `seed`, or with the trajectory's own:
    /// then sample 0 gives the tokens it has.
    ///
    /// # Errors
    /// The range is not in the trajectory, or the backend failed.
    pub fn expand(
        &self,
        range: Range<usize>,
        seed: Option<u64>,
        sample: u64,
    ) -> Result<Vec<Vec<i64>>, Error> {
        let own = self.request.sampling;
        let sampling = Sampling { seed: seed.unwrap_or(own.seed), ..own };
        let (kept, all) = (Arc::clone(&self.kept), self.meta_contexts());
        if range.start > range.end || range.end > all {
            let Range { start, end } = range;
            return Err(Error::refused(format!(
                "meta-contexts {start} to {end} are asked for, and there are {all}"
            )));
        }
        self.model.at_desk(move |generator| {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(stored) = &kept.stored else { return Ok(Vec::new()) };
            let drawn = range.map(|meta| Ok(generator.expand_again(stored, meta, sample, &sampling)?));
            drawn.collect()
        })
    }
}
