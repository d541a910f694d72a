//! Linear maps and norms. Weights stay stored `[out, in]`, as checkpoints have them.

use super::emit::Emitter;
use super::{ExportError, proto};

impl Emitter<'_> {
    /// `[.., K], [N, K], ([N]) -> [.., N]`. Not `Gemm` with `transB`: on one row, which is what decoding has, tract and
    /// ONNX Runtime take half as long again for it, and it takes no leading axes.
    pub(super) fn linear(&mut self, args: &[&str]) -> Result<String, ExportError> {
        let weight = self.transposed(args[1])?;
        let product = self.node("MatMul", &[args[0], &weight], vec![]);
        Ok(match args.get(2) {
            Some(bias) => self.node("Add", &[&product, bias], vec![]),
            None => product,
        })
    }

    /// `[.., D], [D] -> [.., D]`, statistics in f32.
    #[expect(clippy::cast_possible_truncation, reason = "f32 is the target's precision")]
    pub(super) fn rms_norm(&mut self, args: &[&str], eps: f64) -> String {
        let attributes =
            vec![proto::int("axis", -1), proto::float("epsilon", eps as f32), proto::int("stash_type", 1)];
        self.node("RMSNormalization", args, attributes)
    }
}
