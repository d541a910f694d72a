//! Work of the emulated device: what waits on each stream, in which order it is done, and recordings. Owns events and the
//! random choice of the next stream; refuses to do the work, which is the caller's.

use super::build::Entry;
use photonc::runtime::launch::device::{DeviceError, MatMul, STREAMS};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Something to do on a stream.
#[derive(Clone)]
pub enum Work {
    Launch {
        name: Arc<str>,
        entry: Entry,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        arguments: Arc<[u8]>,
    },
    MatMul(MatMul),
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Fill {
        to: u64,
        byte: u8,
        bytes: usize,
    },
    Write {
        to: u64,
        bytes: Arc<[u8]>,
    },
    ReadLater {
        from: u64,
        host: Weak<super::memory::HostBytes>,
        at: usize,
        bytes: usize,
    },
}

impl Work {
    /// What it takes of the device's time: nothing like a GPU's, but more for more work.
    pub fn cost_ns(&self) -> u64 {
        let moved = |bytes: usize| 1_000 + bytes as u64 / 1_000;
        match self {
            Work::Launch { grid, .. } => {
                2_000 + 10 * grid.iter().map(|blocks| u64::from(*blocks)).product::<u64>()
            }
            Work::MatMul(product) => 2_000 + (product.m * product.n * product.k) as u64 / 500_000,
            Work::Copy { bytes, .. } | Work::Fill { bytes, .. } | Work::ReadLater { bytes, .. } => {
                moved(*bytes)
            }
            Work::Write { bytes, .. } => moved(bytes.len()),
        }
    }
}

/// What stands in a stream's queue.
pub enum Entered {
    Work(Work),
    Record(u64),
    Wait(u64),
    Replay(Running),
}

/// A step of a recording; events are numbers of its own.
#[derive(Clone)]
pub enum Step {
    Work(Work),
    Record(usize),
    Wait(usize),
}

/// What was recorded, by stream.
#[derive(Default)]
pub struct Sequence {
    pub steps: [Vec<Step>; STREAMS],
    pub events: usize,
}

/// A recording being replayed: branches interleave as their events allow.
pub struct Running {
    sequence: Arc<Sequence>,
    at: [usize; STREAMS],
    done: Vec<bool>,
}

impl Running {
    pub fn new(sequence: Arc<Sequence>) -> Self {
        Running { at: [0; STREAMS], done: vec![false; sequence.events], sequence }
    }

    /// Whether it has begun and not ended, and has products of this stream's workspace.
    fn occupies(&self, workspace: usize) -> bool {
        let begun = self.at.iter().any(|at| *at > 0) && !self.finished();
        let product = |step: &Step| matches!(step, Step::Work(Work::MatMul(_)));
        begun && self.sequence.steps[workspace].iter().any(product)
    }

    fn finished(&self) -> bool {
        (0..STREAMS).all(|stream| self.at[stream] == self.sequence.steps[stream].len())
    }

    /// Advances a branch by one step: the branch, and what is then to be done, if anything.
    fn step(&mut self, noise: &mut Noise) -> (usize, Option<Work>) {
        let able = |stream: &usize| match self.sequence.steps[*stream].get(self.at[*stream]) {
            None => false,
            Some(Step::Wait(event)) => self.done[*event],
            Some(_) => true,
        };
        let able: Vec<usize> = (0..STREAMS).filter(able).collect();
        let stream = able[noise.below(able.len())];
        let step = &self.sequence.steps[stream][self.at[stream]];
        self.at[stream] += 1;
        match step {
            Step::Work(work) => return (stream, Some(work.clone())),
            Step::Record(event) => self.done[*event] = true,
            Step::Wait(_) => {}
        }
        (stream, None)
    }
}

/// Numbers that decide the order, the same in every run of a seed.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// An event outside recordings.
#[derive(Clone, Copy)]
pub enum Mark {
    Pending,
    /// At this time of the device.
    Reached(u64),
    /// Of a recording: cannot be waited for outside.
    Recorded,
}

/// The streams.
pub struct Queues {
    pub entered: [VecDeque<Entered>; STREAMS],
    pub marks: Vec<Mark>,
    pub noise: Noise,
    /// The device's time, which goes on with its work alone: the same in every run of a seed.
    pub clock_ns: u64,
}

impl Queues {
    pub fn new(seed: u64) -> Self {
        Queues { entered: Default::default(), marks: Vec::new(), noise: Noise(seed), clock_ns: 0 }
    }

    pub fn reached(&self, event: u64) -> bool {
        matches!(self.marks.get(event as usize), Some(Mark::Reached(_)))
    }

    /// Streams whose next entry may happen.
    pub fn able(&self) -> Vec<usize> {
        let able = |stream: &usize| match self.entered[*stream].front() {
            None => false,
            Some(Entered::Wait(event)) => self.reached(*event),
            Some(_) => true,
        };
        (0..STREAMS).filter(able).collect()
    }

    /// Takes one step on an able stream; what is then to be done, if anything. Fails where two products could share a
    /// workspace at the same time.
    pub fn step(&mut self, stream: usize) -> Result<Option<Work>, DeviceError> {
        let (workspace, work) = match self.entered[stream].front_mut() {
            Some(Entered::Replay(running)) if !running.finished() => running.step(&mut self.noise),
            _ => match self.entered[stream].pop_front() {
                Some(Entered::Work(work)) => (stream, Some(work)),
                Some(Entered::Record(event)) => {
                    self.marks[event as usize] = Mark::Reached(self.clock_ns);
                    (stream, None)
                }
                Some(Entered::Wait(_) | Entered::Replay(_)) | None => (stream, None),
            },
        };
        if matches!(work, Some(Work::MatMul(_))) {
            for (other, entered) in self.entered.iter().enumerate() {
                let Some(Entered::Replay(running)) = entered.front() else { continue };
                if other != stream && running.occupies(workspace) {
                    let message = format!(
                        "streams {stream} and {other} use the workspace of stream {workspace} at once"
                    );
                    return Err(super::memory::call("matmul", &message));
                }
            }
        }
        Ok(work)
    }

    pub fn clear(&mut self) {
        self.entered.iter_mut().for_each(VecDeque::clear);
    }
}

/// How much of each stream something comes after.
type Clock = [usize; STREAMS];

/// A recording that has not ended.
pub struct Capture {
    pub origin: usize,
    sequence: Sequence,
    /// Of each stream that takes part.
    clocks: [Option<Clock>; STREAMS],
    /// Events recorded inside: their number outside and where they stand.
    events: Vec<(u64, Clock)>,
}

impl Capture {
    pub fn new(origin: usize) -> Self {
        let mut clocks = [None; STREAMS];
        clocks[origin] = Some([0; STREAMS]);
        Capture { origin, sequence: Sequence::default(), clocks, events: Vec::new() }
    }

    pub fn takes(&self, stream: usize) -> bool {
        self.clocks[stream].is_some()
    }

    pub fn has(&self, event: u64) -> bool {
        self.events.iter().any(|(number, _)| *number == event)
    }

    pub fn push(&mut self, stream: usize, work: Work) {
        self.sequence.steps[stream].push(Step::Work(work));
        if let Some(clock) = &mut self.clocks[stream] {
            clock[stream] += 1;
        }
    }

    pub fn record(&mut self, stream: usize, event: u64) {
        let clock = self.clocks[stream].unwrap_or_default();
        self.sequence.steps[stream].push(Step::Record(self.events.len()));
        self.events.push((event, clock));
    }

    /// A stream waits for an event of the recording, and so becomes part of it.
    pub fn wait(&mut self, stream: usize, event: u64) {
        if let Some(at) = self.events.iter().position(|(number, _)| *number == event) {
            let seen = self.events[at].1;
            let clock = self.clocks[stream].get_or_insert_default();
            for (own, seen) in clock.iter_mut().zip(seen) {
                *own = seen.max(*own);
            }
            self.sequence.steps[stream].push(Step::Wait(at));
        }
    }

    /// Ends the recording. Every branch must have come back to the stream where it began.
    pub fn end(mut self) -> Result<Sequence, DeviceError> {
        let origin = self.clocks[self.origin].unwrap_or_default();
        for (stream, clock) in self.clocks.iter().enumerate() {
            if clock.is_some_and(|clock| clock[stream] > origin[stream]) {
                let message = format!("stream {stream} was not joined to stream {}", self.origin);
                return Err(super::memory::call("end_recording", &message));
            }
        }
        self.sequence.events = self.events.len();
        Ok(self.sequence)
    }
}
