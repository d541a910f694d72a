//! How the tokens of a request are drawn from logits. Owns the order of what is done to them on the host - bias, ids that
//! must not come yet, penalties, then the draw - and the key of the random number; devices do the same.

use super::penalties::{Penalties, Seen};
use super::random;
use super::sampler::{Sampling, SamplingError};
use std::sync::Arc;

/// How the tokens of a request are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    /// Temperature, filters, seed.
    pub sampling: Sampling,
    /// What tokens that have occurred lose.
    pub penalties: Penalties,
    /// Added to the logits of these ids.
    pub bias: Vec<(i64, f64)>,
    /// Ids that are not drawn at positions before `barred_until`.
    pub barred: Vec<i64>,
    /// The first position, prompt included, at which `barred` may come.
    pub barred_until: usize,
    /// Log-probabilities are wanted of the token that is taken and of so many others.
    pub logprobs: Option<usize>,
    /// The prompt: what penalties count as such, and where it ended.
    pub prompt: Vec<i64>,
}

impl Draws {
    /// The largest logit every time, after any prompt.
    #[must_use]
    pub fn greedy() -> Self {
        Draws::of(Sampling::greedy())
    }

    /// By `sampling` alone.
    #[must_use]
    pub fn of(sampling: Sampling) -> Self {
        Draws {
            sampling,
            penalties: Penalties::default(),
            bias: Vec::new(),
            barred: Vec::new(),
            barred_until: 0,
            logprobs: None,
            prompt: Vec::new(),
        }
    }

    /// Whether logits are changed before the draw.
    #[must_use]
    pub fn change_logits(&self) -> bool {
        !self.penalties.are_none()
            || !self.bias.is_empty()
            || (!self.barred.is_empty() && self.barred_until > self.prompt.len())
    }

    /// Checks every parameter.
    ///
    /// # Errors
    /// The first one without a meaning.
    pub fn check(&self) -> Result<(), SamplingError> {
        self.sampling.check()?;
        self.penalties.check()?;
        match self.bias.iter().find(|(_, bias)| bias.is_nan() || *bias == f64::INFINITY) {
            Some((_, value)) => {
                Err(SamplingError { name: "logit-bias", value: *value, expected: "a finite number" })
            }
            None => Ok(()),
        }
    }
}

/// One sequence on its way, as a sampler sees it.
#[derive(Clone, Debug)]
pub(super) struct SequenceDraws {
    pub draws: Arc<Draws>,
    /// Number of the sample: part of the random numbers' key.
    pub sample: u64,
    /// Position of the next token, prompt included.
    pub position: usize,
    /// What penalties count so far; empty without any.
    pub seen: Seen,
    /// Tokens to take in place of drawn ones, from position `forced_from` on.
    pub forced: Vec<i64>,
    pub forced_from: usize,
}

impl SequenceDraws {
    /// A sequence behind the encoded tokens `encoded`, which begin with the request's prompt or with a part of it.
    pub fn new(draws: &Arc<Draws>, sample: u64, encoded: &[i64], forced: &[i64]) -> Self {
        let generated = encoded.get(draws.prompt.len()..).unwrap_or(&[]);
        let seen = match draws.penalties.are_none() {
            true => Seen::default(),
            false => Seen::new(&draws.prompt, generated),
        };
        SequenceDraws { seen, forced: forced.to_vec(), ..Self::at(draws, sample, encoded.len()) }
    }

    /// A sequence whose next token has that position, with nothing to count or to force.
    pub fn at(draws: &Arc<Draws>, sample: u64, position: usize) -> Self {
        SequenceDraws {
            draws: Arc::clone(draws),
            sample,
            position,
            seen: Seen::default(),
            forced: Vec::new(),
            forced_from: position,
        }
    }

    /// The uniform number of the token `at` places from here.
    pub fn uniform(&self, at: usize) -> f32 {
        random::uniform(self.draws.sampling.seed, self.sample, (self.position + at) as u64)
    }

    /// The token to take `at` places from here, where one is forced.
    pub fn forced(&self, at: usize) -> Option<i64> {
        let place = (self.position + at).checked_sub(self.forced_from)?;
        self.forced.get(place).copied()
    }

    /// Draws the token `at` places from here; the tokens directly before it, `near`, are new where they stand behind the
    /// prompt. `None` where the logits are no distribution.
    pub fn draw(&self, seen: &Seen, near: &[i64], at: usize, logits: &[f64]) -> Option<i64> {
        if let Some(forced) = self.forced(at) {
            return Some(forced);
        }
        let uniform = f64::from(self.uniform(at));
        let draws = &*self.draws;
        let id = match draws.change_logits() {
            false => draws.sampling.draw(logits, uniform),
            true => {
                let mut changed = logits.to_vec();
                let position = self.position + at;
                self.change(&mut changed, seen, near, position);
                draws.sampling.draw(&changed, uniform)
            }
        };
        id.and_then(|id| i64::try_from(id).ok())
    }

    fn change(&self, logits: &mut [f64], seen: &Seen, near: &[i64], position: usize) {
        let draws = &*self.draws;
        let mut at = |id: i64, to: &dyn Fn(f64) -> f64| {
            if let Some(logit) = usize::try_from(id).ok().and_then(|id| logits.get_mut(id)) {
                *logit = to(*logit);
            }
        };
        for (id, bias) in &draws.bias {
            at(*id, &|logit| logit + bias);
        }
        if position < draws.barred_until {
            draws.barred.iter().for_each(|id| at(*id, &|_| f64::NEG_INFINITY));
        }
        if !draws.penalties.are_none() {
            // What stands in the prompt is counted there.
            let new = (position - near.len()).max(draws.prompt.len().min(position));
            draws.penalties.apply(logits, seen, &near[near.len() - (position - new)..]);
        }
    }

    /// Counts in `seen` the tokens that stand `at` places from here, those of the prompt left out.
    pub fn see(&self, seen: &mut Seen, at: usize, tokens: &[i64]) {
        if !self.draws.penalties.are_none() {
            let given = self.draws.prompt.len().saturating_sub(self.position + at).min(tokens.len());
            seen.add(&tokens[given..]);
        }
    }

    /// Takes over `tokens` that stand next.
    pub fn advance(&mut self, tokens: &[i64]) {
        let mut seen = std::mem::take(&mut self.seen);
        self.see(&mut seen, 0, tokens);
        self.seen = seen;
        self.position += tokens.len();
    }
}

#[cfg(test)]
mod tests {
    use super::{Draws, SequenceDraws};
    use crate::penalties::Penalties;
    use crate::sampler::Sampling;
    use std::sync::Arc;

    fn drawn(draws: Draws, encoded: &[i64], near: &[i64], logits: &[f64]) -> i64 {
        let sequence = SequenceDraws::new(&Arc::new(draws), 0, encoded, &[]);
        sequence.draw(&sequence.seen, near, near.len(), logits).expect("draws")
    }

    #[test]
    fn bias_comes_first_and_barred_ids_come_late() {
        let logits = [1.0, 2.0, 3.0];
        let greedy = Draws { prompt: vec![0, 0], ..Draws::greedy() };
        assert_eq!(drawn(greedy.clone(), &[0, 0], &[], &logits), 2);
        let biased = Draws { bias: vec![(0, 5.0)], ..greedy.clone() };
        assert_eq!(drawn(biased.clone(), &[0, 0], &[], &logits), 0);
        let barred = Draws { barred: vec![0, 2], barred_until: 3, ..biased };
        assert_eq!(drawn(barred.clone(), &[0, 0], &[], &logits), 1);
        assert_eq!(drawn(barred, &[0, 0], &[1], &logits), 0);
    }

    // Tokens of the own chunk that stand in the prompt are no new ones: presence does not count them.
    #[test]
    fn the_prompt_in_the_own_chunk_is_prompt() {
        let penalties = Penalties { presence: 9.0, ..Penalties::default() };
        let draws = Draws { penalties, prompt: vec![1, 2, 1], ..Draws::greedy() };
        let logits = [0.0, 3.0, 2.0];
        assert_eq!(drawn(draws.clone(), &[1, 2], &[1], &logits), 1);
        assert_eq!(drawn(draws, &[1, 2], &[1, 1], &logits), 2);
    }

    #[test]
    fn forced_tokens_stand_where_they_were_put() {
        let mut sequence =
            SequenceDraws::new(&Arc::new(Draws::of(Sampling::greedy())), 0, &[5; 4], &[7, 8, 9]);
        assert_eq!((sequence.forced(0), sequence.forced(2), sequence.forced(3)), (Some(7), Some(9), None));
        sequence.advance(&[7, 8]);
        assert_eq!((sequence.forced(0), sequence.forced(1)), (Some(9), None));
    }
}
