//! ONNX models of target `portable` in ONNX Runtime, whose library is loaded when it is used. Buffers are ONNX Runtime's
//! tensors in the memory where its provider computes: graphs read them where they lie, caches included, and what a graph
//! yields stays there. One set of threads serves all graphs.

pub mod copies;
pub mod cuda;
mod cudart;
pub mod library;
mod memory;

use super::backend::BackendError;
use super::portable::{Elements, Engine, Input, Output, Portable, no_elements};
use super::region::Piece;
use copies::Copies;
use half::f16;
use library::Found;
use memory::{Block, Memory};
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use photonc_bundle::bundle::{Bundle, Layout};
use photonc_graph::ir::dtype::Dtype;
use std::num::NonZero;
use std::path::PathBuf;
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
    /// An NVIDIA GPU by its number. Buffers are in its memory.
    Cuda {
        /// Number of the GPU.
        device: usize,
    },
}

/// ONNX Runtime, loaded.
pub struct OrtEngine {
    environment: Environment,
    provider: Provider,
    memory: Memory,
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

    /// The same on the CPU, with `copies` between its buffers in place of its own.
    ///
    /// # Errors
    /// As `of_bundle`.
    pub fn copied_by(
        bundle: Bundle,
        options: &OrtOptions,
        copies: Box<dyn Copies>,
    ) -> Result<Self, BackendError> {
        let unavailable = |message| BackendError::Unavailable { backend: NAME, message };
        let options = &OrtOptions { provider: Provider::Cpu, ..options.clone() };
        let mut engine = OrtEngine::open(options).map_err(unavailable)?;
        engine.memory.copy_by(copies).map_err(unavailable)?;
        Ok(Portable::new(bundle, engine))
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
        let provider = options.provider;
        let memory =
            Memory::of(provider, |model| builder(&environment, provider)?.commit_from_memory(model))?;
        Ok(OrtEngine { environment, provider, memory })
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        builder(&self.environment, self.provider)
    }
}

fn builder(environment: &Environment, provider: Provider) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_config_entry(EXACT_QUANTISED.0, EXACT_QUANTISED.1)?;
    match provider {
        Provider::Cpu => Ok(builder),
        Provider::Cuda { device } => Ok(builder.with_execution_providers([cuda::provider(device)])?),
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

/// Elements as ONNX Runtime has them in memory.
fn bytes(elements: &Elements) -> (Dtype, Vec<u8>) {
    match elements {
        Elements::F32(values) => (Dtype::F32, values.iter().flat_map(|value| value.to_ne_bytes()).collect()),
        Elements::F16(values) => (Dtype::F16, values.iter().flat_map(|value| value.to_ne_bytes()).collect()),
        Elements::I64(values) => (Dtype::I64, values.iter().flat_map(|value| value.to_ne_bytes()).collect()),
        Elements::Bool(values) => (Dtype::Bool, values.iter().map(|value| u8::from(*value)).collect()),
    }
}

/// The reverse.
fn elements(dtype: Dtype, bytes: &[u8]) -> Result<Elements, String> {
    match dtype {
        Dtype::F32 => Ok(Elements::F32(parts(bytes).map(f32::from_ne_bytes).collect())),
        Dtype::F16 => Ok(Elements::F16(parts(bytes).map(f16::from_ne_bytes).collect())),
        Dtype::I64 => Ok(Elements::I64(parts(bytes).map(i64::from_ne_bytes).collect())),
        Dtype::Bool => Ok(Elements::Bool(bytes.iter().map(|byte| *byte != 0).collect())),
        Dtype::Bf16 => Err(no_elements(dtype)),
    }
}

/// Bytes by the element.
fn parts<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).filter_map(|part| part.try_into().ok())
}

impl Engine for OrtEngine {
    const NAME: &'static str = NAME;
    type Storage = Block;
    type Plan = Session;

    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Block, String> {
        self.memory.zeros(dtype, shape)
    }

    fn keep(&self, shape: &[usize], elements: Elements) -> Result<Block, String> {
        let (dtype, bytes) = bytes(&elements);
        self.memory.upload(dtype, shape, &bytes)
    }

    fn fetch(&self, block: &Block, dtype: Dtype) -> Result<Elements, String> {
        elements(dtype, &self.memory.download(block)?)
    }

    fn copy(&self, target: &mut Block, source: &Block, dtype: Dtype, pieces: &[Piece]) -> Result<(), String> {
        self.memory.copy(target, source, dtype, pieces)
    }

    fn load(&self, model: &[u8], bundle: &Bundle) -> Result<Session, String> {
        let folder = bundle.root().join(Layout::ONNX);
        let Some(path) = folder.to_str() else {
            return Err(format!(
                "{}: is not UTF-8, as ONNX Runtime wants paths of weights",
                folder.display()
            ));
        };
        let load = |builder: SessionBuilder| {
            builder.with_config_entry(WEIGHTS_FOLDER, path)?.commit_from_memory(model)
        };
        // ONNX Runtime reads weights by path: they are those of the bundle if the path led to it before and after.
        let in_place = || bundle.in_place().map_err(|error| error.to_string());
        in_place()?;
        let session = self.builder().and_then(load).map_err(words);
        in_place().and(session)
    }

    fn run(&self, session: &mut Session, inputs: &[Input<'_, Block>]) -> Result<Vec<Output<Block>>, String> {
        self.memory.run(session, inputs)
    }

    fn wait(&self) -> Result<(), String> {
        self.memory.wait()
    }
}
