//! Generation on the device. Coarse run-ahead `i + 1` goes on one stream while run-ahead `i` expands on another; both are
//! recorded once and replayed. Owns the state of all rows, the order between the streams and the bursts in flight.

mod kv;
mod layout;
mod parameters;
mod prefill;
mod record;
mod times;

use super::device::{Allocation, DeviceError, Event, HostMemory, Recording, Stream, URGENT};
use super::machine::Machine;
use crate::passes::compile::Plan as Split;
use crate::runtime::backend::BackendError;
use crate::runtime::decoder::{Admission, Decoder, DecoderSetup};
use crate::runtime::plan::Program;
use crate::runtime::timing::GraphTime;
pub use kv::KvBytes;
pub use layout::Layout;
use parameters::Parameters;
use prefill::Prefill;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use times::{Span, Times};

/// Stream of the coarse run-ahead where a burst is one step, and of everything where there is no run-ahead.
const COARSE: Stream = Stream(0);
/// Stream of the expansion.
const EXPAND: Stream = Stream(1);
/// Bursts whose trajectory and tokens have memory of their own.
const IN_FLIGHT: usize = 2;

/// Memory and recordings of one burst.
struct Lane {
    ids: Allocation,
    host: Box<dyn HostMemory>,
    /// The coarse run-ahead, or whole steps where the protocol has none.
    ahead: Recording,
    expand: Option<Recording>,
    /// End of the last expansion of this lane.
    expanded: Option<Event>,
    _trajectory: Vec<Allocation>,
}

/// A burst that was started.
struct Burst {
    lane: usize,
    done: Event,
    spans: Vec<Span>,
}

/// Rows that generate on a device.
pub struct CudaDecoder<'m> {
    /// Stream of the coarse run-ahead. Steps in a row are what a burst waits for: beside the expansion's wide products,
    /// which fill the device, they go first. Few rows leave room for both, and there it only delays the first tokens; a
    /// single step and the expansion beside it are both waited for.
    ahead: Stream,
    machine: &'m mut Machine,
    program: Program,
    layout: Layout,
    /// State by the input name that reads it.
    state: BTreeMap<String, Allocation>,
    arenas: Vec<Allocation>,
    lanes: Vec<Lane>,
    /// What the recordings' chains read.
    tables: Vec<Allocation>,
    parameters: Parameters,
    /// Meta-contexts of each row; `None` where it is empty.
    lengths: Vec<Option<usize>>,
    pending: VecDeque<Burst>,
    started: usize,
    collected: Vec<i64>,
    /// The graphs of one meta-context on the coarse stream, for measured times.
    step: String,
    prefill_memory: Allocation,
    /// Prefills of the sizes seen so far.
    prefills: BTreeMap<(usize, usize), Arc<Prefill>>,
    /// When the results of the last prefill had been copied out of its memory.
    scattered: Option<Event>,
    times: Times,
}

impl From<DeviceError> for BackendError {
    fn from(error: DeviceError) -> Self {
        super::backend::failed(error)
    }
}

impl<'m> CudaDecoder<'m> {
    /// A decoder with all rows empty: allocates, loads and records everything that bursts need.
    ///
    /// # Errors
    /// No room for the setup, or a graph that has no plan.
    pub fn new(
        machine: &'m mut Machine,
        program: &Program,
        setup: DecoderSetup,
    ) -> Result<Self, BackendError> {
        let layout = Layout::new(machine, program, setup)?;
        let device = Arc::clone(&machine.device);
        // Kernels are compiled while weights are on their way.
        let (kernels, weights) = std::thread::scope(|scope| {
            let kernels = scope.spawn(|| device.load(&layout.units));
            let weights = machine.load(&layout.needs);
            (kernels.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), weights)
        });
        kernels?;
        weights?;
        let crowded = setup.rows > machine.tuning.skinny_rows;
        let ahead = if layout.is_split() && setup.run_ahead > 1 && crowded { URGENT } else { COARSE };
        let mut state = BTreeMap::new();
        for (name, bytes) in &layout.state {
            let memory = device.allocate(*bytes)?;
            device.fill(ahead, memory.address, 0, *bytes)?;
            state.insert(name.clone(), memory);
        }
        let arenas =
            layout.arenas.iter().map(|bytes| device.allocate(*bytes)).collect::<Result<Vec<_>, _>>()?;
        let mut decoder = CudaDecoder {
            ahead,
            program: program.clone(),
            state,
            arenas,
            lanes: Vec::new(),
            parameters: Parameters::new(layout.sequences()),
            lengths: vec![None; setup.rows],
            step: layout.step_graphs(),
            pending: VecDeque::new(),
            started: 0,
            collected: Vec::new(),
            prefill_memory: device.allocate(layout.prefill_bytes)?,
            prefills: BTreeMap::new(),
            scattered: None,
            tables: Vec::new(),
            times: Times::default(),
            machine,
            layout,
        };
        decoder.upload_rows()?;
        decoder.prepare_prefill()?;
        device.synchronize()?;
        for _ in 0..IN_FLIGHT {
            let lane = decoder.record_lane()?;
            decoder.lanes.push(lane);
        }
        device.synchronize()?;
        Ok(decoder)
    }

    /// Plans and sizes.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn address(&self, name: &str) -> Result<u64, BackendError> {
        let missing = || self.layout.setup.refuses(format!("state `{name}` has no memory"));
        self.state.get(name).map(|memory| memory.address).ok_or_else(missing)
    }

    /// Writes lengths and activity of all rows to the coarse stream, sampling parameters to the expansion's.
    fn upload_rows(&mut self) -> Result<(), BackendError> {
        let per_row = self.layout.sequences() / self.lengths.len().max(1);
        let repeat = if self.layout.is_split() { 1 } else { per_row };
        let spread = |value: &dyn Fn(&Option<usize>) -> i64| -> Vec<u8> {
            let rows = self.lengths.iter().flat_map(|row| std::iter::repeat_n(value(row), repeat));
            rows.flat_map(i64::to_le_bytes).collect()
        };
        let lengths = spread(&|row| i64::try_from(row.unwrap_or(0)).unwrap_or(i64::MAX));
        let active = spread(&|row| i64::from(row.is_some()));
        let device = &*self.machine.device;
        for (name, bytes) in [("lengths", lengths), ("active", active)] {
            device.write(self.ahead, self.address(name)?, &bytes)?;
        }
        let stream = if self.layout.is_split() { EXPAND } else { self.ahead };
        for (name, bytes) in self.parameters.bytes() {
            device.write(stream, self.address(name)?, &bytes)?;
        }
        Ok(())
    }

    fn past_capacity(&self, row: usize, meta_contexts: usize) -> BackendError {
        let room = self.layout.setup.capacity;
        self.layout
            .setup
            .refuses(format!("row {row} would hold {meta_contexts} meta-contexts, room is for {room}"))
    }
}

impl Decoder for CudaDecoder<'_> {
    fn setup(&self) -> DecoderSetup {
        self.layout.setup
    }

    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        let meta_tokens = self.program.meta_tokens;
        for admission in admissions {
            let length = admission.tokens.len() / meta_tokens.max(1);
            let taken = self.lengths.get(admission.row).is_none_or(Option::is_some);
            if taken || length == 0 || length * meta_tokens != admission.tokens.len() {
                return Err(self.layout.setup.refuses(format!(
                    "row {} is taken or unknown, or its {} tokens are not whole meta-contexts",
                    admission.row,
                    admission.tokens.len()
                )));
            }
            if length + self.layout.setup.run_ahead > self.layout.setup.capacity {
                return Err(self.past_capacity(admission.row, length + self.layout.setup.run_ahead));
            }
        }
        self.prefill(admissions)
    }

    fn retire(&mut self, row: usize) {
        if let Some(length) = self.lengths.get_mut(row) {
            *length = None;
            self.parameters.change();
        }
    }

    fn start(&mut self) -> Result<(), BackendError> {
        let run_ahead = self.layout.setup.run_ahead;
        let full = self.lengths.iter().enumerate().find_map(|(row, length)| {
            length
                .filter(|length| length + run_ahead > self.layout.setup.capacity)
                .map(|length| (row, length))
        });
        if let Some((row, length)) = full {
            return Err(self.past_capacity(row, length + run_ahead));
        }
        if self.pending.len() >= IN_FLIGHT {
            return Err(self.layout.setup.refuses("two bursts are pending: collect one first"));
        }
        let device = Arc::clone(&self.machine.device);
        let lane_index = self.started % IN_FLIGHT;
        if self.parameters.take_changed() {
            self.upload_rows()?;
        }
        let lane = &mut self.lanes[lane_index];
        // The expansion that read this lane's trajectory last must be over before it is written anew.
        if let Some(expanded) = lane.expanded.take() {
            device.wait(self.ahead, expanded)?;
        }
        let from = self.times.mark(&*device, self.ahead)?;
        device.replay(self.ahead, &lane.ahead)?;
        self.times.span(&*device, self.ahead, &self.step, run_ahead, from)?;
        let stream = match (&lane.expand, &self.layout.expand) {
            (Some(expand), Some(plan)) => {
                let ahead = device.record(self.ahead)?;
                device.wait(EXPAND, ahead)?;
                let from = self.times.mark(&*device, EXPAND)?;
                device.replay(EXPAND, expand)?;
                self.times.span(&*device, EXPAND, &plan.graph, 1, from)?;
                EXPAND
            }
            _ => self.ahead,
        };
        let bytes = lane.ids.bytes;
        device.read_later(stream, lane.ids.address, &mut *lane.host, 0, bytes)?;
        let done = device.record(stream)?;
        lane.expanded = Some(done);
        self.pending.push_back(Burst { lane: lane_index, done, spans: self.times.take_open() });
        self.started += 1;
        for length in self.lengths.iter_mut().flatten() {
            *length += run_ahead;
        }
        self.parameters.advance(run_ahead * self.program.meta_tokens);
        Ok(())
    }

    fn pending(&self) -> usize {
        self.pending.len()
    }

    fn collect(&mut self) -> Result<&[i64], BackendError> {
        let Some(burst) = self.pending.pop_front() else {
            return Err(self.layout.setup.refuses("no burst is pending"));
        };
        self.machine.device.finish(burst.done)?;
        self.times.settle(&*self.machine.device, burst.spans)?;
        let bytes = self.lanes[burst.lane].host.bytes();
        self.collected.clear();
        let count = self.layout.sequences() * self.layout.burst_tokens;
        self.collected
            .extend(bytes.as_chunks::<8>().0.iter().take(count).map(|bytes| i64::from_le_bytes(*bytes)));
        Ok(&self.collected)
    }

    fn measure(&mut self) {
        self.times.on = true;
    }

    fn take_times(&mut self) -> BTreeMap<String, GraphTime> {
        self.times.take()
    }
}

impl Drop for CudaDecoder<'_> {
    fn drop(&mut self) {
        // Memory must not go while the device still uses it; a failure shows at the next call.
        let _ = self.machine.device.synchronize();
    }
}

/// Names of the split's graphs, or of the undivided step's.
pub(super) fn graphs(split: &Split) -> (Option<&str>, &str, Option<&str>) {
    match split {
        Split::Distributed { coarse, expand, .. } => (Some(coarse), expand, None),
        Split::Undistributed { decode, reencode, .. } => (None, decode, reencode.as_deref()),
    }
}
