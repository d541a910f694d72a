//! TensorRT-RTX, and classic TensorRT in builds with the feature `tensorrt`, through `trtx`. Owns loading of the libraries,
//! whose version is checked before anything of them runs, and the order of calls of a build.

use super::builder::{BuildError, Built, EngineBuilder, Order, Phase, Sink, Step, Steps};
use super::library::{Found, parser_of, wanted};
use super::memory::give_back_freed;
use super::message::{Level, Message};
use super::profile::Profile;
use super::target::{Sm, Vendor, Version};
use crate::places::NotFound;
use libloading::Library;
use std::ffi::c_int;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use trtx::interfaces::MonitorProgress;
use trtx::{BuilderConfig, LogHandler, Logger, NetworkDefinition, OnnxParser, OptProfileSelector, Severity};

pub use super::gpu::find as find_gpu;

/// The vendor that this build of photonc speaks to.
pub const VENDOR: Vendor = if cfg!(feature = "tensorrt") { Vendor::Tensorrt } else { Vendor::TensorrtRtx };

/// `NetworkDefinitionCreationFlag::kSTRONGLY_TYPED`: types are those of the model. Newer versions know nothing else.
const STRONGLY_TYPED: u32 = 1;

/// Finds the libraries; `named` is one of them or their folder.
///
/// # Errors
/// There are none that can be used: what was tried, what was wrong with each, how to get them.
pub fn find(named: Option<&Path>) -> Result<Found, NotFound> {
    wanted(VENDOR).find(named, facts)
}

/// Version of the main library at `place`, whose parser can be loaded too.
fn facts(place: &Path) -> Result<Found, String> {
    let library = keep(place)?;
    let number = |name: &[u8]| {
        // SAFETY: the only signature that a function of this name has: it takes nothing and gives a number.
        let function = unsafe { library.get::<unsafe extern "C" fn() -> c_int>(name) };
        // SAFETY: as above; it reads a constant.
        function.ok().and_then(|function| u32::try_from(unsafe { function() }).ok())
    };
    let numbers =
        [b"getInferLibMajorVersion\0".as_slice(), b"getInferLibMinorVersion\0", b"getInferLibPatchVersion\0"];
    let [Some(major), Some(minor), Some(patch)] = numbers.map(number) else {
        return Err(format!("it is not {VENDOR}: it does not tell its version"));
    };
    let version = Version { major, minor, patch };
    let bound = bound_version();
    if (major, minor) != (bound.major, bound.minor) {
        let Version { major, minor, .. } = bound;
        return Err(format!("its version is {version}, this photonc speaks to {major}.{minor}"));
    }
    let parser = parser_of(VENDOR, place);
    keep(&parser).map_err(|error| format!("it has no ONNX parser beside it: {error}"))?;
    Ok(Found { vendor: VENDOR, library: place.to_owned(), parser, version })
}

/// The version whose interface `trtx` was built for.
fn bound_version() -> Version {
    // SAFETY: each gives a constant of the headers.
    let (major, minor, patch) = unsafe {
        let major = trtx::trtx_sys::get_tensorrt_major_version();
        (major, trtx::trtx_sys::get_tensorrt_minor_version(), trtx::trtx_sys::get_tensorrt_patch_version())
    };
    Version { major, minor, patch }
}

/// Loads a library for as long as the program runs.
fn keep(place: &Path) -> Result<&'static Library, String> {
    // SAFETY: the initialisers of these libraries have no requirements, and nothing is ever unloaded.
    let opened = unsafe { Library::new(place) };
    Ok(Box::leak(Box::new(opened.map_err(|error| error.to_string())?)))
}

/// Everything the libraries have said since it was last emptied.
type Said = Arc<Mutex<Vec<Message>>>;

struct Listener(Said);

impl LogHandler for Listener {
    fn log(&self, severity: Severity, text: &str) {
        let level = match severity {
            Severity::InternalError | Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
            Severity::Info => Level::Note,
            Severity::Verbose => return,
        };
        let message = Message { level, text: text.to_owned() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }
}

/// The libraries, ready to build.
pub struct TensorRt {
    logger: Logger,
    said: Said,
    version: Version,
}

impl TensorRt {
    /// Loads the libraries. One process uses one pair of them, the first.
    ///
    /// # Errors
    /// The loader's words.
    pub fn open(found: &Found) -> Result<Self, String> {
        let words = |error: trtx::Error| error.to_string();
        trtx::dynamically_load_tensorrt(Some(&found.library)).map_err(words)?;
        trtx::dynamically_load_tensorrt_onnxparser(Some(&found.parser)).map_err(words)?;
        let said = Said::default();
        let logger = Logger::new(Listener(Arc::clone(&said))).map_err(words)?;
        Ok(TensorRt { logger, said, version: found.version })
    }

    /// A runtime of the library.
    pub(super) fn runtime(&self) -> trtx::Result<trtx::Runtime<'_>> {
        trtx::Runtime::new(&self.logger)
    }

    /// What was said since this was last asked, the failures first; where there were none, the words of `trtx`.
    pub(super) fn words(&self, error: &dyn std::fmt::Display) -> String {
        let said = self.take_said();
        let errors: Vec<&str> = said
            .iter()
            .filter(|message| message.level == Level::Error)
            .map(|message| message.text.trim())
            .collect();
        if errors.is_empty() { error.to_string() } else { errors.join("; ") }
    }

    fn take_said(&self) -> Vec<Message> {
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The failure of a phase, with what was said; where nothing was, with the words of `trtx`.
    fn refused(&self, phase: Phase, error: &trtx::Error) -> BuildError {
        let mut messages = self.take_said();
        if messages.iter().all(|message| message.level != Level::Error) {
            messages.push(Message { level: Level::Error, text: error.to_string() });
        }
        BuildError::Refused { vendor: VENDOR, phase, messages }
    }
}

impl EngineBuilder for TensorRt {
    fn vendor(&self) -> Vendor {
        VENDOR
    }

    fn version(&self) -> Version {
        self.version
    }

    fn build(&mut self, order: &Order<'_>, sink: &mut Sink<'_>) -> Result<Built, BuildError> {
        let _before = self.take_said();
        give_back_freed();
        let parse = |error: trtx::Error| self.refused(Phase::Parse, &error);
        let build = |error: trtx::Error| self.refused(Phase::Build, &error);
        let mut builder = trtx::Builder::new(&self.logger).map_err(parse)?;
        let network = builder.create_network(STRONGLY_TYPED).map_err(parse)?;
        let mut parser = OnnxParser::new(network, &self.logger).map_err(parse)?;
        parser.parse_from_file(&order.onnx.to_string_lossy(), 0).map_err(parse)?;
        let network = parser.network_mut();
        let dropped = dropped(network, order).map_err(parse)?;
        if !dropped.is_empty() {
            return Err(BuildError::Unconsumed { vendor: VENDOR, inputs: dropped });
        }
        let mut config = builder.create_config().map_err(build)?;
        target(&mut config, order.sms).map_err(build)?;
        config.set_progress_monitor(Box::new(Monitor::new(Arc::clone(&order.steps)))).map_err(build)?;
        for profile in order.profiles {
            let mut made = builder.creata_optimization_profile().map_err(build)?;
            for (name, sizes) in inputs(order, profile)? {
                for (selector, sizes) in SELECTORS.into_iter().zip(sizes) {
                    let dims = trtx::trtx_sys::Dims64::from_slice(&sizes);
                    made.set_dimensions(&name, selector, &dims).map_err(build)?;
                }
            }
            config.add_optimization_profile(&mut made).map_err(build)?;
        }
        let engine = builder.build_serialized_network(network, &mut config).map_err(build)?;
        let messages = self.take_said();
        let unused = unused(&messages);
        if !unused.is_empty() {
            return Err(BuildError::Unconsumed { vendor: VENDOR, inputs: unused });
        }
        sink(&engine)?;
        Ok(Built { messages })
    }
}

const SELECTORS: [OptProfileSelector; 3] =
    [OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX];

/// Inputs of the model that the network does not have.
fn dropped(network: &NetworkDefinition<'_>, order: &Order<'_>) -> trtx::Result<Vec<String>> {
    let mut kept = Vec::new();
    for at in 0..network.nb_inputs() {
        kept.push(network.input(at)?.name(network)?);
    }
    let names = order.inputs.iter().map(|input| &input.name);
    Ok(names.filter(|name| !kept.contains(name)).cloned().collect())
}

/// Inputs that the network has and nothing reads, which the library says in a warning.
fn unused(messages: &[Message]) -> Vec<String> {
    let names = messages.iter().filter_map(|message| message.text.trim().strip_prefix("Unused Input: "));
    names.map(str::to_owned).collect()
}

#[cfg(not(feature = "tensorrt"))]
fn target(config: &mut BuilderConfig<'_>, sms: &[Sm]) -> trtx::Result<()> {
    use trtx::ComputeCapability;
    config.set_nb_compute_capabilities(i32::try_from(sms.len()).unwrap_or(0))?;
    for (at, sm) in (0..).zip(sms) {
        let capability = match sm.0 {
            75 => ComputeCapability::kSM75,
            80 => ComputeCapability::kSM80,
            86 => ComputeCapability::kSM86,
            89 => ComputeCapability::kSM89,
            120 => ComputeCapability::kSM120,
            121 => ComputeCapability::kSM121,
            _ => ComputeCapability::kNONE,
        };
        config.set_compute_capability(capability, at)?;
    }
    Ok(())
}

/// Classic TensorRT builds for the GPU at hand and takes no other.
#[cfg(feature = "tensorrt")]
fn target(_config: &mut BuilderConfig<'_>, _sms: &[Sm]) -> trtx::Result<()> {
    Ok(())
}

type Sizes = [Vec<i64>; 3];

/// Least, best and most sizes of every input.
fn inputs(order: &Order<'_>, profile: &Profile) -> Result<Vec<(String, Sizes)>, BuildError> {
    let mut found = Vec::with_capacity(order.inputs.len());
    for input in order.inputs {
        let mut sizes: Sizes = Default::default();
        for dim in &input.shape {
            let unknown = || BuildError::Profile { input: input.name.clone(), profile: profile.to_string() };
            let of_dim = profile.sizes(dim).ok_or_else(unknown)?;
            for (list, size) in sizes.iter_mut().zip(of_dim) {
                list.push(i64::try_from(size).unwrap_or(i64::MAX));
            }
        }
        found.push((input.name.clone(), sizes));
    }
    Ok(found)
}

/// Passes on the steps of the outermost phase.
struct Monitor {
    steps: Steps,
    outermost: Mutex<Option<(String, u64)>>,
}

impl Monitor {
    fn new(steps: Steps) -> Self {
        Monitor { steps, outermost: Mutex::new(None) }
    }

    fn outermost(&self) -> std::sync::MutexGuard<'_, Option<(String, u64)>> {
        self.outermost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MonitorProgress for Monitor {
    fn phase_start(&self, phase: &str, _parent: Option<&str>, steps: i32) {
        let mut outermost = self.outermost();
        if outermost.is_none() {
            *outermost = Some((phase.to_owned(), u64::try_from(steps).unwrap_or(0)));
        }
    }

    fn step_complete(&self, phase: &str, step: i32) -> ControlFlow<()> {
        if let Some((outermost, of)) = &*self.outermost()
            && outermost == phase
        {
            let done = u64::try_from(step).unwrap_or(0) + 1;
            (self.steps)(Step { phase: phase.to_owned(), done: done.min(*of), of: *of });
        }
        ControlFlow::Continue(())
    }

    fn phase_finish(&self, phase: &str) {
        let mut outermost = self.outermost();
        if outermost.as_ref().is_some_and(|(name, _)| name == phase) {
            *outermost = None;
        }
    }
}
