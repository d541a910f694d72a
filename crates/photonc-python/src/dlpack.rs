//! DLPack: arrays lent to other libraries, and theirs read. Owns the layout of its structures (dlpack.h, version 0, which every
//! reader of later versions takes) and who frees what.

use crate::errors::{Raised, value};
use pyo3::prelude::{Bound, Py, PyAny, PyAnyMethods, PyResult, Python};
use pyo3::{PyTypeInfo, ffi};
use safetensors::Dtype;
use std::ffi::{CStr, c_void};

/// Device type and number of the host.
pub const CPU: (i32, i32) = (1, 0);

const NAME: &CStr = c"dltensor";
const USED: &CStr = c"used_dltensor";

#[repr(C)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// What a lent array keeps alive.
struct Lent {
    shape: Vec<i64>,
    /// Held, never read.
    _owner: Py<PyAny>,
}

/// A capsule of the 32-bit floats at an address, in this shape, which `owner` keeps alive.
pub fn lend<'py>(
    py: Python<'py>,
    address: usize,
    shape: &[usize],
    owner: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let shape = shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
    let mut lent = Box::new(Lent { shape, _owner: owner });
    let tensor = Tensor {
        data: address as *mut c_void,
        device: Device { kind: CPU.0, id: CPU.1 },
        ndim: i32::try_from(lent.shape.len()).unwrap_or(i32::MAX),
        dtype: DataType { code: 2, bits: 32, lanes: 1 },
        shape: lent.shape.as_mut_ptr(),
        strides: std::ptr::null_mut(),
        byte_offset: 0,
    };
    let context = Box::into_raw(lent).cast();
    let managed = Box::into_raw(Box::new(Managed { tensor, context, deleter: Some(give_back) }));
    // SAFETY: `managed` is a box of ours; the capsule's destructor frees it unless a reader has taken it, who then does.
    unsafe {
        let capsule = ffi::PyCapsule_New(managed.cast(), NAME.as_ptr(), Some(dropped));
        if capsule.is_null() {
            give_back(managed);
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

/// Frees what a reader has taken; called once, on any thread.
unsafe extern "C" fn give_back(managed: *mut Managed) {
    // SAFETY: `lend` made both boxes, and a deleter is called once.
    let (managed, lent) = unsafe {
        let managed = Box::from_raw(managed);
        let lent = Box::from_raw(managed.context.cast::<Lent>());
        (managed, lent)
    };
    drop(managed);
    // An interpreter that has ended has freed everything already.
    let _ended = Python::try_attach(move |_py| drop(lent));
}

/// A capsule goes; nobody has taken what is in it if it has its first name.
unsafe extern "C" fn dropped(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this with the capsule that `lend` made, whose pointer is a `Managed` under that name.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 1 {
            let managed = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr());
            give_back(managed.cast());
        }
    }
}

/// A tensor of somebody else, taken from its capsule and given back when it is dropped.
pub struct Taken {
    managed: *mut Managed,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of its axes.
    pub shape: Vec<usize>,
}

// SAFETY: a capsule's tensor may be read and given back on any thread, which is what DLPack asks of producers.
unsafe impl Send for Taken {}

// SAFETY: it is only read while it is shared.
unsafe impl Sync for Taken {}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: the producer's structure, which nobody else gives back since the capsule was renamed.
        unsafe {
            if let Some(deleter) = (*self.managed).deleter {
                deleter(self.managed);
            }
        }
    }
}

impl Taken {
    /// The tensor of an object on the CPU, named `name` in errors.
    pub fn of(name: &str, object: &Bound<'_, PyAny>) -> Result<Self, Raised> {
        let capsule = object.call_method0("__dlpack__")?;
        if !pyo3::types::PyCapsule::is_type_of(&capsule) {
            return Err(value(format!("`{name}`: __dlpack__ returned no capsule")));
        }
        // SAFETY: the object is a capsule; its pointer is asked for by the name that DLPack gives it.
        let managed = unsafe {
            if ffi::PyCapsule_IsValid(capsule.as_ptr(), NAME.as_ptr()) != 1 {
                return Err(value(format!("`{name}`: __dlpack__ returned another capsule than `dltensor`")));
            }
            let managed = ffi::PyCapsule_GetPointer(capsule.as_ptr(), NAME.as_ptr()).cast::<Managed>();
            ffi::PyCapsule_SetName(capsule.as_ptr(), USED.as_ptr());
            managed
        };
        // From here on the tensor is given back, whatever is wrong with it.
        let mut taken = Taken { managed, dtype: Dtype::F32, shape: Vec::new() };
        // SAFETY: the producer's structure is whole until it is given back.
        let tensor = unsafe { &(*managed).tensor };
        if tensor.device.kind != CPU.0 {
            return Err(value(format!(
                "`{name}` is on device type {}, expected the CPU",
                tensor.device.kind
            )));
        }
        let rank = usize::try_from(tensor.ndim).unwrap_or(0);
        let sizes = match rank {
            0 => &[][..],
            // SAFETY: DLPack: `shape` has `ndim` sizes.
            _ => unsafe { std::slice::from_raw_parts(tensor.shape, rank) },
        };
        taken.shape = sizes.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        let DataType { code, bits, lanes } = tensor.dtype;
        let known = dtype_of(code, bits).filter(|_| lanes == 1);
        taken.dtype = known.ok_or_else(|| {
            value(format!(
                "`{name}` has elements of DLPack type {code} with {bits} bits, which weights cannot have"
            ))
        })?;
        Ok(taken)
    }

    /// Bytes of its elements, row-major; copied only where it is not laid out so.
    pub fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        // SAFETY: the producer's structure is whole until this is dropped.
        let tensor = unsafe { &(*self.managed).tensor };
        let element = usize::from(tensor.dtype.bits / 8);
        let count: usize = self.shape.iter().product();
        if count == 0 {
            return std::borrow::Cow::Borrowed(&[]);
        }
        let rank = self.shape.len();
        let offset = usize::try_from(tensor.byte_offset).unwrap_or(0);
        // SAFETY: DLPack: elements begin `byte_offset` bytes behind `data`.
        let start = unsafe { tensor.data.cast::<u8>().cast_const().add(offset) };
        let dense: Vec<i64> = dense_strides(&self.shape);
        let strides = match tensor.strides.is_null() || rank == 0 {
            true => dense.clone(),
            // SAFETY: DLPack: `strides` has `ndim` strides, in elements.
            false => unsafe { std::slice::from_raw_parts(tensor.strides, rank) }.to_vec(),
        };
        let matters = |axis: usize| self.shape[axis] > 1;
        if (0..rank).all(|axis| !matters(axis) || strides[axis] == dense[axis]) {
            // SAFETY: row-major, so the elements are one run of bytes.
            return std::borrow::Cow::Borrowed(unsafe { std::slice::from_raw_parts(start, count * element) });
        }
        let mut bytes = Vec::with_capacity(count * element);
        let mut index = vec![0usize; rank];
        for _ in 0..count {
            let place = index.iter().zip(&strides).map(|(at, stride)| *at as i64 * stride).sum::<i64>();
            // SAFETY: DLPack: an element stands at the sum of index times stride, inside the producer's memory.
            let element = unsafe {
                std::slice::from_raw_parts(start.offset(place as isize * element as isize), element)
            };
            bytes.extend_from_slice(element);
            for axis in (0..rank).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        std::borrow::Cow::Owned(bytes)
    }
}

fn dense_strides(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![1i64; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1] as i64;
    }
    strides
}

/// The type of weights that a DLPack type is.
fn dtype_of(code: u8, bits: u8) -> Option<Dtype> {
    Some(match (code, bits) {
        (0, 8) => Dtype::I8,
        (0, 16) => Dtype::I16,
        (0, 32) => Dtype::I32,
        (0, 64) => Dtype::I64,
        (1, 8) => Dtype::U8,
        (2, 16) => Dtype::F16,
        (2, 32) => Dtype::F32,
        (2, 64) => Dtype::F64,
        (4, 16) => Dtype::BF16,
        (6, 8) => Dtype::BOOL,
        (10, 8) => Dtype::F8_E4M3,
        (12, 8) => Dtype::F8_E5M2,
        _ => return None,
    })
}
