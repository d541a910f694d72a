//! Which backend runs a model, and how it is opened. Owns what `auto` means, the rows of a replica, and what a build without a
//! feature says.

use super::error::Error;
use super::export_names::one_of;
use crate::bundle::Bundle;
use crate::ir::dtype::Dtype;
use crate::runtime::backend::{Backend, BackendError};
use crate::runtime::cpu::device::{Cpu, CpuOptions};
use crate::runtime::decoder::DecoderSetup;
use crate::runtime::error::RuntimeError;
use crate::runtime::generator::Generator;
use crate::runtime::launch::backend::LaunchBackend;
use crate::runtime::launch::device::Device;
use crate::runtime::launch::replicas::RowCount;
use crate::runtime::plan::Program;
use crate::runtime::portable::OnnxGraph;
use crate::runtime::reference::Reference;
use crate::runtime::workers::{Backends, Opened};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of the host, unless the user says: each costs memory, and a few cores gain nothing from more.
pub const HOST_ROWS: usize = 16;

/// Rows of a GPU, unless the user says.
pub const GPU_ROWS: usize = 128;

/// A backend by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// `cuda` where there is a GPU and the feature, else what the command line takes by default.
    #[default]
    Auto,
    /// Own kernels on the processor.
    Cpu,
    /// ONNX in pure Rust.
    Tract,
    /// Interprets the graphs in binary64: slow, the oracle.
    Reference,
    /// ONNX in ONNX Runtime, whose library is loaded.
    Ort,
    /// Own kernels on an NVIDIA GPU.
    Cuda,
}

/// How a bundle is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where the graphs run.
    pub backend: BackendKind,
    /// Number of the GPU, for `cuda`.
    pub device: usize,
    /// Threads that compute, for `cpu` and `ort`; otherwise one per core.
    pub threads: Option<NonZero<usize>>,
    /// Compares the weights with their hashes, which reads all of them.
    pub verify: bool,
    /// Sequences side by side; by default [`HOST_ROWS`] or [`GPU_ROWS`].
    pub rows: Option<NonZero<usize>>,
    /// Most tokens of a sequence, prompt included; by default the bundle's.
    pub max_tokens: Option<NonZero<usize>>,
    /// Meta-contexts of a burst at most.
    pub run_ahead: NonZero<usize>,
    /// The same tokens whatever stands beside a sequence, also where that costs time: on `cuda`. On `cpu` and `reference` it
    /// is so anyway; other backends refuse it.
    pub batch_invariant: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            backend: BackendKind::Auto,
            device: 0,
            threads: None,
            verify: true,
            rows: None,
            max_tokens: None,
            run_ahead: NonZero::<usize>::MIN.saturating_add(7),
            batch_invariant: false,
        }
    }
}

impl BackendKind {
    /// Every backend.
    pub const ALL: [BackendKind; 6] = [
        BackendKind::Auto,
        BackendKind::Cpu,
        BackendKind::Tract,
        BackendKind::Reference,
        BackendKind::Ort,
        BackendKind::Cuda,
    ];

    /// What the command line takes by default.
    pub const DEFAULT: BackendKind = BackendKind::Cpu;

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BackendKind::Auto => "auto",
            BackendKind::Cpu => "cpu",
            BackendKind::Tract => "tract",
            BackendKind::Reference => "reference",
            BackendKind::Ort => "ort",
            BackendKind::Cuda => "cuda",
        }
    }

    /// The backend of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        one_of("backend", name, &BackendKind::ALL, BackendKind::name)
    }
}

/// A backend that was chosen, with what opens it.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub kind: BackendKind,
    device: usize,
    threads: Option<NonZero<usize>>,
    rows: Option<NonZero<usize>>,
    batch_invariant: bool,
}

impl Chosen {
    /// The backend that is meant.
    pub fn of(options: &LoadOptions) -> Result<Self, Error> {
        let kind = match options.backend {
            BackendKind::Auto if open_gpu(options.device, false).is_ok() => BackendKind::Cuda,
            BackendKind::Auto => BackendKind::DEFAULT,
            named => named,
        };
        let takes_threads = matches!(kind, BackendKind::Cpu | BackendKind::Ort);
        if options.threads.is_some() && !takes_threads && options.backend != BackendKind::Auto {
            let found = kind.name();
            return Err(Error::refused(format!("threads are for backends cpu and ort, found {found}")));
        }
        let invariant = matches!(kind, BackendKind::Cuda | BackendKind::Cpu | BackendKind::Reference);
        if options.batch_invariant && !invariant {
            let found = kind.name();
            let message =
                format!("batch_invariant is for backend cuda, and holds on cpu and reference, found {found}");
            return Err(Error::refused(message));
        }
        let LoadOptions { device, threads, rows, batch_invariant, .. } = *options;
        Ok(Chosen { kind, device, threads, rows, batch_invariant })
    }

    /// The backend with the graphs of a bundle.
    pub fn backend(&self, bundle: &Bundle) -> Result<Box<dyn Backend>, BackendError> {
        Ok(match self.kind {
            BackendKind::Tract => return open_tract(bundle, None),
            BackendKind::Reference => Box::new(Reference::of_bundle(bundle.clone())),
            BackendKind::Ort => return open_ort(bundle, None, None, self.threads, None),
            BackendKind::Cpu | BackendKind::Auto => {
                Box::new(LaunchBackend::of_bundle(bundle.clone(), open_cpu(self.threads)?, Dtype::F32)?)
            }
            BackendKind::Cuda => Box::new(self.cuda(bundle)?),
        })
    }

    /// The backend with one graph that the bundle does not have in this form; `model` is the graph for those that run ONNX.
    pub fn with_graph(
        &self,
        bundle: &Bundle,
        graph: crate::graph::Verified<'_>,
        model: Option<OnnxGraph>,
    ) -> Result<Box<dyn Backend>, BackendError> {
        let device: Arc<dyn Device> = match self.kind {
            BackendKind::Reference => {
                let mut reference = Reference::of_bundle(bundle.clone());
                reference.insert(graph)?;
                return Ok(Box::new(reference));
            }
            BackendKind::Tract => return open_tract(bundle, model),
            BackendKind::Ort => return open_ort(bundle, None, None, self.threads, model),
            BackendKind::Cpu | BackendKind::Auto => open_cpu(self.threads)?,
            BackendKind::Cuda => self.gpu()?,
        };
        let graph = graph.graph();
        let graphs = [(graph.name().to_owned(), graph.clone())].into_iter().collect();
        let dtype = bundle.manifest().dtype();
        Ok(Box::new(LaunchBackend::with_weights_of(bundle.clone(), graphs, device, dtype)?))
    }

    /// Whether it runs ONNX models.
    pub fn runs_onnx(&self) -> bool {
        matches!(self.kind, BackendKind::Tract | BackendKind::Ort)
    }

    fn gpu(&self) -> Result<Arc<dyn Device>, BackendError> {
        let unavailable = |message| BackendError::Unavailable { backend: self.kind.name(), message };
        open_gpu(self.device, self.batch_invariant).map_err(unavailable)
    }

    fn cuda(&self, bundle: &Bundle) -> Result<LaunchBackend, BackendError> {
        LaunchBackend::of_bundle(bundle.clone(), self.gpu()?, bundle.manifest().dtype())
    }

    fn opened(&self, bundle: &Bundle, setups: &[DecoderSetup]) -> Result<Opened, RuntimeError> {
        if self.kind != BackendKind::Cuda {
            let generator = Generator::of_bundle(bundle, self.backend(bundle)?)?;
            return Ok(Opened { generator, rows: self.rows.map_or(HOST_ROWS, NonZero::get) });
        }
        let mut cuda = self.cuda(bundle)?;
        let rows = match self.rows {
            Some(rows) => rows.get(),
            None => fitting_rows(&mut cuda, &Program::from_bundle(bundle)?, setups)?,
        };
        Ok(Opened { generator: Generator::of_bundle(bundle, Box::new(cuda))?, rows })
    }
}

/// Bytes of a GPU that rows leave free: what recordings and loaded kernels take is known to the driver alone.
const RESERVE_BYTES: usize = 2 << 30;

/// As many rows as fit every decoder, no more than [`GPU_ROWS`].
fn fitting_rows(
    cuda: &mut LaunchBackend,
    program: &Program,
    setups: &[DecoderSetup],
) -> Result<usize, BackendError> {
    let wanted = RowCount::Fitting { reserve_bytes: RESERVE_BYTES, at_most: GPU_ROWS };
    let mut rows = GPU_ROWS;
    for setup in setups {
        rows = rows.min(cuda.rows(program, *setup, wanted)?);
    }
    Ok(rows)
}

impl Backends for Chosen {
    fn bundle(&self, path: &Path) -> Result<Bundle, String> {
        Bundle::open(path).map_err(|error| error.to_string())
    }

    fn replicas(&self) -> usize {
        1
    }

    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn open(&self, bundle: &Bundle, _replica: usize, setups: &[DecoderSetup]) -> Result<Opened, String> {
        self.opened(bundle, setups).map_err(|error| error.to_string())
    }
}

/// The processor, with so many threads; one per core by default.
///
/// # Errors
/// The system starts no threads.
pub fn open_cpu(threads: Option<NonZero<usize>>) -> Result<Arc<dyn Device>, BackendError> {
    let options = CpuOptions { threads: threads.map(NonZero::get), ..CpuOptions::default() };
    let device = Cpu::new(&options).map_err(|error| BackendError::from(error).of(BackendKind::Cpu.name()))?;
    Ok(Arc::new(device))
}

/// The GPU of a number; with `batch_invariant` its kernels are chosen without regard to the number of rows.
///
/// # Errors
/// In words: the driver, the GPU or the feature is missing.
#[cfg(feature = "cuda")]
pub fn open_gpu(ordinal: usize, batch_invariant: bool) -> Result<Arc<dyn Device>, String> {
    use crate::runtime::cuda::driver::{Driver, DriverOptions};
    let driver = Driver::open(DriverOptions { ordinal, batch_invariant, ..DriverOptions::default() });
    driver.map(|driver| Arc::new(driver) as Arc<dyn Device>).map_err(|error| error.to_string())
}

/// What to do about a build without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
pub const WITH_CUDA: &str = "cargo install --path . --features cuda";

/// Says that this build has no CUDA.
///
/// # Errors
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn open_gpu(_ordinal: usize, _batch_invariant: bool) -> Result<Arc<dyn Device>, String> {
    Err(format!("this photonc was built without it; install with `{WITH_CUDA}`"))
}

/// The graphs of a bundle in tract, and one that the bundle does not have.
///
/// # Errors
/// The feature is missing, or a graph does not load.
#[cfg(feature = "tract")]
pub fn open_tract(bundle: &Bundle, extra: Option<OnnxGraph>) -> Result<Box<dyn Backend>, BackendError> {
    let mut tract = crate::runtime::tract::Tract::of_bundle(bundle.clone());
    extra.map_or(Ok(()), |extra| tract.insert(extra))?;
    Ok(Box::new(tract))
}

/// What to do about a build without the feature `tract`.
#[cfg(not(feature = "tract"))]
pub const WITH_TRACT: &str = "cargo install --path . --features tract";

/// Says that this build has no tract.
///
/// # Errors
/// Always.
#[cfg(not(feature = "tract"))]
pub fn open_tract(_bundle: &Bundle, _extra: Option<OnnxGraph>) -> Result<Box<dyn Backend>, BackendError> {
    let message = format!("this photonc was built without it; install with `{WITH_TRACT}`");
    Err(BackendError::Unavailable { backend: BackendKind::Tract.name(), message })
}

/// The graphs of a bundle in ONNX Runtime, and one that the bundle does not have: on a GPU if on any, else on `threads`, one per
/// core by default. `library` is that of ONNX Runtime or its folder; by default it is searched for.
///
/// # Errors
/// The library or the feature is missing, or a graph does not load.
#[cfg(feature = "ort")]
pub fn open_ort(
    bundle: &Bundle,
    library: Option<PathBuf>,
    gpu: Option<usize>,
    threads: Option<NonZero<usize>>,
    extra: Option<OnnxGraph>,
) -> Result<Box<dyn Backend>, BackendError> {
    use crate::runtime::ort::{Ort, OrtOptions, Provider};
    let provider = gpu.map_or(Provider::Cpu, |device| Provider::Cuda { device });
    let mut ort = Ort::of_bundle(bundle.clone(), &OrtOptions { library, threads, provider })?;
    extra.map_or(Ok(()), |extra| ort.insert(extra))?;
    Ok(Box::new(ort))
}

/// What to do about a build without the feature `ort`.
#[cfg(not(feature = "ort"))]
pub const WITH_ORT: &str = "cargo install --path . --features ort";

/// Says that this build has no ONNX Runtime.
///
/// # Errors
/// Always.
#[cfg(not(feature = "ort"))]
pub fn open_ort(
    _bundle: &Bundle,
    _library: Option<PathBuf>,
    _gpu: Option<usize>,
    _threads: Option<NonZero<usize>>,
    _extra: Option<OnnxGraph>,
) -> Result<Box<dyn Backend>, BackendError> {
    let message = format!("this photonc was built without it; install with `{WITH_ORT}`");
    Err(BackendError::Unavailable { backend: BackendKind::Ort.name(), message })
}

#[cfg(test)]
mod tests {
    use super::{BackendKind, Chosen, LoadOptions};

    #[test]
    fn batch_invariance_is_refused_where_it_is_not_known_to_hold() {
        let chosen =
            |backend| Chosen::of(&LoadOptions { backend, batch_invariant: true, ..LoadOptions::default() });
        for backend in [BackendKind::Ort, BackendKind::Tract] {
            let error = chosen(backend).expect_err("is refused").to_string();
            assert!(error.contains("batch_invariant") && error.contains(backend.name()), "{error}");
        }
        for backend in [BackendKind::Cpu, BackendKind::Reference, BackendKind::Cuda] {
            assert!(chosen(backend).is_ok_and(|chosen| chosen.kind == backend));
        }
    }
}
