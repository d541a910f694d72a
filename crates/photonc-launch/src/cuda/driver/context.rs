//! A GPU's context, its streams and its properties, and what the driver says when it refuses. Owns the first calls into
//! the driver: whether it is there, new enough, and has the GPU asked for.

use crate::cuda::libraries::{self, Cuda};
use crate::launch::device::{DeviceError, Properties, STREAMS, URGENT};
use cudarc::driver::sys;
use std::ffi::CStr;
use std::path::PathBuf;

/// The oldest CUDA whose driver has every function used here: 12.8 (driver 570).
const OLDEST_CUDA: i32 = 12_080;

/// Pages of device memory: small allocations share them, large ones have their own.
const ALLOCATION_BYTES: usize = 2 << 20;

/// A GPU's primary context and the streams on it.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    pub streams: Vec<sys::CUstream>,
    /// Major version of CUDA that the driver supports.
    pub cuda_major: i32,
}

// SAFETY: the handles may be used from every thread on which the context is current.
unsafe impl Send for Context {}
// SAFETY: as above; nothing here changes after opening.
unsafe impl Sync for Context {}

/// What the driver says of itself and of the GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverFacts {
    /// Where the driver was found.
    pub place: String,
    /// The newest CUDA that it supports, e.g. (13, 0).
    pub cuda: (i32, i32),
    /// Names of the GPUs, in the order of their ordinals.
    pub gpus: Vec<String>,
}

/// Finds the driver and the GPUs without opening any.
///
/// # Errors
/// There is no driver, it is too old, or it has no GPU.
pub fn driver_facts(named: &[PathBuf]) -> Result<DriverFacts, DeviceError> {
    let place = libraries::load(Cuda::Driver, named, |loaded| Ok(loaded.place))?;
    // SAFETY: loads the library by its name.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::Unavailable(format!(
            "the NVIDIA driver at {place} cannot be loaded by its name"
        )));
    }
    let unavailable = |error: DeviceError| {
        DeviceError::Unavailable(format!(
            "the NVIDIA driver at {place} refuses ({error}): is there a GPU? see `nvidia-smi`"
        ))
    };
    let (mut version, mut count) = (0, 0);
    // SAFETY: places to write to; `cuInit` comes before all else that needs it.
    unsafe {
        check("cuDriverGetVersion", sys::cuDriverGetVersion(&raw mut version)).map_err(unavailable)?;
        if version < OLDEST_CUDA {
            return Err(DeviceError::Unavailable(format!(
                "the NVIDIA driver supports CUDA {}, expected 12.8 or newer: {}",
                shown(version),
                Cuda::Driver.install()
            )));
        }
        check("cuInit", sys::cuInit(0)).map_err(unavailable)?;
        check("cuDeviceGetCount", sys::cuDeviceGetCount(&raw mut count)).map_err(unavailable)?;
    }
    if count == 0 {
        return Err(DeviceError::Unavailable(
            "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it)".to_owned(),
        ));
    }
    let gpus = (0..count).map(|ordinal| device(ordinal).and_then(name)).collect::<Result<_, _>>()?;
    Ok(DriverFacts { place, cuda: (version / 1000, version % 1000 / 10), gpus })
}

fn shown(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

impl Context {
    /// Opens a GPU.
    pub fn open(named: &[PathBuf], ordinal: usize) -> Result<(Self, Properties), DeviceError> {
        let facts = driver_facts(named)?;
        if ordinal >= facts.gpus.len() {
            return Err(DeviceError::Unavailable(format!(
                "there is no GPU {ordinal}; there are {}: {}",
                facts.gpus.len(),
                facts.gpus.join(", ")
            )));
        }
        let device = device(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
        let properties = properties(device)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: a device that exists and a place to write to; released when dropped.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) })?;
        let mut context = Context { device, handle, streams: Vec::new(), cuda_major: facts.cuda.0 };
        context.make_current()?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: places to write to.
        check("cuCtxGetStreamPriorityRange", unsafe {
            sys::cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest)
        })?;
        for number in 0..STREAMS {
            let mut stream = std::ptr::null_mut();
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            let priority = if number == URGENT.0 { greatest } else { least };
            // SAFETY: the context is current; the stream is destroyed when the context is dropped.
            check("cuStreamCreateWithPriority", unsafe {
                sys::cuStreamCreateWithPriority(&raw mut stream, flags, priority)
            })?;
            context.streams.push(stream);
        }
        Ok((context, properties))
    }

    /// Makes calls of this thread go to this GPU.
    pub fn make_current(&self) -> Result<(), DeviceError> {
        // SAFETY: a context that is retained while self lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    pub fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.make_current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: places to write to.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok(free)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.make_current().is_ok() {
            // SAFETY: made by `open`, given back once. A context that has failed refuses, which changes nothing here.
            unsafe {
                for stream in &self.streams {
                    let _destroyed = sys::cuStreamDestroy_v2(*stream);
                }
            }
        }
        // SAFETY: retained by `open`.
        let _released = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

fn device(ordinal: i32) -> Result<sys::CUdevice, DeviceError> {
    let mut device = 0;
    // SAFETY: a place to write to.
    check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, ordinal) })?;
    Ok(device)
}

fn name(device: sys::CUdevice) -> Result<String, DeviceError> {
    let mut name = [0u8; 256];
    // SAFETY: the driver writes at most 255 bytes and a zero.
    check("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 255, device) })?;
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn properties(device: sys::CUdevice) -> Result<Properties, DeviceError> {
    use sys::CUdevice_attribute as Attribute;
    let attribute = |which: Attribute| {
        let mut value = 0;
        // SAFETY: a place to write to.
        check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) })?;
        usize::try_from(value).map_err(|_| call("cuDeviceGetAttribute", "a negative value"))
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let mut memory_bytes = 0;
    // SAFETY: a place to write to.
    check("cuDeviceTotalMem", unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory_bytes, device) })?;
    let sm = u32::try_from(major * 10 + minor).unwrap_or(0);
    let name = name(device)?;
    if sm < 80 {
        return Err(DeviceError::Unavailable(format!(
            "{name} has compute capability {major}.{minor}, expected 8.0 or newer (bf16 and asynchronous copies)"
        )));
    }
    Ok(Properties {
        name,
        sm,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_bytes,
        shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        allocation_bytes: ALLOCATION_BYTES,
        batch_invariant: false,
    })
}

/// What a call into the driver returned, as an error with the driver's words.
pub(super) fn check(what: &'static str, result: sys::CUresult) -> Result<(), DeviceError> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut words = std::ptr::null();
    // SAFETY: the driver gives a string that lives as long as it, or none.
    let message = unsafe {
        let known =
            sys::cuGetErrorString(result, &raw mut words) == sys::CUresult::CUDA_SUCCESS && !words.is_null();
        if known {
            CStr::from_ptr(words).to_string_lossy().into_owned()
        } else {
            "an unknown error".to_owned()
        }
    };
    Err(call(what, &format!("{message} ({result:?})")))
}

pub(super) fn call(what: &'static str, message: &str) -> DeviceError {
    DeviceError::Call { call: what, message: message.to_owned() }
}
