//! Linear maps and norms. Weights stay stored `[out, in]`, as checkpoints have them.

use super::emit::Emitter;
use super::{ExportError, proto};

impl Emitter<'_> {
    /// `[.., K], [N, K], ([N] or [.., N]) -> [.., N]` of a first operand with `rank` axes. `Gemm` takes two axes alone;
    /// with more, the weight is turned once for all its users.
    pub(super) fn linear(&mut self, args: &[&str], rank: usize) -> Result<String, ExportError> {
        if rank == 2 {
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
    #[expect(clippy::cast_possible_truncation, reason = "f32 is the target's precision")]
    pub(super) fn rms_norm(&mut self, args: &[&str], eps: f64) -> String {
        let attributes =
            vec![proto::int("axis", -1), proto::float("epsilon", eps as f32), proto::int("stash_type", 1)];
        self.node("RMSNormalization", args, attributes)
    }
}
