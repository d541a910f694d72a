//! The GPU of this machine, as far as an engine cares. Owns four calls into NVIDIA's driver, which is loaded when it is
//! asked and need not be there.

use super::mismatch::Gpu;
use super::target::Sm;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint};

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `.._MINOR`.
const MAJOR: c_int = 75;
const MINOR: c_int = 76;

/// GPU number `ordinal`; `None` where there is no driver or no such GPU.
#[must_use]
pub fn find(ordinal: usize) -> Option<Gpu> {
    // SAFETY: the initialisers of the driver have no requirements.
    let driver = unsafe { Library::new("libcuda.so.1") }.ok()?;
    // It may have started threads: it stays.
    let driver: &'static Library = Box::leak(Box::new(driver));
    let ordinal = c_int::try_from(ordinal).ok()?;
    let mut device: c_int = 0;
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    let mut name = [0 as c_char; 256];
    // SAFETY: the signatures are those of cuda.h for these names; every pointer is to a local of the type that is written,
    // and `name` is as long as is said.
    unsafe {
        let init = driver.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit").ok()?;
        let get = driver.get::<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>(b"cuDeviceGet").ok()?;
        let named =
            driver.get::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>(b"cuDeviceGetName");
        let attribute = driver
            .get::<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>(b"cuDeviceGetAttribute")
            .ok()?;
        if init(0) != 0 || get(&raw mut device, ordinal) != 0 {
            return None;
        }
        let failed = attribute(&raw mut major, MAJOR, device) != 0
            || attribute(&raw mut minor, MINOR, device) != 0
            || named.ok()?(name.as_mut_ptr(), 255, device) != 0;
        if failed {
            return None;
        }
        let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
        Some(Gpu { name, sm: Sm(u16::try_from(major * 10 + minor).ok()?) })
    }
}
