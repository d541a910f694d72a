//! The launch-plan runtime: verified graphs straight to a device, without an engine build. A graph with its sizes becomes a
//! plan of calls over one arena (`plan`); a device runs plans and records them for replay (`decode`). Knows no device:
//! `device` is what it asks of one.

pub mod arguments;
pub mod backend;
pub mod bench;
pub mod bound_plan;
pub mod codes;
pub mod decode;
pub mod derived_weights;
pub mod device;
mod engine_buffers;
pub mod loaded_model;
mod matmul;
mod named;
pub mod plan;
pub mod replicas;
pub mod resources;
pub mod roofline;
pub mod weights;
