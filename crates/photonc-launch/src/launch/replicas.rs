//! One queue of requests on several devices, a replica of the model on each. Owns how many rows a replica has.

use super::backend::LaunchBackend;
use super::decode::{Layout, RecordedDecoder};
use super::device::{Device, DeviceError};
use photonc_runtime::backend::BackendError;
use photonc_runtime::decoder::DecoderSetup;
use photonc_runtime::error::RuntimeError;
use photonc_runtime::plan::Program;
use photonc_runtime::request::Request;
use photonc_runtime::schedule::{Limits, QueueLimits, ServeError, Told, Totals, serve};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowCount {
    /// So many.
    Fixed(usize),
    /// As many as fit the device with this many bytes left over, but no more than so many.
    Fitting {
        /// Bytes to leave free.
        reserve_bytes: usize,
        /// Most rows.
        at_most: usize,
    },
}

/// Puts a model on a device.
pub type Load<'l> = dyn Fn(Arc<dyn Device>) -> Result<LaunchBackend, BackendError> + Sync + 'l;

impl LaunchBackend {
    /// The rows that `rows` asks for, of a decoder whose other sizes `setup` has.
    ///
    /// # Errors
    /// Not one row fits, a graph has no plan, or the device failed.
    pub fn rows(
        &mut self,
        program: &Program,
        setup: DecoderSetup,
        rows: RowCount,
    ) -> Result<usize, BackendError> {
        let (reserve_bytes, at_most) = match rows {
            RowCount::Fixed(rows) => return Ok(rows),
            RowCount::Fitting { reserve_bytes, at_most } => (reserve_bytes, at_most),
        };
        let loaded = self.loaded();
        let free = loaded.device.free_bytes()?;
        let room = free.saturating_sub(reserve_bytes);
        let most = Layout::most_rows(loaded, program, setup, room, at_most)?;
        let too_large = || -> BackendError {
            let one = Layout::new(loaded, program, DecoderSetup { rows: 1, ..setup });
            let bytes = one.map_or(0, |layout| layout.missing_bytes(loaded));
            DeviceError::OutOfMemory { bytes: bytes + reserve_bytes, free }.into()
        };
        most.ok_or_else(too_large)
    }
}

/// Runs `requests` on one replica a device. `setup` has the shape of each replica's decoder but for its rows and sequences,
/// of which it says how many a row has. `told` hears of bursts and ends.
///
/// # Errors
/// A replica failed or does not fit.
pub fn serve_on(
    devices: &[Arc<dyn Device>],
    load: &Load<'_>,
    program: &Program,
    setup: DecoderSetup,
    rows: RowCount,
    requests: Vec<Request>,
    told: Told<'_>,
) -> Result<Replicas, ServeError> {
    let chosen = Mutex::new(vec![0; devices.len()]);
    let DecoderSetup { capacity, run_ahead, .. } = setup;
    let limits = QueueLimits {
        model: Limits::of(program),
        capacity,
        run_ahead,
        waiting: usize::MAX,
        prefill_tokens: usize::MAX,
    };
    let totals = serve(devices.len(), limits, requests, told, &|replica, protocol, work| {
        let Some(device) = devices.get(replica) else { return Ok(()) };
        let mut cuda = load(Arc::clone(device)).map_err(RuntimeError::from)?;
        let rows = cuda.rows(program, setup, rows)?;
        if let Some(chosen) = chosen.lock().unwrap_or_else(PoisonError::into_inner).get_mut(replica) {
            *chosen = rows;
        }
        let sequences = rows * setup.sequences / setup.rows;
        let setup = DecoderSetup { protocol, rows, sequences, ..setup };
        work(&mut RecordedDecoder::new(cuda.loaded(), program, setup)?)
    })?;
    Ok(Replicas { totals, rows: chosen.into_inner().unwrap_or_else(PoisonError::into_inner) })
}

/// What became of the requests of `serve_on`.
#[derive(Debug)]
pub struct Replicas {
    /// What each has done.
    pub totals: Vec<Totals>,
    /// Rows of each replica.
    pub rows: Vec<usize>,
}
