//! Memory of the device: of the process's own heap, aligned as launch plans ask. Large blocks are pages of their own, large
//! ones where the system has them: whoever reads weights for the first time would else wait for hundreds of thousands of faults.

use crate::launch::device::{DeviceError, HostMemory};
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// Alignment in bytes of every allocation.
pub const ALIGNMENT: usize = 256;

/// Blocks of so many bytes or more are pages of their own.
#[cfg(target_os = "linux")]
const OWN_PAGES_BYTES: usize = 4 << 20;

/// Memory that is freed when dropped.
pub struct Block {
    address: *mut u8,
    bytes: usize,
    origin: Origin,
}

/// Where a block came from.
enum Origin {
    Heap(Layout),
    #[cfg(target_os = "linux")]
    Pages,
}

// SAFETY: an address; all access goes through those who have been given it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` bytes, zero; large blocks cost nothing where nobody touches them.
    ///
    /// # Errors
    /// No room.
    pub fn new(bytes: usize) -> Result<Self, DeviceError> {
        #[cfg(target_os = "linux")]
        if bytes >= OWN_PAGES_BYTES {
            return Block::pages(bytes);
        }
        let none = DeviceError::OutOfMemory { bytes, free: 0 };
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| none.clone())?;
        // SAFETY: the layout is not empty.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            return Err(none);
        }
        Ok(Block { address, bytes, origin: Origin::Heap(layout) })
    }

    /// Pages of the system's, zero until they are written.
    #[cfg(target_os = "linux")]
    fn pages(bytes: usize) -> Result<Self, DeviceError> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        // SAFETY: the system chooses where, so that nothing else lies there.
        let mapped = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE)
        };
        let address = mapped.map_err(|_| DeviceError::OutOfMemory { bytes, free: 0 })?;
        // SAFETY: these are the pages just made; a system without large ones says so, and has small ones.
        let _ = unsafe { madvise(address, bytes, Advice::LinuxHugepage) };
        Ok(Block { address: address.cast(), bytes, origin: Origin::Pages })
    }

    /// The first byte.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address as u64
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match self.origin {
            // SAFETY: allocated with this layout.
            Origin::Heap(layout) => unsafe { dealloc(self.address, layout) },
            #[cfg(target_os = "linux")]
            // SAFETY: mapped with this length; whoever was given the address is done.
            Origin::Pages => drop(unsafe { rustix::mm::munmap(self.address.cast(), self.bytes) }),
        }
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
