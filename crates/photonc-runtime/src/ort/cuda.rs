//! The CUDA execution provider. Owns its options and what can be said of it before a graph is loaded; refuses to fall back to
//! the CPU.

use super::library::Found;
use ort::ep::cuda::{CUDA_DYLIBS, CUDNN_DYLIBS};
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProviderDispatch};
use photonc_bundle::places::{entries, prefixes};
use std::path::PathBuf;

/// What ONNX Runtime calls it.
pub const NAME: &str = "CUDAExecutionProvider";

/// The provider for a GPU. f32 products stay f32: TF32 would keep 10 bits of them.
pub(super) fn provider(device: usize) -> ExecutionProviderDispatch {
    let device = i32::try_from(device).unwrap_or(i32::MAX);
    let provider = CUDA::default().with_device_id(device).with_tf32(false);
    // Each graph has memory of its own: doubling it, as is usual, leaves half of it unused.
    provider.with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested).build().error_on_failure()
}

/// Loads what the provider needs.
///
/// # Errors
/// The library has no such provider, or a library that it needs is nowhere: which, and how to get it.
pub(super) fn check(found: &Found) -> Result<(), String> {
    if !found.providers.iter().any(|name| name == NAME) {
        return Err(format!(
            "{} was built without the CUDA execution provider; install `pip install onnxruntime-gpu` instead, or name its library with --ort-lib",
            found.place.display()
        ));
    }
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the CUDA execution provider lacks {}; install them with `pip install onnxruntime-gpu[cuda,cudnn]`, or make the system find them (LD_LIBRARY_PATH)",
        missing.join(", ")
    ))
}

/// Loads what the provider needs from Python packages, else from where the system looks. Yields the names of what is in neither.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let folders: Vec<PathBuf> = prefixes().iter().flat_map(|prefix| folders(prefix)).collect();
    let absent = |name: &&str| {
        let places = folders.iter().map(|folder| folder.join(name)).filter(|path| path.exists());
        let mut places = places.chain([PathBuf::from(name)]);
        !places.any(|place| ort::util::preload_dylib(place).is_ok())
    };
    CUDA_DYLIBS.iter().chain(CUDNN_DYLIBS).copied().filter(absent).collect()
}

/// Folders of NVIDIA's Python packages that hold libraries.
fn folders(prefix: &std::path::Path) -> Vec<PathBuf> {
    let packages = photonc_bundle::places::in_packages(prefix, "nvidia");
    let inside = packages.iter().flat_map(|nvidia| entries(nvidia, ""));
    inside.map(|package| package.join("lib")).filter(|folder| folder.is_dir()).collect()
}
