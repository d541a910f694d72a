//! Attention from matrix products. Owns grouped heads: keys and values are never repeated in memory. A fixed number
//! of queries folds a group's heads into the rows of one product; a symbolic one keeps the group as an axis of its own.

use super::ExportError;
use super::emit::Emitter;
use super::mask::{Extent, Visible};
use super::proto;
use super::rules::{HEAD_MULTIPLE, PAD_HEADS};
use crate::graph::NodeId;
use crate::ir::attr::Mask;
use crate::ir::dim::Dim;
use crate::ir::dtype::Dtype;

/// How the heads of a group stand in the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grouping {
    /// One query head per key head: `[B, H, n, m]`.
    None,
    /// In the rows: `[B, G, heads * n, m]`.
    Rows,
    /// On an axis: `[B, G, heads, n, m]`.
    Axis,
}

/// Types that an attention computes in.
#[derive(Clone, Copy, Debug)]
struct Types {
    /// Of queries, keys, values and their products.
    values: Dtype,
    /// Of masked scores and probabilities.
    softmax: Dtype,
}

impl Emitter<'_> {
    /// `[B, H, n, d], [B, G, m, d], [B, G, m, d], (i64 [B]) -> [B, H, n, d]`.
    pub(super) fn attention(
        &mut self,
        id: NodeId,
        operands: &[NodeId],
        scale: f64,
        mask: Mask,
    ) -> Result<String, ExportError> {
        let graph = self.graph;
        let mut names: Vec<String> = operands.iter().map(|operand| self.values[operand].clone()).collect();
        let shapes = [&graph.ty(operands[0]).shape.0, &graph.ty(operands[1]).shape.0];
        let size = |dim: &Dim| dim.as_const().unwrap_or(1);
        let (heads, groups, width) = (size(&shapes[0][1]), size(&shapes[1][1]), size(&shapes[0][3]));
        let (queries, keys) = (shapes[0][2].clone(), shapes[1][2].clone());
        let share = heads / groups.max(1);
        let grouping = match (share, queries.as_const()) {
            (1, _) => Grouping::None,
            (_, Some(_)) => Grouping::Rows,
            (_, None) => Grouping::Axis,
        };
        let repeats = if grouping == Grouping::Rows { share } else { 1 };
        let rows = queries.as_const().map_or(0, |queries| proto::to_i64(queries * share));
        let visible =
            self.visible(mask, &Extent { queries, keys, repeats }, names.get(3).map(String::as_str))?;
        let wide = if self.rewrites(PAD_HEADS, id) { width.next_multiple_of(HEAD_MULTIPLE) } else { width };
        for name in names.iter_mut().take(3) {
            *name = self.padded(name, wide - width);
        }
        let cut = (wide > width).then_some(width);
        let [heads, groups, share, width] = [heads, groups, share, wide].map(proto::to_i64);

        let dtype = graph.ty(id).dtype;
        let types = Types {
            values: dtype,
            softmax: if self.rewrites("widen-softmax", id) { Dtype::F32 } else { dtype },
        };
        let q = self.scaled(&names[0], scale, dtype);
        let q = match grouping {
            Grouping::None => q,
            Grouping::Rows => self.reshape_to(&q, &[0, groups, rows, width]),
            Grouping::Axis => self.reshape_to(&q, &[0, groups, share, -1, width]),
        };
        let k = self.transpose(&names[1], &[0, 1, 3, 2]);
        let v = self.blanked(&names[2], visible.as_ref(), dtype);
        let out = self.product([&q, &k, &v], visible.as_ref(), grouping, types);
        let out = match grouping {
            Grouping::None => out,
            Grouping::Rows => {
                let queries = rows / share.max(1);
                self.reshape_to(&out, &[0, heads, queries, width])
            }
            Grouping::Axis => self.reshape_to(&out, &[0, heads, -1, width]),
        };
        Ok(match cut {
            Some(width) => self.slice(&out, 3, 0, width, false),
            None => out,
        })
    }

    /// A value of four axes with zeros behind its last.
    fn padded(&mut self, x: &str, missing: usize) -> String {
        if missing == 0 {
            return x.to_owned();
        }
        let pads = self.ints(&[0, 0, 0, 0, 0, 0, 0, proto::to_i64(missing)]);
        self.node("Pad", &[x, &pads], vec![])
    }

    /// `softmax(q k) v` over what is seen.
    fn product(
        &mut self,
        [q, k, v]: [&str; 3],
        visible: Option<&Visible>,
        grouping: Grouping,
        types: Types,
    ) -> String {
        let on_axis = grouping == Grouping::Axis;
        let lift = |emitter: &mut Self, x: &str, axis: i64| {
            if on_axis { emitter.unsqueeze(x, &[axis]) } else { x.to_owned() }
        };
        let (k, v) = (lift(self, k, 2), lift(self, v, 2));
        let scores = self.node("MatMul", &[q, &k], vec![]);
        let mut scores = self.cast(&scores, types.values, types.softmax);
        if let Some(Visible { scores: seen, values }) = visible {
            // A mask without rows of its own has rows and keys alone, which broadcast to any rank.
            let seen = if values.is_some() { lift(self, seen, 1) } else { seen.clone() };
            let never = self.float_of(types.softmax, f64::NEG_INFINITY);
            scores = self.node("Where", &[&seen, &scores, &never], vec![]);
        }
        let weights = self.node("Softmax", &[&scores], vec![proto::int("axis", -1)]);
        let weights = self.cast(&weights, types.softmax, types.values);
        self.node("MatMul", &[&weights, &v], vec![])
    }

    /// Queries times the scale: they are fewer than the scores.
    fn scaled(&mut self, q: &str, scale: f64, dtype: Dtype) -> String {
        if (scale - 1.0).abs() < f64::EPSILON {
            return q.to_owned();
        }
        let scale = self.float_of(dtype, scale);
        self.node("Mul", &[q, &scale], vec![])
    }

    /// Values with zeros where no query sees them, so that whatever lies there times probability 0 is 0.
    fn blanked(&mut self, v: &str, visible: Option<&Visible>, dtype: Dtype) -> String {
        let Some(seen) = visible.and_then(|visible| visible.values.as_ref()) else { return v.to_owned() };
        let zero = self.float_of(dtype, 0.0);
        self.node("Where", &[seen, v, &zero], vec![])
    }

    fn reshape_to(&mut self, x: &str, sizes: &[i64]) -> String {
        let sizes = self.ints(sizes);
        self.node("Reshape", &[x, &sizes], vec![])
    }
}
