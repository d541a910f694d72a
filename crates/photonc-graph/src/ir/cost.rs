//! What an operation costs: arithmetic and memory traffic. Owns the counting rules; knows no machine.
//!
//! A multiply-add is two flops, any other arithmetic or transcendental function one. Bytes are what an unfused kernel
//! reads and writes at the declared element types: a gather reads the rows it takes, an append moves the new slice,
//! a reshape moves nothing. A weight is counted where it is read.

use super::attr::Mask;
use super::dim::Bindings;
use super::op::Op;
use super::shape::Type;
use std::iter::Sum;
use std::ops::Add;

/// Arithmetic and memory traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point (or integer) operations.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

impl Add for Cost {
    type Output = Cost;
    fn add(self, other: Cost) -> Cost {
        Cost { flops: self.flops.saturating_add(other.flops), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}

/// A type with its symbols bound.
struct Extent {
    shape: Vec<u64>,
    elements: u64,
    bytes: u64,
}

impl Extent {
    fn of(ty: &Type, bindings: &Bindings) -> Option<Extent> {
        let shape: Vec<u64> = ty.shape.eval(bindings)?.into_iter().map(|size| size as u64).collect();
        let elements = shape.iter().fold(1u64, |count, size| count.saturating_mul(*size));
        Some(Extent { bytes: elements.saturating_mul(ty.dtype.size_bytes() as u64), shape, elements })
    }

    fn axis(&self, axis: usize) -> u64 {
        self.shape.get(axis).copied().unwrap_or(1)
    }
}

/// The cost of `op` on operands and a result of these types under `bindings`; `None` if a symbol is unbound.
///
/// Attention counts every slot of a cache, filled or not, and for causal masks only the visible keys.
#[must_use]
pub fn cost(op: &Op, operands: &[&Type], result: &Type, bindings: &Bindings) -> Option<Cost> {
    let operands: Vec<Extent> = operands.iter().map(|ty| Extent::of(ty, bindings)).collect::<Option<_>>()?;
    let result = Extent::of(result, bindings)?;
    Some(Cost { flops: flops(op, &operands, &result), bytes: bytes(op, &operands, &result) })
}

fn flops(op: &Op, operands: &[Extent], result: &Extent) -> u64 {
    let per_element = |count: u64| result.elements.saturating_mul(count);
    let axis = |operand: usize, axis: usize| operands.get(operand).map_or(1, |extent| extent.axis(axis));
    match op {
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::QuantizedWeight { .. }
        | Op::Const { .. }
        | Op::Delay { .. }
        | Op::ProtocolSwitch => 0,
        Op::Cast { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Iota { .. }
        | Op::Gather
        | Op::GatherRows
        | Op::CacheAppend
        | Op::Shift => 0,
        Op::Unary { .. } | Op::Binary { .. } | Op::Compare { .. } | Op::Where => per_element(1),
        Op::SwiGlu => per_element(5),
        // Square and add, then two products.
        Op::RmsNorm { .. } => per_element(4),
        // A score, its bias and what is made of the gate; the choice is few.
        Op::Route { .. } => per_element(6),
        Op::Experts { top_k } => {
            let rows = result.elements.checked_div(axis(3, 2)).unwrap_or(0);
            let maps = axis(3, 1).saturating_mul(axis(3, 2).saturating_mul(6).saturating_add(5));
            rows.saturating_mul(*top_k as u64).saturating_mul(maps)
        }
        Op::Rope { .. } => per_element(3),
        Op::Linear => {
            let bias = u64::from(operands.len() > 2);
            per_element(axis(1, 1).saturating_mul(2).saturating_add(bias))
        }
        Op::Attention { mask, reach, .. } => {
            let (heads, queries) = (axis(0, 0).saturating_mul(axis(0, 1)), axis(0, 2));
            // A query of a tile sees the whole of it at most.
            let sizes = [reach.window, reach.tile].into_iter().flatten();
            let most = sizes.map(|size| size.get() as u64).min().unwrap_or(u64::MAX);
            let pairs = match mask {
                Mask::Causal => causal_pairs(queries, axis(1, 2), most),
                Mask::Cache | Mask::Past => queries.saturating_mul(most.min(axis(1, 2))),
            };
            // Scores and weighted values: a multiply-add a component; scale, exponential, sum a pair.
            let widths = axis(0, 3).saturating_add(axis(2, 3));
            heads.saturating_mul(pairs).saturating_mul(widths.saturating_mul(2).saturating_add(3))
        }
        // A comparison per logit; what is kept is few.
        Op::Sample { .. } => operands.first().map_or(0, |logits| logits.elements),
    }
}

/// Queries and keys that see each other: the newest query sees every key in its window, each older one a key less.
fn causal_pairs(queries: u64, keys: u64, most: u64) -> u64 {
    let before = keys.saturating_sub(queries);
    let full = keys.min(most);
    // Queries that see `before + 1 ..= full` keys, then those that see as many as the window holds.
    let growing = full.saturating_sub(before);
    let triangle = growing.saturating_mul(growing.saturating_add(1)) / 2;
    let rest = queries.saturating_sub(growing);
    growing.saturating_mul(before).saturating_add(triangle).saturating_add(rest.saturating_mul(full))
}

fn bytes(op: &Op, operands: &[Extent], result: &Extent) -> u64 {
    let read = |operand: usize| operands.get(operand).map_or(0, |extent| extent.bytes);
    match op {
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::QuantizedWeight { .. }
        | Op::Const { .. }
        | Op::Delay { .. }
        | Op::ProtocolSwitch
        | Op::Reshape { .. } => 0,
        Op::Iota { .. } => result.bytes,
        Op::Slice { .. } | Op::Shift => result.bytes.saturating_mul(2),
        Op::Gather | Op::GatherRows => result.bytes.saturating_mul(2).saturating_add(read(1)),
        // Of the experts only those that some row chose, at most.
        Op::Experts { top_k } => {
            let gates = operands.get(1).map_or(1, |gates| gates.elements);
            let count = operands.get(3).map_or(1, |down| down.axis(0)).max(1);
            let chosen = (gates / count).saturating_mul(*top_k as u64).min(count);
            let maps = (read(2).saturating_add(read(3)) / count).saturating_mul(chosen);
            result.bytes.saturating_add(read(0)).saturating_add(read(1)).saturating_add(maps)
        }
        Op::CacheAppend => read(1).saturating_mul(2).saturating_add(read(2)),
        Op::Unary { .. }
        | Op::Binary { .. }
        | Op::Compare { .. }
        | Op::Where
        | Op::Cast { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Linear
        | Op::RmsNorm { .. }
        | Op::Rope { .. }
        | Op::Attention { .. }
        | Op::Route { .. }
        | Op::SwiGlu
        | Op::Sample { .. } => {
            operands.iter().fold(result.bytes, |total, operand| total.saturating_add(operand.bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cost, cost};
    use crate::ir::attr::{Mask, Reach};
    use crate::ir::dim::{Bindings, Symbol};
    use crate::ir::op::Op;
    use crate::ir::shape::Type;

    fn of(op: &Op, operands: &[&str], result: &str) -> Option<Cost> {
        let mut bindings = Bindings::default();
        bindings.bind(Symbol::Batch, 3);
        let types: Vec<Type> = operands.iter().map(|text| Type::parse(text).expect("parses")).collect();
        cost(op, &types.iter().collect::<Vec<_>>(), &Type::parse(result).expect("parses"), &bindings)
    }

    #[test]
    fn a_linear_map_is_two_flops_a_weight_and_row() {
        let found = of(&Op::Linear, &["bf16[batch, 8]", "bf16[4, 8]"], "bf16[batch, 4]");
        assert_eq!(found, Some(Cost { flops: 2 * 3 * 8 * 4, bytes: 2 * (24 + 32 + 12) }));
    }

    #[test]
    fn causal_attention_counts_visible_keys() {
        let of_window = |window| {
            let reach = Reach::window(window);
            let op = Op::Attention { scale: 1.0.into(), mask: Mask::Causal, reach };
            of(&op, &["f32[1, 2, 2, 4]", "f32[1, 1, 5, 4]", "f32[1, 1, 5, 4]"], "f32[1, 2, 2, 4]")
        };
        let bytes = 4 * (16 + 20 + 20 + 16);
        assert_eq!(of_window(None), Some(Cost { flops: 2 * (4 + 5) * 19, bytes }));
        for (size, pairs) in [(9, 4 + 5), (5, 4 + 5), (4, 4 + 4), (3, 3 + 3), (1, 1 + 1)] {
            assert_eq!(of_window(Some(size)), Some(Cost { flops: 2 * pairs * 19, bytes }));
        }
    }

    // Two rows that choose two of four experts read all four at most, and compute four.
    #[test]
    fn experts_count_as_they_are_chosen() {
        let operands = ["f32[2, 3]", "f32[2, 4]", "f32[4, 3, 10]", "f32[4, 5, 3]"];
        let found = of(&Op::Experts { top_k: 2 }, &operands, "f32[2, 3]");
        assert_eq!(found, Some(Cost { flops: 2 * 2 * 5 * (6 * 3 + 5), bytes: 4 * (6 + 8 + 120 + 60 + 6) }));
        let one = ["f32[1, 3]", "f32[1, 4]", "f32[4, 3, 10]", "f32[4, 5, 3]"];
        let found = of(&Op::Experts { top_k: 1 }, &one, "f32[1, 3]");
        assert_eq!(found, Some(Cost { flops: 5 * (6 * 3 + 5), bytes: 4 * (3 + 4 + 30 + 15 + 3) }));
    }

    #[test]
    fn a_gather_reads_its_rows_only() {
        let found = of(&Op::Gather, &["f32[32000, 8]", "i64[batch]"], "f32[batch, 8]");
        assert_eq!(found, Some(Cost { flops: 0, bytes: 2 * 4 * 24 + 24 }));
    }

    #[test]
    fn unbound_symbols_have_no_cost() {
        assert_eq!(of(&Op::SwiGlu, &["f32[meta]", "f32[meta]"], "f32[meta]"), None);
    }
}
