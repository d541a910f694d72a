//! Types of routers and experts. Owns how many experts may be chosen, and how their maps fit each other.

use super::{Inferred, axis_dim, fail, float, rank, same};
use crate::ir::shape::{Shape, Type};

pub(super) fn route(operands: &[Type], top_k: usize, groups: usize, kept_groups: usize) -> Inferred {
    let logits = &operands[0];
    float(logits, "route")?;
    let last = axis_dim(logits, logits.shape.rank().wrapping_sub(1))?;
    let Some(experts) = last.as_const() else {
        return fail(format!("the number of experts of {logits} is not known"));
    };
    if let Some(bias) = operands.get(1) {
        same(&Type::new(logits.dtype, Shape(vec![last])), bias, || "bias of experts".to_owned())?;
    }
    if groups == 0 || !experts.is_multiple_of(groups) || kept_groups == 0 || kept_groups > groups {
        return fail(format!("{kept_groups} of {groups} groups of {experts} experts"));
    }
    let size = experts / groups;
    if groups > 1 && size < 2 {
        return fail(format!("groups of {size} expert: a group's score needs two"));
    }
    if top_k == 0 || top_k > size * kept_groups {
        return fail(format!("top {top_k} of {} experts", size * kept_groups));
    }
    Ok(logits.clone())
}

pub(super) fn experts(operands: &[Type], top_k: usize) -> Inferred {
    let [x, gates, up, down] = operands else { return fail("experts takes 4 operands") };
    float(x, "experts")?;
    rank(up, 3, "the experts' gate and up maps")?;
    rank(down, 3, "the experts' down maps")?;
    let (Some((width, rows)), Some((count, gate_rows))) =
        (x.shape.0.split_last(), gates.shape.0.split_last())
    else {
        return fail(format!("experts of {x} with gates {gates}"));
    };
    let inner = &down.shape.0[1];
    let fits = rows == gate_rows
        && up.shape.0 == [count.clone(), width.clone(), inner.plus(inner)]
        && down.shape.0 == [count.clone(), inner.clone(), width.clone()]
        && operands.iter().all(|operand| operand.dtype == x.dtype);
    if !fits {
        return fail(format!("experts of {x} with gates {gates}, maps {up} and {down}"));
    }
    if top_k == 0 || count.as_const().is_none_or(|count| top_k > count) {
        return fail(format!("top {top_k} of {count} experts"));
    }
    Ok(x.clone())
}
