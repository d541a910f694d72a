//! The calls of TensorRT that build an engine and hand it out while it is written. `trtx` offers the engine whole, in memory
//! only, where a large graph is held once more than building it takes. Owns the objects of a build and the order in which
//! they go.

use super::builder::{Step, Steps};
use super::stream::Outlet;
use super::tensorrt_timings::Timings;
use cxx::UniquePtr;
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use trtx::trtx_sys::nvinfer1::{
    Dims64, IBuilder, IBuilderConfig, INetworkDefinition, IOptimizationProfile, IProgressMonitor,
    IStreamWriter,
};
use trtx::trtx_sys::nvonnxparser::IParser;
use trtx::{OptProfileSelector, trtx_sys};

/// `NetworkDefinitionCreationFlag::kSTRONGLY_TYPED`: types are those of the model. Newer versions know nothing else.
const STRONGLY_TYPED: u32 = 1;

type MakeBuilder = unsafe extern "C" fn(*mut c_void, u32) -> *mut IBuilder;
type MakeParser = unsafe extern "C" fn(*mut INetworkDefinition, *mut c_void, u32) -> *mut IParser;

/// Where builds begin: functions of the libraries, which are never unloaded.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    builder: MakeBuilder,
    parser: MakeParser,
}

impl Entry {
    /// The functions of a library and of its parser.
    pub(super) fn of(library: &'static Library, parser: &'static Library) -> Result<Self, String> {
        let lacks = |error: libloading::Error| error.to_string();
        // SAFETY: the signatures that functions of these names have in every version.
        unsafe {
            let builder = library.get::<MakeBuilder>(b"createInferBuilder_INTERNAL\0").map_err(lacks)?;
            let parser = parser.get::<MakeParser>(b"createNvOnnxParser_INTERNAL\0").map_err(lacks)?;
            Ok(Entry { builder: *builder, parser: *parser })
        }
    }
}

/// Hears what the libraries say, for as long as the process runs, since they may refer to it as long.
pub(super) struct Ear(*mut c_void);

// SAFETY: the object behind it has no state but a function that may be called from any thread.
unsafe impl Send for Ear {}
// SAFETY: as above.
unsafe impl Sync for Ear {}

/// Takes a severity, 0 for the worst, and a text.
pub(super) type Heard = Box<dyn Fn(i32, &str) + Send + Sync>;

impl Ear {
    pub(super) fn new(heard: Heard) -> Result<Self, String> {
        let heard: *mut Heard = Box::into_raw(Box::new(heard));
        // SAFETY: `hear` takes what is passed here, which lives as long as the process.
        let bridge = unsafe { trtx_sys::create_rust_logger_bridge(hear, heard.cast()) };
        if bridge.is_null() {
            return Err("there is no memory for a logger".to_owned());
        }
        // SAFETY: the bridge has just been made.
        Ok(Ear(unsafe { trtx_sys::get_logger_interface(bridge) }))
    }
}

extern "C" fn hear(heard: *mut c_void, severity: i32, text: *const c_char) {
    if !text.is_null() {
        // SAFETY: `Ear::new` passes a `Heard` that is never freed; the library's texts end in zero.
        let (heard, text) = unsafe { (&*heard.cast::<Heard>(), CStr::from_ptr(text)) };
        heard(severity, &text.to_string_lossy());
    }
}

/// A call that failed, by its name; why is what the library has said.
pub(super) type Call = &'static str;

/// A build. Fields go in this order: what refers to others before them.
pub(super) struct Build {
    config: UniquePtr<IBuilderConfig>,
    parser: UniquePtr<IParser>,
    network: UniquePtr<INetworkDefinition>,
    builder: UniquePtr<IBuilder>,
    /// Shown by the configuration, and so freed after it.
    _monitor: Monitor,
    /// As above, and what they were read from.
    timings: Option<(Timings, Vec<u8>)>,
}

impl Build {
    /// An empty network, and a configuration that tells its steps.
    pub(super) fn begin(entry: Entry, ear: &Ear, steps: Steps) -> Result<Self, Call> {
        // SAFETY: the logger lives on, and the version is the one whose headers the bindings come from.
        let builder = unsafe { (entry.builder)(ear.0, trtx_sys::get_tensorrt_version()) };
        let mut builder = owned(builder, "createInferBuilder")?;
        let network = owned(builder.pin_mut().createNetworkV2(STRONGLY_TYPED), "createNetworkV2")?;
        let network_at: *mut INetworkDefinition = network.as_mut_ptr();
        // SAFETY: the network outlives the parser, by the order of fields; the logger outlives both.
        let parser = unsafe { (entry.parser)(network_at, ear.0, trtx_sys::get_nvonnxparser_version()) };
        let parser = owned(parser, "createNvOnnxParser")?;
        let mut config = owned(builder.pin_mut().createBuilderConfig(), "createBuilderConfig")?;
        let monitor = Monitor::new(steps)?;
        // SAFETY: the monitor outlives the configuration, by the order of fields.
        unsafe { config.pin_mut().setProgressMonitor(monitor.object) };
        Ok(Build { config, parser, network, builder, _monitor: monitor, timings: None })
    }

    /// Takes timings of earlier builds, and keeps what is timed.
    pub(super) fn take_timings(&mut self, bytes: Vec<u8>) -> Result<(), Call> {
        let timings = Timings::of(&self.config, &bytes)?;
        let object = timings.object().ok_or("createTimingCache")?;
        done(self.config.pin_mut().setTimingCache(object, false), "setTimingCache")?;
        self.timings = Some((timings, bytes));
        Ok(())
    }

    /// The timings of this build and of those it took, with what others have written out meanwhile.
    pub(super) fn timed(&mut self, meanwhile: Option<&[u8]>) -> Option<Vec<u8>> {
        let (timings, taken) = self.timings.as_mut()?;
        let others = meanwhile.filter(|bytes| *bytes != taken.as_slice());
        if let Some(others) = others.and_then(|bytes| Timings::of(&self.config, bytes).ok()) {
            timings.join(&others);
        }
        timings.bytes()
    }

    /// Reads an ONNX model into the network.
    pub(super) fn parse(&mut self, onnx: &Path) -> Result<(), Call> {
        let path = CString::new(onnx.as_os_str().as_encoded_bytes()).map_err(|_| "parseFromFile")?;
        // SAFETY: the path ends in zero and is read during the call.
        let read = unsafe { self.parser.pin_mut().parseFromFile(path.as_ptr(), 0.into()) };
        done(read, "parseFromFile")
    }

    /// Names of the network's inputs.
    pub(super) fn inputs(&self) -> Result<Vec<String>, Call> {
        let mut names = Vec::new();
        for at in 0..self.network.getNbInputs() {
            // SAFETY: inputs and their names belong to the network, which is not changed meanwhile.
            let name = unsafe { self.network.getInput(at).as_ref().map(|input| input.getName()) };
            let name = name.filter(|name| !name.is_null()).ok_or("getInput")?;
            // SAFETY: as above; names end in zero.
            names.push(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// The GPUs that the engine serves.
    #[cfg(not(feature = "tensorrt"))]
    pub(super) fn compute_capabilities(
        &mut self,
        capabilities: &[trtx::ComputeCapability],
    ) -> Result<(), Call> {
        let count = i32::try_from(capabilities.len()).unwrap_or(0);
        done(self.config.pin_mut().setNbComputeCapabilities(count), "setNbComputeCapabilities")?;
        for (at, capability) in (0..).zip(capabilities) {
            let set = self.config.pin_mut().setComputeCapability((*capability).into(), at);
            done(set, "setComputeCapability")?;
        }
        Ok(())
    }

    /// Adds a profile: of every input its least, best and most sizes.
    pub(super) fn profile(&mut self, inputs: &[(String, [Vec<i64>; 3])]) -> Result<(), Call> {
        let profile: *mut IOptimizationProfile = self.builder.pin_mut().createOptimizationProfile();
        for (name, sizes) in inputs {
            let name = CString::new(name.as_str()).map_err(|_| "setDimensions")?;
            for (selector, sizes) in SELECTORS.into_iter().zip(sizes) {
                // SAFETY: the profile belongs to the builder, and nothing else refers to it.
                let profile = unsafe { profile.as_mut() }.ok_or("createOptimizationProfile")?;
                // SAFETY: it never moves; the name ends in zero.
                let set = unsafe {
                    let profile = std::pin::Pin::new_unchecked(profile);
                    profile.setDimensions(name.as_ptr(), selector.into(), &Dims64::from_slice(sizes))
                };
                done(set, "setDimensions")?;
            }
        }
        // SAFETY: as above.
        let index = unsafe { self.config.pin_mut().addOptimizationProfile(profile) };
        done(index >= 0, "addOptimizationProfile")
    }

    /// Compiles the network and hands the engine out piece by piece.
    pub(super) fn write(&mut self, outlet: &mut Outlet<'_>) -> Result<(), Call> {
        let (network, config) = (self.network.pin_mut(), self.config.pin_mut());
        let writer: *mut IStreamWriter = outlet.object().cast();
        // SAFETY: `Outlet` begins as an object of this class does, does not move while it is borrowed, and outlives the call.
        let writer = unsafe { std::pin::Pin::new_unchecked(&mut *writer) };
        let built = self.builder.pin_mut().buildSerializedNetworkToStream(network, config, writer);
        done(built, "buildSerializedNetworkToStream")
    }
}

const SELECTORS: [OptProfileSelector; 3] =
    [OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX];

fn done(done: bool, call: Call) -> Result<(), Call> {
    if done { Ok(()) } else { Err(call) }
}

/// What a library has made, to be freed with its own destructor.
pub(super) fn owned<T: cxx::memory::UniquePtrTarget>(made: *mut T, call: Call) -> Result<UniquePtr<T>, Call> {
    // SAFETY: the library gives what it makes to its caller.
    let owned = unsafe { UniquePtr::from_raw(made) };
    if owned.is_null() { Err(call) } else { Ok(owned) }
}

/// Passes on the steps of the outermost phase.
struct Monitor {
    object: *mut IProgressMonitor,
    watched: *mut Watched,
}

struct Watched {
    steps: Steps,
    outermost: Mutex<Option<(String, u64)>>,
}

impl Monitor {
    fn new(steps: Steps) -> Result<Self, Call> {
        let watched = Box::into_raw(Box::new(Watched { steps, outermost: Mutex::new(None) }));
        // SAFETY: the functions take what is passed here, which is freed after the object.
        let object =
            unsafe { trtx_sys::trtx_create_progress_monitor(watched.cast(), started, stepped, finished) };
        let monitor = Monitor { object, watched };
        if object.is_null() { Err("createProgressMonitor") } else { Ok(monitor) }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // SAFETY: both were made by `new`, and the configuration that referred to the object is gone.
        unsafe {
            if !self.object.is_null() {
                trtx_sys::trtx_destroy_progress_monitor(self.object);
            }
            drop(Box::from_raw(self.watched));
        }
    }
}

impl Watched {
    fn outermost(&self) -> MutexGuard<'_, Option<(String, u64)>> {
        self.outermost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `Monitor::new` has passed, and a phase.
///
/// # Safety
/// As the library calls: with that pointer, and a name that ends in zero.
unsafe fn told<'a>(watched: *mut c_void, phase: *const c_char) -> (&'a Watched, String) {
    // SAFETY: by contract.
    let (watched, phase) = unsafe { (&*watched.cast::<Watched>(), CStr::from_ptr(phase)) };
    (watched, phase.to_string_lossy().into_owned())
}

unsafe extern "system" fn started(watched: *mut c_void, phase: *const c_char, _: *const c_char, steps: i32) {
    // SAFETY: called by the library.
    let (watched, phase) = unsafe { told(watched, phase) };
    watched.outermost().get_or_insert((phase, u64::try_from(steps).unwrap_or(0)));
}

unsafe extern "system" fn stepped(watched: *mut c_void, phase: *const c_char, step: i32) -> bool {
    // SAFETY: called by the library.
    let (watched, phase) = unsafe { told(watched, phase) };
    let of = watched.outermost().as_ref().filter(|(outermost, _)| *outermost == phase).map(|(_, of)| *of);
    if let Some(of) = of {
        let done = u64::try_from(step).unwrap_or(0) + 1;
        (watched.steps)(Step { phase, done: done.min(of), of });
    }
    true
}

unsafe extern "system" fn finished(watched: *mut c_void, phase: *const c_char) {
    // SAFETY: called by the library.
    let (watched, phase) = unsafe { told(watched, phase) };
    let mut outermost = watched.outermost();
    if outermost.as_ref().is_some_and(|(name, _)| *name == phase) {
        *outermost = None;
    }
}
