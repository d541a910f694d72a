//! TensorRT-RTX, and classic TensorRT in builds with the feature `tensorrt`, through `trtx`. Owns loading of the libraries,
//! whose version is checked before anything of them runs, and the order of calls of a build.

use super::builder::{BuildError, Built, EngineBuilder, Order, Phase, Sink};
use super::kept::Kept;
use super::library::{Found, parser_of, wanted};
use super::memory::KeepFreed;
use super::message::{Level, Message};
use super::profile::Profile;
use super::stream::Outlet;
use super::target::{Sm, Vendor, Version};
use super::tensorrt_build::{Build, Call, Ear, Entry};
use libloading::Library;
use photonc_bundle::places::NotFound;
use std::ffi::c_int;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use trtx::{LogHandler, Logger, Severity};

pub use super::gpu::find as find_gpu;

/// The vendor that this build of photonc speaks to.
pub const VENDOR: Vendor = if cfg!(feature = "tensorrt") { Vendor::Tensorrt } else { Vendor::TensorrtRtx };

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

impl Listener {
    /// Keeps what is said, but for details; 0 is the worst severity.
    fn add(&self, severity: i32, text: &str) {
        let level = match severity {
            0 | 1 => Level::Error,
            2 => Level::Warning,
            3 => Level::Note,
            _ => return,
        };
        let message = Message { level, text: text.to_owned() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }
}

impl LogHandler for Listener {
    fn log(&self, severity: Severity, text: &str) {
        self.add(severity as i32, text);
    }
}

/// Listens to builds.
fn ear(said: &Said) -> Result<Ear, String> {
    let listener = Listener(Arc::clone(said));
    Ear::new(Box::new(move |severity, text| listener.add(severity, text)))
}

/// The libraries, ready to build.
pub struct TensorRt {
    /// Hears what is said of running.
    logger: Logger,
    /// Hears what is said of building.
    ear: Ear,
    entry: Entry,
    said: Said,
    version: Version,
    /// From the first build on.
    keeping: Option<KeepFreed>,
    /// Timings of builds.
    timings: Option<Kept>,
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
        let entry = Entry::of(keep(&found.library)?, keep(&found.parser)?)?;
        Ok(TensorRt {
            logger,
            ear: ear(&said)?,
            entry,
            said,
            version: found.version,
            keeping: None,
            timings: None,
        })
    }

    /// Builds take the timings of earlier ones and leave theirs. TensorRT-RTX times nothing while it builds: it takes the calls
    /// and keeps nothing.
    #[must_use]
    pub fn with_timings(self, timings: Kept) -> Self {
        TensorRt { timings: Some(timings), ..self }
    }

    /// Gives a build the timings of earlier ones; what they are not taken for is a warning.
    fn take_timings(&self, work: &mut Build) {
        let Some(kept) = &self.timings else { return };
        let bytes = kept.load().unwrap_or_else(|error| {
            self.warn(format!("timings of earlier builds are not used: {error}"));
            None
        });
        let bytes = bytes.unwrap_or_default();
        let is_some = !bytes.is_empty();
        if work.take_timings(bytes).is_err() && is_some {
            self.warn("timings of earlier builds are not used: the library refuses them".to_owned());
            // Without any, this build's own are still worth keeping; where that fails too, nothing is kept.
            let _fresh = work.take_timings(Vec::new());
        }
        self.forgive();
    }

    /// Leaves the timings of a build to later ones.
    fn leave_timings(&self, work: &mut Build) {
        let Some(kept) = &self.timings else { return };
        let left = kept.keep(|there| work.timed(there.as_deref()).filter(|now| Some(now) != there.as_ref()));
        if let Err(error) = left {
            self.warn(format!("timings of this build are not kept: {error}"));
        }
        self.forgive();
    }

    /// What the library has against timings fails no build.
    fn forgive(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter_mut().for_each(|message| message.level = message.level.max(Level::Warning));
    }

    fn warn(&self, text: String) {
        let message = Message { level: Level::Warning, text };
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(message);
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

    /// The failure of a phase, with what was said; where nothing was, with the call that failed.
    fn refused(&self, phase: Phase, call: Call) -> BuildError {
        let mut messages = self.take_said();
        if messages.iter().all(|message| message.level != Level::Error) {
            let text = format!("`{call}` failed without a reason");
            messages.push(Message { level: Level::Error, text });
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
        self.keeping.get_or_insert_with(KeepFreed::start);
        let parse = |call: Call| self.refused(Phase::Parse, call);
        let build = |call: Call| self.refused(Phase::Build, call);
        let mut work = Build::begin(self.entry, &self.ear, Arc::clone(&order.steps)).map_err(parse)?;
        self.take_timings(&mut work);
        work.parse(order.onnx).map_err(parse)?;
        let kept = work.inputs().map_err(parse)?;
        let names = order.inputs.iter().map(|input| &input.name);
        let dropped: Vec<String> = names.filter(|name| !kept.contains(name)).cloned().collect();
        if !dropped.is_empty() {
            return Err(BuildError::Unconsumed { vendor: VENDOR, inputs: dropped });
        }
        target(&mut work, order.sms).map_err(build)?;
        for profile in order.profiles {
            work.profile(&inputs(order, profile)?).map_err(build)?;
        }
        let mut passed = |bytes: &[u8]| sink(bytes);
        let mut outlet = Outlet::new(&mut passed);
        let written = work.write(&mut outlet);
        if let Some(error) = outlet.failure() {
            return Err(error.into());
        }
        written.map_err(build)?;
        self.leave_timings(&mut work);
        let messages = self.take_said();
        let unused = unused(&messages);
        if !unused.is_empty() {
            return Err(BuildError::Unconsumed { vendor: VENDOR, inputs: unused });
        }
        Ok(Built { messages })
    }
}

/// Inputs that the network has and nothing reads, which the library says in a warning.
fn unused(messages: &[Message]) -> Vec<String> {
    let names = messages.iter().filter_map(|message| message.text.trim().strip_prefix("Unused Input: "));
    names.map(str::to_owned).collect()
}

#[cfg(not(feature = "tensorrt"))]
fn target(build: &mut Build, sms: &[Sm]) -> Result<(), Call> {
    use trtx::ComputeCapability;
    let capability = |sm: &Sm| match sm.0 {
        75 => ComputeCapability::kSM75,
        80 => ComputeCapability::kSM80,
        86 => ComputeCapability::kSM86,
        89 => ComputeCapability::kSM89,
        120 => ComputeCapability::kSM120,
        121 => ComputeCapability::kSM121,
        _ => ComputeCapability::kNONE,
    };
    let capabilities: Vec<ComputeCapability> = sms.iter().map(capability).collect();
    build.compute_capabilities(&capabilities)
}

/// Classic TensorRT builds for the GPU at hand and takes no other.
#[cfg(feature = "tensorrt")]
fn target(_build: &mut Build, _sms: &[Sm]) -> Result<(), Call> {
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
