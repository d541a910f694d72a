//! ONNX models of target `portable` in ONNX Runtime, whose library is loaded when it is used. Buffers are ONNX Runtime's
//! tensors in host memory: graphs read them where they lie, caches included, and what a graph yields is kept without a
//! copy. One set of threads serves all graphs.

mod cuda;
pub mod library;

use super::backend::BackendError;
use super::portable::{
    Elements, ElementsMut, ElementsRef, Engine, Input, Output, Portable, Typed, no_elements,
};
use crate::bundle::Bundle;
use crate::ir::dtype::Dtype;
use library::Found;
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType, TensorRef, ValueType};
use std::fmt::Debug;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Graphs of a bundle in ONNX Runtime.
pub type Ort = Portable<OrtEngine>;

const NAME: &str = "ort";

/// Keeps products with int4 and int8 weights exact to f32: by default activations are rounded to int8 (errors of 2e-2).
const EXACT_QUANTISED: (&str, &str) = ("session.qdq_matmulnbits_accuracy_level", "1");
/// Asks for ONNX Runtime's own messages on stderr: `warning`, `info`, `verbose`.
const LOG_VARIABLE: &str = "ORT_LOG";
/// Where a model in memory has its weights.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// How ONNX Runtime is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrtOptions {
    /// The library or its folder; by default it is searched for.
    pub library: Option<PathBuf>,
    /// Threads that compute; by default one per core.
    pub threads: Option<NonZero<usize>>,
    /// What computes.
    pub provider: Provider,
}

/// An execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number. Buffers stay in host memory, so every run copies its inputs there and its outputs back.
    Cuda {
        /// Number of the GPU.
        device: usize,
    },
}

/// ONNX Runtime, loaded.
pub struct OrtEngine {
    environment: Environment,
    provider: Provider,
}

/// What a process has loaded: there is one library and one set of threads for all.
struct Loaded {
    found: Found,
    threads: NonZero<usize>,
    environment: Environment,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

impl Ort {
    /// The graphs of a bundle.
    ///
    /// # Errors
    /// The library cannot be found or used, or lacks the execution provider; or the process uses ONNX Runtime already, from
    /// another library or with another number of threads.
    pub fn of_bundle(bundle: Bundle, options: &OrtOptions) -> Result<Self, BackendError> {
        let unavailable = |message| BackendError::Unavailable { backend: NAME, message };
        Ok(Portable::new(bundle, OrtEngine::open(options).map_err(unavailable)?))
    }
}

impl OrtEngine {
    fn open(options: &OrtOptions) -> Result<Self, String> {
        let found = library::find(options.library.as_deref()).map_err(|missing| missing.to_string())?;
        let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let threads = options.threads.unwrap_or(cores);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = match loaded.take() {
            Some(ready) => ready,
            None => load(found.clone(), threads)?,
        };
        let environment = ready.environment.clone();
        let (other, other_threads) = (ready.found.clone(), ready.threads);
        *loaded = Some(ready);
        if (&other, other_threads) != (&found, threads) {
            return Err(format!(
                "this process uses {} on {other_threads} threads already, so it cannot use {} on {threads}",
                other.place.display(),
                found.place.display()
            ));
        }
        if let Provider::Cuda { .. } = options.provider {
            cuda::check(&found)?;
        }
        Ok(OrtEngine { environment, provider: options.provider })
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_config_entry(EXACT_QUANTISED.0, EXACT_QUANTISED.1)?;
        match self.provider {
            Provider::Cpu => Ok(builder),
            Provider::Cuda { device } => Ok(builder.with_execution_providers([cuda::provider(device)])?),
        }
    }
}

/// Loads the library for good.
fn load(found: Found, threads: NonZero<usize>) -> Result<Loaded, String> {
    let start = || -> ort::Result<Environment> {
        let loaded = ort::init_from(&found.place).map_err(ort::Error::wrap)?;
        // Only now: the options are the library's own.
        let pool = GlobalThreadPoolOptions::default()
            .with_intra_threads(threads.get())?
            .with_inter_threads(1)?
            // Threads sleep between products: awake they take the processor from whoever else has work.
            .with_spin_control(false)?;
        let environment =
            loaded.with_name("photonc").with_telemetry(false).with_global_thread_pool(pool).build()?;
        // What matters comes back as an error; the rest would stand between a user's tokens.
        if std::env::var_os(LOG_VARIABLE).is_none() {
            environment.set_log_level(LogLevel::Fatal);
        }
        Ok(environment)
    };
    let environment = start().map_err(|error| format!("{}: {error}", found.place.display()))?;
    Ok(Loaded { found, threads, environment })
}

fn words(error: ort::Error) -> String {
    error.to_string()
}

fn stored<T>(shape: &[usize], values: Vec<T>) -> Result<DynValue, String>
where
    T: PrimitiveTensorElementType + Clone + Debug + 'static,
{
    Tensor::from_array((shape, values)).map(Tensor::into_dyn).map_err(words)
}

fn slice_of<T: PrimitiveTensorElementType>(value: &DynValue) -> Result<&[T], String> {
    value.try_extract_tensor::<T>().map(|(_, elements)| elements).map_err(words)
}

fn slice_mut<T: PrimitiveTensorElementType>(value: &mut DynValue) -> Result<&mut [T], String> {
    value.try_extract_tensor_mut::<T>().map(|(_, elements)| elements).map_err(words)
}

/// Tensor elements of a buffer, where they lie, under the buffer's sizes.
fn input<'v>(input: &Input<'v, DynValue>) -> Result<SessionInputValue<'v>, String> {
    fn view<'v, T>(shape: &'v [usize], values: &'v [T]) -> Result<SessionInputValue<'v>, String>
    where
        T: PrimitiveTensorElementType + Clone + Debug + 'static,
    {
        Ok(TensorRef::from_array_view((shape, values)).map_err(words)?.into())
    }
    match OrtEngine::elements(input.storage, input.dtype)? {
        Typed::F32(values) => view(input.shape, values),
        Typed::F16(values) => view(input.shape, values),
        Typed::I64(values) => view(input.shape, values),
        Typed::Bool(values) => view(input.shape, values),
    }
}

/// What a graph has yielded, as a buffer of its own.
fn output(value: DynValue, inputs: &[Input<'_, DynValue>]) -> Result<Output<DynValue>, String> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(format!("it yields {}, expected a tensor", value.dtype()));
    };
    let dtype = match ty {
        TensorElementType::Float32 => Dtype::F32,
        TensorElementType::Float16 => Dtype::F16,
        TensorElementType::Int64 => Dtype::I64,
        TensorElementType::Bool => Dtype::Bool,
        other => return Err(format!("it yields elements of type {other}")),
    };
    let shape = shape.iter().map(|size| usize::try_from(*size).map_err(|error| error.to_string()));
    let shape: Vec<usize> = shape.collect::<Result<_, _>>()?;
    let elements = OrtEngine::elements(&value, dtype)?;
    // An output that only passes an input on may be that input's memory, which its buffer goes on to change.
    for input in inputs.iter().filter(|input| input.dtype == dtype) {
        if start(&OrtEngine::elements(input.storage, dtype)?) == start(&elements) {
            let storage = OrtEngine::keep(&shape, copied(&elements))?;
            return Ok(Output { dtype, shape, storage });
        }
    }
    Ok(Output { dtype, shape, storage: value })
}

/// Address of the first element.
fn start(elements: &ElementsRef<'_>) -> *const u8 {
    match elements {
        Typed::F32(values) => values.as_ptr().cast(),
        Typed::F16(values) => values.as_ptr().cast(),
        Typed::I64(values) => values.as_ptr().cast(),
        Typed::Bool(values) => values.as_ptr().cast(),
    }
}

fn copied(elements: &ElementsRef<'_>) -> Elements {
    match elements {
        Typed::F32(values) => Typed::F32(values.to_vec()),
        Typed::F16(values) => Typed::F16(values.to_vec()),
        Typed::I64(values) => Typed::I64(values.to_vec()),
        Typed::Bool(values) => Typed::Bool(values.to_vec()),
    }
}

impl Engine for OrtEngine {
    const NAME: &'static str = NAME;
    type Storage = DynValue;
    type Plan = Session;

    fn keep(shape: &[usize], elements: Elements) -> Result<DynValue, String> {
        match elements {
            Typed::F32(values) => stored(shape, values),
            Typed::F16(values) => stored(shape, values),
            Typed::I64(values) => stored(shape, values),
            Typed::Bool(values) => stored(shape, values),
        }
    }

    fn elements(storage: &DynValue, dtype: Dtype) -> Result<ElementsRef<'_>, String> {
        match dtype {
            Dtype::I64 => slice_of(storage).map(Typed::I64),
            Dtype::Bool => slice_of(storage).map(Typed::Bool),
            Dtype::F16 => slice_of(storage).map(Typed::F16),
            Dtype::F32 => slice_of(storage).map(Typed::F32),
            Dtype::Bf16 => Err(no_elements(dtype)),
        }
    }

    fn change<R>(
        storage: &mut DynValue,
        dtype: Dtype,
        write: impl FnOnce(ElementsMut<'_>) -> R,
    ) -> Result<R, String> {
        let elements = match dtype {
            Dtype::I64 => slice_mut(storage).map(Typed::I64),
            Dtype::Bool => slice_mut(storage).map(Typed::Bool),
            Dtype::F16 => slice_mut(storage).map(Typed::F16),
            Dtype::F32 => slice_mut(storage).map(Typed::F32),
            Dtype::Bf16 => return Err(no_elements(dtype)),
        };
        elements.map(write)
    }

    fn load(&self, path: &Path) -> Result<Session, String> {
        self.builder().and_then(|mut builder| builder.commit_from_file(path)).map_err(words)
    }

    fn load_bytes(&self, model: &[u8], folder: &Path) -> Result<Session, String> {
        let load = |builder: SessionBuilder| {
            builder.with_config_entry(WEIGHTS_FOLDER, folder.to_string_lossy())?.commit_from_memory(model)
        };
        self.builder().and_then(load).map_err(words)
    }

    fn run(session: &mut Session, inputs: &[Input<'_, DynValue>]) -> Result<Vec<Output<DynValue>>, String> {
        let given = inputs.iter().map(|value| Ok((value.name, input(value)?)));
        let given: Vec<(&str, SessionInputValue<'_>)> = given.collect::<Result<_, String>>()?;
        let outputs = session.run(given).map_err(words)?;
        outputs.into_iter().map(|(_, value)| output(value, inputs)).collect()
    }
}
