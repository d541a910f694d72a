//! Arithmetic and traffic of a node, by what is read. Owns the division of bytes; the counting rules are `ir::cost`.
//!
//! - *Weights*: a weight counts as it is kept (in few bits: codes and scales), each time a node reads it, because between two reads lies more than a cache holds. So the
//!   floor of a step follows from its graph: a decoder unrolled over four positions counts four times.
//! - *KV cache*: what attention reads of a value whose type has the symbol `capacity`, and what an append moves.
//! - *Activations*: the rest, as an unfused kernel would move it, copies of a cache by `concat` among it.

use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::cost;
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Type;
use serde::Serialize;
use std::iter::Sum;
use std::ops::Add;

/// What nodes compute and move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Operations of linear maps and attention.
    pub matmul_flops: u64,
    /// Every other operation.
    pub other_flops: u64,
    /// Bytes of weights read, once per reading node.
    pub weight_bytes: u64,
    /// Bytes of KV caches read by attention or moved by appends.
    pub cache_bytes: u64,
    /// Every other byte read and written by unfused kernels.
    pub activation_bytes: u64,
}

impl Work {
    /// Operations of every kind.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.matmul_flops.saturating_add(self.other_flops)
    }

    /// Bytes of every kind.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.floor_bytes().saturating_add(self.activation_bytes)
    }

    /// Bytes that no fusion saves: weights and caches.
    #[must_use]
    pub fn floor_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.cache_bytes)
    }

    /// Arithmetic intensity in operations per byte; `None` where nothing is moved.
    #[must_use]
    pub fn intensity(&self) -> Option<f64> {
        (self.bytes() > 0).then(|| self.flops() as f64 / self.bytes() as f64)
    }
}

impl Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        Work {
            matmul_flops: self.matmul_flops.saturating_add(other.matmul_flops),
            other_flops: self.other_flops.saturating_add(other.other_flops),
            weight_bytes: self.weight_bytes.saturating_add(other.weight_bytes),
            cache_bytes: self.cache_bytes.saturating_add(other.cache_bytes),
            activation_bytes: self.activation_bytes.saturating_add(other.activation_bytes),
        }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Work>>(works: I) -> Work {
        works.fold(Work::default(), Add::add)
    }
}

/// The work of one node; nothing where a symbol is unbound, and nothing for what is made of weights alone, which is done
/// once, when a graph is loaded. With a `precision`, every floating-point value counts as of
/// that type.
#[must_use]
pub fn work(graph: &Graph, id: NodeId, bindings: &Bindings, precision: Option<Dtype>) -> Work {
    let typed = |id: NodeId| as_precision(graph.ty(id), precision);
    let op = graph.op(id);
    if is_weight(graph, id) {
        return Work::default();
    }
    let operands = graph.operands(id);
    let types: Vec<Type> = operands.iter().map(|operand| typed(*operand)).collect();
    let result = typed(id);
    let Some(cost) = cost::cost(op, &types.iter().collect::<Vec<_>>(), &result, bindings) else {
        return Work::default();
    };
    let size = |ty: &Type| bytes_of(ty, bindings);
    // As the operation is declared to read them, and as they are kept.
    let (mut declared_bytes, mut weight_bytes) = (0u64, 0u64);
    for (slot, (operand, ty)) in operands.iter().zip(&types).enumerate() {
        if !is_weight(graph, *operand) {
            continue;
        }
        // Of a table only the rows it takes.
        let taken = matches!(op, Op::Gather) && slot == 0;
        let declared = if taken { size(&result) } else { size(ty) };
        declared_bytes += declared;
        weight_bytes += if taken { declared } else { kept_bytes(graph, *operand, &size, precision) };
    }
    let cache_bytes = match op {
        Op::Attention { .. } => types.iter().filter(|ty| ty.shape.contains(Symbol::Capacity)).map(size).sum(),
        Op::CacheAppend => cost.bytes,
        _ => 0u64,
    };
    let matmul = matches!(op, Op::Linear | Op::Attention { .. } | Op::Experts { .. });
    let declared_bytes = declared_bytes.min(cost.bytes);
    let weight_bytes = weight_bytes.min(declared_bytes);
    Work {
        matmul_flops: if matmul { cost.flops } else { 0 },
        other_flops: if matmul { 0 } else { cost.flops },
        weight_bytes,
        cache_bytes,
        activation_bytes: cost.bytes.saturating_sub(declared_bytes).saturating_sub(cache_bytes),
    }
}

/// Whether a value is a weight, one in another shape or type, or several side by side.
fn is_weight(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Weight { .. } | Op::QuantizedWeight { .. } => true,
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Cast { .. } | Op::Concat { .. } => {
            graph.operands(id).iter().all(|operand| is_weight(graph, *operand))
        }
        _ => false,
    }
}

/// Bytes of the codes and scales of a matrix in few bits.
pub(super) fn coded_bytes(ty: &Type, scheme: Scheme) -> Option<u64> {
    let [rows, columns] = ty.shape.as_const()?[..] else { return None };
    let scales = scheme.scale_shape([rows, columns])?.iter().product::<usize>();
    Some((scheme.code_bytes(rows * columns) + scales * Dtype::F32.size_bytes()) as u64)
}

/// Bytes of a weight as it is kept: of one in few bits its codes and its scales.
fn kept_bytes(graph: &Graph, id: NodeId, size: &dyn Fn(&Type) -> u64, precision: Option<Dtype>) -> u64 {
    match graph.op(id) {
        Op::QuantizedWeight { ty, scheme, .. } => {
            coded_bytes(ty, *scheme).unwrap_or_else(|| size(&as_precision(ty, precision)))
        }
        Op::Concat { .. } => {
            let parts = graph.operands(id).into_iter();
            parts.map(|part| kept_bytes(graph, part, size, precision)).sum()
        }
        _ => size(&as_precision(graph.ty(id), precision)),
    }
}

fn as_precision(ty: &Type, precision: Option<Dtype>) -> Type {
    match precision {
        Some(dtype) if ty.dtype.is_float() => Type { dtype, shape: ty.shape.clone() },
        _ => ty.clone(),
    }
}

fn bytes_of(ty: &Type, bindings: &Bindings) -> u64 {
    let elements = ty.shape.elements().eval(bindings).unwrap_or(0) as u64;
    elements.saturating_mul(ty.dtype.size_bytes() as u64)
}

#[cfg(test)]
mod tests {
    use super::{Work, work};
    use photonc_graph::graph::text;
    use photonc_graph::ir::dim::{Bindings, Symbol};
    use photonc_graph::ir::op::Op;

    fn of_linear(weights: [&str; 2]) -> Work {
        let [q, k] = weights;
        let source = format!(
            "graph g {{
  %0 = input{{name=\"x\", ty=bf16[batch, 64], role=argument}}
  %1 = {q}
  %2 = {k}
  %3 = concat{{axis=0}} %1, %2 : bf16[8, 64]
  %4 = linear %0, %3 : bf16[batch, 8]

  output \"y\" = %4
}}
"
        );
        let graph = text::parse(&source).expect("parses");
        let mut bindings = Bindings::default();
        bindings.bind(Symbol::Batch, 3);
        let linear = graph.select(|op| matches!(op, Op::Linear));
        work(&graph, linear[0], &bindings, None)
    }

    // Codes of half a byte and a scale for each 32 of them; what else is moved stays the same.
    #[test]
    fn weights_in_few_bits_count_as_they_are_kept() {
        let whole = of_linear(["weight{name=\"q\", ty=bf16[6, 64]}", "weight{name=\"k\", ty=bf16[2, 64]}"]);
        let coded = of_linear([
            "quantized_weight{name=\"q\", ty=bf16[6, 64], scheme=int4}",
            "quantized_weight{name=\"k\", ty=bf16[2, 64], scheme=int4}",
        ]);
        assert_eq!((whole.weight_bytes, coded.weight_bytes), (8 * 64 * 2, 8 * 32 + 8 * 2 * 4));
        assert_eq!(Work { weight_bytes: whole.weight_bytes, ..coded }, whole);
    }
}
