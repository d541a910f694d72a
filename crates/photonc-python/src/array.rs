//! Arrays of 32-bit floats that NumPy, torch and `memoryview` read without a copy. Owns their memory, which is a `bytearray`: the
//! stable interface of Python 3.10 has no other way to lend a buffer.

use crate::dlpack;
use crate::errors::Raised;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::{Bound, Py, PyAny, PyAnyMethods, PyResult, Python, pyclass, pymethods};
use pyo3::types::{PyByteArray, PyByteArrayMethods, PyDict, PyDictMethods, PyTuple};

/// An array of 32-bit floats, row-major, on the CPU.
///
/// `numpy.asarray(array)`, `numpy.from_dlpack(array)` and `torch.from_dlpack(array)` share its memory;
/// `memoryview(array)` does from Python 3.12 on, and `array.memoryview()` everywhere.
#[pyclass(frozen, module = "photonc")]
pub struct Array {
    /// A view of the `bytearray` in the array's shape; while it lives the bytes do not move.
    view: Py<PyAny>,
    bytes: Py<PyByteArray>,
    shape: Vec<usize>,
}

impl Array {
    /// An array of these elements, rounded to 32 bits; there are as many as the shape says, and at least one.
    pub fn new(py: Python<'_>, values: &[f64], shape: Vec<usize>) -> Result<Self, Raised> {
        let bytes = PyByteArray::new_with(py, values.len() * 4, |bytes| {
            for (four, value) in bytes.chunks_exact_mut(4).zip(values) {
                #[expect(clippy::cast_possible_truncation, reason = "the array holds f32")]
                four.copy_from_slice(&(*value as f32).to_ne_bytes());
            }
            Ok(())
        })?;
        let view = py.import("builtins")?.getattr("memoryview")?.call1((&bytes,))?;
        let view = view.call_method1("cast", ("f", PyTuple::new(py, &shape)?))?;
        Ok(Array { view: view.unbind(), bytes: bytes.unbind(), shape })
    }

    fn address(&self, py: Python<'_>) -> usize {
        self.bytes.bind(py).data() as usize
    }
}

#[pymethods]
impl Array {
    /// Sizes of its axes.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// `"float32"`.
    #[getter]
    fn dtype(&self) -> &'static str {
        "float32"
    }

    /// A view of its memory, of format `f` and its shape.
    fn memoryview(&self, py: Python<'_>) -> Py<PyAny> {
        self.view.clone_ref(py)
    }

    /// Its elements as nested lists of floats.
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view.bind(py).call_method0("tolist")
    }

    fn __len__(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    fn __repr__(&self) -> String {
        format!("Array(shape={:?}, dtype=float32)", self.shape)
    }

    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        let order = if cfg!(target_endian = "little") { "<f4" } else { ">f4" };
        interface.set_item("shape", PyTuple::new(py, &self.shape)?)?;
        interface.set_item("typestr", order)?;
        interface.set_item("data", (self.address(py), false))?;
        interface.set_item("version", 3)?;
        Ok(interface)
    }

    /// A DLPack capsule of its memory, which it keeps alive.
    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // The form before versions is what every reader of versions takes too.
        let _any = max_version;
        if stream.is_some_and(|stream| !stream.is_none()) {
            return Err(PyTypeError::new_err(
                "the array is on the CPU, which has no streams: stream must be None",
            ));
        }
        if dl_device.is_some_and(|device| device != dlpack::CPU) || copy == Some(true) {
            return Err(PyBufferError::new_err("the array is lent where it is: on the CPU, without a copy"));
        }
        dlpack::lend(py, self.address(py), &self.shape, self.view.clone_ref(py))
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::CPU
    }
}
