//! Running engines with the vendor's library. Owns one execution context per profile in use; every run is on the device's
//! default stream and waited for by the caller.
//!
//! Not executed so far beyond what a machine without a GPU can: see docs/tensorrt.md.

use super::mismatch::Here;
use super::runner::{Binding, Bindings, EngineRunner};
use super::tensorrt::TensorRt;
use std::collections::BTreeMap;
use std::ffi::c_void;
use trtx::trtx_sys::Dims64;
use trtx::{CudaEngine, ExecutionContext, Runtime};

/// Engines on a GPU.
pub struct TensorRtRunner {
    here: Here,
    vendor: &'static TensorRt,
    runtime: Runtime<'static>,
    loaded: BTreeMap<String, Loaded>,
}

/// Contexts are dropped before their engine.
struct Loaded {
    contexts: BTreeMap<usize, ExecutionContext<'static>>,
    engine: CudaEngine<'static>,
}

impl TensorRtRunner {
    /// A runner on the GPU that `here` names.
    ///
    /// # Errors
    /// The library's words.
    pub fn new(vendor: TensorRt, here: Here) -> Result<Self, String> {
        // Engines refer to the logger for as long as they live; a process has one.
        let vendor: &'static TensorRt = Box::leak(Box::new(vendor));
        let runtime = vendor.runtime().map_err(|error| vendor.words(&error))?;
        Ok(TensorRtRunner { here, vendor, runtime, loaded: BTreeMap::new() })
    }
}

impl EngineRunner for TensorRtRunner {
    fn here(&self) -> &Here {
        &self.here
    }

    fn load(&mut self, graph: &str, engine: &[u8]) -> Result<(), String> {
        let vendor = self.vendor;
        let engine = self.runtime.deserialize_cuda_engine(engine).map_err(|error| vendor.words(&error))?;
        self.loaded.insert(graph.to_owned(), Loaded { contexts: BTreeMap::new(), engine });
        Ok(())
    }

    fn run(&mut self, graph: &str, bindings: &Bindings<'_>) -> Result<(), String> {
        let vendor = self.vendor;
        let words = |error: trtx::Error| vendor.words(&error);
        let loaded = self.loaded.get_mut(graph).ok_or_else(|| format!("`{graph}` is not loaded"))?;
        let context = match loaded.contexts.entry(bindings.profile) {
            std::collections::btree_map::Entry::Occupied(made) => made.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let mut context = loaded.engine.create_execution_context().map_err(words)?;
                let profile = i32::try_from(bindings.profile).unwrap_or(i32::MAX);
                // SAFETY: the null stream is the default one, which always exists.
                if !unsafe { context.set_optimization_profile_async(profile, std::ptr::null_mut()) } {
                    return Err(vendor.words(&"the profile was refused"));
                }
                place.insert(context)
            }
        };
        for input in bindings.inputs {
            let sizes: Vec<i64> =
                input.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
            context.set_input_shape(input.name, &Dims64::from_slice(&sizes)).map_err(words)?;
        }
        for Binding { name, address, .. } in bindings.inputs.iter().chain(bindings.outputs) {
            // SAFETY: the caller's buffers are as large as their sizes say, of the types that the engine was built with, and
            // live until the run has been waited for.
            unsafe { context.set_tensor_address(name, *address as *mut c_void) }.map_err(words)?;
        }
        // SAFETY: every input and output has an address, and the default stream always exists.
        unsafe { context.enqueue_v3(std::ptr::null_mut()) }.map_err(words)
    }
}
