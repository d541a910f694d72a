//! Random inputs of small sizes that every operation is defined on. Owns which integers and parameters are lawful, from
//! what reads them: row ids of a table, lengths that leave room in a cache, temperatures and masses of a sampler.

use crate::random::uniform;
use photonc_graph::graph::interp::Tensors;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::tensor::{Data, Tensor};

/// Sizes of batch, meta and capacity: each its own, so that axes that are confused differ.
const SIZES: [usize; 3] = [2, 3, 4];

/// What an input means to what reads it.
#[derive(Clone, Copy, PartialEq)]
enum Meaning {
    /// Any number.
    Data,
    /// A row of a table of so many.
    Row(usize),
    /// A parameter of a sampler: positive, at most 1, or at most so many.
    Parameter(usize),
}

/// Inputs of `graph` by name; another seed is another set. Floats are representable in f32.
#[must_use]
pub fn random_inputs(graph: &Graph, seed: u64) -> Tensors {
    let mut bindings = Bindings::default();
    for (symbol, size) in Symbol::ALL.into_iter().zip(SIZES) {
        bindings.bind(symbol, size);
    }
    let mut inputs = Tensors::new();
    for (at, id) in graph.inputs().into_iter().enumerate() {
        let Op::Input { name, ty, .. } = graph.op(id) else { continue };
        let Some(shape) = ty.shape.eval(&bindings) else { continue };
        let count = shape.iter().product::<usize>() as u64;
        let draw = |element: u64| f64::from(uniform(seed, at as u64, element));
        let meaning = meaning(graph, id);
        let data = match (ty.dtype, meaning) {
            (Dtype::I64, Meaning::Row(rows)) => Data::int((0..count).map(|e| below(draw(e), rows)).collect()),
            (Dtype::I64, Meaning::Parameter(most)) => {
                Data::int((0..count).map(|e| 1 + below(draw(e), most)).collect())
            }
            // Lengths and positions: 0 or 1 leaves room in a cache of any capacity above 1.
            (Dtype::I64, Meaning::Data) => Data::int((0..count).map(|e| below(draw(e), 2)).collect()),
            (Dtype::Bool, _) => Data::bool((0..count).map(|e| draw(e) < 0.5).collect()),
            (Dtype::F32 | Dtype::F16 | Dtype::Bf16, Meaning::Parameter(_)) => {
                Data::float((0..count).map(|e| rounded(0.05 + 0.9 * draw(e))).collect())
            }
            (Dtype::F32 | Dtype::F16 | Dtype::Bf16, _) => {
                Data::float((0..count).map(|e| rounded(2.0 * draw(e) - 1.0)).collect())
            }
        };
        inputs.insert(name.to_string(), Tensor { shape, data });
    }
    inputs
}

fn rounded(value: f64) -> f64 {
    f64::from(value as f32)
}

fn below(draw: f64, bound: usize) -> i64 {
    (draw * bound as f64) as i64
}

/// What reads a value, past changes of its shape.
fn meaning(graph: &Graph, id: NodeId) -> Meaning {
    let mut found = Meaning::Data;
    for (user, slot) in graph.users(id) {
        let first = || graph.operands(user).first().map(|operand| graph.ty(*operand).shape.0.clone());
        let rows = |axis: usize| first().and_then(|dims| dims.get(axis)?.as_const());
        let read = match (graph.op(user), slot) {
            (Op::Gather, 1) => rows(0).map_or(Meaning::Data, Meaning::Row),
            (Op::GatherRows, 1) => rows(1).map_or(Meaning::Data, Meaning::Row),
            (Op::Sample { candidates }, 1..) => Meaning::Parameter(*candidates),
            (Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Concat { .. }, _) => {
                meaning(graph, user)
            }
            _ => Meaning::Data,
        };
        if found == Meaning::Data {
            found = read;
        }
    }
    found
}
