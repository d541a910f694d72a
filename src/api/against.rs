//! A checkpoint against what the code that it was trained with makes of the same tokens: where the first difference is, and
//! which choice of the wiring would explain it.

use super::backends::open_cpu;
use super::error::Error;
use super::{expected, expected::Expected};
use crate::graph::Graph;
use crate::graph::interp::WeightSource;
use crate::ir::dtype::Dtype;
use crate::ir::tensor::{Data, Tensor};
use crate::model::alternatives::alternatives;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::model::parameters::parameters;
use crate::passes::compile;
use crate::runtime::backend::Backend;
use crate::runtime::launch::backend::LaunchBackend;
use crate::runtime::prompt::pad_right;
use crate::runtime::verify::with_taps;
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

/// Choices that may be changed beside one another before none explains a difference.
const MAX_CHANGES: usize = 3;
/// A choice is kept beside others if it makes the difference so many times smaller.
const IMPROVES: f64 = 2.0;
/// Modules named where a name is none of theirs.
const MAX_LISTED: usize = 20;

/// How a checkpoint is compared.
#[derive(Clone, Copy, Debug)]
pub struct AgainstOptions {
    /// Difference that counts as none, as a part of the largest value.
    pub tolerance: f64,
    /// Threads; all by default.
    pub threads: Option<NonZero<usize>>,
}

impl Default for AgainstOptions {
    fn default() -> Self {
        AgainstOptions { tolerance: 2e-3, threads: None }
    }
}

/// One value of the file beside ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its name in the file: `logits`, `encoded.1`, `level2.encoder.layer0`.
    pub name: String,
    /// Scope of the module that makes it, `level2.encoder`.
    pub module: String,
    /// The largest difference.
    pub error: f64,
    /// The largest value.
    pub largest: f64,
    /// Where the largest difference is, row-major in the file's tensor.
    pub at: usize,
    /// Whether it is within tolerance.
    pub agrees: bool,
}

/// What would make the logits agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The choices, all of them together.
    pub choices: Vec<String>,
    /// Largest difference of the logits that is left, as a part of the largest.
    pub error: f64,
}

/// The comparison, in the order in which a model computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Against {
    /// Every value of the file.
    pub values: Vec<Difference>,
    /// Changes of choices that would explain a difference; empty where there is none, or where none does.
    pub explanations: Vec<Explanation>,
}

impl Against {
    /// The first value that differs.
    #[must_use]
    pub fn first(&self) -> Option<&Difference> {
        self.values.iter().find(|value| !value.agrees)
    }
}

/// Compares the teacher-forced forward of a checkpoint with the values in a safetensors file: `ids [n]` or `[rows, n]`,
/// `logits [.., n, V]`, and any of `encoded.{l}`, `reconstructed.{l}` or names of modules as `inspect --graph score` shows them.
///
/// # Errors
/// The file is no such file, or the model does not compile or run.
pub fn against(checkpoint: &Arc<Checkpoint>, file: &Path, options: AgainstOptions) -> Result<Against, Error> {
    let expected = expected::read(file, &checkpoint.config)?;
    let values = compared(checkpoint, &checkpoint.config, &expected, options)?;
    let mut found = Against { values, explanations: Vec::new() };
    if found.first().is_some() {
        found.explanations = explained(checkpoint, &expected, options, &found)?;
    }
    Ok(found)
}

/// Alternatives that make the logits agree; where no single one does, the best together with another.
fn explained(
    checkpoint: &Arc<Checkpoint>,
    expected: &Expected,
    options: AgainstOptions,
    found: &Against,
) -> Result<Vec<Explanation>, Error> {
    let mut config = checkpoint.config.clone();
    let mut choices = Vec::new();
    let mut error = logits(&found.values);
    for _ in 0..MAX_CHANGES {
        let mut tried = Vec::new();
        for other in alternatives(&config).into_iter().filter(|other| is_stored(checkpoint, &other.config)) {
            // A model that the tensors could be and that does not run is no explanation.
            let Ok(values) = compared(checkpoint, &other.config, expected, options) else { continue };
            tried.push((logits(&values), other));
        }
        tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        let fits: Vec<Explanation> = tried
            .iter()
            .take_while(|(error, _)| *error <= options.tolerance)
            .map(|(error, other)| {
                let choices = choices.iter().cloned().chain([other.choice.clone()]).collect();
                Explanation { choices, error: *error }
            })
            .collect();
        if !fits.is_empty() {
            return Ok(fits);
        }
        match tried.into_iter().next() {
            Some((best, other)) if best * IMPROVES < error => {
                error = best;
                choices.push(other.choice);
                config = other.config;
            }
            _ => break,
        }
    }
    Ok(Vec::new())
}

/// Whether the checkpoint has every tensor of a model.
fn is_stored(checkpoint: &Checkpoint, config: &ModelConfig) -> bool {
    parameters(config)
        .iter()
        .all(|one| checkpoint.tensors.get(&one.name).is_some_and(|stored| stored.shape == one.shape))
}

/// The difference of the logits as a part of the largest.
fn logits(values: &[Difference]) -> f64 {
    let of_logits = values.iter().filter(|value| value.name == expected::LOGITS);
    of_logits.map(Difference::relative).fold(0.0, f64::max)
}

impl Difference {
    /// The largest difference as a part of the largest value.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.error.is_nan() { f64::INFINITY } else { self.error / self.largest.max(f64::MIN_POSITIVE) }
    }
}

fn compared(
    checkpoint: &Arc<Checkpoint>,
    config: &ModelConfig,
    expected: &Expected,
    options: AgainstOptions,
) -> Result<Vec<Difference>, Error> {
    let graph = compile::states(config, Dtype::F32, Vec::new())?;
    let graph = match expected.values.keys().any(|name| graph.output(name).is_none()) {
        true => with_taps(&graph, "against"),
        false => graph,
    };
    let order = order(&graph);
    let outputs = run(checkpoint, graph, config, expected, options)?;
    let mut values = Vec::new();
    for (name, theirs) in &expected.values {
        let Some((at, output)) = order.iter().enumerate().rev().find(|(_, output)| output.is_of(name)) else {
            return Err(Error::refused(format!(
                "`{name}` is no value of this model, expected logits, encoded.1, reconstructed.1 and the like, or a module: {}",
                modules(&order)
            )));
        };
        let Some(ours) = outputs.get(&output.name) else {
            return Err(Error::internal(format!("no output `{}`", output.name)));
        };
        values.push((at, difference(name, output, ours, theirs, expected.rows, options)?));
    }
    values.sort_by_key(|(at, _)| *at);
    Ok(values.into_iter().map(|(_, value)| value).collect())
}

/// An output and the module that makes it, in the order of computation.
struct Made {
    name: String,
    module: String,
}

impl Made {
    /// Whether a name of the file is this output, or a module that it leaves last.
    fn is_of(&self, name: &str) -> bool {
        let inside = |rest: &str| rest.is_empty() || rest.starts_with('.');
        self.name == name || self.module.strip_prefix(name).is_some_and(inside)
    }
}

fn order(graph: &Graph) -> Vec<Made> {
    let places: BTreeMap<_, _> = graph.order().into_iter().enumerate().map(|(at, id)| (id, at)).collect();
    let mut made: Vec<(usize, Made)> = graph
        .outputs()
        .iter()
        .map(|output| {
            let module = graph.scope(output.node).to_string();
            (places[&output.node], Made { name: output.name.to_string(), module })
        })
        .collect();
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, made)| made).collect()
}

/// The first modules of a model, for a message.
fn modules(order: &[Made]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for made in order {
        if !names.contains(&made.module.as_str()) {
            names.push(&made.module);
        }
    }
    let more = if names.len() > MAX_LISTED { ", .." } else { "" };
    names.truncate(MAX_LISTED);
    names.join(", ") + more
}

fn run(
    checkpoint: &Arc<Checkpoint>,
    graph: Graph,
    config: &ModelConfig,
    expected: &Expected,
    options: AgainstOptions,
) -> Result<BTreeMap<String, Vec<f64>>, Error> {
    let name = graph.name().to_owned();
    let weights: Arc<dyn WeightSource> = Arc::clone(checkpoint) as Arc<dyn WeightSource>;
    let graphs = IndexMap::from([(name.clone(), graph)]);
    let mut backend = LaunchBackend::of_graphs(graphs, weights, open_cpu(options.threads)?, Dtype::F32)?;
    let meta_tokens = config.meta_tokens();
    let texts: Vec<&[i64]> = expected.ids.chunks_exact(expected.tokens).collect();
    let (padded, ids) = pad_right(&texts, expected.tokens.next_multiple_of(meta_tokens));
    let metas = i64::try_from(padded / meta_tokens).unwrap_or(i64::MAX);
    let ids = Tensor { shape: vec![expected.rows, padded], data: Data::int(ids) };
    let lengths = Tensor { shape: vec![expected.rows], data: Data::int(vec![metas; expected.rows]) };
    let (ids, lengths) = (backend.upload(&ids, Dtype::I64)?, backend.upload(&lengths, Dtype::I64)?);
    let mut values = BTreeMap::new();
    for (name, buffer) in backend.run(&name, &[("ids", &ids), ("lengths", &lengths)])? {
        let tensor = backend.download(&buffer)?;
        let floats = tensor.as_floats().ok_or_else(|| Error::internal(format!("`{name}` is no float")))?;
        values.insert(name, floats.to_vec());
    }
    Ok(values)
}

/// Rows are compared as far as the file has them: ours go on to the end of a meta-context.
fn difference(
    name: &str,
    output: &Made,
    ours: &[f64],
    theirs: &Tensor,
    rows: usize,
    options: AgainstOptions,
) -> Result<Difference, Error> {
    let values = theirs.as_floats().unwrap_or_default();
    let (own, other) = (ours.len() / rows, values.len() / rows);
    if other > own || values.is_empty() {
        return Err(Error::refused(format!(
            "`{name}` {:?} has {other} numbers a text, this model's has {own}",
            theirs.shape
        )));
    }
    let mut found = Difference {
        name: name.to_owned(),
        module: output.module.clone(),
        error: 0.0,
        largest: 0.0,
        at: 0,
        agrees: false,
    };
    for (row, theirs) in values.chunks_exact(other).enumerate() {
        for (at, (a, b)) in ours[row * own..].iter().zip(theirs).enumerate() {
            let error = (a - b).abs();
            // A NaN must not hide behind a comparison that is false.
            if !found.error.is_nan() && (error > found.error || error.is_nan()) {
                (found.error, found.at) = (error, row * other + at);
            }
            found.largest = found.largest.max(b.abs());
        }
    }
    found.agrees = found.relative() <= options.tolerance;
    Ok(found)
}
