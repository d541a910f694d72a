//! Linear maps and norms. Weights stay stored `[out, in]`, as checkpoints have them.

use super::emit::Emitter;
use super::{ExportError, proto};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::dtype::Dtype;

impl Emitter<'_> {
    /// `[.., K], [N, K], ([N] or [.., N]) -> [.., N]`. `Gemm` takes two axes alone; elsewhere the weight is turned once for
    /// all its users.
    pub(super) fn linear(&mut self, id: NodeId, args: &[&str]) -> Result<String, ExportError> {
        if self.graph.ty(id).shape.rank() == 2 && !self.rewrites("spell-out-linear", id) {
            return Ok(self.node("Gemm", args, vec![proto::int("transB", 1)]));
        }
        let weight = self.transposed(args[1])?;
        let product = self.node("MatMul", &[args[0], &weight], vec![]);
        Ok(match args.get(2) {
            Some(addend) => self.node("Add", &[&product, addend], vec![]),
            None => product,
        })
    }

    /// `[.., D], [D] -> [.., D]`, statistics in f32.
    #[expect(clippy::cast_possible_truncation, reason = "statistics are f32")]
    pub(super) fn rms_norm(&mut self, id: NodeId, args: &[&str], eps: f64) -> Result<String, ExportError> {
        let attributes =
            vec![proto::int("axis", -1), proto::float("epsilon", eps as f32), proto::int("stash_type", 1)];
        if !self.rewrites("widen-norms", id) {
            return Ok(self.node("RMSNormalization", args, attributes));
        }
        let dtype = self.graph.ty(id).dtype;
        let x = self.cast_once(args[0], dtype, Dtype::F32)?;
        let weight = self.cast_once(args[1], dtype, Dtype::F32)?;
        let normed = self.node("RMSNormalization", &[&x, &weight], attributes);
        Ok(self.cast(&normed, Dtype::F32, dtype))
    }
}
