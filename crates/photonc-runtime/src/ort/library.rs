//! Which library of ONNX Runtime is used. Owns the check of its version before anything of it runs.

use libloading::Library;
use photonc_bundle::places::{NotFound, Wanted};
use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;

/// Minor version (of 1.x) from which on there is a CPU kernel for every operation of exported models.
pub const OLDEST_MINOR: u32 = 23;

/// The library, and where it is looked for.
pub static WANTED: Wanted = Wanted {
    name: "ONNX Runtime",
    file: "libonnxruntime.so",
    major: 1,
    packages: &["onnxruntime/capi"],
    option: "--ort-lib",
    variable: "PHOTONC_ORT_LIB",
    install: "pip install onnxruntime",
};

/// A library that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path, or the name by which the system finds it.
    pub place: PathBuf,
    /// Its version, `1.32.0`.
    pub version: String,
    /// Its execution providers, best first: `CUDAExecutionProvider`, `CPUExecutionProvider`.
    pub providers: Vec<String>,
}

/// Finds the library.
///
/// # Errors
/// There is none that can be used: what was tried, what was wrong with each, how to get one.
pub fn find(named: Option<&Path>) -> Result<Found, NotFound> {
    WANTED.find(named, |place| {
        let (version, providers) = facts(place)?;
        Ok(Found { place: place.to_owned(), version, providers })
    })
}

/// Version and execution providers of a library that is one of ONNX Runtime and new enough.
fn facts(place: &Path) -> Result<(String, Vec<String>), String> {
    // SAFETY: its initialisers have no requirements, nor have those of any library that is named by mistake and fit to be
    // loaded at all.
    let library = unsafe { Library::new(place) }.map_err(|error| error.to_string())?;
    // It may have started threads: it stays.
    let library: &'static Library = Box::leak(Box::new(library));
    // SAFETY: the only signature that a function of this name has.
    let base =
        unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase") };
    let base = base.map_err(|_| "it is not ONNX Runtime: it has no function OrtGetApiBase".to_owned())?;
    // SAFETY: takes nothing and gives a pointer to a static table, or none.
    let base = unsafe { base().as_ref() }.ok_or("it gives no API")?;
    // SAFETY: takes nothing and gives a static string, or none.
    let text = unsafe { (base.GetVersionString)() };
    // SAFETY: a string that lives as long as the library, or none.
    let text = unsafe { owned(text) }.ok_or("it does not tell its version")?;
    let mut numbers = text.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= OLDEST_MINOR => {}
        _ => return Err(format!("its version is {text}, expected 1.{OLDEST_MINOR} or a newer 1.x")),
    }
    // SAFETY: takes a number and gives a pointer to a static table, or none.
    let api = unsafe { (base.GetApi)(ort::sys::ORT_API_VERSION).as_ref() };
    let api = api.ok_or_else(|| format!("it has no API of version {}", ort::sys::ORT_API_VERSION))?;
    Ok((text, providers(api)))
}

fn providers(api: &ort::sys::OrtApi) -> Vec<String> {
    let (mut names, mut count) = (ptr::null_mut::<*mut c_char>(), 0 as c_int);
    // SAFETY: two places to write to; what is written is given back below.
    let status = unsafe { (api.GetAvailableProviders)(&raw mut names, &raw mut count) };
    if !status.0.is_null() || names.is_null() {
        return Vec::new();
    }
    // SAFETY: the call has written `count` strings.
    let listed = unsafe { std::slice::from_raw_parts(names, usize::try_from(count).unwrap_or(0)) };
    // SAFETY: strings that live until they are given back.
    let found = listed.iter().filter_map(|name| unsafe { owned(*name) }).collect();
    // SAFETY: what the call has written, once.
    let _released = unsafe { (api.ReleaseAvailableProviders)(names, count) };
    found
}

/// A copy of a C string, if there is one.
///
/// # Safety
/// The pointer is null or to a string that ends with zero.
unsafe fn owned(text: *const c_char) -> Option<String> {
    // SAFETY: as promised by the caller.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
