//! One graph on two backends: the interpreter in binary64 and a candidate. Owns which values are compared, in which order,
//! and the verdict; how far a value may be off is derived in `tolerance`.

mod inputs;
mod taps;
mod tolerance;

use super::backend::{Backend, BackendError};
use photonc_graph::graph::interp::{InterpError, Interpreter, Tensors, WeightError, WeightSource};
use photonc_graph::graph::{NodeId, Verified};
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::bytes::{bytes_of, floats_of};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::Tensor;
use std::collections::HashMap;

pub use inputs::random_inputs;
pub use taps::{with_taps, with_taps_of};
pub use tolerance::{Tolerances, roundings};

/// Inputs that are tried until rounding alone changes no integer output.
const TRIES: u64 = 8;

/// One compared value.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Name of the output.
    pub output: String,
    /// Where in the model the value is computed.
    pub scope: String,
    /// Largest absolute difference; of integers and truth values, the number that differ.
    pub error: f64,
    /// What the difference may be.
    pub tolerance: f64,
    /// Largest absolute value of the reference.
    pub largest: f64,
    /// Whether rounding alone could change an integer: then a difference says nothing.
    pub decided: bool,
}

impl Compared {
    /// Whether the value is off by more than rounding explains. NaN is.
    #[must_use]
    pub fn diverges(&self) -> bool {
        self.decided && (self.error.is_nan() || self.error > self.tolerance)
    }
}

/// A graph on both backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Name of the graph.
    pub graph: String,
    /// Seed of the inputs.
    pub seed: u64,
    /// Every output, in the order they are computed.
    pub values: Vec<Compared>,
}

impl Comparison {
    /// The first value that diverges.
    #[must_use]
    pub fn first_divergent(&self) -> Option<&Compared> {
        self.values.iter().find(|value| value.diverges())
    }
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The reference does not run.
    #[error("reference: {0}")]
    Reference(#[from] InterpError),
    /// The candidate does not run.
    #[error(transparent)]
    Candidate(#[from] BackendError),
    /// The candidate's outputs are not the graph's.
    #[error("graph `{graph}`: output `{output}` is {found}, expected {expected:?}")]
    Output {
        /// The graph.
        graph: String,
        /// The output.
        output: String,
        /// Its sizes, or `missing`.
        found: String,
        /// The reference's sizes.
        expected: Vec<usize>,
    },
}

/// Runs `graph` in the interpreter and in `candidate`, which has a graph of that name, on the same random inputs of small
/// sizes, and compares every output. [`with_taps`] makes outputs of what happens inside.
///
/// # Errors
/// One of the two does not run, or the outputs do not have the same names and sizes.
pub fn compare(
    graph: Verified<'_>,
    weights: &dyn WeightSource,
    candidate: &mut dyn Backend,
    seed: u64,
) -> Result<Comparison, CompareError> {
    compare_as(graph, weights, candidate, seed, None)
}

/// The same for a candidate that computes every float in `precision`, whatever the graph declares: the reference gets the
/// weights that the candidate has.
///
/// # Errors
/// As `compare`.
pub fn compare_as(
    graph: Verified<'_>,
    weights: &dyn WeightSource,
    candidate: &mut dyn Backend,
    seed: u64,
    precision: Option<Dtype>,
) -> Result<Comparison, CompareError> {
    let rounded = Rounded { weights, precision };
    let interpreter = Interpreter::new(graph, &rounded)?;
    let mut tried = None;
    for seed in seed..seed + TRIES {
        let inputs = random_inputs(graph.graph(), seed);
        let expected = interpreter.run(&inputs)?;
        let tolerances = Tolerances::measure(graph, &interpreter, &inputs, &expected, precision)?;
        let stable = tolerances.decided();
        tried = Some((seed, inputs, expected, tolerances));
        if stable {
            break;
        }
    }
    let Some((seed, inputs, expected, tolerances)) = tried else {
        return Ok(Comparison { graph: graph.name().to_owned(), seed, values: Vec::new() });
    };
    let found = run(graph, candidate, &inputs)?;
    let place: HashMap<NodeId, usize> =
        graph.order().into_iter().enumerate().map(|(at, id)| (id, at)).collect();
    let mut outputs: Vec<_> = graph.outputs().iter().collect();
    outputs.sort_by_key(|output| place.get(&output.node));
    let mut values = Vec::new();
    for output in outputs {
        let name = &*output.name;
        let Some(expected) = expected.get(name) else { continue };
        let found = found.get(name).filter(|found| found.shape == expected.shape).ok_or_else(|| {
            let found = found.get(name).map_or("missing".to_owned(), |found| format!("{:?}", found.shape));
            let (graph, output) = (graph.name().to_owned(), name.to_owned());
            CompareError::Output { graph, output, found, expected: expected.shape.clone() }
        })?;
        let tolerance = tolerances.of(name);
        values.push(Compared {
            output: name.to_owned(),
            scope: graph.scope(output.node).to_string(),
            error: difference(found, expected),
            tolerance: tolerance.unwrap_or(0.0),
            largest: largest(expected),
            decided: tolerance.is_some(),
        });
    }
    Ok(Comparison { graph: graph.name().to_owned(), seed, values })
}

/// Weights as a candidate of another precision has them.
struct Rounded<'w> {
    weights: &'w dyn WeightSource,
    precision: Option<Dtype>,
}

impl WeightSource for Rounded<'_> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        self.rounded(self.weights.weight(name)?)
    }

    fn quantized(&self, name: &str, scheme: Scheme) -> Result<Tensor, WeightError> {
        self.rounded(self.weights.quantized(name, scheme)?)
    }
}

impl Rounded<'_> {
    fn rounded(&self, tensor: Tensor) -> Result<Tensor, WeightError> {
        let (Some(dtype), Some(values)) = (self.precision, tensor.as_floats()) else { return Ok(tensor) };
        let values = floats_of(dtype, &bytes_of(dtype, values));
        Tensor::floats(&tensor.shape, values).ok_or(WeightError::Missing)
    }
}

fn run(graph: Verified<'_>, candidate: &mut dyn Backend, inputs: &Tensors) -> Result<Tensors, BackendError> {
    let mut buffers = Vec::new();
    for id in graph.inputs() {
        if let photonc_graph::ir::op::Op::Input { name, ty, .. } = graph.op(id)
            && let Some(value) = inputs.get(&**name)
        {
            buffers.push((name.to_string(), candidate.upload(value, ty.dtype)?));
        }
    }
    let given: Vec<_> = buffers.iter().map(|(name, buffer)| (name.as_str(), buffer)).collect();
    let outputs = candidate.run(graph.name(), &given)?;
    outputs.iter().map(|(name, buffer)| Ok((name.clone(), candidate.download(buffer)?))).collect()
}

/// Largest absolute difference of floats, NaN where only one is; the number of other elements that differ.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    match (found.as_floats(), expected.as_floats()) {
        (Some(found), Some(expected)) => found.iter().zip(expected).fold(0.0, |worst: f64, (a, b)| {
            let difference = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
            if worst.is_nan() || difference.is_nan() { f64::NAN } else { worst.max(difference) }
        }),
        _ => match (found.as_ints(), expected.as_ints(), found.as_bools(), expected.as_bools()) {
            (Some(found), Some(expected), _, _) => unequal(found, expected),
            (_, _, Some(found), Some(expected)) => unequal(found, expected),
            _ => f64::NAN,
        },
    }
}

fn unequal<T: PartialEq>(found: &[T], expected: &[T]) -> f64 {
    found.iter().zip(expected).filter(|(a, b)| a != b).count() as f64
}

fn largest(tensor: &Tensor) -> f64 {
    // Integers are compared one by one and have no scale.
    let values = tensor.as_floats().unwrap_or(&[]);
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}
