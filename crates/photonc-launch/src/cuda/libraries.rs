//! Where CUDA's libraries are: the folders named by the user, the loader's own, toolkits, Python packages. Owns the search
//! and what to say when it fails; refuses to call into what it finds.

use crate::launch::device::DeviceError;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use photonc_bundle::places::{entries, in_packages, prefixes};
use std::path::{Path, PathBuf};

/// Names folders of libraries, separated by colons, that are searched first.
pub const FOLDERS_VARIABLE: &str = "PHOTONC_CUDA_LIB";

/// A library of CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuda {
    /// The driver.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Matrix products.
    CublasLt,
}

impl Cuda {
    /// Every library, in the order in which they are needed.
    pub const ALL: [Cuda; 3] = [Cuda::Driver, Cuda::Nvrtc, Cuda::CublasLt];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cuda::Driver => "the NVIDIA driver",
            Cuda::Nvrtc => "NVRTC",
            Cuda::CublasLt => "cuBLASLt",
        }
    }

    /// File names, best first.
    #[must_use]
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Cuda::Driver => &["libcuda.so.1"],
            Cuda::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12"],
            Cuda::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12"],
        }
    }

    /// How to get it.
    #[must_use]
    pub fn install(self) -> &'static str {
        match self {
            Cuda::Driver => "install NVIDIA's driver, 570 or newer",
            Cuda::Nvrtc => "pip install nvidia-cuda-nvrtc",
            Cuda::CublasLt => "pip install nvidia-cublas",
        }
    }

    /// Folders of the Python packages that bring it, below `site-packages`.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Cuda::Driver => &[],
            Cuda::Nvrtc => &["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"],
            Cuda::CublasLt => &["nvidia/cu13/lib", "nvidia/cublas/lib"],
        }
    }
}

/// A library that has been loaded, for as long as the program runs.
#[derive(Debug)]
pub struct Loaded {
    /// The library.
    pub library: &'static Library,
    /// The path or the name under which it was found.
    pub place: String,
}

/// Folders that the user names: `given` (an option), else `PHOTONC_CUDA_LIB`.
#[must_use]
pub fn named_folders(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() {
        let variable = std::env::var_os(FOLDERS_VARIABLE).unwrap_or_default();
        std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty()).collect()
    } else {
        given.to_vec()
    }
}

/// Every place that is tried for a library, in order: paths, and bare names for the loader's own search.
#[must_use]
pub fn candidates(library: Cuda, named: &[PathBuf]) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for folder in named {
        places.extend(library.files().iter().map(|file| folder.join(file)));
    }
    for file in library.files() {
        places.push(PathBuf::from(file));
        places.extend(
            usual_folders(library).iter().map(|folder| folder.join(file)).filter(|path| path.exists()),
        );
    }
    places
}

/// Loads a library from the first place where `accept` takes it.
///
/// # Errors
/// None was found: what was searched, and how to get it.
pub fn load<T>(
    library: Cuda,
    named: &[PathBuf],
    mut accept: impl FnMut(Loaded) -> Result<T, String>,
) -> Result<T, DeviceError> {
    let mut refusals = Vec::new();
    for place in candidates(library, named) {
        let opened = keep(&place);
        let place = place.display().to_string();
        match opened.and_then(|library| accept(Loaded { library, place: place.clone() })) {
            Ok(taken) => return Ok(taken),
            Err(reason) if reason.contains(&place) => refusals.push(reason),
            Err(reason) => refusals.push(format!("{place}: {reason}")),
        }
    }
    let tried = refusals.join("\n  ");
    Err(DeviceError::Unavailable(format!(
        "{} cannot be used: {}, or name its folder with {FOLDERS_VARIABLE}; tried\n  {tried}",
        library.name(),
        library.install(),
    )))
}

/// Loads a library for as long as the program runs.
///
/// # Errors
/// The loader's words.
pub(super) fn keep(place: &Path) -> Result<&'static Library, String> {
    // SAFETY: the initialisers of CUDA's libraries have no requirements, and nothing is ever unloaded.
    let opened = unsafe { Library::open(Some(place), RTLD_NOW | RTLD_GLOBAL) };
    Ok(Box::leak(Box::new(opened.map_err(|error| error.to_string())?)))
}

fn usual_folders(library: Cuda) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for toolkit in entries(Path::new("/usr/local"), "cuda") {
        folders.push(toolkit.join("lib64"));
    }
    for prefix in prefixes() {
        folders.push(prefix.join("lib"));
        folders.extend(library.packages().iter().flat_map(|inner| in_packages(&prefix, inner)));
    }
    folders
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test panics")]
    use super::*;

    #[test]
    fn folders_named_by_the_user_come_first() {
        let named = vec![PathBuf::from("/some/folder")];
        let places = candidates(Cuda::Nvrtc, &named);
        assert_eq!(places[0], Path::new("/some/folder/libnvrtc.so.13"));
        assert_eq!(places[1], Path::new("/some/folder/libnvrtc.so.12"));
        assert_eq!(places[2], Path::new("libnvrtc.so.13"));
    }

    #[test]
    fn a_missing_library_says_where_it_was_sought_and_how_to_get_it() {
        let named = vec![PathBuf::from("/some/folder")];
        let refused: Result<(), _> = load(Cuda::CublasLt, &named, |_| Err("too old".to_owned()));
        let text = refused.unwrap_err().to_string();
        let start = "cuBLASLt cannot be used: pip install nvidia-cublas, or name its folder with PHOTONC_CUDA_LIB; tried\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("\n  /some/folder/libcublasLt.so.13: "), "{text}");
    }
}
