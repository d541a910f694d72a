//! What a caller asks an export for. Owns the defaults; what they mean is decided where they are used.

use super::target::Target;
use crate::ir::dtype::Dtype;
use crate::model::checkpoint::Unexpected;
use crate::model::dialect::DialectChoice;
use crate::passes::choose_protocol::Protocol;
use crate::passes::opt_level::OptLevel;
use crate::passes::quantize_weights::Choice;
use std::path::PathBuf;

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The checkpoint: a directory or a safetensors file.
    pub model: PathBuf,
    /// Directory of the bundle.
    pub out: PathBuf,
    /// How the checkpoint names things.
    pub dialect: DialectChoice,
    /// What happens to tensors that the model has not.
    pub unexpected: Unexpected,
    /// Protocols to compile for; by default every one the model defines.
    pub protocols: Option<Vec<Protocol>>,
    /// Longest sequence in tokens, prompt included; by default what the checkpoint states.
    pub max_tokens: Option<usize>,
    /// How much [`super::export`] optimises; [`super::export_with`] takes its own passes.
    pub opt_level: OptLevel,
    /// Type of weights, activations and state: f32, f16 or bf16.
    pub precision: Dtype,
    /// Stacks whose weights are kept in few bits.
    pub quantized: Vec<Choice>,
    /// Whom ONNX models are written for; by default every ONNX runtime, but nobody where that takes a copy of the weights in a
    /// wider type.
    pub targets: Option<Vec<Target>>,
    /// Takes NaN and infinite weights as they are.
    pub allow_nonfinite: bool,
    /// Replaces a bundle that stands at `out`.
    pub force: bool,
}

impl ExportOptions {
    /// The whole of `model` as a new bundle at `out`: every protocol it defines, the default level, finite weights.
    #[must_use]
    pub fn new(model: impl Into<PathBuf>, out: impl Into<PathBuf>) -> Self {
        ExportOptions {
            model: model.into(),
            out: out.into(),
            dialect: DialectChoice::Recognise,
            unexpected: Unexpected::Refused,
            protocols: None,
            max_tokens: None,
            opt_level: OptLevel::default(),
            precision: Dtype::F32,
            quantized: Vec::new(),
            targets: None,
            allow_nonfinite: false,
            force: false,
        }
    }
}
