//! The device that is a GPU: NVIDIA's driver, kernels compiled by NVRTC, products by cuBLASLt. Owns every call into the
//! driver's API; a missing library, driver or GPU is an error with what to do.

mod context;
mod launches;
mod memory;
mod product;
mod recording;

use super::cache::KernelCache;
use super::launcher::{self, Function, Unit};
use super::nvrtc::{Compiler, named_sources, shown};
use crate::launch::device::{
    Allocation, CallTypes, Device, DeviceError, Event, HostMemory, Kernels, Prepared, Properties, Recording,
    STREAMS, Stream,
};
use crate::launch::plan::Call;
use context::{Context, call, check};
use cudarc::driver::sys;
use photonc_graph::ir::dtype::Dtype;
use product::Products;
use recording::Events;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use context::{DriverFacts, driver_facts};

/// How to open a GPU.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Which GPU, counted from 0.
    pub ordinal: usize,
    /// Folders of libraries to search first; empty: those that `PHOTONC_CUDA_LIB` names.
    pub libraries: Vec<PathBuf>,
    /// Where compiled kernels are kept.
    pub cache: KernelCache,
    /// Lets a kernel that comes right after another one start its constant part before that has ended, where the GPU can
    /// (compute capability 9.0 on). Every kernel here waits by itself before it touches anything else.
    pub overlap: bool,
    /// Kernels are chosen without regard to the number of rows.
    pub batch_invariant: bool,
}

impl Default for DriverOptions {
    fn default() -> Self {
        DriverOptions {
            ordinal: 0,
            libraries: Vec::new(),
            cache: KernelCache::of_user(),
            overlap: true,
            batch_invariant: false,
        }
    }
}

/// A GPU.
pub struct Driver {
    // Fields are dropped in this order: what belongs to the context before the context.
    events: Mutex<Events>,
    products: Mutex<Products>,
    kernels: Mutex<LoadedKernels>,
    compiler: Compiler,
    properties: Properties,
    overlap: bool,
    /// Of each stream: whether what came last on it is a kernel or a product, which the next kernel may overlap.
    after_kernel: [AtomicBool; STREAMS],
    context: Arc<Context>,
}

// SAFETY: handles of the driver may be used from every thread on which the context is current, which each method makes
// it; what is not safe to use at once (events' table, descriptors of products, kernels' table) is behind a lock.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

#[derive(Default)]
struct LoadedKernels {
    modules: HashMap<Unit, sys::CUmodule>,
    functions: Vec<sys::CUfunction>,
    names: HashMap<(Unit, String), Function>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    /// Opens a GPU.
    ///
    /// # Errors
    /// A library is missing or too old, there is no such GPU, or it has no room for the workspaces of products.
    pub fn open(options: DriverOptions) -> Result<Self, DeviceError> {
        let named = super::libraries::named_folders(&options.libraries);
        let (context, properties) = Context::open(&named, options.ordinal)?;
        let properties = Properties { batch_invariant: options.batch_invariant, ..properties };
        let context = Arc::new(context);
        let nvrtc = super::nvrtc::Nvrtc::find(&named, context.cuda_major)?;
        let products = Products::new(&context, &named)?;
        let compiler = Compiler { nvrtc, cache: options.cache, sm: properties.sm, sources: named_sources() };
        Ok(Driver {
            events: Mutex::new(Events::new(&context)),
            products: Mutex::new(products),
            kernels: Mutex::default(),
            compiler,
            overlap: options.overlap && properties.sm >= 90,
            after_kernel: Default::default(),
            properties,
            context,
        })
    }

    /// The compiler of kernels that this device uses.
    #[must_use]
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// A stream, on which something else than a kernel is about to be entered.
    fn stream(&self, stream: Stream) -> Result<sys::CUstream, DeviceError> {
        self.stream_for(stream, false).map(|(stream, _)| stream)
    }

    /// A stream, and whether what is about to be entered on it, being a kernel, comes right after one.
    fn stream_for(&self, stream: Stream, kernel: bool) -> Result<(sys::CUstream, bool), DeviceError> {
        self.context.make_current()?;
        let unknown = || call("stream", &format!("stream {} of {STREAMS}", stream.0));
        let known = self.context.streams.get(stream.0).copied().ok_or_else(unknown)?;
        let after_kernel = self.after_kernel.get(stream.0).ok_or_else(unknown)?;
        Ok((known, after_kernel.swap(kernel, Ordering::Relaxed) && kernel))
    }

    /// Refuses what cannot be recorded: host memory may be gone when the recording is replayed.
    fn stream_not_recording(&self, stream: Stream, what: &'static str) -> Result<sys::CUstream, DeviceError> {
        let stream = self.stream(stream)?;
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: a stream of this context and a status to write to.
        check("cuStreamIsCapturing", unsafe { sys::cuStreamIsCapturing(stream, &raw mut status) })?;
        if status == sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            Ok(stream)
        } else {
            Err(call(what, "cannot be recorded"))
        }
    }

    /// Loads a module and lets each of its kernels have all the shared memory there is.
    fn add_module(&self, unit: Unit, cubin: &[u8]) -> Result<(), DeviceError> {
        self.context.make_current()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: a whole binary, which carries its own length.
        let loaded = unsafe { sys::cuModuleLoadData(&raw mut module, cubin.as_ptr().cast()) };
        check("cuModuleLoadData", loaded)
            .map_err(|error| DeviceError::Compile { unit: shown(unit), message: error.to_string() })?;
        lock(&self.kernels).modules.insert(unit, module);
        Ok(())
    }

    fn find_function(&self, unit: Unit, name: &str) -> Result<sys::CUfunction, DeviceError> {
        let failed = |message: String| DeviceError::Compile { unit: shown(unit), message };
        let module = lock(&self.kernels).modules.get(&unit).copied();
        let module = module.ok_or_else(|| failed("was not loaded".to_owned()))?;
        let text = CString::new(name).map_err(|_| failed("a zero byte in a kernel's name".to_owned()))?;
        let mut function = std::ptr::null_mut();
        let mut declared_bytes = 0;
        // SAFETY: a loaded module, a string that ends with zero, places to write to.
        unsafe {
            check("cuModuleGetFunction", sys::cuModuleGetFunction(&raw mut function, module, text.as_ptr()))
                .map_err(|error| failed(format!("kernel `{name}`: {error}")))?;
            // Now, not at its first launch: a recording must not load anything.
            check("cuFuncLoad", sys::cuFuncLoad(function))?;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            let asked = sys::cuFuncGetAttribute(&raw mut declared_bytes, attribute, function);
            check("cuFuncGetAttribute", asked)?;
            let most = i32::try_from(self.properties.shared_bytes).unwrap_or(i32::MAX) - declared_bytes;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            check("cuFuncSetAttribute", sys::cuFuncSetAttribute(function, attribute, most))?;
        }
        Ok(function)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: after all work has ended; the modules belong to this device alone. A context that has failed
            // refuses, and then there is nothing to give back.
            unsafe {
                let _idle = sys::cuCtxSynchronize();
                lock(&self.kernels).modules.drain().for_each(|(_, module)| {
                    let _unloaded = sys::cuModuleUnload(module);
                });
            }
        }
    }
}

impl Device for Driver {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn least_prompt(&self) -> usize {
        super::launch_attention::least_prompt(&self.properties)
    }

    fn handle(&self, stream: Stream) -> Result<u64, DeviceError> {
        Ok(self.stream(stream)?.expose_provenance() as u64)
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.context.free_bytes()
    }

    fn allocate(&self, bytes: usize) -> Result<Allocation, DeviceError> {
        memory::allocate(&self.context, bytes)
    }

    fn allocate_host(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError> {
        Ok(Box::new(memory::PageLocked::new(&self.context, bytes)?))
    }

    fn write(&self, stream: Stream, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let stream = self.stream_not_recording(stream, "write")?;
        // SAFETY: the caller gives an address of this device with room; from pageable memory the driver has read all
        // bytes when it returns.
        let done = unsafe { sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), stream) };
        check("cuMemcpyHtoDAsync", done)
    }

    fn read(&self, stream: Stream, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let stream = self.stream_not_recording(stream, "read")?;
        // SAFETY: the caller gives an address of this device with as many bytes; the stream is waited for before the
        // borrow ends.
        unsafe {
            let entered = sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from, bytes.len(), stream);
            let finished = sys::cuStreamSynchronize(stream);
            check("cuMemcpyDtoHAsync", entered)?;
            check("cuStreamSynchronize", finished)
        }
    }

    fn read_later(
        &self,
        stream: Stream,
        from: u64,
        to: &mut dyn HostMemory,
        at: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let stream = self.stream_not_recording(stream, "read_later")?;
        if at.checked_add(bytes).is_none_or(|end| end > to.bytes().len()) {
            return Err(call("read_later", "beyond the page-locked memory"));
        }
        let target = std::ptr::with_exposed_provenance_mut::<std::ffi::c_void>(to.address() as usize + at);
        // SAFETY: inside page-locked memory, which is freed only after work that uses it (the driver waits).
        let entered = unsafe { sys::cuMemcpyDtoHAsync_v2(target, from, bytes, stream) };
        check("cuMemcpyDtoHAsync", entered)
    }

    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        let stream = self.stream(stream)?;
        // SAFETY: the caller gives addresses of this device with as many bytes.
        check("cuMemcpyDtoDAsync", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream) })
    }

    fn fill(&self, stream: Stream, to: u64, byte: u8, bytes: usize) -> Result<(), DeviceError> {
        let stream = self.stream(stream)?;
        // SAFETY: the caller gives an address of this device with as many bytes.
        check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(to, byte, bytes, stream) })
    }

    fn kernels(&self, calls: &mut dyn Iterator<Item = &Call>, dtype: Dtype) -> Result<Kernels, DeviceError> {
        launcher::kernels(self.properties(), calls, dtype)
    }

    fn load(&self, kernels: &Kernels) -> Result<(), DeviceError> {
        launcher::load(self, kernels)
    }

    fn prepare(&self, call: &Call, types: CallTypes) -> Result<Prepared, DeviceError> {
        launcher::prepare(self, call, types)
    }

    fn start(&self, stream: Stream, prepared: &Prepared) -> Result<(), DeviceError> {
        launcher::start(self, stream, prepared)
    }

    fn record(&self, stream: Stream) -> Result<Event, DeviceError> {
        let stream = self.stream(stream)?;
        lock(&self.events).record(stream)
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), DeviceError> {
        let stream = self.stream(stream)?;
        lock(&self.events).wait(stream, event)
    }

    fn finish(&self, event: Event) -> Result<(), DeviceError> {
        self.context.make_current()?;
        // The lock is not held while waiting: other threads may go on.
        let raw = lock(&self.events).get(event);
        match raw {
            // SAFETY: an event of this context; events are destroyed only with the device.
            Some(raw) => check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(raw) }),
            None => Ok(()),
        }
    }

    fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError> {
        self.context.make_current()?;
        lock(&self.events).elapsed_ms(from, to)
    }

    fn begin_recording(&self, stream: Stream) -> Result<(), DeviceError> {
        let stream = self.stream(stream)?;
        // Other calls of this thread that a stricter mode would refuse (allocations) touch nothing that is recorded.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: a stream of this context.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream, mode) })
    }

    fn end_recording(&self, stream: Stream) -> Result<Recording, DeviceError> {
        let stream = self.stream(stream)?;
        recording::end(&self.context, stream)
    }

    fn replay(&self, stream: Stream, recording: &Recording) -> Result<(), DeviceError> {
        let stream = self.stream(stream)?;
        recording::replay(stream, recording)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.make_current()?;
        // Stream by stream: another device of this process may be recording in the same context, which may then not be
        // waited for as a whole.
        for stream in &self.context.streams {
            // SAFETY: a stream of the context, which is current.
            check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(*stream) })?;
        }
        Ok(())
    }
}
