//! From a checkpoint to a bundle: verified graphs as text and ONNX, weights once. Owns formats; refuses to change what
//! a graph computes: a graph that a format cannot hold must be lowered by passes first.

mod arrange;
mod assemble;
pub mod engines;
mod finite_check;
pub mod onnx;
mod store;

pub use assemble::{ExportError, ExportOptions, ExportReport, Progress, export, export_with};
