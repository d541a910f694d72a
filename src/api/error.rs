//! Errors as embedding programs tell them apart: by whose they are. Owns the kinds; the words are those of the part that failed.

use crate::bundle::BundleError;
use crate::export::ExportError;
use crate::inspect::source::SourceError;
use crate::model::checkpoint::CheckpointError;
use crate::onnx::BundleModelError;
use crate::passes::compile::CompileError;
use crate::runtime::backend::BackendError;
use crate::runtime::error::RuntimeError;
use crate::runtime::schedule::Refusal;
use crate::runtime::verify::CompareError;
use crate::text::TextError;

/// Whose an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The checkpoint's or the bundle's: it cannot be read, or is not what it says.
    Checkpoint,
    /// The caller's: what was asked for cannot be met.
    Refused,
    /// The backend's: a library, a device or a graph failed.
    Backend,
    /// Nobody's: it was cancelled, or the model was closed.
    Cancelled,
    /// Ours.
    Internal,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose it is.
    pub kind: ErrorKind,
    /// What was found, what was expected, what to do.
    pub message: String,
}

impl Error {
    /// An error of a kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// What was asked for cannot be met.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Refused, message)
    }

    /// The backend failed.
    #[must_use]
    pub fn backend(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Backend, message)
    }

    /// It was cancelled.
    #[must_use]
    pub fn cancelled(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Cancelled, message)
    }

    /// We are to blame.
    #[must_use]
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Error::new(ErrorKind::Internal, format!("{message}; this is a bug of photonc"))
    }
}

macro_rules! of_kind {
    ($($error:ty => $kind:ident,)*) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Error::new(ErrorKind::$kind, error.to_string())
            }
        }
    )*};
}

of_kind! {
    BundleError => Checkpoint,
    CheckpointError => Checkpoint,
    SourceError => Checkpoint,
    BackendError => Backend,
}

impl From<CompileError> for Error {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::UnknownStack { .. } => Error::refused(error.to_string()),
            error => Error::new(ErrorKind::Checkpoint, error.to_string()),
        }
    }
}

impl From<ExportError> for Error {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Checkpoint(error) => error.into(),
            ExportError::Compile(error) => error.into(),
            ExportError::Bundle(error @ (BundleError::Exists { .. } | BundleError::NotABundle { .. })) => {
                Error::refused(error.to_string())
            }
            ExportError::Bundle(error) => error.into(),
            ExportError::TooLarge { .. } | ExportError::Measure(_) => {
                Error::new(ErrorKind::Checkpoint, error.to_string())
            }
            ExportError::Refused(_) | ExportError::Undefined { .. } | ExportError::MaxTokens { .. } => {
                Error::refused(error.to_string())
            }
            ExportError::Verify(_) | ExportError::Onnx(_) | ExportError::Check(_) => Error::internal(error),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Closed => Error::cancelled("the model is closed"),
            refusal => Error::refused(refusal.to_string()),
        }
    }
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Bundle(error) => error.into(),
            RuntimeError::Refused(refusal) => refusal.into(),
            RuntimeError::Prompt(_)
            | RuntimeError::Sampling(_)
            | RuntimeError::Empty { .. }
            | RuntimeError::ShortText { .. }
            | RuntimeError::NoProtocol { .. }
            | RuntimeError::GraphSamplerOnly { .. }
            | RuntimeError::NotInTrajectory { .. } => Error::refused(error.to_string()),
            RuntimeError::Signature { .. } | RuntimeError::NotADistribution { .. } => {
                Error::new(ErrorKind::Checkpoint, error.to_string())
            }
            RuntimeError::Backend(error) => error.into(),
            RuntimeError::Lost { .. } => Error::backend(error.to_string()),
        }
    }
}

impl From<TextError> for Error {
    fn from(error: TextError) -> Self {
        let kind = match &error {
            TextError::Bundle(_) | TextError::File { .. } => ErrorKind::Checkpoint,
            TextError::Absent { .. }
            | TextError::Encode { .. }
            | TextError::Decode { .. }
            | TextError::NoDate { .. }
            | TextError::Refused { .. } => ErrorKind::Refused,
        };
        Error::new(kind, error.to_string())
    }
}

impl From<CompareError> for Error {
    fn from(error: CompareError) -> Self {
        match error {
            CompareError::Candidate(error) => error.into(),
            error => Error::new(ErrorKind::Checkpoint, error.to_string()),
        }
    }
}

impl From<BundleModelError> for Error {
    fn from(error: BundleModelError) -> Self {
        match error {
            BundleModelError::Bundle(error) => error.into(),
            BundleModelError::Verify(error) => Error::new(ErrorKind::Checkpoint, error.to_string()),
            BundleModelError::Export(error) => Error::backend(error.to_string()),
            narrow @ BundleModelError::Narrow { .. } => Error::backend(narrow.to_string()),
        }
    }
}
