//! Errors of the library as failures of the command line. Owns whom each blames; says nothing of how they are shown.

use super::Failure;
use crate::api::{Error, ErrorKind};
use crate::bundle::BundleError;
use crate::export::ExportError;
use crate::export::engines::EngineError;
use crate::inspect::source::SourceError;
use crate::model::checkpoint::CheckpointError;
use crate::model::synth::SynthError;
use crate::passes::PassError;
use crate::passes::compile::CompileError;
use crate::passes::pipeline::Fault;
use crate::runtime::backend::BackendError;
use crate::runtime::error::RuntimeError;
use crate::runtime::schedule::Refusal;

/// What to do about a folder that is in its place, but may not last.
const NOT_DURABLE: &str = "look for faults of the device, and run the command again";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Checkpoint => Failure::input("the bundle cannot be used", &error),
            ErrorKind::Refused => Failure::usage(&error),
            ErrorKind::Backend => Failure::input("the backend cannot run this", &error),
            ErrorKind::Cancelled => Failure::input("the work was cancelled", &error),
            ErrorKind::Internal => Failure::bug(&error),
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Checkpoint(error) => error.into(),
            SourceError::Bundle(error) => error.into(),
            SourceError::Compile(error) => error.into(),
            SourceError::Config(_) | SourceError::Differs { .. } => {
                Failure::input("the bundle cannot be used", &error)
            }
            SourceError::Dialect(error) => Failure::bug(&error),
        }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        let help = match &error {
            CheckpointError::NoTensor { .. } => return Failure::bug(&error),
            CheckpointError::NotCarried { .. } => {
                "the bundle would lack the file without a word; put it right and export again"
            }
            CheckpointError::Unreadable { .. } | CheckpointError::NotFound { .. } => {
                "a checkpoint is a directory with config.json and safetensors weights, or the weights file itself"
            }
            CheckpointError::Header { .. } | CheckpointError::Index { .. } | CheckpointError::Read { .. } => {
                "copy or download the weights again; photonc trusts no byte that the header does not account for"
            }
            CheckpointError::Dialect { .. } => {
                "name the layout with --dialect, or describe it with --weight-map (docs/dialects.md)"
            }
            CheckpointError::Config(_) => "correct config.json; every contradiction is listed above",
            CheckpointError::Mismatch { .. } => {
                "correct config.json or the weights, or name another layout with --dialect or --weight-map"
            }
            CheckpointError::Packed { .. } => {
                "store the weights as f32, f16 or bf16; --quant quantizes them again"
            }
            CheckpointError::NonFinite { .. } => {
                "mend the checkpoint, or pass --allow-nonfinite to export it as it is"
            }
        };
        Failure::input("the checkpoint cannot be used", &error).help(help)
    }
}

impl From<SynthError> for Failure {
    fn from(error: SynthError) -> Self {
        let failure = Failure::input("no checkpoint was written", &error);
        match error {
            SynthError::Config { .. } => Failure::usage(&error),
            SynthError::Dtype { .. } => Failure::bug(&error),
            SynthError::Exists { .. } => {
                failure.help("pass --force to replace a checkpoint, or name another directory")
            }
            SynthError::NotDurable { .. } => {
                Failure::input("the checkpoint may not last", &error).help(NOT_DURABLE)
            }
            SynthError::Write { .. } => {
                failure.help("make room or name another directory; nothing was left behind")
            }
        }
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        if let CompileError::Pipeline(broken) = &error
            && let Fault::Failed(impossible @ PassError::Impossible { .. }) = &broken.fault
        {
            return Failure::input("the model does not compile", impossible);
        }
        match error {
            CompileError::UnknownStack { .. } => Failure::usage(&error),
            CompileError::TooManyNodes { .. } => Failure::input("the model does not compile", &error),
            error => Failure::bug(&error),
        }
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::NotDurable { .. } => {
                Failure::input("what was written may not last", &error).help(NOT_DURABLE)
            }
            error => Failure::input("the bundle cannot be used", &error),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Checkpoint(error) => error.into(),
            ExportError::Compile(error) => error.into(),
            ExportError::Bundle(error @ BundleError::NotDurable { .. }) => error.into(),
            ExportError::Bundle(error) => {
                Failure { title: "no bundle was written".to_owned(), ..error.into() }
            }
            ExportError::TooLarge { .. } => Failure::input("the checkpoint cannot be exported", &error),
            ExportError::Refused(refused) => Failure::usage(&refused),
            ExportError::Undefined { .. } | ExportError::MaxTokens { .. } => {
                Failure::input("no bundle was written", &error)
            }
            ExportError::Measure(_) => Failure::input("the checkpoint cannot be exported", &error),
            ExportError::Verify(_) | ExportError::Onnx(_) | ExportError::Check(_) => Failure::bug(&error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Bundle(error @ BundleError::NotDurable { .. }) => error.into(),
            EngineError::Bundle(error) => {
                Failure { title: "no engines were written".to_owned(), ..error.into() }
            }
            error @ (EngineError::NoModels { .. } | EngineError::Model(_)) => {
                Failure::input("the bundle cannot be used", &error)
            }
            EngineError::Failed(failed) => Failure::input("no engines were written", &failed),
        }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let title = match &error {
            RuntimeError::Bundle(_) | RuntimeError::Signature { .. } => "the bundle cannot be used",
            RuntimeError::Prompt(_) | RuntimeError::Refused(Refusal::Prompt(_) | Refusal::TooLong { .. }) => {
                "the prompt cannot be used"
            }
            RuntimeError::ShortText { .. } => "the text cannot be used",
            RuntimeError::Sampling(_)
            | RuntimeError::Refused(
                Refusal::Sampling(_) | Refusal::Empty { .. } | Refusal::Logprobs { .. },
            )
            | RuntimeError::Empty { .. }
            | RuntimeError::GraphSamplerOnly { .. } => {
                return Failure::usage(&error);
            }
            RuntimeError::NoProtocol { .. } => "the bundle lacks the protocol",
            RuntimeError::NotADistribution { .. } => "the model gave no distribution",
            RuntimeError::Backend(
                BackendError::OutOfMemory { .. }
                | BackendError::Unavailable { .. }
                | BackendError::NoGraph { .. }
                | BackendError::Load { .. },
            ) => "the backend cannot run this",
            // Graphs are valid and inputs were checked: what remains are the weights, and what no test has seen yet.
            RuntimeError::Backend(BackendError::Run { .. }) => {
                return Failure::input("the model cannot be run", &error)
                    .help("check the weights with `photonc verify`; if they are sound, please report this");
            }
            RuntimeError::Refused(_) => "the request cannot be met",
            RuntimeError::Lost { .. } => "the backend cannot run this",
            RuntimeError::Backend(_) | RuntimeError::NotInTrajectory { .. } => {
                return Failure::bug(&error);
            }
        };
        Failure::input(title, &error)
    }
}
