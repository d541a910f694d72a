//! The C library of photonc, whose header is `include/photonc.h`. Owns what crosses the border: handles, structures with a size of
//! their own, statuses, and that no panic does. Everything else is `photonc::api`.

#![allow(non_camel_case_types, reason = "they are named as C names types")]

mod border;
mod drift;
mod files;
mod generate;
mod model;
mod outputs;
mod params;
mod score;
mod stream;
mod text;
mod trajectory;

/// Version of this interface: it grows by one when functions or fields are added, and never changes what is there.
pub const PHOTONC_API_VERSION: u32 = 2;

/// The version of the interface that the library has, to be compared with `PHOTONC_API_VERSION` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn photonc_api_version() -> u32 {
    PHOTONC_API_VERSION
}

/// The library's own version, `"0.1.0"`.
#[unsafe(no_mangle)]
pub extern "C" fn photonc_version() -> *const std::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
