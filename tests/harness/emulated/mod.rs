//! A device for tests: the kernels' own sources built for the CPU, with streams whose work may be put off and mixed at
//! random as a GPU's may. Owns order and checks; says nothing of speed.

#![allow(dead_code, clippy::missing_docs_in_private_items, reason = "each test program uses a part of it")]

pub mod build;
pub mod memory;
pub mod product;
mod queue;

use build::{Request, Text};
use memory::{HostBlock, HostBytes, Memory, call};
use photonc::ir::dtype::Dtype;
use photonc::runtime::cuda::kernels::HEADERS;
use photonc::runtime::cuda::launcher::{self, Function, Launch, Launcher, Unit};
use photonc::runtime::launch::device::{
    Allocation, CallTypes, Device, DeviceError, Event, HostMemory, Kernels, MatMul, Prepared, ProductKind,
    Properties, Recording, STREAMS, Stream,
};
use photonc::runtime::launch::plan::Call;
use queue::{Capture, Entered, Mark, Queues, Running, Sequence, Work};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// When work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// At once.
    Immediate,
    /// Late, and in an order of this seed that only streams and events restrict.
    Mixed(u64),
}

/// The handle of the first stream; those of the others follow.
pub const HANDLES: u64 = 0x57_0000;

/// What the device looks like.
#[derive(Clone, Debug)]
pub struct Options {
    pub order: Order,
    pub properties: Properties,
}

impl Options {
    pub fn new(order: Order) -> Self {
        let properties = Properties {
            name: "emulated".to_owned(),
            sm: 90,
            multiprocessors: 4,
            memory_bytes: 1 << 30,
            shared_bytes: 227 << 10,
            allocation_bytes: memory::ALIGNMENT,
            batch_invariant: false,
        };
        Options { order, properties }
    }
}

/// What went over since the last `take_traffic`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from host to device.
    pub written_bytes: usize,
    /// Bytes from device to host.
    pub read_bytes: usize,
    /// Calls that made the host wait.
    pub host_waits: usize,
    /// Kernels run, replayed ones included.
    pub launches: usize,
    /// Products done, replayed ones included.
    pub products: usize,
    /// Recordings replayed.
    pub replays: usize,
}

/// The program's own kernels.
pub fn program_text(unit: Unit) -> Text {
    Text {
        name: unit.source.name().to_owned(),
        source: unit.source.text().to_owned(),
        headers: HEADERS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        // A type that no kernel has ends in the sources' own #error.
        macros: unit.macros().unwrap_or_default(),
    }
}

/// Gives the text of a unit.
pub type Texts = Box<dyn Fn(Unit) -> Text + Send + Sync>;

/// The device.
pub struct Emulated {
    options: Options,
    texts: Texts,
    state: Arc<Mutex<State>>,
}

struct Loaded {
    name: Arc<str>,
    entry: build::Entry,
}

struct State {
    memory: Memory,
    host: BTreeMap<u64, Weak<HostBytes>>,
    queues: Queues,
    capture: Option<Capture>,
    units: HashMap<Unit, build::Kernels>,
    functions: Vec<Loaded>,
    /// Kinds of products that were started outside recordings.
    products: HashSet<ProductKind>,
    traffic: Traffic,
    /// The first failure; everything after it fails alike.
    failed: Option<DeviceError>,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees an allocation when dropped.
struct Owner {
    address: u64,
    state: Shared,
}

impl Drop for Owner {
    fn drop(&mut self) {
        lock(&self.state).memory.free(self.address);
    }
}

impl Emulated {
    /// A device whose units have these texts.
    pub fn new(options: Options, texts: Texts) -> Self {
        let seed = match options.order {
            Order::Immediate => 0,
            Order::Mixed(seed) => seed,
        };
        let state = State {
            memory: Memory::default(),
            host: BTreeMap::new(),
            queues: Queues::new(seed),
            capture: None,
            units: HashMap::new(),
            functions: Vec::new(),
            products: HashSet::new(),
            traffic: Traffic::default(),
            failed: None,
        };
        Emulated { options, texts, state: Arc::new(Mutex::new(state)) }
    }

    /// What went over since the last call.
    pub fn take_traffic(&self) -> Traffic {
        std::mem::take(&mut lock(&self.state).traffic)
    }

    /// Allocations that live, and their bytes.
    pub fn allocated(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.memory.count(), state.memory.used)
    }

    fn enter(&self, stream: Stream, what: &'static str, work: Work) -> Result<(), DeviceError> {
        let mut state = self.ready(stream, what)?;
        match &mut state.capture {
            Some(capture) if capture.takes(stream.0) => {
                if matches!(work, Work::Write { .. } | Work::ReadLater { .. }) {
                    return Err(call(what, "cannot be recorded"));
                }
                capture.push(stream.0, work);
                Ok(())
            }
            _ => {
                state.queues.entered[stream.0].push_back(Entered::Work(work));
                self.go_on(&mut state)
            }
        }
    }

    /// The state, if the stream exists and nothing has failed.
    fn ready(&self, stream: Stream, what: &'static str) -> Result<MutexGuard<'_, State>, DeviceError> {
        let state = lock(&self.state);
        if stream.0 >= STREAMS {
            return Err(call(what, &format!("stream {} of {STREAMS}", stream.0)));
        }
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    /// Refuses what would wait for recorded work.
    fn not_recording(state: &State, stream: usize, what: &'static str) -> Result<(), DeviceError> {
        match &state.capture {
            Some(capture) if capture.takes(stream) => Err(call(what, "the stream is recording")),
            _ => Ok(()),
        }
    }

    /// After something was entered: all of it now, or some of it.
    fn go_on(&self, state: &mut State) -> Result<(), DeviceError> {
        match self.options.order {
            Order::Immediate => self.run_until(state, None, |_| false),
            Order::Mixed(_) => {
                let steps = if state.queues.noise.below(4) == 0 { state.queues.noise.below(6) } else { 0 };
                (0..steps).try_for_each(|_| self.step(state, None).map(|_| ()))
            }
        }
    }

    /// Takes steps until `done`, or nothing is left; streams in random order, `wanted` more often.
    fn run_until(
        &self,
        state: &mut State,
        wanted: Option<usize>,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), DeviceError> {
        while !done(state) && self.step(state, wanted)? {}
        Ok(())
    }

    /// One step of some stream; false if there is none to take.
    fn step(&self, state: &mut State, wanted: Option<usize>) -> Result<bool, DeviceError> {
        let able = state.queues.able();
        if able.is_empty() {
            return Ok(false);
        }
        let stream = match wanted {
            Some(wanted) if able.contains(&wanted) && state.queues.noise.below(2) == 0 => wanted,
            _ => able[state.queues.noise.below(able.len())],
        };
        let done = match state.queues.step(stream) {
            Ok(Some(work)) => self.perform(state, &work),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            state.failed = Some(error.clone());
            state.queues.clear();
            return Err(error);
        }
        Ok(true)
    }

    fn perform(&self, state: &mut State, work: &Work) -> Result<(), DeviceError> {
        state.queues.clock_ns += work.cost_ns();
        match work {
            Work::Launch { .. } => {
                state.traffic.launches += 1;
                let seed = state.queues.noise.next();
                run_kernel(work, seed)?;
                state.memory.check_guards("launch")
            }
            Work::MatMul(product) => {
                state.traffic.products += 1;
                for (address, bytes) in product::extents(product) {
                    state.memory.check("matmul", address, bytes)?;
                }
                // SAFETY: checked just now, and the lock keeps it alive; `Device::matmul` states the overlaps.
                unsafe { product::run(product) };
                Ok(())
            }
            Work::Copy { from, to, bytes } => {
                state.memory.check("copy", *from, *bytes)?;
                state.memory.check("copy", *to, *bytes)?;
                if from < &(to + *bytes as u64) && to < &(from + *bytes as u64) && *bytes > 0 {
                    return Err(call("copy", "source and target overlap"));
                }
                // SAFETY: checked just now, and the lock keeps both alive.
                unsafe { std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *bytes) };
                Ok(())
            }
            Work::Fill { to, byte, bytes } => {
                state.memory.check("fill", *to, *bytes)?;
                // SAFETY: checked just now, and the lock keeps it alive.
                unsafe { std::ptr::write_bytes(*to as *mut u8, *byte, *bytes) };
                Ok(())
            }
            Work::Write { to, bytes } => {
                state.memory.check("write", *to, bytes.len())?;
                // SAFETY: checked just now, and the lock keeps it alive.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), *to as *mut u8, bytes.len()) };
                Ok(())
            }
            Work::ReadLater { from, host, at, bytes } => {
                state.memory.check("read_later", *from, *bytes)?;
                let host = host.upgrade().ok_or_else(|| {
                    call("read_later", "the page-locked memory was freed before the copy into it was done")
                })?;
                // SAFETY: the source was checked; the target's length was checked when this was entered.
                unsafe {
                    let to = (host.address as *mut u8).add(*at);
                    std::ptr::copy_nonoverlapping(*from as *const u8, to, *bytes);
                }
                Ok(())
            }
        }
    }
}

fn run_kernel(work: &Work, seed: u64) -> Result<(), DeviceError> {
    let Work::Launch { name, entry, grid, threads, shared_bytes, arguments } = work else { return Ok(()) };
    let mut message = vec![0u8; 2048];
    // Kernels take structs aligned to 8 bytes.
    let mut aligned = vec![0u64; arguments.len().div_ceil(8)];
    // SAFETY: `aligned` has at least that many bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(arguments.as_ptr(), aligned.as_mut_ptr().cast::<u8>(), arguments.len());
    }
    let request = Request {
        arguments: aligned.as_ptr().cast(),
        argument_bytes: arguments.len() as u64,
        grid: *grid,
        threads: *threads,
        shared_bytes: *shared_bytes,
        workers: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        seed,
        message: message.as_mut_ptr(),
        message_bytes: message.len() as u64,
    };
    // SAFETY: an entry point of `build`, whose argument this is; the message ends with a zero.
    let failed = unsafe { entry(&request) } != 0;
    if failed {
        let text = message.split(|byte| *byte == 0).next().unwrap_or_default();
        return Err(call("launch", &format!("{name}: {}", String::from_utf8_lossy(text))));
    }
    Ok(())
}

impl Device for Emulated {
    fn properties(&self) -> &Properties {
        &self.options.properties
    }

    fn least_prompt(&self) -> usize {
        photonc::runtime::cuda::launch_attention::least_prompt(&self.options.properties)
    }

    fn handle(&self, stream: Stream) -> Result<u64, DeviceError> {
        Ok(HANDLES + stream.0 as u64)
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        Ok(self.options.properties.memory_bytes.saturating_sub(lock(&self.state).memory.used))
    }

    fn allocate(&self, bytes: usize) -> Result<Allocation, DeviceError> {
        let free = self.free_bytes()?;
        if bytes > free {
            return Err(DeviceError::OutOfMemory { bytes, free });
        }
        let address = lock(&self.state).memory.allocate(bytes)?;
        Ok(Allocation { address, bytes, owner: Box::new(Owner { address, state: Arc::clone(&self.state) }) })
    }

    fn allocate_host(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError> {
        let block = HostBlock::new(bytes);
        let mut state = lock(&self.state);
        state.host.retain(|_, block| block.strong_count() > 0);
        state.host.insert(block.0.address, Arc::downgrade(&block.0));
        Ok(Box::new(block))
    }

    fn write(&self, stream: Stream, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        lock(&self.state).traffic.written_bytes += bytes.len();
        self.enter(stream, "write", Work::Write { to, bytes: bytes.into() })
    }

    fn read(&self, stream: Stream, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let mut state = self.ready(stream, "read")?;
        Self::not_recording(&state, stream.0, "read")?;
        state.traffic.read_bytes += bytes.len();
        state.traffic.host_waits += 1;
        self.run_until(&mut state, Some(stream.0), |state| state.queues.entered[stream.0].is_empty())?;
        state.memory.check("read", from, bytes.len())?;
        // SAFETY: checked just now, and the lock keeps it alive.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn read_later(
        &self,
        stream: Stream,
        from: u64,
        to: &mut dyn HostMemory,
        at: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let host = {
            let mut state = lock(&self.state);
            state.traffic.read_bytes += bytes;
            let found = state.host.get(&to.address()).cloned();
            found.ok_or_else(|| call("read_later", "page-locked memory of another device"))?
        };
        if at.checked_add(bytes).is_none_or(|end| end > to.bytes().len()) {
            return Err(call("read_later", "beyond the page-locked memory"));
        }
        self.enter(stream, "read_later", Work::ReadLater { from, host, at, bytes })
    }

    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        self.enter(stream, "copy", Work::Copy { from, to, bytes })
    }

    fn fill(&self, stream: Stream, to: u64, byte: u8, bytes: usize) -> Result<(), DeviceError> {
        self.enter(stream, "fill", Work::Fill { to, byte, bytes })
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
        let mut state = self.ready(stream, "record")?;
        let event = state.queues.marks.len() as u64;
        match &mut state.capture {
            Some(capture) if capture.takes(stream.0) => {
                capture.record(stream.0, event);
                state.queues.marks.push(Mark::Recorded);
            }
            _ => {
                state.queues.marks.push(Mark::Pending);
                state.queues.entered[stream.0].push_back(Entered::Record(event));
                self.go_on(&mut state)?;
            }
        }
        Ok(Event(event))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), DeviceError> {
        let mut state = self.ready(stream, "wait")?;
        let mark = state.queues.marks.get(event.0 as usize).copied();
        match &mut state.capture {
            Some(capture) if capture.has(event.0) => capture.wait(stream.0, event.0),
            Some(capture) if capture.takes(stream.0) => {
                return Err(call("wait", "a recording cannot wait for an event outside it"));
            }
            _ => {
                match mark {
                    None => return Err(call("wait", "an unknown event")),
                    Some(Mark::Recorded) => {
                        return Err(call("wait", "an event of a recording that has ended"));
                    }
                    Some(Mark::Pending | Mark::Reached(_)) => {}
                }
                state.queues.entered[stream.0].push_back(Entered::Wait(event.0));
                self.go_on(&mut state)?;
            }
        }
        Ok(())
    }

    fn finish(&self, event: Event) -> Result<(), DeviceError> {
        let mut state = self.ready(Stream(0), "finish")?;
        if !matches!(state.queues.marks.get(event.0 as usize), Some(Mark::Pending | Mark::Reached(_))) {
            return Err(call("finish", "an event that nothing will reach"));
        }
        state.traffic.host_waits += 1;
        self.run_until(&mut state, None, |state| state.queues.reached(event.0))
    }

    fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError> {
        let state = lock(&self.state);
        let at = |event: Event| match state.queues.marks.get(event.0 as usize) {
            Some(Mark::Reached(at)) => Ok(*at),
            _ => Err(call("elapsed_ms", "an event has not been reached")),
        };
        let (from, to) = (at(from)?, at(to)?);
        Ok(to.saturating_sub(from) as f32 / 1e6)
    }

    fn begin_recording(&self, stream: Stream) -> Result<(), DeviceError> {
        let mut state = self.ready(stream, "begin_recording")?;
        if state.capture.is_some() {
            return Err(call("begin_recording", "another recording has not ended"));
        }
        state.capture = Some(Capture::new(stream.0));
        Ok(())
    }

    fn end_recording(&self, stream: Stream) -> Result<Recording, DeviceError> {
        let mut state = self.ready(stream, "end_recording")?;
        match state.capture.take() {
            Some(capture) if capture.origin == stream.0 => Ok(Recording(Box::new(Arc::new(capture.end()?)))),
            _ => Err(call("end_recording", "the stream does not record")),
        }
    }

    fn replay(&self, stream: Stream, recording: &Recording) -> Result<(), DeviceError> {
        let sequence = recording.0.downcast_ref::<Arc<Sequence>>();
        let sequence = sequence.ok_or_else(|| call("replay", "a recording of another device"))?;
        let mut state = self.ready(stream, "replay")?;
        Self::not_recording(&state, stream.0, "replay")?;
        state.traffic.replays += 1;
        state.queues.entered[stream.0].push_back(Entered::Replay(Running::new(Arc::clone(sequence))));
        self.go_on(&mut state)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        let mut state = self.ready(Stream(0), "synchronize")?;
        if state.capture.is_some() {
            return Err(call("synchronize", "a stream is recording"));
        }
        state.traffic.host_waits += 1;
        self.run_until(&mut state, None, |_| false)
    }
}

impl Launcher for Emulated {
    fn load_units(&self, units: &[Unit]) -> Result<(), DeviceError> {
        let missing: Vec<Unit> = {
            let state = lock(&self.state);
            units.iter().copied().filter(|unit| !state.units.contains_key(unit)).collect()
        };
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = missing
                .iter()
                .map(|unit| scope.spawn(|| build::build(*unit, &(self.texts)(*unit))))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic inside")).collect()
        });
        for (unit, made) in missing.into_iter().zip(made) {
            let kernels =
                made.map_err(|message| DeviceError::Compile { unit: format!("{unit:?}"), message })?;
            lock(&self.state).units.insert(unit, kernels);
        }
        Ok(())
    }

    fn function(&self, unit: Unit, name: &str) -> Result<Function, DeviceError> {
        self.load_units(&[unit])?;
        let mut state = lock(&self.state);
        let kernels = &state.units[&unit];
        let entry = kernels.entry(name).ok_or_else(|| DeviceError::Compile {
            unit: format!("{unit:?}"),
            message: format!("no kernel `{name}`, found {}", kernels.names.join(", ")),
        })?;
        state.functions.push(Loaded { name: name.into(), entry });
        Ok(Function(state.functions.len() - 1))
    }

    fn launch(&self, stream: Stream, launch: &Launch<'_>) -> Result<(), DeviceError> {
        if launch.shared_bytes as usize > self.options.properties.shared_bytes {
            return Err(call("launch", &format!("{} bytes of shared memory", launch.shared_bytes)));
        }
        let work = {
            let state = lock(&self.state);
            let unknown = || call("launch", "a function that was not loaded");
            let function = state.functions.get(launch.function.0).ok_or_else(unknown)?;
            Work::Launch {
                name: Arc::clone(&function.name),
                entry: function.entry,
                grid: launch.grid,
                threads: launch.threads,
                shared_bytes: launch.shared_bytes,
                arguments: launch.arguments.into(),
            }
        };
        self.enter(stream, "launch", work)
    }

    fn matmul(&self, stream: Stream, matmul: &MatMul) -> Result<(), DeviceError> {
        matmul.check()?;
        {
            let mut state = self.ready(stream, "matmul")?;
            let recorded = state.capture.as_ref().is_some_and(|capture| capture.takes(stream.0));
            if !recorded {
                state.products.insert(matmul.kind());
            } else if !state.products.contains(&matmul.kind()) {
                return Err(call(
                    "matmul",
                    "the first of its kind loads its kernel, which cannot be recorded",
                ));
            }
        }
        self.enter(stream, "matmul", Work::MatMul(*matmul))
    }
}
