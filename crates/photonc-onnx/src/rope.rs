//! Rotary position embedding: tables of cosines and sines, once for all users of the same positions.

use super::ExportError;
use super::emit::{Emitter, Rotation, Shared};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::attr::Real;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::tensor::Literal;

impl Emitter<'_> {
    /// `[B, H, n, d], i64 [n] or [B, n] -> [B, H, n, d]`.
    pub(super) fn rope(
        &mut self,
        id: NodeId,
        operands: &[NodeId],
        theta: Real,
    ) -> Result<String, ExportError> {
        let width = self.graph.ty(operands[0]).shape.0[3].as_const().unwrap_or(2);
        let factor = self.scaled.get(&id).map_or(1.0, |scale| scale.get().sqrt()).into();
        let dtype = self.graph.ty(id).dtype;
        let rotation = Rotation { theta, width, factor, dtype };
        let cos = self.table("Cos", operands, rotation)?;
        let sin = self.table("Sin", operands, rotation)?;
        let x = self.values[&operands[0]].clone();
        Ok(self.node("RotaryEmbedding", &[&x, &cos, &sin], vec![]))
    }

    /// `[B, n, d / 2]` of the operand's type, which `RotaryEmbedding` wants in full without position ids.
    fn table(
        &mut self,
        op: &'static str,
        operands: &[NodeId],
        rotation: Rotation,
    ) -> Result<String, ExportError> {
        let graph = self.graph;
        let [x, positions] = [operands[0], operands[1]];
        let rows = graph.ty(x).shape.0[0].clone();
        let name = self.values[&positions].clone();
        let per_row = graph.ty(positions).shape.rank() == 2;
        let key = Shared::Table(op, name.clone(), rotation, rows.clone());
        self.shared(key, |emitter| {
            let table = match graph.op(positions) {
                Op::Const { value } => emitter.constant_table(op, value, rotation),
                _ => emitter.computed_table(op, &name, rotation)?,
            };
            if per_row || rows.as_const() == Some(1) {
                return Ok(table);
            }
            emitter.expand_rows(&table, &rows)
        })
    }

    /// `[1, n, d / 2]` as `[rows, n, d / 2]`.
    fn expand_rows(&mut self, table: &str, rows: &Dim) -> Result<String, ExportError> {
        let shape = self.shared(Shared::RowShape(rows.clone()), |emitter| {
            let (rows, ones) = (emitter.size(rows)?, emitter.ints(&[1, 1]));
            Ok(emitter.concat(&[&rows, &ones], 0))
        })?;
        Ok(self.node("Expand", &[table, &shape], vec![]))
    }

    /// Computed here in binary64: `[1, n, d / 2]`, or `[B, n, d / 2]` of positions per row.
    fn constant_table(&mut self, op: &str, positions: &Literal, rotation: Rotation) -> String {
        let frequencies = frequencies(rotation);
        let factor = rotation.factor.get();
        let mut shape = positions.shape().to_vec();
        if shape.len() == 1 {
            shape.insert(0, 1);
        }
        shape.push(frequencies.len());
        let tensor = positions.to_tensor();
        let mut values = Vec::new();
        for position in tensor.as_ints().unwrap_or_default() {
            #[expect(clippy::cast_precision_loss, reason = "positions are far below 2^53")]
            let position = *position as f64;
            let angles = frequencies.iter().map(|frequency| position * frequency);
            values.extend(angles.map(|angle| factor * if op == "Cos" { angle.cos() } else { angle.sin() }));
        }
        self.float_tensor(rotation.dtype, &shape, &values)
    }

    /// From positions known at run time: `[1, n, d / 2]`, or `[B, n, d / 2]` of positions per row.
    fn computed_table(
        &mut self,
        op: &'static str,
        positions: &str,
        rotation: Rotation,
    ) -> Result<String, ExportError> {
        let plain = Rotation { factor: 1.0.into(), dtype: Dtype::F32, ..rotation };
        let key = Shared::Table("Angle", positions.to_owned(), plain, Dim::from(1));
        let angle = self.shared(key, |emitter| {
            let positions = emitter.cast(positions, Dtype::I64, Dtype::F32);
            let column = emitter.unsqueeze(&positions, &[-1]);
            let frequencies = frequencies(rotation);
            let row = emitter.float_tensor(Dtype::F32, &[1, 1, frequencies.len()], &frequencies);
            Ok(emitter.node("Mul", &[&column, &row], vec![]))
        })?;
        let table = self.node(op, &[&angle], vec![]);
        if rotation.factor == plain.factor {
            return Ok(self.cast(&table, Dtype::F32, rotation.dtype));
        }
        let factor = self.float(rotation.factor.get());
        let table = self.node("Mul", &[&table, &factor], vec![]);
        Ok(self.cast(&table, Dtype::F32, rotation.dtype))
    }
}

/// `theta^(-2t/d)` for `t` below `d / 2`.
#[expect(clippy::cast_precision_loss, reason = "head widths are far below 2^53")]
fn frequencies(rotation: Rotation) -> Vec<f64> {
    let Rotation { theta, width, .. } = rotation;
    (0..width / 2).map(|t| theta.get().powf(-2.0 * t as f64 / width as f64)).collect()
}
