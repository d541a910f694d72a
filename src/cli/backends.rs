//! The backends that `--backend` offers and `doctor` lists. Owns their names and how each is loaded.

use super::memory::check_weights;
use super::open_args::OpenArgs;
use super::ort_args::OrtArgs;
use super::{Failure, Reporter, engine_args};
use crate::api::{open_cpu, open_gpu, open_tract};
use crate::bundle::Bundle;
use crate::engine::{pick, sets, stale};
use crate::graph::Graph;
use crate::ir::dtype::Dtype;
use crate::passes::compile::Plan;
use crate::runtime::backend::{Backend, BackendError};
use crate::runtime::error::RuntimeError;
use crate::runtime::generator::Generator;
use crate::runtime::launch::backend::LaunchBackend;
use crate::runtime::launch::device::{Device, DeviceError};
use crate::runtime::plan::{ENCODE, WINDOW};
use crate::runtime::portable::OnnxGraph;
use crate::runtime::reference::Reference;
use crate::runtime::request::{Batch, Request};
use crate::runtime::tensorrt::Tensorrt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

/// The version in Cargo.lock; a test compares them.
#[cfg(feature = "tract")]
pub const TRACT_VERSION: &str = "0.23.9";

/// A backend by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendName {
    /// Own kernels on the CPU, straight from the graphs
    Cpu,
    /// ONNX in pure Rust
    Tract,
    /// ONNX in ONNX Runtime, whose library is loaded
    Ort,
    /// Interprets the graphs in binary64: slow, the oracle
    Reference,
    /// Own kernels on an NVIDIA GPU, straight from the graphs
    Cuda,
    /// TensorRT engines that `photonc build` has made, on an NVIDIA GPU
    Tensorrt,
}

/// Where graphs run.
#[derive(Clone, Debug, clap::Args)]
pub struct BackendArgs {
    /// Where the graphs run
    #[arg(long = "backend", value_enum, value_name = "BACKEND", default_value_t = BackendName::Cpu)]
    pub name: BackendName,
    /// Numbers of the GPUs, for backends that use them; where several prompts are generated from, each GPU takes its part
    #[arg(long, visible_alias = "device", value_name = "N,..", default_value = "0", value_delimiter = ',')]
    devices: Vec<usize>,
    /// Type of activations and weights, for backends `cuda` and `cpu`; by default that of the export on a GPU, f32 on
    /// the processor
    #[arg(long, value_name = "TYPE", value_parser = compute_type)]
    compute: Option<Dtype>,
    /// Threads that compute, for backends `cpu` and `ort`; otherwise one per core
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// The same tokens whatever stands beside a prompt, also on backend `cuda`, whose kernels are otherwise chosen by the
    /// number of rows; slower there, and so anyway on `cpu` and `reference`
    #[arg(long)]
    batch_invariant: bool,
    /// Refuse TensorRT engines that do not fit this machine or the bundle, rather than build them again
    #[arg(long)]
    no_rebuild: bool,
    /// Run TensorRT engines that somebody else has built: they are code, and their hashes do not say who made them
    #[arg(long)]
    trust: bool,
    #[command(flatten)]
    pub bundle: OpenArgs,
    #[command(flatten)]
    ort: OrtArgs,
}

fn compute_type(text: &str) -> Result<Dtype, String> {
    let known = [Dtype::F32, Dtype::F16, Dtype::Bf16];
    let found = known.into_iter().find(|dtype| dtype.name() == text);
    found.ok_or_else(|| "expected `f32`, `f16` or `bf16`".to_owned())
}

impl BackendName {
    /// Every backend.
    pub const ALL: [BackendName; 6] = [
        BackendName::Cpu,
        BackendName::Tract,
        BackendName::Ort,
        BackendName::Reference,
        BackendName::Cuda,
        BackendName::Tensorrt,
    ];

    /// Bytes of an element in the host's memory, where it is not as it is stored.
    pub fn element_bytes(self) -> Option<u64> {
        (self == BackendName::Reference).then_some(8)
    }

    /// Whether weights and caches are in the host's memory.
    pub fn is_host(self) -> bool {
        matches!(self, BackendName::Tract | BackendName::Cpu | BackendName::Reference)
    }

    /// Name in options and output.
    pub fn name(self) -> &'static str {
        match self {
            BackendName::Tract => "tract",
            BackendName::Cpu => "cpu",
            BackendName::Ort => "ort",
            BackendName::Reference => "reference",
            BackendName::Cuda => "cuda",
            BackendName::Tensorrt => "tensorrt",
        }
    }

    /// What it is, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            BackendName::Cpu => "own kernels on the CPU, straight from the graphs, the default",
            BackendName::Tract => "runs the ONNX models on the CPU, in pure Rust",
            BackendName::Ort => "runs the ONNX models in ONNX Runtime, on the CPU or a GPU",
            BackendName::Reference => "interprets the graphs in binary64: slow, the oracle",
            BackendName::Cuda => "own kernels on an NVIDIA GPU, straight from the graphs",
            BackendName::Tensorrt => {
                "TensorRT engines: `photonc build` makes them anywhere, an NVIDIA GPU runs them"
            }
        }
    }
}

/// For clap: a number of threads.
fn threads(text: &str) -> Result<NonZeroUsize, String> {
    const MOST: usize = 1024;
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= MOST);
    count.ok_or_else(|| format!("expected a number of threads from 1 to {MOST}"))
}

impl BackendArgs {
    /// Threads that were asked for.
    pub fn threads(&self) -> Option<NonZeroUsize> {
        self.threads
    }

    /// Refuses options that the backend would not heed.
    pub fn check(&self) -> Result<(), Failure> {
        if self.threads.is_some() && !matches!(self.name, BackendName::Cpu | BackendName::Ort) {
            let found = self.name.name();
            return Err(Failure::usage(&format_args!(
                "--threads is for `--backend cpu` and `--backend ort`, found `--backend {found}`"
            )));
        }
        if self.compute.is_some() && !matches!(self.name, BackendName::Cuda | BackendName::Cpu) {
            let found = self.name.name();
            return Err(Failure::usage(&format_args!(
                "--compute is for `--backend cuda` and `--backend cpu`, found `--backend {found}`"
            )));
        }
        let invariant = matches!(self.name, BackendName::Cuda | BackendName::Cpu | BackendName::Reference);
        if self.batch_invariant && !invariant {
            let found = self.name.name();
            return Err(Failure::usage(&format_args!(
                "--batch-invariant is for `--backend cuda`, and holds on `cpu` and `reference`, found `--backend {found}`"
            )));
        }
        if self.no_rebuild && self.name != BackendName::Tensorrt {
            return Err(self.for_tensorrt("--no-rebuild"));
        }
        if self.trust && self.name != BackendName::Tensorrt {
            return Err(self.for_tensorrt("--trust"));
        }
        self.ort.check(self.name)
    }

    fn for_tensorrt(&self, option: &str) -> Failure {
        let found = self.name.name();
        Failure::usage(&format_args!("{option} is for `--backend tensorrt`, found `--backend {found}`"))
    }

    /// Opens a bundle on the backend.
    pub fn open(&self, path: &Path, reporter: &Reporter) -> Result<(Bundle, Generator), Failure> {
        self.check()?;
        let bundle = self.bundle.open(path)?;
        let generator = self.generator(&bundle, reporter)?;
        Ok((bundle, generator))
    }

    /// Puts an opened bundle on the backend.
    pub fn generator(&self, bundle: &Bundle, reporter: &Reporter) -> Result<Generator, Failure> {
        self.check()?;
        if self.name.is_host() {
            check_weights(bundle, self.name.element_bytes())?;
        }
        let backend: Box<dyn Backend> = match self.name {
            BackendName::Tract => self.tract(bundle, None)?,
            BackendName::Cpu => Box::new(self.cpu(bundle)?),
            BackendName::Ort => self.ort(bundle, None)?,
            BackendName::Reference => Box::new(Reference::of_bundle(bundle.clone())),
            BackendName::Cuda => self.cuda(bundle)?,
            BackendName::Tensorrt => self.tensorrt(bundle, reporter)?,
        };
        Ok(Generator::of_bundle(bundle, backend)?)
    }

    /// tract, with one graph more than the bundle has.
    pub fn tract(&self, bundle: &Bundle, extra: Option<OnnxGraph>) -> Result<Box<dyn Backend>, Failure> {
        Ok(open_tract(bundle, extra).map_err(RuntimeError::from)?)
    }

    /// ONNX Runtime, with one graph more than the bundle has.
    pub fn ort(&self, bundle: &Bundle, extra: Option<OnnxGraph>) -> Result<Box<dyn Backend>, Failure> {
        Ok(self.ort.open(bundle, self.one_device()?, self.threads, extra)?)
    }

    /// Own kernels on the processor.
    fn cpu(&self, bundle: &Bundle) -> Result<LaunchBackend, Failure> {
        Ok(self.load(bundle, self.processor()?).map_err(RuntimeError::from)?)
    }

    /// The processor or the one GPU, whichever was asked for.
    pub fn one_device_of_plans(&self) -> Result<Arc<dyn Device>, Failure> {
        if self.name == BackendName::Cpu { self.processor() } else { self.one_gpu() }
    }

    fn processor(&self) -> Result<Arc<dyn Device>, Failure> {
        Ok(open_cpu(self.threads).map_err(RuntimeError::from)?)
    }

    fn cuda(&self, bundle: &Bundle) -> Result<Box<dyn Backend>, Failure> {
        Ok(Box::new(self.load(bundle, self.one_gpu()?).map_err(RuntimeError::from)?))
    }

    /// Puts the graphs of a bundle on a device.
    pub fn load(&self, bundle: &Bundle, device: Arc<dyn Device>) -> Result<LaunchBackend, BackendError> {
        LaunchBackend::of_bundle(bundle.clone(), device, self.compute_type(bundle))
    }

    /// Type of activations: the one asked for, or f32 on the processor and that of the export on a GPU, of its weights too.
    pub fn compute_type(&self, bundle: &Bundle) -> Dtype {
        let usual = || if self.name == BackendName::Cpu { Dtype::F32 } else { bundle.manifest().dtype() };
        self.compute.unwrap_or_else(usual)
    }

    /// The device, with one graph and the weights of a bundle: in the graph's own precision, so that it can be verified.
    pub fn with_graph(&self, bundle: &Bundle, graph: &Graph) -> Result<Box<dyn Backend>, Failure> {
        let graphs = [(graph.name().to_owned(), graph.clone())].into_iter().collect();
        let dtype = self.compute.unwrap_or_else(|| bundle.manifest().dtype());
        let device = self.one_device_of_plans()?;
        let backend = LaunchBackend::with_weights_of(bundle.clone(), graphs, device, dtype);
        Ok(Box::new(backend.map_err(RuntimeError::from)?))
    }

    /// TensorRT engines of the bundle; those that building mends are built again.
    pub fn tensorrt(&self, bundle: &Bundle, reporter: &Reporter) -> Result<Box<dyn Backend>, Failure> {
        let unavailable = |message| BackendError::Unavailable { backend: self.name.name(), message };
        let device = self.one_device()?;
        let failed = |message: String| RuntimeError::from(unavailable(message));
        let here = engine_args::here(device).map_err(failed)?;
        for error in sets(bundle).unreadable {
            reporter.note(&error.to_string());
        }
        if !self.no_rebuild
            && let Some(stale) = stale(bundle, &here)
        {
            reporter.note(&format!("{stale}\nbuilding them again; --no-rebuild refuses them"));
            engine_args::again(bundle, here.vendor, &stale, reporter)?;
        }
        if !self.trust {
            engine_args::check_origin(bundle, here.vendor)?;
        }
        // A bundle without a fitting engine is refused before the GPU is opened.
        if bundle.manifest().graphs.contains_key(ENCODE) {
            pick(bundle, ENCODE, &here).map_err(|error| {
                RuntimeError::from(BackendError::Load {
                    graph: ENCODE.to_owned(),
                    message: error.to_string(),
                })
            })?;
        }
        let runner = engine_args::runner(here).map_err(failed)?;
        let opened = Tensorrt::of_bundle(bundle.clone(), self.open_device(device)?, runner);
        Ok(Box::new(opened.map_err(RuntimeError::from)?))
    }

    /// The type that every float is computed in, where it was asked for.
    pub fn precision(&self) -> Option<Dtype> {
        self.compute
    }

    /// Every GPU asked for, in that order.
    pub fn gpus(&self) -> Result<Vec<Arc<dyn Device>>, Failure> {
        let repeated = |at: usize| self.devices[..at].contains(&self.devices[at]);
        if let Some(at) = (0..self.devices.len()).find(|at| repeated(*at)) {
            return Err(Failure::usage(&format_args!(
                "GPU {} is named twice in --devices",
                self.devices[at]
            )));
        }
        self.devices.iter().map(|ordinal| Ok(self.open_device(*ordinal)?)).collect()
    }

    /// The GPU, where the work cannot be shared.
    pub fn one_gpu(&self) -> Result<Arc<dyn Device>, Failure> {
        Ok(self.open_device(self.one_device()?)?)
    }

    /// Replicas of a model that run side by side.
    #[cfg(feature = "serve")]
    pub fn replicas(&self) -> usize {
        if self.is_cuda() { self.devices.len() } else { 1 }
    }

    /// The GPU of a replica.
    #[cfg(feature = "serve")]
    pub fn gpu(&self, replica: usize) -> Result<Arc<dyn Device>, Failure> {
        let ordinal = self.devices.get(replica).copied();
        Ok(self.open_device(ordinal.ok_or_else(|| Failure::bug(&"a replica without a GPU"))?)?)
    }

    fn one_device(&self) -> Result<usize, Failure> {
        match self.devices.as_slice() {
            [device] => Ok(*device),
            _ => Err(Failure::usage(&"this runs on one GPU: name one in --devices")),
        }
    }

    fn open_device(&self, ordinal: usize) -> Result<Arc<dyn Device>, RuntimeError> {
        open_gpu(ordinal, self.batch_invariant)
            .map_err(|message| BackendError::Unavailable { backend: self.name.name(), message }.into())
    }

    /// Whether it is the backend with rows on GPUs.
    pub fn is_cuda(&self) -> bool {
        self.name == BackendName::Cuda
    }

    /// Whether requests are shared out: over several GPUs, or over the rows of one.
    pub fn shares_out(&self, requests: &[Request]) -> bool {
        self.name == BackendName::Cuda
            && (requests.len() > 1 || self.devices.len() > 1)
            && !requests.iter().any(Request::needs_graphs)
    }
}

/// A device that failed outside any graph.
pub fn failed_on_gpu(error: DeviceError) -> Failure {
    RuntimeError::from(BackendError::from(error)).into()
}

/// Loads the graphs that a generation will run, so that its times are those of generation; tells whether tokens are drawn
/// outside the graphs.
pub fn load_graphs(generator: &mut Generator, batch: &Batch) -> Result<bool, Failure> {
    let on_host = generator.draws_on_host(batch)?;
    let Some(Request { protocol, .. }) = batch.requests.first() else { return Ok(on_host) };
    let plan = generator.program().plan(*protocol)?.clone();
    let (step, draw) = match &plan {
        Plan::Distributed { coarse, expand, prepare, .. } => (Some(coarse), (expand, prepare.as_ref())),
        Plan::Undistributed { decode, prepare, reencode, .. } => {
            (reencode.as_ref(), (decode, prepare.as_ref()))
        }
    };
    let drawing = match (on_host, draw) {
        (true, (_, Some(prepare))) => vec![prepare.as_str(), WINDOW],
        (_, (whole, _)) => vec![whole.as_str()],
    };
    let backend = generator.backend();
    for graph in [protocol.encode()].into_iter().chain(step.map(String::as_str)).chain(drawing) {
        backend.prepare(graph).map_err(RuntimeError::from)?;
    }
    Ok(on_host)
}

#[cfg(test)]
mod tests {
    use super::BackendArgs;
    use crate::api::BackendKind;
    use clap::{Args, FromArgMatches};

    /// Programs that embed photonc and leave the choice to it get what its users get.
    #[test]
    fn the_default_is_that_of_embedding_programs() {
        let command = BackendArgs::augment_args(clap::Command::new("photonc"));
        let matches = command.get_matches_from(["photonc"]);
        let args = BackendArgs::from_arg_matches(&matches).expect("parses");
        assert_eq!(args.name.name(), BackendKind::DEFAULT.name());
    }
}
