//! What a machine has of CUDA, found without opening a GPU. Owns the summary that `photonc doctor` shows.

use super::driver::{DriverFacts, driver_facts};
use super::libraries::{self, Cuda};
use super::nvrtc::Nvrtc;
use crate::launch::device::DeviceError;
use std::path::PathBuf;

/// What was found of each part, or why not.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// The driver and the GPUs.
    pub driver: Result<DriverFacts, DeviceError>,
    /// Version and place of the compiler of kernels.
    pub nvrtc: Result<((i32, i32), String), DeviceError>,
    /// Place of the library of matrix products.
    pub cublas: Result<String, DeviceError>,
}

impl Presence {
    /// Looks for everything; `named` are folders to search first.
    #[must_use]
    pub fn find(named: &[PathBuf]) -> Self {
        let driver = driver_facts(named);
        let most_major = driver.as_ref().map_or(i32::MAX, |facts| facts.cuda.0);
        let nvrtc = Nvrtc::find(named, most_major).map(|nvrtc| (nvrtc.version, nvrtc.place));
        let cublas = libraries::load(Cuda::CublasLt, named, |loaded| Ok(loaded.place));
        Presence { driver, nvrtc, cublas }
    }

    /// The missing parts and why, in the order in which they are needed.
    #[must_use]
    pub fn missing(&self) -> Vec<(Cuda, &DeviceError)> {
        let errors = [self.driver.as_ref().err(), self.nvrtc.as_ref().err(), self.cublas.as_ref().err()];
        Cuda::ALL.into_iter().zip(errors).filter_map(|(library, error)| Some((library, error?))).collect()
    }

    /// Versions of what was found.
    #[must_use]
    pub fn versions(&self) -> String {
        let driver =
            self.driver.iter().map(|facts| format!("driver for CUDA {}.{}", facts.cuda.0, facts.cuda.1));
        let nvrtc = self.nvrtc.iter().map(|((major, minor), _)| format!("NVRTC {major}.{minor}"));
        driver.chain(nvrtc).collect::<Vec<_>>().join(", ")
    }

    /// The GPUs, and where libraries were found.
    #[must_use]
    pub fn places(&self) -> String {
        let gpus = self.driver.iter().flat_map(|facts| facts.gpus.iter().cloned());
        let libraries = self.nvrtc.iter().map(|(_, place)| place.clone()).chain(self.cublas.iter().cloned());
        gpus.chain(libraries).collect::<Vec<_>>().join(", ")
    }
}
