//! Log-probabilities: natural logarithms of the model's own distribution, before bias, penalties and temperature.

use std::cmp::Ordering;

/// Most alternatives that a request may ask for.
pub const MAX_LOGPROBS: usize = 20;

/// Log-probabilities at one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogprobs {
    /// The token that stands there.
    pub token: i64,
    /// Its log-probability.
    pub logprob: f64,
    /// Tokens more probable than it, plus one.
    pub rank: usize,
    /// The most probable tokens, best first, ties by id.
    pub top: Vec<(i64, f64)>,
}

impl TokenLogprobs {
    /// Those of `token` and of the `count` most probable ones under `logits [V]`.
    #[must_use]
    pub fn of(logits: &[f64], token: i64, count: usize) -> Self {
        let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mass: f64 = logits.iter().map(|logit| (logit - peak).exp()).sum();
        let total = peak + mass.ln();
        let own = usize::try_from(token).ok().and_then(|token| logits.get(token)).copied();
        let own = own.expect("invariant: every token that is taken was checked against the vocabulary");
        let order = |a: &usize, b: &usize| match logits[*b].total_cmp(&logits[*a]) {
            Ordering::Equal => a.cmp(b),
            other => other,
        };
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        if count > 0 && count < ids.len() {
            ids.select_nth_unstable_by(count - 1, order);
        }
        ids.truncate(count);
        ids.sort_unstable_by(order);
        let named = |id: usize| (i64::try_from(id).unwrap_or(i64::MAX), logits[id] - total);
        TokenLogprobs {
            token,
            logprob: own - total,
            rank: 1 + logits.iter().filter(|logit| **logit > own).count(),
            top: ids.into_iter().map(named).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TokenLogprobs;

    #[test]
    fn logprobs_are_those_of_the_softmax() {
        let logits: Vec<f64> = [0.1f64, 0.4, 0.2, 0.3].iter().map(|p| p.ln() + 3.0).collect();
        let found = TokenLogprobs::of(&logits, 2, 2);
        assert!((found.logprob - 0.2f64.ln()).abs() < 1e-12);
        assert_eq!((found.token, found.rank), (2, 3));
        assert_eq!(found.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
        assert!((found.top[0].1 - 0.4f64.ln()).abs() < 1e-12);
        assert_eq!(TokenLogprobs::of(&logits, 1, 0).top, []);
    }
}
