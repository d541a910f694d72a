//! Memory of the emulated device: every allocation on pages of its own between addresses that fault, filled with NaN. Owns
//! the list of allocations and the check that nothing was written around them.

use photonc::runtime::launch::device::{DeviceError, HostMemory};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, Weak};

/// NaN in every float type, -1 in integers.
pub const POISON: u8 = 0xff;
pub const ALIGNMENT: usize = 256;
const PAGE: usize = 4096;
/// Addresses around an allocation that fault: an index may be far off.
const GAP: usize = 64 << 20;

// The C library, which every Rust program on Linux is linked with.
unsafe extern "C" {
    fn mmap(at: *mut c_void, bytes: usize, rights: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
    fn mprotect(at: *mut c_void, bytes: usize, rights: i32) -> i32;
    fn munmap(at: *mut c_void, bytes: usize) -> i32;
}
const NO_RIGHTS: i32 = 0;
const READ_WRITE: i32 = 3;
/// Private, anonymous, without reserving swap.
const FRESH: i32 = 0x4022;

/// One allocation. The bytes end less than `ALIGNMENT` before a page that faults.
struct Region {
    pages: usize,
    page_bytes: usize,
    bytes: usize,
}

/// All allocations, by address.
#[derive(Default)]
pub struct Memory {
    regions: BTreeMap<u64, Region>,
    pub used: usize,
}

impl Memory {
    pub fn allocate(&mut self, bytes: usize) -> Result<u64, DeviceError> {
        let padded = bytes.max(1).next_multiple_of(ALIGNMENT);
        // A gap that faults, a page or less in front of the bytes, the bytes, a gap that faults.
        let inner = (padded + ALIGNMENT).next_multiple_of(PAGE);
        let page_bytes = inner + 2 * GAP;
        // SAFETY: a fresh mapping, whose ends lose their rights.
        let pages = unsafe {
            let pages = mmap(std::ptr::null_mut(), page_bytes, READ_WRITE, FRESH, -1, 0);
            let mapped = pages as isize != -1
                && mprotect(pages, GAP, NO_RIGHTS) == 0
                && mprotect(pages.byte_add(GAP + inner), GAP, NO_RIGHTS) == 0;
            if !mapped {
                return Err(call("mmap", &std::io::Error::last_os_error().to_string()));
            }
            std::ptr::write_bytes(pages.cast::<u8>().add(GAP), POISON, inner);
            pages as usize
        };
        let address = (pages + GAP + inner - padded) as u64;
        self.regions.insert(address, Region { pages, page_bytes, bytes });
        self.used += padded;
        Ok(address)
    }

    pub fn free(&mut self, address: u64) {
        if let Some(region) = self.regions.remove(&address) {
            self.used -= region.bytes.max(1).next_multiple_of(ALIGNMENT);
            // SAFETY: the mapping of `allocate`; work that still uses it faults, which is reported.
            let _unmapped = unsafe { munmap(region.pages as *mut _, region.page_bytes) };
        }
    }

    pub fn count(&self) -> usize {
        self.regions.len()
    }

    /// Fails unless the bytes lie in one allocation.
    pub fn check(&self, what: &'static str, address: u64, bytes: usize) -> Result<(), DeviceError> {
        let region = self.regions.range(..=address).next_back();
        match region {
            _ if bytes == 0 => Ok(()),
            Some((start, region)) if address + bytes as u64 <= start + region.bytes as u64 => Ok(()),
            Some((start, region)) => {
                let at = address - start;
                let found = region.bytes;
                Err(call(
                    what,
                    &format!("{bytes} bytes at {at} of an allocation of {found}, or of one that was freed"),
                ))
            }
            None => Err(call(what, "an address outside device memory")),
        }
    }

    /// Fails if something was written right before or after an allocation.
    pub fn check_guards(&self, what: &'static str) -> Result<(), DeviceError> {
        for (address, region) in &self.regions {
            let start = *address as usize;
            let end = start + region.bytes;
            let last = region.pages + region.page_bytes - GAP;
            let touched = |from: usize, to: usize| {
                // SAFETY: inside the mapping, which the lock of the device keeps alive; nothing else writes there.
                let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, to - from) };
                bytes.iter().any(|byte| *byte != POISON)
            };
            if touched(start - ALIGNMENT, start) || touched(end, last) {
                return Err(call(what, &format!("wrote next to an allocation of {} bytes", region.bytes)));
            }
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let addresses: Vec<u64> = self.regions.keys().copied().collect();
        for address in addresses {
            self.free(address);
        }
    }
}

pub fn call(what: &'static str, message: &str) -> DeviceError {
    DeviceError::Call { call: what, message: message.to_owned() }
}

/// "Page-locked" memory: known to the device while it lives, so that late copies into freed memory are found.
pub struct HostBlock(pub Arc<HostBytes>);

pub struct HostBytes {
    pub address: u64,
    bytes: usize,
}

impl Drop for HostBytes {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `HostBlock::new` with this length.
        drop(unsafe {
            Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.address as *mut u8, self.bytes))
        });
    }
}

/// Host memory by address.
pub type HostTable = Mutex<BTreeMap<u64, Weak<HostBytes>>>;

impl HostBlock {
    pub fn new(bytes: usize) -> Self {
        let memory = Box::into_raw(vec![0u8; bytes].into_boxed_slice());
        HostBlock(Arc::new(HostBytes { address: memory.cast::<u8>() as u64, bytes }))
    }
}

impl HostMemory for HostBlock {
    fn bytes(&self) -> &[u8] {
        // SAFETY: lives as long as self; the device writes it only inside calls of `Device`.
        unsafe { std::slice::from_raw_parts(self.0.address as *const u8, self.0.bytes) }
    }

    fn address(&self) -> u64 {
        self.0.address
    }
}
