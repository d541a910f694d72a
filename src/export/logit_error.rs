//! What a narrow type or weights in few bits do to a model's logits: the teacher-forced forward on random ids, as exported
//! and in f32, both on the reference. Owns the inputs and the numbers; refuses models too large to hold in binary64.

use super::ExportError;
use crate::graph::Graph;
use crate::graph::interp::{InterpError, Interpreter, Tensors};
use crate::ir::tensor::Tensor;
use crate::model::build;
use crate::model::checkpoint::Checkpoint;

/// Elements of a checkpoint above which nothing is measured: each takes 8 bytes, twice.
const MOST_ELEMENTS: usize = 64_000_000;
/// Meta-contexts of each of two sequences.
const METAS: usize = 4;
const ROWS: usize = 2;

/// How far logits are from those of the model in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitError {
    /// Largest difference.
    pub largest: f64,
    /// Largest logit in f32.
    pub scale: f64,
    /// Mean divergence of the distributions, in nats.
    pub divergence: f64,
    /// Share of places whose greatest logit is the same.
    pub greedy: f64,
    /// Places compared.
    pub places: usize,
}

/// Compares `score` as exported with the same equations in f32; `None` for a model that is too large.
pub(super) fn measure(checkpoint: &Checkpoint, score: &Graph) -> Result<Option<LogitError>, ExportError> {
    let elements: usize = checkpoint.tensors.values().map(|entry| entry.elements()).sum();
    if elements > MOST_ELEMENTS {
        return Ok(None);
    }
    let config = &checkpoint.config;
    let exact = build::score(config).map_err(crate::passes::compile::CompileError::from)?;
    let tokens = METAS * config.meta_tokens();
    let ids = random_ids(ROWS * tokens, config.vocab_size);
    let mut inputs = Tensors::new();
    let lengths = vec![i64::try_from(METAS).expect("invariant: a small number"); ROWS];
    inputs.extend(Tensor::ints(&[ROWS, tokens], ids).map(|ids| ("ids".to_owned(), ids)));
    inputs.extend(Tensor::ints(&[ROWS], lengths).map(|lengths| ("lengths".to_owned(), lengths)));
    let run = |graph: &Graph| -> Result<Vec<f64>, ExportError> {
        let verified = graph.verify()?;
        let measured = |error: InterpError| ExportError::Measure(Box::new(error));
        let interpreter = Interpreter::new(verified, checkpoint).map_err(measured)?;
        let outputs = interpreter.run(&inputs).map_err(measured)?;
        let logits = outputs.get("logits").and_then(Tensor::as_floats);
        Ok(logits.expect("invariant: the score graph has the output `logits`").to_vec())
    };
    Ok(Some(compare(&run(score)?, &run(&exact)?, config.vocab_size)))
}

fn compare(found: &[f64], exact: &[f64], vocab: usize) -> LogitError {
    let rows = || found.chunks_exact(vocab.max(1)).zip(exact.chunks_exact(vocab.max(1)));
    let places = rows().count();
    let share = |sum: f64| sum / places.max(1) as f64;
    LogitError {
        largest: found.iter().zip(exact).fold(0.0, |most, (a, b)| most.max((a - b).abs())),
        scale: exact.iter().fold(0.0, |most, logit| most.max(logit.abs())),
        divergence: share(rows().map(|(found, exact)| divergence(exact, found)).sum()),
        greedy: share(rows().filter(|(found, exact)| greatest(found) == greatest(exact)).count() as f64),
        places,
    }
}

/// Of the distribution that `from` stands for from that of `of`, in nats.
fn divergence(of: &[f64], from: &[f64]) -> f64 {
    let (p, q) = (log_probabilities(of), log_probabilities(from));
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_probabilities(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mass = logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| logit - most - mass).collect()
}

fn greatest(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// The same ids in every run (Knuth's linear congruential generator, upper bits).
fn random_ids(count: usize, vocab: usize) -> Vec<i64> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((state >> 33) % vocab.max(1) as u64).unwrap_or_default()
    };
    (0..count).map(|_| next()).collect()
}
