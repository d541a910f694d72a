//! The execution contexts of an engine, one for each profile in use, and the kernels that TensorRT-RTX compiles for them when
//! they first run. Owns that these are kept for the next process, and that the library records runs as CUDA graphs by itself.

use super::kept::Kept;
use super::mismatch::Here;
use super::tensorrt::VENDOR;
use photonc_bundle::bundle::Blake3;
use std::collections::BTreeMap;
use std::ffi::c_void;
use trtx::{CudaEngine, ExecutionContext};

/// Contexts are dropped before what they were made with, and that before their engine.
pub(super) struct Contexts {
    contexts: BTreeMap<usize, ExecutionContext<'static>>,
    compiled: Compiled,
    engine: CudaEngine<'static>,
}

impl Contexts {
    /// None yet, of the engine of this hash.
    pub(super) fn of(mut engine: CudaEngine<'static>, hash: &Blake3, here: &Here) -> trtx::Result<Self> {
        let gpu = here.gpu.as_ref();
        let kept = gpu.map(|gpu| Kept::kernels(Kept::of_user(), hash, VENDOR, here.version, gpu));
        let compiled = Compiled::of(&mut engine, kept)?;
        Ok(Contexts { contexts: BTreeMap::new(), compiled, engine })
    }

    /// The context of a profile, made on `stream` when it is first asked for; `None` where the library refuses the profile.
    ///
    /// # Safety
    /// `stream` is one of the current CUDA context, or null.
    pub(super) unsafe fn of_profile(
        &mut self,
        profile: usize,
        stream: *mut c_void,
    ) -> trtx::Result<Option<&mut ExecutionContext<'static>>> {
        if !self.contexts.contains_key(&profile) {
            let mut context = self.compiled.context(&mut self.engine)?;
            let number = i32::try_from(profile).unwrap_or(i32::MAX);
            // SAFETY: by contract.
            if !unsafe { context.set_optimization_profile_async(number, stream) } {
                return Ok(None);
            }
            self.contexts.insert(profile, context);
        }
        Ok(self.contexts.get_mut(&profile))
    }
}

#[cfg(not(feature = "tensorrt"))]
pub(super) use just_in_time::Compiled;

#[cfg(not(feature = "tensorrt"))]
mod just_in_time {
    use super::Kept;
    use std::rc::Rc;
    use std::sync::Arc;
    use trtx::{CudaEngine, CudaGraphStrategy, ExecutionContext, RuntimeCache, RuntimeConfig};

    /// What TensorRT-RTX compiles on the GPU. Dropping it keeps that for the next process, where it is more than was there.
    pub(crate) struct Compiled {
        config: Rc<RuntimeConfig<'static>>,
        cache: Arc<RuntimeCache>,
        kept: Option<Kept>,
    }

    impl Compiled {
        pub(super) fn of(engine: &mut CudaEngine<'static>, kept: Option<Kept>) -> trtx::Result<Self> {
            let mut config = engine.create_runtime_config()?;
            let cache = Arc::new(config.create_runtime_cache()?);
            // What cannot be read, or is of another driver, only makes the first runs slower.
            if let Some(bytes) = kept.as_ref().and_then(|kept| kept.load().ok().flatten()) {
                let _taken = cache.deserialize(&bytes);
            }
            config.set_runtime_cache(Arc::clone(&cache))?;
            // The library records a shape's run once its kernels are compiled; where it will not, it runs them one by one.
            let _recorded = config.set_cuda_graph_strategy(CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE);
            Ok(Compiled { config: Rc::new(config), cache, kept })
        }

        pub(super) fn context(
            &self,
            engine: &mut CudaEngine<'static>,
        ) -> trtx::Result<ExecutionContext<'static>> {
            engine.create_execution_context_with_config(Rc::clone(&self.config))
        }
    }

    impl Drop for Compiled {
        fn drop(&mut self) {
            let (Some(kept), Ok(bytes)) = (&self.kept, self.cache.serialize()) else { return };
            // Who cannot write it compiles again.
            let _stored = kept.keep(|there| (there.as_deref() != Some(&*bytes)).then(|| bytes.to_vec()));
        }
    }
}

/// Classic TensorRT compiles nothing when it runs.
#[cfg(feature = "tensorrt")]
pub(super) struct Compiled;

#[cfg(feature = "tensorrt")]
impl Compiled {
    fn of(_engine: &mut CudaEngine<'static>, _kept: Option<Kept>) -> trtx::Result<Self> {
        Ok(Compiled)
    }

    fn context(&self, engine: &mut CudaEngine<'static>) -> trtx::Result<ExecutionContext<'static>> {
        engine.create_execution_context()
    }
}
