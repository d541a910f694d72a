//! From a checkpoint to a bundle: verified graphs as text and ONNX, weights once. Owns the order of an export; refuses to
//! change what a graph computes: a graph that a format cannot hold must be lowered by passes first.

mod arrange;
mod assemble;
pub mod engines;
mod fill;
mod finite_check;
mod logit_error;
mod options;
mod quantize;
mod refit;
mod store;

pub use crate::onnx::{self, rules, target};
pub use assemble::{ExportError, ExportReport, Progress, export, export_with};
pub use logit_error::LogitError;
pub use options::ExportOptions;
pub use quantize::StackError;
pub use refit::{Difference, RefitError, RefitOptions, RefitReport, refit};
