//! Running engines with the vendor's library. Owns one execution context per profile in use, and what the library compiles
//! for them, which it finds again at the next start. Runs are entered on the caller's stream.
//!
//! Not executed so far beyond what a machine without a GPU can: see docs/tensorrt.md.

use super::mismatch::Here;
use super::runner::{Binding, Bindings, EngineRunner};
use super::tensorrt::TensorRt;
use super::tensorrt_contexts::Contexts;
use photonc_bundle::bundle::Blake3;
use std::collections::BTreeMap;
use std::ffi::c_void;
use trtx::Runtime;
use trtx::trtx_sys::Dims64;

/// Engines on a GPU.
pub struct TensorRtRunner {
    loaded: BTreeMap<String, Contexts>,
    here: Here,
    vendor: &'static TensorRt,
    runtime: Runtime<'static>,
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
        Ok(TensorRtRunner { loaded: BTreeMap::new(), here, vendor, runtime })
    }
}

impl EngineRunner for TensorRtRunner {
    fn here(&self) -> &Here {
        &self.here
    }

    fn load(&mut self, graph: &str, hash: &Blake3, engine: &[u8]) -> Result<(), String> {
        let vendor = self.vendor;
        let words = |error: trtx::Error| vendor.words(&error);
        let engine = self.runtime.deserialize_cuda_engine(engine).map_err(words)?;
        let contexts = Contexts::of(engine, hash, &self.here).map_err(words)?;
        self.loaded.insert(graph.to_owned(), contexts);
        Ok(())
    }

    fn run(&mut self, graph: &str, bindings: &Bindings<'_>) -> Result<(), String> {
        let vendor = self.vendor;
        let words = |error: trtx::Error| vendor.words(&error);
        let loaded = self.loaded.get_mut(graph).ok_or_else(|| format!("`{graph}` is not loaded"))?;
        let stream = bindings.stream as *mut c_void;
        // SAFETY: a stream of the caller's, or the default one, which always exists.
        let context = unsafe { loaded.of_profile(bindings.profile, stream) }.map_err(words)?;
        let context = context.ok_or_else(|| vendor.words(&"the profile was refused"))?;
        for input in bindings.inputs {
            let sizes: Vec<i64> =
                input.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
            context.set_input_shape(input.name, &Dims64::from_slice(&sizes)).map_err(words)?;
        }
        for Binding { name, address, .. } in bindings.inputs.iter().chain(bindings.outputs) {
            // SAFETY: the caller's buffers are as large as their sizes say, of the types that the engine was built with, and
            // live until the stream has been waited for.
            unsafe { context.set_tensor_address(name, *address as *mut c_void) }.map_err(words)?;
        }
        // SAFETY: every input and output has an address, and the stream is as above.
        unsafe { context.enqueue_v3(stream) }.map_err(words)
    }
}
