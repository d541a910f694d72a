//! How far rounding alone takes a value, from element types and reduction lengths: the one table of tolerances.
//!
//! Each operation rounds its result: relative to the largest element, by `u` (the unit roundoff of the element type) for
//! every rounding on the way to an element. A sum of `n` products in any order is off by `sqrt(n) u` with high probability
//! (Higham and Mary, 2019), by `n u` at worst. How much of that arrives at a later value depends on everything between, so
//! it is measured: the interpreter runs again with every value moved at random by as much, several times. The tolerance
//! of a value is `MARGIN` (16) times the largest move seen, and `u` of its largest element.

use crate::random::uniform;
use photonc_graph::graph::interp::{InterpError, Interpreter, Tensors};
use photonc_graph::graph::{NodeId, Verified};
use photonc_graph::ir::attr::{BinaryFn, UnaryFn};
use photonc_graph::ir::dim::{Bindings, Dim};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::tensor::{Data, Tensor};
use std::collections::HashMap;

/// Moved runs.
const RUNS: u64 = 4;

/// The largest of few random moves, times this, bounds what systematic rounding does.
const MARGIN: f64 = 16.0;

/// Roundings on the way to one element of a result, those of a sum counted as its square root; 0 where elements only move.
/// `sizes` gives an operand's axis.
#[must_use]
pub fn roundings(op: &Op, sizes: &dyn Fn(usize, usize) -> usize) -> f64 {
    let sum = |length: usize| (length as f64).sqrt();
    match op {
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::Const { .. }
        | Op::Delay { .. }
        | Op::ProtocolSwitch
        | Op::Compare { .. }
        | Op::Where
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Iota { .. }
        | Op::Gather
        | Op::GatherRows
        | Op::CacheAppend
        | Op::Shift
        | Op::Sample { .. }
        | Op::Unary { function: UnaryFn::Neg }
        | Op::Binary { function: BinaryFn::Max | BinaryFn::Min } => 0.0,
        Op::Binary { function: BinaryFn::Add | BinaryFn::Sub | BinaryFn::Mul } | Op::Cast { .. } => 1.0,
        // A code times its scale; who multiplies sums by scales rounds no weight.
        Op::QuantizedWeight { .. } => 1.0,
        // An exponential, a sum, a quotient and a product; exponentials are right to two roundings.
        Op::Unary { function: UnaryFn::Silu } => 5.0,
        Op::Unary { function: UnaryFn::Sigmoid | UnaryFn::Tanh } => 4.0,
        Op::SwiGlu => 6.0,
        Op::Linear => sum(sizes(1, 1)) + 1.0,
        // Squares and their sum, the root, two products.
        Op::RmsNorm { .. } => sum(sizes(1, 0)) + 4.0,
        // Sine and cosine, two products, a sum; the angle of a small position is right to one rounding.
        Op::Rope { .. } => 6.0,
        // Scores over the head, a softmax over the keys, a mean over the keys.
        Op::Attention { .. } => sum(sizes(0, 3)) + 2.0 * sum(sizes(1, 2)) + 6.0,
        // A score, the sum of the chosen ones, a quotient and a product.
        Op::Route { top_k, .. } => sum(*top_k) + 6.0,
        // Over the width, the gated product, over the inner width, then over the chosen experts.
        Op::Experts { top_k } => sum(sizes(3, 2)) + sum(sizes(3, 1)) + sum(*top_k) + 8.0,
    }
}

/// What each output may be off by.
#[derive(Clone, Debug, Default)]
pub struct Tolerances {
    /// `None`: rounding alone changes an integer.
    outputs: HashMap<String, Option<f64>>,
}

impl Tolerances {
    /// Measures how far random moves of every value take the outputs from `expected`. Each operation is done in the type of
    /// its result; or, with a `precision`, in f32, and each float, inputs too, is rounded to that type once.
    ///
    /// # Errors
    /// A moved run has no value.
    pub fn measure(
        graph: Verified<'_>,
        interpreter: &Interpreter,
        inputs: &Tensors,
        expected: &Tensors,
        precision: Option<Dtype>,
    ) -> Result<Self, InterpError> {
        let amplitudes = amplitudes(graph, inputs, precision);
        let mut outputs: HashMap<String, Option<f64>> = HashMap::new();
        for run in 0..RUNS {
            let mut through = |id: NodeId, value: Tensor| match amplitudes.get(&id) {
                Some(amplitude) => moved(value, *amplitude, run, graph.serial(id)),
                None => value,
            };
            let found = interpreter.run_through(inputs, &mut through)?;
            for (name, expected) in expected {
                let Some(found) = found.get(name) else { continue };
                let error = super::difference(found, expected);
                let entry = outputs.entry(name.clone()).or_insert(Some(0.0));
                *entry = match (&expected.data, *entry) {
                    (Data::Float(_), Some(worst)) => Some(worst.max(error)),
                    (Data::Int(_) | Data::Bool(_), Some(_)) if error > 0.0 => None,
                    (_, kept) => kept,
                };
            }
        }
        for output in graph.outputs() {
            let floor = computed_as(graph.ty(output.node).dtype, precision).unit_roundoff();
            if let (Some(Some(worst)), Some(value)) =
                (outputs.get_mut(&*output.name), expected.get(&*output.name))
            {
                *worst = MARGIN * *worst + floor * super::largest(value);
            }
        }
        Ok(Tolerances { outputs })
    }

    /// What an output may be off by; `None` where rounding alone changes it.
    #[must_use]
    pub fn of(&self, output: &str) -> Option<f64> {
        self.outputs.get(output).copied().flatten()
    }

    /// Whether rounding alone changes no integer.
    #[must_use]
    pub fn decided(&self) -> bool {
        self.outputs.values().all(Option::is_some)
    }
}

/// The type that a value declared as `dtype` is computed in.
fn computed_as(dtype: Dtype, precision: Option<Dtype>) -> Dtype {
    precision.filter(|_| dtype.is_float()).unwrap_or(dtype)
}

/// Relative moves of values that are rounded.
fn amplitudes(graph: Verified<'_>, inputs: &Tensors, precision: Option<Dtype>) -> HashMap<NodeId, f64> {
    let bindings = bindings(graph, inputs);
    let mut amplitudes = HashMap::new();
    for id in graph.order() {
        let operands = graph.operands(id);
        let sizes = |operand: usize, axis: usize| {
            let dim: Option<&Dim> = operands.get(operand).and_then(|id| graph.ty(*id).shape.0.get(axis));
            dim.and_then(|dim| dim.eval(&bindings)).unwrap_or(1)
        };
        let own = graph.ty(id).dtype;
        let roundings = roundings(graph.op(id), &sizes);
        let amplitude = match precision.filter(|_| own.is_float()) {
            None => own.unit_roundoff() * roundings,
            // Inputs are rounded once, as are results; what is between is done in f32.
            Some(short) if roundings > 0.0 || matches!(graph.op(id), Op::Input { .. }) => {
                short.unit_roundoff() + Dtype::F32.unit_roundoff() * roundings
            }
            Some(_) => 0.0,
        };
        if amplitude > 0.0 {
            amplitudes.insert(id, amplitude);
        }
    }
    amplitudes
}

fn bindings(graph: Verified<'_>, inputs: &Tensors) -> Bindings {
    let ports = graph.inputs().into_iter().filter_map(|id| match graph.op(id) {
        Op::Input { name, ty, .. } => Some((&ty.shape, inputs.get(&**name)?.shape.as_slice())),
        _ => None,
    });
    Bindings::solve(&ports.collect::<Vec<_>>())
}

fn moved(value: Tensor, amplitude: f64, run: u64, serial: u64) -> Tensor {
    let Some(values) = value.as_floats() else { return value };
    let reach = amplitude * super::largest(&value);
    let move_by =
        |(at, v): (usize, &f64)| v + reach * (2.0 * f64::from(uniform(run, serial, at as u64)) - 1.0);
    let data = Data::float(values.iter().enumerate().map(move_by).collect());
    Tensor { shape: value.shape, data }
}
