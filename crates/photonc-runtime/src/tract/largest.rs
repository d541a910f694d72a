//! The largest entries of rows without sorting them whole. tract's `TopK` sorts every row: with 8 000 tokens and 64
//! candidates that is a third of a generation.
//!
//! Order as ONNX has it: largest first, the lower index first of equal ones. A NaN counts as the least.

use std::cmp::Ordering;
use tract_onnx::prelude::{
    DatumType, IntoTValue as _, TValue, TVec, Tensor, TractError, TractResult, TypedFact, TypedModel,
};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TypedOp, as_op, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::ops::array::Topk;

/// `TopK` of the largest along the last axis; of floats in f32, other types go to tract's own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Largest(Topk);

/// Puts `Largest` in the place of every `TopK` that it can do.
pub(super) fn select_instead_of_sorting(model: &mut TypedModel) {
    for node in &mut model.nodes {
        let Some(sorting) = node.op_as::<Topk>() else { continue };
        let last = node.outputs.first().map(|output| output.fact.rank()) == Some(sorting.axis + 1);
        if sorting.largest && last {
            node.op = Box::new(Largest(sorting.clone()));
        }
    }
}

impl Op for Largest {
    fn name(&self) -> StaticName {
        "Largest".into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        self.0.mints_runtime_symbols()
    }

    op_as_typed_op!();
}

impl TypedOp for Largest {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    as_op!();
}

impl EvalOp for Largest {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [rows, count] = &inputs[..] else {
            return Err(TractError::msg(format!("TopK of {} operands, expected 2", inputs.len())));
        };
        if rows.datum_type() != DatumType::F32 {
            return self.0.eval(context, inputs);
        }
        let count = usize::try_from(count.cast_to_scalar::<i64>()?)?;
        let (width, shape) = (rows.shape().last().copied().unwrap_or(0), rows.shape());
        if count > width {
            return Err(TractError::msg(format!("the {count} largest of {width}")));
        }
        let plain = rows.try_as_plain_ram()?;
        let elements = plain.as_slice::<f32>()?;
        let sizes = [&shape[..shape.len().saturating_sub(1)], &[count]].concat();
        let total = sizes.iter().product();
        let (mut values, mut indices) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let mut kept = Vec::new();
        for row in elements.chunks_exact(width.max(1)) {
            largest(row, count, &mut kept);
            values.extend(kept.iter().map(|index| row[*index as usize]));
            indices.extend(kept.iter().map(|index| i64::from(*index)));
        }
        let values = Tensor::from_shape(&sizes, &values)?;
        let indices = Tensor::from_shape(&sizes, &indices)?;
        Ok([values.into_tvalue(), indices.into_tvalue()].into_iter().collect())
    }
}

/// Indices of the `count` largest of `row`, in order.
fn largest(row: &[f32], count: usize, kept: &mut Vec<u32>) {
    kept.clear();
    if count == 0 {
        return;
    }
    let order = |a: &u32, b: &u32| {
        let (x, y) = (row[*a as usize], row[*b as usize]);
        let by_value = y.partial_cmp(&x).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()));
        by_value.then(a.cmp(b))
    };
    // An entry that is not above the least of `count` earlier ones is not among the largest.
    let room = 4 * count;
    let mut least = f32::NEG_INFINITY;
    let mut full = false;
    for (index, value) in (0u32..).zip(row) {
        if full && (*value <= least || value.is_nan()) {
            continue;
        }
        kept.push(index);
        if kept.len() == room {
            least = keep_first(kept, count, order).map_or(least, |last| row[last as usize]);
            full = !least.is_nan();
        }
    }
    keep_first(kept, count, order);
    kept.sort_unstable_by(order);
}

/// Drops all but the first `count` in that order, and returns the last of them.
fn keep_first(kept: &mut Vec<u32>, count: usize, order: impl Fn(&u32, &u32) -> Ordering) -> Option<u32> {
    if kept.len() > count {
        kept.select_nth_unstable_by(count - 1, &order);
        kept.truncate(count);
    }
    kept.last().copied()
}

#[cfg(test)]
mod tests {
    use super::largest;
    use proptest::prelude::{Strategy as _, any, prop};
    use proptest::{prop_assert_eq, prop_oneof, proptest};

    fn sorted(row: &[f32], count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..).zip(row).map(|(index, _)| index).collect();
        let key = |index: &u32| {
            let value = row[*index as usize];
            (value.is_nan(), -value)
        };
        // Stable, so that of equal entries the lower index stays first.
        all.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap_or_else(|| key(a).0.cmp(&key(b).0)));
        all.truncate(count);
        all
    }

    proptest! {
        #[test]
        fn selecting_is_sorting(
            row in prop::collection::vec(
                prop_oneof![
                    4 => (-3i8..3).prop_map(f32::from),
                    2 => any::<f32>(),
                    1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
                ],
                1..300,
            ),
            count in 0usize..20,
        ) {
            let count = count.min(row.len());
            let mut found = Vec::new();
            largest(&row, count, &mut found);
            prop_assert_eq!(found, sorted(&row, count));
        }
    }
}
