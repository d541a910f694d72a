//! Whether an operation treats the rows of a batch independently, so that steps may be laid side by side as rows.
//! Decides every operation; refuses to guess.

use photonc_graph::ir::dim::Symbol;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::{Shape, Type};

/// Checks that `op` maps rows to rows: the batch is a factor of axis 0 and occurs nowhere else.
///
/// # Errors
/// Says what mixes rows.
pub(super) fn row_wise(op: &Op, operands: &[Type], ty: &Type) -> Result<(), String> {
    for value in operands.iter().chain([ty]) {
        if batched(&value.shape) && !leading(&value.shape) {
            return Err(format!("the batch is not a factor of the first axis alone in {value}"));
        }
    }
    let batched_operands: Vec<&Type> = operands.iter().filter(|operand| batched(&operand.shape)).collect();
    if batched_operands.is_empty() {
        return Ok(());
    }
    match op {
        Op::Reshape { .. }
        | Op::Cast { .. }
        | Op::Unary { .. }
        | Op::SwiGlu
        | Op::Sample { .. }
        | Op::Attention { .. }
        | Op::GatherRows
        | Op::Shift => Ok(()),
        Op::Binary { .. } | Op::Compare { .. } | Op::Where => {
            match batched_operands.iter().find(|operand| operand.shape.rank() != ty.shape.rank()) {
                Some(short) => Err(format!("rows of {short} are broadcast against other axes of {ty}")),
                None => Ok(()),
            }
        }
        Op::Transpose { perm } => keep(perm.first() == Some(&0), "the transpose moves the first axis"),
        Op::Concat { axis } | Op::Slice { axis, .. } | Op::Iota { axis } => {
            keep(*axis != 0, "the operation works along the first axis")
        }
        Op::Gather => keep(!batched(&operands[0].shape), "the table differs by row"),
        Op::Linear | Op::RmsNorm { .. } | Op::Route { .. } => {
            let is_residual = |slot: usize| slot == 2 && operands[slot].shape == ty.shape;
            let alike = (1..operands.len()).all(|slot| !batched(&operands[slot].shape) || is_residual(slot));
            keep(alike, "the weight differs by row")
        }
        Op::Experts { .. } => keep(
            operands.iter().skip(2).all(|map| !batched(&map.shape)) && ty.shape.rank() > 1,
            "the experts differ by row",
        ),
        Op::Rope { .. } => keep(
            !batched(&operands[1].shape) || operands[1].shape.rank() == 2,
            "positions run along the batch",
        ),
        Op::CacheAppend => Err("a cache is state of its own".to_owned()),
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::QuantizedWeight { .. }
        | Op::Const { .. }
        | Op::Delay { .. }
        | Op::ProtocolSwitch => Err("not an operation on rows".to_owned()),
    }
}

fn keep(holds: bool, reason: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason.to_owned()) }
}

/// Whether the batch occurs in another axis than the first.
pub(super) fn mixed(shape: &Shape) -> bool {
    shape.0.iter().skip(1).any(|dim| dim.contains(Symbol::Batch))
}

fn batched(shape: &Shape) -> bool {
    shape.contains(Symbol::Batch)
}

fn leading(shape: &Shape) -> bool {
    match shape.0.split_first() {
        Some((first, rest)) => {
            first.without_factor(Symbol::Batch).is_some_and(|factor| !factor.contains(Symbol::Batch))
                && !rest.iter().any(|dim| dim.contains(Symbol::Batch))
        }
        None => false,
    }
}
