//! Errors as exceptions. Owns which kind of error is which exception.

use photonc::api::{Error, ErrorKind};
use pyo3::exceptions::PyException;
use pyo3::prelude::{Bound, PyErr, PyModule, PyModuleMethods, PyResult};
use pyo3::{create_exception, exceptions};

create_exception!(photonc, PhotoncError, PyException, "What photonc could not do, and why.");
create_exception!(
    photonc,
    CheckpointError,
    PhotoncError,
    "A checkpoint or a bundle cannot be read, or is not what it says."
);
create_exception!(photonc, RefusedError, PhotoncError, "What was asked for cannot be met.");
create_exception!(photonc, BackendError, PhotoncError, "A library, a device or a graph failed.");
create_exception!(photonc, Cancelled, PhotoncError, "The work was cancelled, or the model was closed.");

/// Adds the exceptions to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("Error", py.get_type::<PhotoncError>())?;
    module.add("CheckpointError", py.get_type::<CheckpointError>())?;
    module.add("RefusedError", py.get_type::<RefusedError>())?;
    module.add("BackendError", py.get_type::<BackendError>())?;
    module.add("Cancelled", py.get_type::<Cancelled>())
}

/// An error on its way to Python; exceptions that Python raised itself pass through.
pub struct Raised(pub PyErr);

impl From<Error> for Raised {
    fn from(error: Error) -> Self {
        let Error { kind, message } = error;
        Raised(match kind {
            ErrorKind::Checkpoint => CheckpointError::new_err(message),
            ErrorKind::Refused => RefusedError::new_err(message),
            ErrorKind::Backend => BackendError::new_err(message),
            ErrorKind::Cancelled => Cancelled::new_err(message),
            ErrorKind::Internal => PhotoncError::new_err(message),
        })
    }
}

impl From<PyErr> for Raised {
    fn from(error: PyErr) -> Self {
        Raised(error)
    }
}

impl From<Raised> for PyErr {
    fn from(raised: Raised) -> Self {
        raised.0
    }
}

/// The exception of an argument that is none.
pub fn value(message: impl Into<String>) -> Raised {
    Raised(exceptions::PyValueError::new_err(message.into()))
}
