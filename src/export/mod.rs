//! From a checkpoint to a bundle: verified graphs as text and ONNX, weights once. Owns formats; refuses to change what
//! a graph computes: a graph that a format cannot hold must be lowered by passes first.

mod arrange;
mod assemble;
mod finite_check;
mod logit_error;
pub mod onnx;
mod options;
mod quantize;
pub mod rules;
mod store;
pub mod target;

pub use assemble::{ExportError, ExportReport, Progress, export, export_with};
pub use logit_error::LogitError;
pub use options::ExportOptions;
pub use quantize::StackError;
