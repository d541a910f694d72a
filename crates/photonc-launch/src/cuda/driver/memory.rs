//! Memory of a GPU and page-locked memory of the host. Owns giving both back.

use super::context::{Context, call, check};
use crate::launch::device::{Allocation, DeviceError, HostMemory};
use cudarc::driver::sys;
use std::ffi::c_void;
use std::sync::Arc;

/// Frees device memory when dropped; the driver waits for work that uses it.
struct Owner {
    address: u64,
    context: Arc<Context>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: allocated in this context, freed once. A context that has failed has freed everything.
            let _freed = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// Device memory; at least one byte, so that every allocation has an address of its own.
pub(super) fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Allocation, DeviceError> {
    context.make_current()?;
    let mut address = 0;
    // SAFETY: a place to write to.
    let result = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes.max(1)) };
    if result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Err(DeviceError::OutOfMemory { bytes, free: context.free_bytes()? });
    }
    check("cuMemAlloc", result)?;
    let owner = Owner { address, context: Arc::clone(context) };
    Ok(Allocation { address, bytes, owner: Box::new(owner) })
}

/// Page-locked memory of the host.
pub(super) struct PageLocked {
    start: *mut c_void,
    bytes: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory that this value alone owns.
unsafe impl Send for PageLocked {}

impl PageLocked {
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.make_current()?;
        let mut start = std::ptr::null_mut();
        // SAFETY: a place to write to; then memory of that size, zeroed before anyone reads it.
        unsafe {
            let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
            check("cuMemHostAlloc", sys::cuMemHostAlloc(&raw mut start, bytes.max(1), flags))?;
            if start.is_null() {
                return Err(call("cuMemHostAlloc", "no memory"));
            }
            std::ptr::write_bytes(start.cast::<u8>(), 0, bytes);
        }
        Ok(PageLocked { start, bytes, context: Arc::clone(context) })
    }
}

impl HostMemory for PageLocked {
    fn bytes(&self) -> &[u8] {
        // SAFETY: memory of this size that lives as long as self. The trait leaves bytes of unfinished copies open.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.bytes) }
    }

    fn address(&self) -> u64 {
        self.start.expose_provenance() as u64
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: allocated by `new`, freed once; the driver waits for copies into it.
            let _freed = unsafe { sys::cuMemFreeHost(self.start) };
        }
    }
}
