//! Which library of ONNX Runtime is used. Owns the search, the check of its version before anything of it runs, and what to
//! say when there is none.

use crate::runtime::places::{entries, in_packages, prefixes};
use libloading::Library;
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// Names the library or its folder; the option of the same meaning comes first.
pub const LIBRARY_VARIABLE: &str = "PHOTONC_ORT_LIB";

/// Minor version (of 1.x) from which on there is a CPU kernel for every operation of exported models.
pub const OLDEST_MINOR: u32 = 23;

/// Where the Python package `onnxruntime` (and `onnxruntime-gpu`) keeps it.
const PACKAGE: &str = "onnxruntime/capi";
/// How its file is named, a version behind it.
const FILE: &str = "libonnxruntime.so";
const INSTALL: &str = "`pip install onnxruntime` (`onnxruntime-gpu` for CUDA)";

/// A library that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path, or the name by which the system finds it.
    pub place: PathBuf,
    /// Its version, `1.32.0`.
    pub version: String,
}

/// Finds the library: the file or folder `named`, else that of `PHOTONC_ORT_LIB`, and only there; if neither is given, in
/// Python packages and wherever the system looks.
///
/// # Errors
/// There is none that can be used: what was tried, what was wrong with each, how to get one.
pub fn find(named: Option<&Path>) -> Result<Found, String> {
    let variable = std::env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut refusals = Vec::new();
    let places = match named.map(Path::to_owned).or(variable) {
        Some(named) => named_places(&named, &mut refusals),
        None => usual_places(&mut refusals),
    };
    for place in places {
        match version(&place) {
            Ok(version) => return Ok(Found { place, version }),
            Err(reason) if reason.contains(&*place.to_string_lossy()) => refusals.push(reason),
            Err(reason) => refusals.push(format!("{}: {reason}", place.display())),
        }
    }
    Err(format!(
        "the library of ONNX Runtime, {FILE}, cannot be used; tried\n  {}\nInstall it with {INSTALL}, or name the library or its folder with --ort-lib or {LIBRARY_VARIABLE}",
        refusals.join("\n  ")
    ))
}

/// A file itself, or the libraries in a folder.
fn named_places(named: &Path, refusals: &mut Vec<String>) -> Vec<PathBuf> {
    if !named.is_dir() {
        return vec![named.to_owned()];
    }
    let found = entries(named, FILE);
    if found.is_empty() {
        refusals.push(format!("{}: the folder has no {FILE}*", named.display()));
    }
    found
}

fn usual_places(refusals: &mut Vec<String>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for prefix in prefixes() {
        let folders = in_packages(&prefix, PACKAGE);
        let found: Vec<PathBuf> = folders.iter().flat_map(|folder| entries(folder, FILE)).collect();
        if found.is_empty() {
            let packages = prefix.join("lib/python3*/site-packages").join(PACKAGE);
            refusals.push(format!("{}: not there", packages.display()));
        }
        places.extend(found);
    }
    places.extend([format!("{FILE}.1"), FILE.to_owned()].map(PathBuf::from));
    places
}

/// The version of a library that is one of ONNX Runtime and new enough.
fn version(place: &Path) -> Result<String, String> {
    // SAFETY: its initialisers have no requirements, nor have those of any library that is named by mistake and fit to be
    // loaded at all.
    let library = unsafe { Library::new(place) }.map_err(|error| error.to_string())?;
    // SAFETY: the only signature that a function of this name has.
    let base =
        unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase") };
    let base = base.map_err(|_| "it is not ONNX Runtime: it has no function OrtGetApiBase".to_owned())?;
    // SAFETY: takes nothing and gives a pointer to a static table, or none.
    let base = unsafe { base().as_ref() }.ok_or("it gives no API")?;
    // SAFETY: takes nothing and gives a static string, or none.
    let text = unsafe { (base.GetVersionString)() };
    if text.is_null() {
        return Err("it does not tell its version".to_owned());
    }
    // SAFETY: a string that lives as long as the library.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    let mut numbers = text.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= OLDEST_MINOR => {}
        _ => return Err(format!("its version is {text}, expected 1.{OLDEST_MINOR} or a newer 1.x")),
    }
    // SAFETY: takes a number and gives a pointer to a static table, or none.
    if unsafe { (base.GetApi)(ort::sys::ORT_API_VERSION) }.is_null() {
        return Err(format!("it has no API of version {}", ort::sys::ORT_API_VERSION));
    }
    Ok(text)
}
