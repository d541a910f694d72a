//! Memory of the device: of the process's own heap, aligned as launch plans ask.

use crate::runtime::launch::device::{DeviceError, HostMemory};
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// Alignment in bytes of every allocation.
pub const ALIGNMENT: usize = 256;

/// Memory that is freed when dropped.
pub struct Block {
    address: *mut u8,
    bytes: usize,
    layout: Layout,
}

// SAFETY: an address; all access goes through those who have been given it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` bytes, zero: pages that nobody touches cost nothing.
    ///
    /// # Errors
    /// No room.
    pub fn new(bytes: usize) -> Result<Self, DeviceError> {
        let none = DeviceError::OutOfMemory { bytes, free: 0 };
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| none.clone())?;
        // SAFETY: the layout is not empty.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            return Err(none);
        }
        Ok(Block { address, bytes, layout })
    }

    /// The first byte.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address as u64
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.address, self.layout) };
    }
}

impl HostMemory for Block {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` bytes that were initialised when allocated; copies into them are done when their call returns.
        unsafe { std::slice::from_raw_parts(self.address, self.bytes) }
    }

    fn address(&self) -> u64 {
        Block::address(self)
    }
}
