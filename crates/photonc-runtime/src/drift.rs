//! How far RecGen drifts from HierGen on a text (PHOTON Theorem A.6 says when it does not): both go on from the same prompts
//! over the text's own tokens, HierGen reading them, RecGen advancing its state open-loop. Owns what is compared; what a
//! table or a plot shows of it is the caller's.
//!
//! HierGen over given tokens is the teacher-forced forward, so one graph gives its logits and the states of every level.

mod ranges;
mod sums;

pub use ranges::{LevelCosine, Range, Ranges};

use super::backend::{Backend, Buffer};
use super::error::RuntimeError;
use super::generator::Generator;
use super::prompt::pad_right;
use super::request::{Batch, Cancel, Generation, Keep, Request, RunAhead};
use photonc_compiler::passes::choose_protocol::Protocol;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::{Data, Tensor};
use std::collections::BTreeMap;
use sums::{MetaStates, Sums};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriftOptions {
    /// Tokens of each prompt, in whole meta-contexts.
    pub prompt_tokens: usize,
    /// Tokens after each prompt, in whole meta-contexts.
    pub new_tokens: usize,
    /// Prompts, at most; they follow each other in the text and do not overlap.
    pub prompts: usize,
    /// Prompts at once.
    pub batch: usize,
    /// Also draws greedily under both protocols and compares the tokens.
    pub free_running: bool,
}

impl Default for DriftOptions {
    fn default() -> Self {
        DriftOptions { prompt_tokens: 256, new_tokens: 256, prompts: 16, batch: 4, free_running: true }
    }
}

/// Distances from the prompt, in tokens, between which a drift is told where nobody names others.
pub const DISTANCES: [usize; 3] = [16, 64, 256];

/// Sizes of a model that a drift is measured by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Units of each level in a meta-context, bottom level first; the last is 1.
    pub units: Vec<usize>,
    /// Widths of the encoder states, bottom level first.
    pub dims: Vec<usize>,
}

/// The teacher-forced forward with the states of every level: a graph that is no part of a bundle.
pub struct States<'s> {
    /// Holds the graph.
    pub backend: &'s mut dyn Backend,
    /// Its name.
    pub graph: &'s str,
    /// Sizes of the model.
    pub levels: Levels,
}

/// A measured drift.
#[derive(Clone, Debug)]
pub struct Drift {
    /// Prompts measured.
    pub prompts: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens after each.
    pub new_tokens: usize,
    /// Tokens of a meta-context.
    pub meta_tokens: usize,
    sums: Sums,
}

impl Drift {
    /// The measures over tokens `first + 1 ..= last` after the prompts, averaged.
    #[must_use]
    pub fn range(&self, first: usize, last: usize) -> Range {
        Range::of(&self.sums, first, last.min(self.new_tokens), self.meta_tokens)
    }

    /// The measures between successive `distances`, in tokens after the prompts, and over all.
    #[must_use]
    pub fn ranges(&self, distances: &[usize]) -> Ranges {
        let mut ends: Vec<usize> =
            distances.iter().copied().filter(|end| *end < self.new_tokens && *end > 0).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.push(self.new_tokens);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        Ranges {
            parts: starts.zip(&ends).map(|(first, last)| self.range(first, *last)).collect(),
            whole: self.range(0, self.new_tokens),
        }
    }

    /// The measures of each meta-context after the prompts.
    #[must_use]
    pub fn by_meta_context(&self) -> Vec<Range> {
        let count = self.new_tokens / self.meta_tokens.max(1);
        (0..count).map(|meta| self.range(meta * self.meta_tokens, (meta + 1) * self.meta_tokens)).collect()
    }
}

/// Measures the drift on `tokens`. `on_progress` is told of prompts done and in all.
///
/// # Errors
/// A text that is too short for one prompt and what follows it, a protocol that the bundle lacks, or a failure of a backend.
pub fn measure(
    generator: &mut Generator,
    states: &mut States<'_>,
    tokens: &[i64],
    options: DriftOptions,
    on_progress: &dyn Fn(usize, usize),
) -> Result<Drift, RuntimeError> {
    let (meta_tokens, vocab_size) = (generator.program().meta_tokens, generator.program().vocab_size);
    let whole = |tokens: usize| tokens.div_ceil(meta_tokens).max(1) * meta_tokens;
    let (prompt_tokens, new_tokens) = (whole(options.prompt_tokens), whole(options.new_tokens));
    let windows: Vec<&[i64]> =
        tokens.chunks_exact(prompt_tokens + new_tokens).take(options.prompts.max(1)).collect();
    if windows.is_empty() {
        return Err(RuntimeError::ShortText { found: tokens.len(), expected: prompt_tokens + new_tokens });
    }
    let mut sums = Sums::new(new_tokens, meta_tokens, states.levels.units.len());
    for (done, batch) in windows.chunks(options.batch.max(1)).enumerate() {
        on_progress(done * options.batch.max(1), windows.len());
        let prompts: Vec<Vec<i64>> = batch.iter().map(|window| window[..prompt_tokens].to_vec()).collect();
        let given: Vec<Vec<i64>> = batch.iter().map(|window| window[prompt_tokens..].to_vec()).collect();
        let forward = states.run(batch, (meta_tokens, vocab_size))?;
        let keep = Keep { logits: true, states: true, ..Keep::default() };
        let forced = |(prompt, forced): (&Vec<i64>, &Vec<i64>)| Request {
            forced: forced.clone(),
            keep,
            ..Request::greedy(Protocol::Recgen, prompt.clone(), new_tokens)
        };
        let recgen = run(generator, &Batch::new(prompts.iter().zip(&given).map(forced).collect()))?;
        for (row, given) in given.iter().enumerate() {
            let skip = prompt_tokens * vocab_size;
            let hiergen = &forward.logits[row * forward.row_logits + skip..(row + 1) * forward.row_logits];
            sums.add_logits(given, hiergen, &recgen.sequences[row].logits, vocab_size);
            let open_loop = MetaStates::of(&recgen.states, row);
            sums.add_states(&states.levels, prompt_tokens / meta_tokens, &forward.states(row), &open_loop);
        }
        if options.free_running {
            let one = RunAhead::MetaContexts(1);
            let free = |protocol| Batch::alike(&Request::greedy(protocol, vec![], new_tokens), &prompts, one);
            let recgen = run(generator, &free(Protocol::Recgen))?;
            let hiergen = run(generator, &free(Protocol::Hiergen))?;
            for (ours, theirs) in recgen.sequences.iter().zip(&hiergen.sequences) {
                sums.add_free(&ours.tokens, &theirs.tokens);
            }
        }
    }
    Ok(Drift { prompts: windows.len(), prompt_tokens, new_tokens, meta_tokens, sums })
}

fn run(generator: &mut Generator, batch: &Batch) -> Result<Generation, RuntimeError> {
    generator.generate(batch, &mut |_| {}, &Cancel::default())
}

/// What the teacher-forced forward gives for a batch.
struct Forward {
    logits: Vec<f64>,
    /// Logits of one row.
    row_logits: usize,
    rows: usize,
    /// `encoded.{l}` and `reconstructed.{l}`, `[rows, units, D_l]`.
    values: BTreeMap<String, Vec<f64>>,
}

impl Forward {
    /// The states of one row.
    fn states(&self, row: usize) -> BTreeMap<&str, &[f64]> {
        let part = |values: &[f64]| row * values.len() / self.rows..(row + 1) * values.len() / self.rows;
        self.values.iter().map(|(name, values)| (name.as_str(), &values[part(values)])).collect()
    }
}

impl States<'_> {
    fn run(&mut self, rows: &[&[i64]], sizes: (usize, usize)) -> Result<Forward, RuntimeError> {
        let (meta_tokens, vocab_size) = sizes;
        let (longest, ids) = pad_right(rows, 0);
        let length = i64::try_from(longest / meta_tokens).unwrap_or(i64::MAX);
        let ids = Tensor { shape: vec![rows.len(), longest], data: Data::int(ids) };
        let lengths = Tensor { shape: vec![rows.len()], data: Data::int(vec![length; rows.len()]) };
        let ids = self.backend.upload(&ids, Dtype::I64)?;
        let lengths = self.backend.upload(&lengths, Dtype::I64)?;
        let inputs: [(&str, &Buffer); 2] = [("ids", &ids), ("lengths", &lengths)];
        let outputs = self.backend.run(self.graph, &inputs)?;
        let mut values = BTreeMap::new();
        for (name, buffer) in &outputs {
            let tensor = self.backend.download(buffer)?;
            values.insert(name.clone(), tensor.as_floats().unwrap_or_default().to_vec());
        }
        let missing = || RuntimeError::signature(self.graph, "has no output `logits`");
        let logits = values.remove("logits").ok_or_else(missing)?;
        Ok(Forward { logits, row_logits: longest * vocab_size, rows: rows.len(), values })
    }
}
