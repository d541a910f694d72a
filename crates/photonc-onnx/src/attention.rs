//! Attention from matrix products. Owns grouped heads: keys and values are never repeated in memory. A fixed number
//! of queries folds a group's heads into the rows of one product; a symbolic one keeps the group as an axis of its own.

use super::ExportError;
use super::emit::Emitter;
use super::mask::{Extent, Visible};
use super::proto;
use super::rules::{HEAD_MULTIPLE, PAD_HEADS};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::attr::{Mask, Reach};
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;

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
    /// `[B, H, n, d], [B, G, m, d], [B, G, m, e], (i64 [B]), ([H]) -> [B, H, n, e]`.
    pub(super) fn attention(
        &mut self,
        id: NodeId,
        operands: &[NodeId],
        scale: f64,
        (mask, reach): (Mask, Reach),
    ) -> Result<String, ExportError> {
        let graph = self.graph;
        let mut names: Vec<String> = operands.iter().map(|operand| self.values[operand].clone()).collect();
        let shapes = [0, 1, 2].map(|slot: usize| &graph.ty(operands[slot]).shape.0);
        let size = |dim: &Dim| dim.as_const().unwrap_or(1);
        let (heads, groups) = (size(&shapes[0][1]), size(&shapes[1][1]));
        let (width, value_width) = (size(&shapes[0][3]), size(&shapes[2][3]));
        let (queries, keys) = (shapes[0][2].clone(), shapes[1][2].clone());
        let share = heads / groups.max(1);
        let grouping = match (share, queries.as_const()) {
            (1, _) => Grouping::None,
            (_, Some(_)) => Grouping::Rows,
            (_, None) => Grouping::Axis,
        };
        let repeats = if grouping == Grouping::Rows { share } else { 1 };
        let rows = queries.as_const().map_or(0, |queries| proto::to_i64(queries * share));
        let counted = mask != Mask::Causal;
        let lengths = names.get(3).filter(|_| counted).cloned();
        let sinks = names.get(3 + usize::from(counted)).cloned();
        let extent = Extent { queries, keys, repeats };
        let visible = self.visible((mask, reach), &extent, lengths.as_deref())?;
        let pad = self.rewrites(PAD_HEADS, id);
        let padded = |width: usize| if pad { width.next_multiple_of(HEAD_MULTIPLE) } else { width };
        let (wide, value_wide) = (padded(width), padded(value_width));
        for (name, missing) in names.iter_mut().zip([wide - width, wide - width, value_wide - value_width]) {
            *name = self.padded(name, missing);
        }
        let cut = (value_wide > value_width).then_some(value_width);
        let [heads, groups, share, width, value_wide] =
            [heads, groups, share, wide, value_wide].map(proto::to_i64);

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
        let sinks = sinks.map(|sinks| self.sink_column(&sinks, grouping, [heads, groups, share, rows]));
        let out = self.product([&q, &k, &v], visible.as_ref(), sinks.as_deref(), (grouping, types));
        let out = match grouping {
            Grouping::None => out,
            Grouping::Rows => {
                let queries = rows / share.max(1);
                self.reshape_to(&out, &[0, heads, queries, value_wide])
            }
            Grouping::Axis => self.reshape_to(&out, &[0, heads, -1, value_wide]),
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

    /// `[H]` as a column that broadcasts against the scores.
    fn sink_column(&mut self, sinks: &str, grouping: Grouping, sizes: [i64; 4]) -> String {
        let [heads, groups, share, rows] = sizes;
        match grouping {
            Grouping::None => self.reshape_to(sinks, &[1, heads, 1, 1]),
            Grouping::Rows => {
                let column = self.reshape_to(sinks, &[1, groups, share, 1]);
                let sizes = self.ints(&[1, groups, share, rows / share.max(1)]);
                let spread = self.node("Expand", &[&column, &sizes], vec![]);
                self.reshape_to(&spread, &[1, groups, rows, 1])
            }
            Grouping::Axis => self.reshape_to(sinks, &[1, groups, share, 1, 1]),
        }
    }

    /// `softmax(q k) v` over what is seen; a column of sinks joins the softmax.
    fn product(
        &mut self,
        [q, k, v]: [&str; 3],
        visible: Option<&Visible>,
        sinks: Option<&str>,
        (grouping, types): (Grouping, Types),
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
        if let Some(sinks) = sinks {
            // A column of the scores in the sinks' place gives it the axes that only a run knows.
            let first = self.slice(&scores, if on_axis { 4 } else { 3 }, 0, 1, false);
            let always = self.bool_tensor(&[1], &[true]);
            let sinks = self.cast(sinks, types.values, types.softmax);
            let column = self.node("Where", &[&always, &sinks, &first], vec![]);
            scores = self.node("Concat", &[&column, &scores], vec![proto::int("axis", -1)]);
        }
        let mut weights = self.node("Softmax", &[&scores], vec![proto::int("axis", -1)]);
        if sinks.is_some() {
            let (start, end) = (self.ints(&[1]), self.ints(&[i64::MAX]));
            let axis = self.ints(&[-1]);
            weights = self.node("Slice", &[&weights, &start, &end, &axis], vec![]);
        }
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
