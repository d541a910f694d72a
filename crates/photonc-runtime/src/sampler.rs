//! Drawing tokens. Owns the sampling parameters, which of them graphs can follow, and the host sampler, which draws
//! as the `sample` operation does and goes beyond it: whole vocabulary, min-p.

use std::cmp::Ordering;

/// Candidates that a graph's sampler sorts at most; a larger `top_k` is drawn on the host.
pub const MAX_GRAPH_CANDIDATES: usize = 64;

/// How tokens are drawn from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest logit, ties to the lowest id.
    pub temperature: f64,
    /// Largest logits kept; 0 keeps the whole vocabulary.
    pub top_k: usize,
    /// Keeps the shortest prefix of the sorted candidates whose mass reaches this part of theirs.
    pub top_p: f64,
    /// Drops candidates less probable than this part of the most probable one's; 0 keeps all.
    pub min_p: f64,
    /// Key of the random numbers.
    pub seed: u64,
}

/// Sampling parameters without a meaning.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, expected {expected}")]
pub struct SamplingError {
    /// The parameter.
    pub name: &'static str,
    /// What was given.
    pub value: f64,
    /// The values it can take.
    pub expected: &'static str,
}

impl Sampling {
    /// The largest logit every time.
    #[must_use]
    pub fn greedy() -> Self {
        Sampling { temperature: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed: 0 }
    }

    /// Whether the largest logit is always taken.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether the graphs' own sampler can follow these parameters for a vocabulary of `vocab_size`.
    #[must_use]
    pub fn fits_graph(&self, vocab_size: usize) -> bool {
        let candidates = MAX_GRAPH_CANDIDATES.min(vocab_size);
        self.is_greedy() || (self.min_p == 0.0 && (1..=candidates).contains(&self.top_k))
    }

    /// Checks every parameter.
    ///
    /// # Errors
    /// The first parameter that has no meaning.
    pub fn check(&self) -> Result<(), SamplingError> {
        let error = |name, value, expected| Err(SamplingError { name, value, expected });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return error("temperature", self.temperature, "0 (greedy) or a positive number");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return error("top-p", self.top_p, "a number above 0 and up to 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return error("min-p", self.min_p, "a number from 0 to 1");
        }
        Ok(())
    }

    /// The token drawn from `logits [V]` with `uniform` in `[0, 1)`; `None` where they are no distribution: an empty
    /// vocabulary, a NaN, or an infinite largest logit.
    ///
    /// Ties go to the lowest id. Masses are relative to what the steps before have kept: temperature, then top-k,
    /// top-p, min-p.
    #[must_use]
    pub fn draw(&self, logits: &[f64], uniform: f64) -> Option<usize> {
        if logits.iter().any(|logit| logit.is_nan()) {
            return None;
        }
        if self.is_greedy() {
            return largest(logits).filter(|id| logits[*id].is_finite());
        }
        let sorted = self.candidates(logits);
        let peak = logits[*sorted.first()?];
        if !peak.is_finite() {
            return None;
        }
        // Subtracting before dividing keeps a tiny temperature from overflowing.
        let shares: Vec<f64> =
            sorted.iter().map(|id| ((logits[*id] - peak) / self.temperature).exp()).collect();
        let cumulative = self.cumulative(&shares);
        let target = uniform * cumulative.last()?;
        let at = cumulative.iter().position(|mass| *mass > target).unwrap_or(cumulative.len() - 1);
        sorted.get(at).copied()
    }

    /// Ids by falling logit, the first `top_k`.
    fn candidates(&self, logits: &[f64]) -> Vec<usize> {
        let order = |a: &usize, b: &usize| match logits[*b].total_cmp(&logits[*a]) {
            Ordering::Equal => a.cmp(b),
            other => other,
        };
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        if self.top_k > 0 && self.top_k < ids.len() {
            ids.select_nth_unstable_by(self.top_k - 1, order);
            ids.truncate(self.top_k);
        }
        ids.sort_unstable_by(order);
        ids
    }

    /// Cumulative mass of the sorted `shares` that stay after top-p and min-p: at least the first.
    fn cumulative(&self, shares: &[f64]) -> Vec<f64> {
        let total: f64 = shares.iter().sum();
        let mut cumulative = Vec::new();
        let mut mass = 0.0;
        for share in shares {
            // The first share is 1, so min-p compares with it directly.
            if !cumulative.is_empty() && (mass >= self.top_p || *share < self.min_p) {
                break;
            }
            mass += share / total;
            cumulative.push(mass);
        }
        cumulative
    }
}

fn largest(logits: &[f64]) -> Option<usize> {
    let better = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
    (0..logits.len()).reduce(better)
}

#[cfg(test)]
mod tests {
    use super::Sampling;

    fn sampling(top_k: usize, top_p: f64, min_p: f64) -> Sampling {
        Sampling { temperature: 1.0, top_k, top_p, min_p, seed: 0 }
    }

    // Probabilities 0.4, 0.3, 0.2, 0.1 at ids 2, 0, 3, 1.
    fn logits() -> Vec<f64> {
        [0.3f64, 0.1, 0.4, 0.2].iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_ties() {
        assert_eq!(Sampling::greedy().draw(&[1.0, 3.0, 3.0], 0.9), Some(1));
        assert_eq!(Sampling::greedy().draw(&[], 0.9), None);
    }

    #[test]
    fn the_uniform_walks_the_sorted_mass() {
        let all = sampling(0, 1.0, 0.0);
        let drawn: Vec<_> = [0.0, 0.39, 0.41, 0.69, 0.71, 0.89, 0.91, 0.999]
            .iter()
            .map(|u| all.draw(&logits(), *u).expect("draws"))
            .collect();
        assert_eq!(drawn, [2, 2, 0, 0, 3, 3, 1, 1]);
    }

    #[test]
    fn each_filter_cuts_the_tail() {
        let last = 1.0 - f64::EPSILON;
        assert_eq!(sampling(2, 1.0, 0.0).draw(&logits(), last), Some(0));
        assert_eq!(sampling(0, 0.65, 0.0).draw(&logits(), last), Some(0));
        assert_eq!(sampling(0, 0.75, 0.0).draw(&logits(), last), Some(3));
        assert_eq!(sampling(0, 1.0, 0.6).draw(&logits(), last), Some(0));
        assert_eq!(sampling(0, 1e-9, 1.0).draw(&logits(), last), Some(2));
    }

    // Top-p counts mass among the top-k candidates, not among the vocabulary: 0.4 of 0.7 passes 0.5.
    #[test]
    fn top_p_is_relative_to_top_k() {
        assert_eq!(sampling(2, 0.5, 0.0).draw(&logits(), 0.999), Some(2));
        assert_eq!(sampling(0, 0.5, 0.0).draw(&logits(), 0.999), Some(0));
    }

    #[test]
    fn parameters_without_a_meaning_are_refused() {
        for (bad, name) in [
            (Sampling { temperature: -1.0, ..sampling(0, 1.0, 0.0) }, "temperature"),
            (Sampling { temperature: f64::NAN, ..sampling(0, 1.0, 0.0) }, "temperature"),
            (sampling(0, 0.0, 0.0), "top-p"),
            (sampling(0, 1.0, 1.5), "min-p"),
        ] {
            assert_eq!(bad.check().expect_err("refused").name, name);
        }
        assert!(sampling(0, 1.0, 0.0).check().is_ok());
    }

    #[test]
    fn only_small_top_k_fits_a_graph() {
        assert!(Sampling::greedy().fits_graph(8));
        assert!(sampling(64, 0.9, 0.0).fits_graph(1000));
        for outside in [sampling(0, 1.0, 0.0), sampling(65, 1.0, 0.0), sampling(4, 1.0, 0.1)] {
            assert!(!outside.fits_graph(1000));
        }
        assert!(!sampling(64, 0.9, 0.0).fits_graph(32));
    }
}
