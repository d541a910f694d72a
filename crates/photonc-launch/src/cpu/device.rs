//! The device. Owns when work is done: at once, or, on a stream that records, whenever the recording is replayed.

use super::block::{ALIGNMENT, Block};
use super::call::{self, Processor};
use super::lanes::Form;
use super::peak::peak_flops;
use super::pool::Pool;
use crate::launch::device::{
    Allocation, CallTypes, Device, DeviceError, Event, HostMemory, Kernels, Prepared, Properties, Recording,
    STREAMS, Stream,
};
use crate::launch::plan::{Call, Tuning};
use photonc_graph::ir::dtype::Dtype;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How a device is made.
#[derive(Clone, Debug, Default)]
pub struct CpuOptions {
    /// Threads that share the work of a call; as many as the process has cores if `None`.
    pub threads: Option<usize>,
    /// Instructions of the kernels; the best that there are if `None`.
    pub form: Option<Form>,
    /// Fills fresh memory with NaN, so that what is read before it was written shows.
    pub poison: bool,
}

/// The processor.
pub struct Cpu {
    processor: Processor,
    properties: Properties,
    poison: bool,
    captures: Mutex<Vec<Capture>>,
    start: Instant,
    /// Events so far.
    events: AtomicU64,
    /// Nanoseconds from `start` at which the latest events were recorded, outside recordings.
    times: Mutex<HashMap<u64, u64>>,
}

/// A recording that has not ended.
struct Capture {
    origin: usize,
    /// Streams that record: the origin and those that waited for its events.
    streams: [bool; STREAMS],
    events: Vec<u64>,
    work: Vec<Work>,
}

/// Something that a stream does.
enum Work {
    Call(Arc<Ready>),
    Copy { from: u64, to: u64, bytes: usize },
    Fill { to: u64, byte: u8, bytes: usize },
}

/// A call with its types.
struct Ready {
    call: Call,
    types: CallTypes,
}

fn failed(call: &'static str, message: impl Into<String>) -> DeviceError {
    DeviceError::Call { call, message: message.into() }
}

impl Cpu {
    /// The processor that this runs on.
    ///
    /// # Errors
    /// The system starts no threads, or the processor has not the instructions asked for.
    pub fn new(options: &CpuOptions) -> Result<Self, DeviceError> {
        let form = options.form.unwrap_or_else(Form::best);
        if !Form::usable().contains(&form) {
            return Err(DeviceError::Unavailable(format!("this processor has no {}", form.name())));
        }
        let own = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = options.threads.unwrap_or_else(own).max(1);
        let pool = Pool::new(threads).map_err(|message| failed("starting threads", message))?;
        let properties = Properties {
            name: format!("{} threads, {}", threads, form.name()),
            sm: 0,
            multiprocessors: threads,
            memory_bytes: memory_bytes(),
            shared_bytes: 0,
            allocation_bytes: ALIGNMENT,
            batch_invariant: false,
        };
        Ok(Cpu {
            processor: Processor { form, pool },
            properties,
            poison: options.poison,
            captures: Mutex::default(),
            start: Instant::now(),
            events: AtomicU64::new(0),
            times: Mutex::default(),
        })
    }

    fn captures(&self) -> MutexGuard<'_, Vec<Capture>> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work, or records it.
    fn enter(&self, stream: Stream, work: Work) -> Result<(), DeviceError> {
        if stream.0 >= STREAMS {
            return Err(failed("entering work", format!("stream {} of {STREAMS}", stream.0)));
        }
        {
            let mut captures = self.captures();
            if let Some(capture) = captures.iter_mut().find(|capture| capture.streams[stream.0]) {
                capture.work.push(work);
                return Ok(());
            }
        }
        self.perform(&work);
        Ok(())
    }

    /// Refuses what cannot be recorded.
    fn not_recording(&self, stream: Stream, what: &'static str) -> Result<(), DeviceError> {
        let recording = self.captures().iter().any(|capture| capture.streams.get(stream.0) == Some(&true));
        if recording { Err(failed(what, "the stream is recording")) } else { Ok(()) }
    }

    fn perform(&self, work: &Work) {
        // SAFETY: the trait asks callers for addresses in allocations of this device that outlive the work.
        unsafe {
            match work {
                Work::Call(ready) => call::run(&self.processor, &ready.call, ready.types),
                Work::Copy { from, to, bytes } => {
                    std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes);
                }
                Work::Fill { to, byte, bytes } => std::ptr::write_bytes(*to as *mut u8, *byte, *bytes),
            }
        }
    }

    fn block(&self, bytes: usize) -> Result<Block, DeviceError> {
        let block = Block::new(bytes)?;
        if self.poison {
            // SAFETY: the block's own bytes.
            unsafe { std::ptr::write_bytes(block.address() as *mut u8, 0xff, bytes) };
        }
        Ok(block)
    }
}

/// Bytes of memory of the machine, or of what is known of it.
fn memory_bytes() -> usize {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let info = rustix::system::sysinfo();
        let unit = u64::from(info.mem_unit.max(1));
        #[allow(clippy::useless_conversion, reason = "the type differs by architecture")]
        let total = u64::from(info.totalram).saturating_mul(unit);
        usize::try_from(total).unwrap_or(usize::MAX)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        usize::MAX
    }
}

/// Bytes that the machine's programs may still take.
fn available_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: usize = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

impl Device for Cpu {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn backend(&self) -> &'static str {
        "cpu"
    }

    fn tuning(&self) -> Tuning {
        Tuning::ANY_ROWS
    }

    fn peak_flops(&self) -> Option<f64> {
        let Processor { form, pool } = &self.processor;
        Some(peak_flops(*form, pool))
    }

    fn has_room_for_idle_rows(&self) -> bool {
        false
    }

    fn reads_codes_as_stored(&self) -> bool {
        true
    }

    fn reads_matrices_as_stored(&self) -> bool {
        true
    }

    fn handle(&self, _stream: Stream) -> Result<u64, DeviceError> {
        Ok(0)
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        Ok(available_bytes().unwrap_or(self.properties.memory_bytes))
    }

    fn allocate(&self, bytes: usize) -> Result<Allocation, DeviceError> {
        let block = self.block(bytes)?;
        Ok(Allocation { address: block.address(), bytes, owner: Box::new(block) })
    }

    fn allocate_host(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError> {
        Ok(Box::new(Block::new(bytes)?))
    }

    fn write(&self, stream: Stream, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.not_recording(stream, "write")?;
        // SAFETY: the trait asks callers for addresses in allocations of this device.
        unsafe { std::ptr::copy(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&self, stream: Stream, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.not_recording(stream, "read")?;
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
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
        self.not_recording(stream, "read_later")?;
        if at.checked_add(bytes).is_none_or(|end| end > to.bytes().len()) {
            return Err(failed("read_later", "beyond the host memory"));
        }
        // SAFETY: as in `write`; the target was measured just now, and its owner is lent to this call alone.
        unsafe { std::ptr::copy(from as *const u8, (to.address() as *mut u8).add(at), bytes) };
        Ok(())
    }

    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        self.enter(stream, Work::Copy { from, to, bytes })
    }

    fn fill(&self, stream: Stream, to: u64, byte: u8, bytes: usize) -> Result<(), DeviceError> {
        self.enter(stream, Work::Fill { to, byte, bytes })
    }

    fn kernels(&self, calls: &mut dyn Iterator<Item = &Call>, dtype: Dtype) -> Result<Kernels, DeviceError> {
        for call in calls {
            call::check(call, dtype)?;
        }
        Ok(Kernels(Box::new(())))
    }

    fn load(&self, _kernels: &Kernels) -> Result<(), DeviceError> {
        Ok(())
    }

    fn prepare(&self, call: &Call, types: CallTypes) -> Result<Prepared, DeviceError> {
        call::check(call, types.activations)?;
        call::check(call, types.matrices)?;
        Ok(Prepared(Box::new(Arc::new(Ready { call: call.clone(), types }))))
    }

    fn start(&self, stream: Stream, prepared: &Prepared) -> Result<(), DeviceError> {
        let ready = prepared.0.downcast_ref::<Arc<Ready>>();
        let ready = ready.ok_or_else(|| failed("starting a call", "another device made it ready"))?;
        self.enter(stream, Work::Call(Arc::clone(ready)))
    }

    fn record(&self, stream: Stream) -> Result<Event, DeviceError> {
        let event = self.events.fetch_add(1, Ordering::Relaxed);
        let mut captures = self.captures();
        if let Some(capture) = captures.iter_mut().find(|capture| capture.streams[stream.0.min(STREAMS - 1)])
        {
            capture.events.push(event);
            return Ok(Event(event));
        }
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.insert(event, now);
        if let Some(old) = event.checked_sub(2 * crate::launch::device::EVENTS_KNOWN as u64) {
            times.remove(&old);
        }
        Ok(Event(event))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), DeviceError> {
        // What came before an event is done, or recorded before what comes next.
        let mut captures = self.captures();
        if let Some(capture) = captures.iter_mut().find(|capture| capture.events.contains(&event.0))
            && let Some(joins) = capture.streams.get_mut(stream.0)
        {
            *joins = true;
        }
        Ok(())
    }

    fn finish(&self, _event: Event) -> Result<(), DeviceError> {
        Ok(())
    }

    fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        match (times.get(&from.0), times.get(&to.0)) {
            (Some(from), Some(to)) => Ok(to.saturating_sub(*from) as f32 / 1e6),
            _ => Err(failed("elapsed_ms", "an event was not recorded, or too long ago")),
        }
    }

    fn begin_recording(&self, stream: Stream) -> Result<(), DeviceError> {
        self.not_recording(stream, "begin_recording")?;
        let mut streams = [false; STREAMS];
        let own = streams.get_mut(stream.0);
        *own.ok_or_else(|| failed("begin_recording", format!("stream {} of {STREAMS}", stream.0)))? = true;
        let (events, work) = (Vec::new(), Vec::new());
        self.captures().push(Capture { origin: stream.0, streams, events, work });
        Ok(())
    }

    fn end_recording(&self, stream: Stream) -> Result<Recording, DeviceError> {
        let mut captures = self.captures();
        let own = captures.iter().position(|capture| capture.origin == stream.0);
        let own = own.ok_or_else(|| failed("end_recording", "the stream does not record"))?;
        Ok(Recording(Box::new(captures.remove(own).work)))
    }

    fn replay(&self, stream: Stream, recording: &Recording) -> Result<(), DeviceError> {
        self.not_recording(stream, "replay")?;
        let work = recording.0.downcast_ref::<Vec<Work>>();
        for work in work.ok_or_else(|| failed("replay", "a recording of another device"))? {
            self.perform(work);
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
