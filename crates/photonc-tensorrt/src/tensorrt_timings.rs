//! TensorRT's timings of the kernels that it has tried, which a build takes and extends. The bindings make such an object and
//! hand it to a build; writing it out and joining two they do not know, so these two calls go through its table of functions.

use super::tensorrt_build::{Call, owned};
use cxx::UniquePtr;
use std::ffi::c_void;
use trtx::trtx_sys::nvinfer1::{IBuilderConfig, IHostMemory, ITimingCache};

/// `ITimingCache` of the headers: its own table of functions, then the object that does the work.
#[repr(C)]
struct Object {
    functions: *const c_void,
    inner: *mut Inner,
}

/// `VTimingCache` of the headers.
#[repr(C)]
struct Inner {
    functions: *const Functions,
}

/// The class's functions in their order: both destructors, then its own, of which these are the first.
#[repr(C)]
struct Functions {
    destroy: *const c_void,
    destroy_and_free: *const c_void,
    serialize: unsafe extern "C" fn(*const Inner) -> *mut IHostMemory,
    combine: unsafe extern "C" fn(*mut Inner, *const ITimingCache, bool) -> bool,
}

/// Timings, as the library holds them.
pub(super) struct Timings(UniquePtr<ITimingCache>);

impl Timings {
    /// Those that were written out earlier; none of nothing.
    pub(super) fn of(config: &IBuilderConfig, bytes: &[u8]) -> Result<Self, Call> {
        // SAFETY: that many bytes, which the library copies.
        let made = unsafe { config.createTimingCache(bytes.as_ptr().cast(), bytes.len()) };
        owned(made, "createTimingCache").map(Timings)
    }

    /// What a build is given; it lives as long as the build's objects.
    pub(super) fn object(&self) -> Option<&ITimingCache> {
        self.0.as_ref()
    }

    /// The bytes to write out; `None` where the library gives none.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let inner = self.inner()?;
        // SAFETY: an object of the library, called as its class does.
        let written = owned(unsafe { ((*(*inner).functions).serialize)(inner) }, "serialize").ok()?;
        let (start, length) = (written.data(), written.size());
        if start.is_null() {
            return None;
        }
        // SAFETY: the library's memory of that size, which lives as long as `written`.
        Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) }.to_vec())
    }

    /// Adds what others have timed; of what both have, that of this one stays. Whether they are of this library and GPU.
    pub(super) fn join(&mut self, others: &Timings) -> bool {
        let (Some(inner), Some(others)) = (self.inner(), others.object()) else { return false };
        // SAFETY: two objects of the library, called as their class does.
        unsafe { ((*(*inner).functions).combine)(inner, others, false) }
    }

    fn inner(&self) -> Option<*mut Inner> {
        let object = self.0.as_ptr().cast::<Object>();
        // SAFETY: the object that `of` was given, laid out as its header says.
        let inner = unsafe { object.as_ref() }?.inner;
        (!inner.is_null()).then_some(inner)
    }
}
