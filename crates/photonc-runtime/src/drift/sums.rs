//! Sums over prompts, by distance from the prompt. Owns the arithmetic of each measure.

use super::Levels;
use crate::request::StateRecord;
use std::collections::BTreeMap;

/// What a drift is the mean of.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// By token after the prompt.
    pub tokens: Vec<TokenSums>,
    /// By meta-context after the prompt, then by level.
    pub levels: Vec<Vec<LevelSums>>,
}

/// Of one token after the prompts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenSums {
    pub count: f64,
    /// Prompts at which both protocols have the same largest logit.
    pub agree: f64,
    /// Kullback-Leibler divergence of RecGen's distribution from HierGen's, in nats.
    pub kl: f64,
    /// `-ln p(token)` of the text's own token.
    pub hiergen: f64,
    pub recgen: f64,
    pub free_count: f64,
    /// Prompts at which both draw the same token when each goes on from its own.
    pub free_agree: f64,
}

/// Cosines at one level of one meta-context.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LevelSums {
    pub hiergen: Mean,
    pub recgen: Mean,
}

/// A mean on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    pub sum: f64,
    pub count: f64,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }
}

/// States of one row under RecGen, by meta-context and name.
pub(super) struct MetaStates<'s>(BTreeMap<(usize, &'s str), &'s [f64]>);

impl<'s> MetaStates<'s> {
    pub(super) fn of(records: &'s [StateRecord], row: usize) -> Self {
        let own = records.iter().filter(|record| record.prompt == row);
        MetaStates(own.map(|record| ((record.meta, record.name.as_str()), &record.values[..])).collect())
    }

    fn get(&self, meta: usize, name: &str) -> Option<&'s [f64]> {
        self.0.get(&(meta, name)).copied()
    }
}

impl Sums {
    pub(super) fn new(new_tokens: usize, meta_tokens: usize, levels: usize) -> Self {
        Sums {
            tokens: vec![TokenSums::default(); new_tokens],
            levels: vec![vec![LevelSums::default(); levels]; new_tokens / meta_tokens],
        }
    }

    /// Adds one prompt's logits `[tokens, V]` of both protocols over the same tokens.
    pub(super) fn add_logits(&mut self, given: &[i64], hiergen: &[f64], recgen: &[f64], vocab_size: usize) {
        let logits = hiergen.chunks_exact(vocab_size).zip(recgen.chunks_exact(vocab_size));
        for ((sums, token), (hiergen, recgen)) in self.tokens.iter_mut().zip(given).zip(logits) {
            let (hiergen, recgen) = (log_softmax(hiergen), log_softmax(recgen));
            let own = |logs: &[f64]| {
                let log = usize::try_from(*token).ok().and_then(|token| logs.get(token));
                -log.copied().unwrap_or(f64::NEG_INFINITY)
            };
            sums.count += 1.0;
            sums.agree += f64::from(u8::from(largest(&hiergen) == largest(&recgen)));
            sums.kl += divergence(&hiergen, &recgen);
            sums.hiergen += own(&hiergen);
            sums.recgen += own(&recgen);
        }
    }

    /// Adds the tokens that each protocol draws on its own.
    pub(super) fn add_free(&mut self, recgen: &[i64], hiergen: &[i64]) {
        for (sums, (ours, theirs)) in self.tokens.iter_mut().zip(recgen.iter().zip(hiergen)) {
            sums.free_count += 1.0;
            sums.free_agree += f64::from(u8::from(ours == theirs));
        }
    }

    /// Adds one prompt's states. `forward` has whole streams of `encoded.{l}` and `reconstructed.{l}`, `prompt`
    /// meta-contexts of which come before the new ones; `open_loop` what RecGen has in their place.
    pub(super) fn add_states(
        &mut self,
        sizes: &Levels,
        prompt: usize,
        forward: &BTreeMap<&str, &[f64]>,
        open_loop: &MetaStates<'_>,
    ) {
        let depth = sizes.units.len();
        for (meta, sums) in self.levels.iter_mut().enumerate() {
            for (l, sums) in (1..=depth).zip(sums) {
                let (units, dim) = (sizes.units[l - 1], sizes.dims[l - 1]);
                let stream = |name: &str| forward.get(format!("{name}.{l}").as_str()).copied();
                let unit = |stream: &'_ [f64], unit: usize| -> Vec<f64> {
                    stream.get(unit * dim..(unit + 1) * dim).unwrap_or_default().to_vec()
                };
                let Some(encoded) = stream("encoded") else { continue };
                let first = (prompt + meta) * units;
                if let Some(reconstructed) = stream("reconstructed") {
                    for at in first..first + units {
                        add_cosine(&mut sums.hiergen, &unit(encoded, at), &unit(reconstructed, at));
                    }
                }
                if l == depth {
                    // The state that conditions a meta-context is that of the unit before it.
                    if let Some(state) = open_loop.get(meta, "top_state") {
                        add_cosine(&mut sums.recgen, &unit(encoded, first - 1), state);
                    }
                } else if l + 1 == depth {
                    let all = open_loop.get(meta, "reconstruction").unwrap_or_default();
                    for (at, state) in all.chunks_exact(dim).enumerate() {
                        add_cosine(&mut sums.recgen, &unit(encoded, first + at), state);
                    }
                } else if let Some(state) = open_loop.get(meta + 1, &format!("carry.{l}")) {
                    // Further down RecGen hands on the last unit of a meta-context.
                    add_cosine(&mut sums.recgen, &unit(encoded, first + units - 1), state);
                }
            }
        }
    }
}

fn add_cosine(mean: &mut Mean, a: &[f64], b: &[f64]) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 {
        mean.add(dot(a, b) / norms);
    }
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mass: f64 = logits.iter().map(|logit| (logit - peak).exp()).sum();
    logits.iter().map(|logit| logit - peak - mass.ln()).collect()
}

/// `sum p (ln p - ln q)` of two distributions given as logarithms.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let terms = p.iter().zip(q).filter(|(p, _)| p.exp() > 0.0);
    terms.map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

/// The lowest id among the largest.
fn largest(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, id| if values[id] > values[best] { id } else { best })
}

#[cfg(test)]
mod tests {
    use super::{divergence, log_softmax};

    #[test]
    fn the_divergence_is_that_of_the_definition() {
        let (p, q) = ([0.5f64, 0.25, 0.25], [0.25f64, 0.5, 0.25]);
        let logs = |values: [f64; 3]| log_softmax(&values.map(|value| value.ln() + 7.0));
        let expected = 0.5 * 2f64.ln() - 0.25 * 2f64.ln();
        assert!((divergence(&logs(p), &logs(q)) - expected).abs() < 1e-12);
        assert!(divergence(&logs(p), &logs(p)) < 1e-15);
    }
}
