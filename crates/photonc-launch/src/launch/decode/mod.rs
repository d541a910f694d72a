//! Generation on the device. Coarse run-ahead `i + 1` goes on one stream while run-ahead `i` expands on another; both are
//! recorded once and replayed. Owns the state of all rows, the order between the streams and the bursts in flight.

mod kv;
mod layout;
mod parameters;
mod prefill;
mod record;
mod times;

use super::device::{Allocation, DeviceError, Event, HostMemory, Recording, Stream, URGENT};
use super::loaded_model::LoadedModel;
pub use kv::KvBytes;
pub use layout::Layout;
use layout::{ALL_FORCED, FORCED, ROW_OF};
use parameters::Parameters;
use photonc_compiler::passes::compile::Plan as Split;
use photonc_runtime::backend::BackendError;
use photonc_runtime::decoder::{Admission, Collected, Decoder, DecoderSetup, PrefillTotals};
use photonc_runtime::draws::Draws;
use photonc_runtime::plan::Program;
use photonc_runtime::request::Keep;
use photonc_runtime::timing::Timing;
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

/// A row that is taken.
struct Taken {
    /// Meta-contexts in its caches.
    length: usize,
    sequences: Vec<usize>,
}

/// Rows that generate on a device.
pub struct RecordedDecoder<'m> {
    /// Stream of the coarse run-ahead. Steps in a row are what a burst waits for: beside the expansion's wide products,
    /// which fill the device, they go first. Few rows leave room for both, and there it only delays the first tokens; a
    /// single step and the expansion beside it are both waited for.
    ahead: Stream,
    loaded: &'m mut LoadedModel,
    program: Program,
    layout: Layout,
    /// State by the input name that reads it.
    state: BTreeMap<String, Allocation>,
    arenas: Vec<Allocation>,
    lanes: Vec<Lane>,
    parameters: Parameters,
    /// Rows that are taken.
    rows: Vec<Option<Taken>>,
    prefilled: PrefillTotals,
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

impl<'m> RecordedDecoder<'m> {
    /// A decoder with all rows empty: allocates, loads and records everything that bursts need.
    ///
    /// # Errors
    /// No room for the setup, or a graph that has no plan.
    pub fn new(
        loaded: &'m mut LoadedModel,
        program: &Program,
        setup: DecoderSetup,
    ) -> Result<Self, BackendError> {
        let layout = Layout::new(loaded, program, setup)?;
        let device = Arc::clone(&loaded.device);
        // Kernels are compiled while weights are on their way.
        let (kernels, weights) = std::thread::scope(|scope| {
            let kernels = scope.spawn(|| device.load(&layout.kernels));
            let weights = loaded.load(&layout.resources);
            (kernels.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), weights)
        });
        kernels?;
        weights?;
        let crowded = setup.rows > loaded.tuning.skinny_rows;
        let ahead = if layout.is_split() && setup.run_ahead > 1 && crowded { URGENT } else { COARSE };
        let mut state = BTreeMap::new();
        for (name, bytes) in &layout.state {
            let memory = device.allocate(*bytes)?;
            device.fill(ahead, memory.address, 0, *bytes)?;
            state.insert(name.clone(), memory);
        }
        let arenas =
            layout.arenas.iter().map(|bytes| device.allocate(*bytes)).collect::<Result<Vec<_>, _>>()?;
        let mut decoder = RecordedDecoder {
            ahead,
            program: program.clone(),
            state,
            arenas,
            lanes: Vec::new(),
            parameters: Parameters::new(layout.sequences()),
            rows: (0..setup.rows).map(|_| None).collect(),
            prefilled: PrefillTotals::default(),
            step: layout.step_graphs(),
            pending: VecDeque::new(),
            started: 0,
            collected: Vec::new(),
            prefill_memory: device.allocate(layout.prefill_bytes)?,
            prefills: BTreeMap::new(),
            scattered: None,
            times: Times::default(),
            loaded,
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
        let split = self.layout.is_split();
        let counters = if split { self.rows.len() } else { self.layout.sequences() };
        let (mut lengths, mut active) = (vec![0i64; counters], vec![0i64; counters]);
        let mut row_of = vec![0i64; self.layout.sequences()];
        for (row, taken) in self.rows.iter().enumerate() {
            let Some(Taken { length, sequences }) = taken else { continue };
            for place in if split { std::slice::from_ref(&row) } else { &sequences[..] } {
                (lengths[*place], active[*place]) = (*length as i64, 1);
            }
            sequences.iter().for_each(|sequence| row_of[*sequence] = row as i64);
        }
        let bytes =
            |values: &[i64]| -> Vec<u8> { values.iter().copied().flat_map(i64::to_le_bytes).collect() };
        let device = &*self.loaded.device;
        for (name, values) in [("lengths", &lengths), ("active", &active)] {
            device.write(self.ahead, self.address(name)?, &bytes(values))?;
        }
        let stream = if split { EXPAND } else { self.ahead };
        if self.state.contains_key(ROW_OF) {
            device.write(stream, self.address(ROW_OF)?, &bytes(&row_of))?;
        }
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

impl RecordedDecoder<'_> {
    fn admit_rows(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        let meta_tokens = self.program.meta_tokens;
        for admission in admissions {
            let length = admission.prompt.len() / meta_tokens;
            let taken = self.rows.get(admission.row).is_none_or(Option::is_some);
            let own = self.layout.setup.shares_rows() || *admission.sequences == [admission.row];
            let known = admission.sequences.iter().all(|sequence| *sequence < self.layout.sequences());
            if taken || !own || !known || length * meta_tokens != admission.prompt.len() {
                return Err(self.layout.setup.refuses(format!(
                    "row {} or its sequences are taken or unknown, or its {} tokens are not whole meta-contexts",
                    admission.row,
                    admission.prompt.len()
                )));
            }
            if admission.keep != Keep::default() {
                return Err(self.layout.setup.refuses("logits, states and trajectories stay on the device"));
            }
            if length + self.layout.setup.run_ahead > self.layout.setup.capacity {
                return Err(self.past_capacity(admission.row, length + self.layout.setup.run_ahead));
            }
        }
        self.prefill(admissions)
    }

    fn start_burst(&mut self) -> Result<usize, BackendError> {
        let run_ahead = self.layout.setup.run_ahead;
        let full = self.rows.iter().enumerate().find_map(|(row, taken)| {
            let length = taken.as_ref()?.length + run_ahead;
            (length > self.layout.setup.capacity).then_some((row, length))
        });
        if let Some((row, length)) = full {
            return Err(self.past_capacity(row, length));
        }
        if self.pending.len() >= IN_FLIGHT {
            return Err(self.layout.setup.refuses("two bursts are pending: collect one first"));
        }
        let device = Arc::clone(&self.loaded.device);
        let lane_index = self.started % IN_FLIGHT;
        if self.parameters.take_changed() {
            self.upload_rows()?;
        }
        if let Some(forced) = self.parameters.take_forced(self.layout.burst_tokens) {
            let (name, stream) =
                if self.layout.is_split() { (FORCED, EXPAND) } else { (ALL_FORCED, self.ahead) };
            device.write(stream, self.address(name)?, &forced)?;
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
        for taken in self.rows.iter_mut().flatten() {
            taken.length += run_ahead;
        }
        self.parameters.advance(run_ahead * self.program.meta_tokens);
        Ok(run_ahead)
    }

    fn collect_burst(&mut self) -> Result<(), BackendError> {
        let Some(burst) = self.pending.pop_front() else {
            return Err(self.layout.setup.refuses("no burst is pending"));
        };
        self.loaded.device.finish(burst.done)?;
        self.times.settle(&*self.loaded.device, burst.spans)?;
        let bytes = self.lanes[burst.lane].host.bytes();
        self.collected.clear();
        let count = self.layout.sequences() * self.layout.burst_tokens;
        self.collected
            .extend(bytes.as_chunks::<8>().0.iter().take(count).map(|bytes| i64::from_le_bytes(*bytes)));
        Ok(())
    }
}

impl Decoder for RecordedDecoder<'_> {
    fn setup(&self) -> DecoderSetup {
        self.layout.setup
    }

    fn depth(&self) -> usize {
        IN_FLIGHT
    }

    fn draws_on_host(&self, draws: &Draws) -> Result<bool, BackendError> {
        if draws.change_logits() || draws.logprobs.is_some() {
            return Err(self.layout.setup.refuses("logits are not changed or told on the device yet"));
        }
        Ok(false)
    }

    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        let name = self.loaded.device.backend();
        self.admit_rows(admissions).map_err(|error| error.of(name))
    }

    fn prefilled(&self) -> PrefillTotals {
        self.prefilled
    }

    fn retire(&mut self, row: usize) {
        if let Some(taken) = self.rows.get_mut(row) {
            *taken = None;
            self.parameters.change();
        }
    }

    fn start(&mut self) -> Result<usize, BackendError> {
        let name = self.loaded.device.backend();
        self.start_burst().map_err(|error| error.of(name))
    }

    fn pending(&self) -> usize {
        self.pending.len()
    }

    fn collect(&mut self) -> Result<Collected<'_>, BackendError> {
        let name = self.loaded.device.backend();
        self.collect_burst().map_err(|error| error.of(name))?;
        Ok(Collected { ids: &self.collected, extras: BTreeMap::new() })
    }

    fn score(&mut self, _tokens: &[i64]) -> Result<Vec<f64>, BackendError> {
        Err(self.layout.setup.refuses("log-probabilities of a prompt are not computed here yet"))
    }

    fn measure(&mut self) {
        self.times.on = true;
    }

    fn take_times(&mut self) -> Timing {
        Timing { graphs: self.times.take(), ..Timing::default() }
    }
}

impl Drop for RecordedDecoder<'_> {
    fn drop(&mut self) {
        // Memory must not go while the device still uses it; a failure shows at the next call.
        let _ = self.loaded.device.synchronize();
    }
}

/// Names of the split's graphs, or of the undivided step's.
pub(super) fn graphs(split: &Split) -> (Option<&str>, &str, Option<&str>) {
    match split {
        Split::Distributed { coarse, expand, .. } => (Some(coarse), expand, None),
        Split::Undistributed { decode, reencode, .. } => (None, decode, reencode.as_deref()),
    }
}
