//! The options of backend `ort`. Owns what a build without the feature says.

use super::Failure;
use super::backends::BackendName;
use crate::bundle::Bundle;
use crate::runtime::backend::Backend;
#[cfg(not(feature = "ort"))]
use crate::runtime::backend::BackendError;
use crate::runtime::error::RuntimeError;
use crate::runtime::portable::OnnxGraph;
use std::num::NonZero;
use std::path::PathBuf;

/// How ONNX Runtime is used.
#[derive(Clone, Debug, clap::Args)]
pub struct OrtArgs {
    /// Library of ONNX Runtime, or its folder, for backend `ort`; otherwise PHOTONC_ORT_LIB, Python packages, the system
    #[arg(long, value_name = "PATH")]
    ort_lib: Option<PathBuf>,
    /// What computes, for backend `ort`; otherwise the CPU
    #[arg(long, value_enum, value_name = "PROVIDER")]
    provider: Option<ProviderName>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ProviderName {
    /// The CPU
    Cpu,
    /// The GPU that --device names, which then has the caches too
    Cuda,
}

impl OrtArgs {
    /// Refuses options that the chosen backend would not heed.
    pub fn check(&self, backend: BackendName) -> Result<(), Failure> {
        let given = [("--ort-lib", self.ort_lib.is_some()), ("--provider", self.provider.is_some())];
        match given.iter().find(|(_, given)| *given && backend != BackendName::Ort) {
            Some((option, _)) => Err(Failure::usage(&format_args!(
                "{option} is for `--backend ort`, found `--backend {}`",
                backend.name()
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(feature = "ort")]
impl OrtArgs {
    /// The graphs of a bundle in ONNX Runtime, and one that the bundle does not have: on GPU `device` if on any, else on
    /// `threads`, one per core by default.
    pub fn open(
        &self,
        bundle: &Bundle,
        device: usize,
        threads: Option<NonZero<usize>>,
        extra: Option<OnnxGraph>,
    ) -> Result<Box<dyn Backend>, RuntimeError> {
        use crate::runtime::ort::{Ort, OrtOptions, Provider};
        let provider = match self.provider {
            Some(ProviderName::Cuda) => Provider::Cuda { device },
            Some(ProviderName::Cpu) | None => Provider::Cpu,
        };
        let options = OrtOptions { library: self.ort_lib.clone(), threads, provider };
        let mut ort = Ort::of_bundle(bundle.clone(), &options)?;
        if let Some(extra) = extra {
            ort.insert(extra)?;
        }
        Ok(Box::new(ort))
    }
}

/// What to do about a build without the feature.
#[cfg(not(feature = "ort"))]
pub const WITH_ORT: &str = "cargo install --path . --features ort";

#[cfg(not(feature = "ort"))]
impl OrtArgs {
    /// Says that this build has no ONNX Runtime.
    pub fn open(
        &self,
        _bundle: &Bundle,
        _device: usize,
        _threads: Option<NonZero<usize>>,
        _extra: Option<OnnxGraph>,
    ) -> Result<Box<dyn Backend>, RuntimeError> {
        let backend = BackendName::Ort.name();
        let message = format!("this photonc was built without it; install with `{WITH_ORT}`");
        Err(BackendError::Unavailable { backend, message }.into())
    }
}
