//! The options of backend `ort`.

use super::Failure;
use super::backends::BackendName;
use crate::api::open_ort;
use crate::bundle::Bundle;
use crate::runtime::backend::Backend;
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
        let gpu = match self.provider {
            Some(ProviderName::Cuda) => Some(device),
            Some(ProviderName::Cpu) | None => None,
        };
        Ok(open_ort(bundle, self.ort_lib.clone(), gpu, threads, extra)?)
    }
}
