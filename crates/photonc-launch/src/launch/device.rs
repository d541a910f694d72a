//! What launch plans ask of a device: memory by address, calls, streams, events and recorded sequences. Owns the trait only;
//! `cuda` answers it with a GPU, tests answer it with the GPU's kernels built for the CPU.

use super::plan::{Call, Tuning};
use photonc_graph::ir::dtype::Dtype;
use std::any::Any;
use std::fmt;

pub use super::matmul::{MatMul, ProductKind};

/// Streams that every device has; work on one stream runs in order.
pub const STREAMS: usize = 4;

/// Events that a device remembers: one followed by this many others counts as reached.
pub const EVENTS_KNOWN: usize = 4096;

/// The stream whose work goes before that of the others where there is room for one only.
pub const URGENT: Stream = Stream(STREAMS - 1);

/// One of the device's streams, `0 .. STREAMS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream(pub usize);

/// A point on a stream, made by `record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event(pub u64);

/// Facts about the device that plans depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// The vendor's name, e.g. `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability times ten, e.g. 90.
    pub sm: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Device memory in bytes.
    pub memory_bytes: usize,
    /// Most shared memory of a block in bytes, after opting in.
    pub shared_bytes: usize,
    /// An allocation takes at most its size rounded up to a multiple of this many bytes.
    pub allocation_bytes: usize,
    /// Where a device has several kernels for a call: whether one is chosen without regard to the number of rows, so that a
    /// row has the same bits alone and among others.
    pub batch_invariant: bool,
}

impl Properties {
    /// An H100 with so much shared memory in a block.
    #[cfg(test)]
    pub(crate) fn h100(shared_bytes: usize) -> Self {
        Properties {
            name: "test".to_owned(),
            sm: 90,
            multiprocessors: 132,
            memory_bytes: 0,
            shared_bytes,
            allocation_bytes: 256,
            batch_invariant: false,
        }
    }

    /// Device memory in bytes that allocations of these sizes take at most.
    pub fn taken_bytes(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        sizes.into_iter().map(|bytes| bytes.max(1).next_multiple_of(self.allocation_bytes.max(1))).sum()
    }
}

/// Device memory that is freed when dropped.
pub struct Allocation {
    /// Address of the first byte, a multiple of 256.
    pub address: u64,
    /// Size in bytes.
    pub bytes: usize,
    /// Frees the memory when dropped.
    pub owner: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Allocation({} bytes)", self.bytes)
    }
}

/// Page-locked host memory that `read_later` fills.
pub trait HostMemory: Send {
    /// The bytes; those of an unfinished copy are unspecified.
    fn bytes(&self) -> &[u8];

    /// Address of the first byte, for the device that made it.
    fn address(&self) -> u64;
}

/// A call made ready for the device that gave it: its kernel is loaded, its launch chosen.
pub struct Prepared(pub Box<dyn Any + Send + Sync>);

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared")
    }
}

/// The kernels that some calls need, for the device that chose them.
pub struct Kernels(pub Box<dyn Any + Send + Sync>);

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernels")
    }
}

/// A sequence recorded between `begin_recording` and `end_recording`, with its addresses.
pub struct Recording(pub Box<dyn Any + Send>);

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}

/// Why a device could not do what was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// A library or a device is missing.
    #[error("{0}")]
    Unavailable(String),
    /// No room.
    #[error("no room for {bytes} bytes on the device ({free} bytes are free)")]
    OutOfMemory {
        /// Size asked for.
        bytes: usize,
        /// Free bytes.
        free: usize,
    },
    /// A kernel does not compile or load.
    #[error("kernels of {unit}: {message}")]
    Compile {
        /// The unit.
        unit: String,
        /// The compiler's words.
        message: String,
    },
    /// A call into the driver failed.
    #[error("{call}: {message}")]
    Call {
        /// What was called.
        call: &'static str,
        /// The driver's words.
        message: String,
    },
}

/// Types of what a call computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTypes {
    /// Activations, norms, biases.
    pub activations: Dtype,
    /// Whole matrices of weights and tables: that of activations, or a narrower one in which they are stored.
    pub matrices: Dtype,
}

impl From<Dtype> for CallTypes {
    fn from(dtype: Dtype) -> Self {
        CallTypes { activations: dtype, matrices: dtype }
    }
}

/// A device. Calls return before the work is done unless they say that they wait; work on one stream runs in order.
///
/// Addresses given to `write`, `read`, `copy`, `fill` and `prepare` lie in allocations of this device that
/// outlive the work.
pub trait Device: Send + Sync {
    /// Facts about it.
    fn properties(&self) -> &Properties;

    /// Name of the backend that it makes.
    fn backend(&self) -> &'static str {
        "cuda"
    }

    /// Meta-contexts to which shorter prompts are padded, where kernels would otherwise depend on their number.
    fn least_prompt(&self) -> usize {
        1
    }

    /// Which of its kernels serve which sizes.
    fn tuning(&self) -> Tuning {
        if self.properties().batch_invariant { Tuning::ANY_ROWS } else { Tuning::default() }
    }

    /// Multiplications and additions a second of fused multiply-adds on numbers in registers, where the device can say:
    /// a ceiling of products that owes nothing to how its own are written.
    fn peak_flops(&self) -> Option<f64> {
        None
    }

    /// Whether rows that nobody uses cost next to nothing, as where many are computed at once.
    fn has_room_for_idle_rows(&self) -> bool {
        true
    }

    /// Whether its kernels read codes of weights in few bits in the order in which files have them.
    fn reads_codes_as_stored(&self) -> bool {
        false
    }

    /// Whether its kernels read whole matrices in a narrower type than that of activations, and widen what they read.
    fn reads_matrices_as_stored(&self) -> bool {
        false
    }

    /// The driver's handle of a stream, on which a library enters work of its own next; 0, the default stream, of a device
    /// that has no driver.
    ///
    /// # Errors
    /// The driver failed.
    fn handle(&self, stream: Stream) -> Result<u64, DeviceError>;

    /// Free device memory in bytes.
    ///
    /// # Errors
    /// The driver failed.
    fn free_bytes(&self) -> Result<usize, DeviceError>;

    /// Memory with unspecified contents.
    ///
    /// # Errors
    /// No room.
    fn allocate(&self, bytes: usize) -> Result<Allocation, DeviceError>;

    /// Page-locked host memory, zeroed.
    ///
    /// # Errors
    /// No room.
    fn allocate_host(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError>;

    /// Copies host bytes to the device; the bytes may be reused on return.
    ///
    /// # Errors
    /// The driver failed.
    fn write(&self, stream: Stream, to: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies device bytes to the host and waits for them.
    ///
    /// # Errors
    /// The driver failed, or the work before it did.
    fn read(&self, stream: Stream, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies device bytes to page-locked memory without waiting.
    ///
    /// # Errors
    /// The driver failed.
    fn read_later(
        &self,
        stream: Stream,
        from: u64,
        to: &mut dyn HostMemory,
        at: usize,
        bytes: usize,
    ) -> Result<(), DeviceError>;

    /// Copies on the device.
    ///
    /// # Errors
    /// The driver failed.
    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError>;

    /// Sets bytes on the device.
    ///
    /// # Errors
    /// The driver failed.
    fn fill(&self, stream: Stream, to: u64, byte: u8, bytes: usize) -> Result<(), DeviceError>;

    /// The kernels that calls with activations and weights of type `dtype` need; none is loaded.
    ///
    /// # Errors
    /// A size is beyond what a kernel can take.
    fn kernels(&self, calls: &mut dyn Iterator<Item = &Call>, dtype: Dtype) -> Result<Kernels, DeviceError>;

    /// Compiles (or takes from the cache) and loads kernels, side by side where it can; those loaded before cost nothing.
    ///
    /// # Errors
    /// A source does not compile or the result does not load.
    fn load(&self, kernels: &Kernels) -> Result<(), DeviceError>;

    /// Makes a call ready whose addresses are those of this device.
    ///
    /// # Errors
    /// As `kernels` and `load`, or matrices of a type that the device does not widen.
    fn prepare(&self, call: &Call, types: CallTypes) -> Result<Prepared, DeviceError>;

    /// Starts a call. A library may load what a matrix product needs at the first one of a kind, which cannot be recorded:
    /// a product that is recorded is of a kind that was started before outside recordings.
    ///
    /// # Errors
    /// The device refused it, or another device made it ready.
    fn start(&self, stream: Stream, prepared: &Prepared) -> Result<(), DeviceError>;

    /// Marks the present end of a stream.
    ///
    /// # Errors
    /// The driver failed.
    fn record(&self, stream: Stream) -> Result<Event, DeviceError>;

    /// What comes next on `stream` runs after `event`.
    ///
    /// # Errors
    /// The driver failed.
    fn wait(&self, stream: Stream, event: Event) -> Result<(), DeviceError>;

    /// Waits on the host for an event, one outside recordings.
    ///
    /// # Errors
    /// Work before the event failed.
    fn finish(&self, event: Event) -> Result<(), DeviceError>;

    /// Milliseconds of device time between two finished events.
    ///
    /// # Errors
    /// An event has not finished.
    fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError>;

    /// From here on work on `stream` is recorded, not done: calls, copies and fills.
    ///
    /// # Errors
    /// The driver failed.
    fn begin_recording(&self, stream: Stream) -> Result<(), DeviceError>;

    /// Ends a recording.
    ///
    /// # Errors
    /// Something in it cannot be recorded.
    fn end_recording(&self, stream: Stream) -> Result<Recording, DeviceError>;

    /// Does what was recorded.
    ///
    /// Products of a recording use the workspaces of the streams they were recorded on, so two recordings with products
    /// that may run at the same time must have been recorded on different streams.
    ///
    /// # Errors
    /// The driver failed.
    fn replay(&self, stream: Stream, recording: &Recording) -> Result<(), DeviceError>;

    /// Waits for all work.
    ///
    /// # Errors
    /// Work has failed.
    fn synchronize(&self) -> Result<(), DeviceError>;
}
