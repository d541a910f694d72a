//! What a caller chooses of a compilation. Owns the defaults.

use crate::passes::opt_level::OptLevel;
use crate::passes::pipeline::Observer;
use crate::passes::quantize_weights::Choice;
use photonc_graph::ir::dtype::Dtype;
use std::num::NonZeroUsize;

/// How to optimise, in which precision, and who is told.
pub struct PassOptions<'o> {
    /// Which optional passes run.
    pub level: OptLevel,
    /// Type of activations, state and weights: f32, f16 or bf16.
    pub precision: Dtype,
    /// Stacks whose weights are kept in few bits.
    pub quantized: Vec<Choice>,
    /// Ends optional passes after so many rewrites, over all graphs: to find the one that breaks something.
    pub stop_after: Option<usize>,
    /// Pads the heads of window attention to a multiple of this, for kernels that want it.
    pub pad_heads: Option<NonZeroUsize>,
    /// Told of every pass.
    pub observer: Option<&'o mut dyn Observer>,
}

impl PassOptions<'_> {
    /// The passes of `level`, all of them, in f32, silently.
    #[must_use]
    pub fn at(level: OptLevel) -> Self {
        PassOptions {
            level,
            precision: Dtype::F32,
            quantized: Vec::new(),
            stop_after: None,
            pad_heads: None,
            observer: None,
        }
    }
}

impl Default for PassOptions<'_> {
    fn default() -> Self {
        PassOptions::at(OptLevel::default())
    }
}
