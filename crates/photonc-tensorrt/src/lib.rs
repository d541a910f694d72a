//! Engines: graphs that a vendor's library has compiled from ONNX for certain GPUs. Owns what they are built for, what is
//! recorded of them, whether they can be used here, and how the vendor's words lead back to the model; which graphs are
//! built, and running them, belong to the parts above.
//!
//! Everything but `tensorrt` and `gpu` is plain computation, in every build of photonc.

mod builder;
mod kept;
mod library;
mod memory;
mod message;
mod mismatch;
mod pick;
mod profile;
mod record;
mod runner;
mod seal;
mod stale;
mod target;

#[cfg(feature = "tensorrt-rtx")]
mod gpu;
#[cfg(feature = "tensorrt-rtx")]
mod stream;
#[cfg(feature = "tensorrt-rtx")]
pub mod tensorrt;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_build;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_contexts;
#[cfg(feature = "tensorrt-rtx")]
pub mod tensorrt_runner;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_timings;

pub use builder::{BuildError, Built, EngineBuilder, Order, Phase, Port, Sink, Step, Steps};
pub use kept::{Kept, NotKept};
pub use library::{Found, parser_of, wanted};
pub use memory::{PeakMemory, predicted_peak_bytes};
pub use message::{Finding, Level, Message, findings};
pub use mismatch::{Gpu, Here, Mismatch, mismatches};
pub use pick::{NoEngine, Picked, Unfit, pick};
pub use profile::{Limits, Outside, Profile, ProfileError, Range, Use, choose};
pub use record::{EngineFile, EngineRecord, EngineSet, EngineSource, FORMAT, RecordError, Sets, sets};
pub use runner::{Binding, Bindings, EngineRunner};
pub use seal::Key;
pub use stale::{Stale, stale};
pub use target::{Capabilities, EngineTarget, Sm, TargetError, Vendor, Version};
