//! Penalties on tokens that have occurred. Owns their arithmetic and what each counts; where a token may look for others is
//! the drawing's: chunks of one meta-context are drawn side by side and do not see each other.

use super::sampler::SamplingError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// How much less probable tokens become by having occurred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Divides the logits above 0, and multiplies those below, of tokens in the prompt or among the new ones; 1 is none
    /// (Keskar et al., 2019).
    pub repetition: f64,
    /// Taken off the logits of tokens among the new ones; 0 is none.
    pub presence: f64,
    /// Taken off the logits of tokens among the new ones for each time they occur; 0 is none.
    pub frequency: f64,
}

impl Default for Penalties {
    fn default() -> Self {
        Penalties { repetition: 1.0, presence: 0.0, frequency: 0.0 }
    }
}

/// Tokens of one sequence that a penalty counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    prompt: BTreeSet<i64>,
    new: BTreeMap<i64, usize>,
}

impl Seen {
    /// The tokens of a prompt and the `new` ones behind it.
    #[must_use]
    pub fn new(prompt: &[i64], new: &[i64]) -> Self {
        let mut seen = Seen { prompt: prompt.iter().copied().collect(), new: BTreeMap::new() };
        seen.add(new);
        seen
    }

    /// Counts more new tokens.
    pub fn add(&mut self, new: &[i64]) {
        for token in new {
            *self.new.entry(*token).or_default() += 1;
        }
    }
}

impl Penalties {
    /// What logits may be divided by and stay finite on every backend.
    pub const REPETITION: RangeInclusive<f64> = 1e-6..=1e6;
    /// What may be taken off them for each time that a token occurs.
    const ADDED: RangeInclusive<f64> = -1e6..=1e6;

    /// Whether they change nothing.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Penalties::default()
    }

    /// Checks every penalty.
    ///
    /// # Errors
    /// The first one without a meaning.
    pub fn check(&self) -> Result<(), SamplingError> {
        let error = |name, value, expected| Err(SamplingError { name, value, expected });
        if !Self::REPETITION.contains(&self.repetition) {
            return error("repetition-penalty", self.repetition, "a number from 1e-6 to 1e6");
        }
        for (name, value) in [("presence-penalty", self.presence), ("frequency-penalty", self.frequency)] {
            if !Self::ADDED.contains(&value) {
                return error(name, value, "a number from -1e6 to 1e6");
            }
        }
        Ok(())
    }

    /// Penalises `logits [V]` for the tokens `seen`, and for those in `near`, which are new too.
    pub fn apply(&self, logits: &mut [f64], seen: &Seen, near: &[i64]) {
        let mut counts: BTreeMap<i64, usize> = seen.prompt.iter().map(|token| (*token, 0)).collect();
        for (token, count) in &seen.new {
            *counts.entry(*token).or_default() += count;
        }
        for token in near {
            *counts.entry(*token).or_default() += 1;
        }
        for (token, count) in counts {
            let Some(logit) = usize::try_from(token).ok().and_then(|token| logits.get_mut(token)) else {
                continue;
            };
            *logit = if *logit > 0.0 { *logit / self.repetition } else { *logit * self.repetition };
            if count > 0 {
                *logit -= self.presence + self.frequency * count as f64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Penalties, Seen};

    /// Repetition counts the prompt; presence and frequency count new tokens alone.
    #[test]
    fn each_penalty_counts_its_own_tokens() {
        let seen = Seen::new(&[0, 1], &[1, 2, 2]);
        let applied = |penalties: Penalties| {
            let mut logits = vec![1.0, -1.0, 2.0, 3.0];
            penalties.apply(&mut logits, &seen, &[2]);
            logits
        };
        let none = Penalties::default();
        assert_eq!(applied(none), [1.0, -1.0, 2.0, 3.0]);
        assert_eq!(applied(Penalties { repetition: 2.0, ..none }), [0.5, -2.0, 1.0, 3.0]);
        assert_eq!(applied(Penalties { presence: 0.5, ..none }), [1.0, -1.5, 1.5, 3.0]);
        assert_eq!(applied(Penalties { frequency: 0.5, ..none }), [1.0, -1.5, 0.5, 3.0]);
    }

    #[test]
    fn penalties_without_a_meaning_are_refused() {
        let none = Penalties::default();
        for (bad, name) in [
            (Penalties { repetition: 0.0, ..none }, "repetition-penalty"),
            (Penalties { repetition: 5e-324, ..none }, "repetition-penalty"),
            (Penalties { repetition: 1e300, ..none }, "repetition-penalty"),
            (Penalties { presence: 1e308, ..none }, "presence-penalty"),
            (Penalties { presence: f64::NAN, ..none }, "presence-penalty"),
            (Penalties { frequency: f64::INFINITY, ..none }, "frequency-penalty"),
        ] {
            assert_eq!(bad.check().expect_err("refused").name, name);
        }
        assert!(none.check().is_ok() && none.are_none());
    }
}
