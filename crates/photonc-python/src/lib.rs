//! The native half of the Python package `photonc`: handles and arrays. What users see of it, with its words and types, is in
//! `python/photonc`. Owns what crosses between the two languages; everything else is `photonc::api`.

mod array;
mod checkpoint;
mod convert;
mod dlpack;
mod errors;
mod files;
mod model;
mod ready;
mod trajectory;

use pyo3::prelude::{Bound, PyModule, PyModuleMethods, PyResult, pyfunction, pymodule};
use pyo3::wrap_pyfunction;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command `photonc` with these arguments, the program's name first; its exit code.
#[pyfunction]
fn main(arguments: Vec<OsString>) -> u8 {
    let ended = photonc::cli::main(arguments);
    let code = (0..=u8::MAX).find(|code| ExitCode::from(*code) == ended);
    code.expect("invariant: an exit code is a byte")
}

#[pymodule]
fn _photonc(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<array::Array>()?;
    module.add_class::<model::Model>()?;
    module.add_class::<model::Stream>()?;
    module.add_class::<trajectory::Trajectory>()?;
    errors::add(module)?;
    module.add_function(wrap_pyfunction!(main, module)?)?;
    module.add_function(wrap_pyfunction!(checkpoint::write_tensors, module)?)?;
    module.add_function(wrap_pyfunction!(files::export, module)?)?;
    module.add_function(wrap_pyfunction!(files::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(files::verify, module)?)?;
    module.add_function(wrap_pyfunction!(files::drift, module)?)?;
    module.add_function(wrap_pyfunction!(files::diff, module)?)?;
    Ok(())
}
