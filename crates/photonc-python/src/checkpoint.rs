//! Weights from memory to a safetensors file: tensors of any library that speaks DLPack.

use crate::dlpack::Taken;
use crate::errors::{Raised, value};
use pyo3::prelude::{Bound, PyAny, PyResult, Python, pyfunction};
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::path::PathBuf;

impl View for &Taken {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes tensors with their names as a safetensors file; one after the other, so that no second copy of all is made.
#[pyfunction]
pub fn write_tensors(
    py: Python<'_>,
    path: PathBuf,
    tensors: Vec<(String, Bound<'_, PyAny>)>,
) -> PyResult<()> {
    let mut taken = Vec::new();
    for (name, tensor) in &tensors {
        taken.push((name.clone(), Taken::of(name, tensor)?));
    }
    let written = py.detach(|| {
        let views = taken.iter().map(|(name, tensor)| (name, tensor));
        safetensors::serialize_to_file(views, None, &path).map_err(|error| error.to_string())
    });
    Ok(written.map_err(|message| -> Raised { value(format!("{}: {message}", path.display())) })?)
}
