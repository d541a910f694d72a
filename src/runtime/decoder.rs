//! Generation that stays on a device: state, run-ahead, sampling and random numbers, with only finished tokens crossing
//! to the host. Owns the interface; backends that can do it offer it beside `Backend::run`.

use super::backend::BackendError;
use super::sampler::Sampling;
use super::timing::GraphTime;
use crate::passes::choose_protocol::Protocol;
use std::collections::BTreeMap;

/// Shape of a decoder, fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSetup {
    /// How states advance.
    pub protocol: Protocol,
    /// Prompts at once; rows may be empty.
    pub rows: usize,
    /// Sequences per prompt, on one coarse trajectory where the protocol allows.
    pub samples: usize,
    /// Meta-contexts that a row holds at most, prompt included. The last burst may go past the end of a sequence, so
    /// count whole bursts.
    pub capacity: usize,
    /// Meta-contexts of one burst.
    pub run_ahead: usize,
}

impl DecoderSetup {
    /// Sequences side by side.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.rows * self.samples
    }

    /// The error that a decoder of this shape cannot do something.
    pub fn refuses(&self, message: impl Into<String>) -> BackendError {
        BackendError::Decoder { rows: self.rows, samples: self.samples, message: message.into() }
    }
}

/// A prompt for a row.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// The row, empty before.
    pub row: usize,
    /// Aligned tokens: whole meta-contexts.
    pub tokens: &'a [i64],
    /// How its samples are drawn. Sample `s` of the row draws with the key `(seed, first_sample + s)`.
    pub sampling: &'a Sampling,
    /// Number of the row's first sample.
    pub first_sample: u64,
}

/// Rows that generate side by side. Bursts are started and collected in order; while one is collected, the next may be
/// at work.
pub trait Decoder {
    /// The shape.
    fn setup(&self) -> DecoderSetup;

    /// Encodes prompts into their rows; they take part from the next burst on.
    ///
    /// # Errors
    /// A row that is taken, a prompt that does not fit the capacity, or a failure of the device.
    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError>;

    /// Empties a row: it takes part in no burst started from now on.
    fn retire(&mut self, row: usize);

    /// Starts a burst of `run_ahead` meta-contexts for every row that is taken.
    ///
    /// # Errors
    /// A row without room for the burst, or a failure of the device.
    fn start(&mut self) -> Result<(), BackendError>;

    /// Bursts started and not collected.
    fn pending(&self) -> usize;

    /// Waits for the oldest burst and hands out its tokens `[rows, samples, tokens]`, row-major; those of rows that were
    /// empty when it started are unspecified.
    ///
    /// # Errors
    /// No burst is pending, or the device failed.
    fn collect(&mut self) -> Result<&[i64], BackendError>;

    /// From now on notes how long graphs take on the device, where the decoder can.
    fn measure(&mut self) {}

    /// Runs and device time of graphs, in bursts that were collected since the last call; nothing unless `measure` was
    /// called. Graphs that are run as one have one name, `decode + reencode`.
    fn take_times(&mut self) -> BTreeMap<String, GraphTime> {
        BTreeMap::new()
    }
}
