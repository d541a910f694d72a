//! A compiler for PHOTON language models (Ichikawa et al., arXiv 2512.20687): hierarchical autoregressive models whose
//! recursive generation splits into a short sequential part and a wide parallel one.
//!
//! ```text
//! checkpoint ──► model ──► one meta-context step, with delays
//!                               │ passes: choose protocol, prove + distribute, widen, lower
//!                               ▼
//!          encode   coarse   expand          decode   reencode          score
//!                               │ export: graph text, ONNX, weights once
//!                               ▼
//!                            bundle ──► runtime: Generator over a Backend (cpu, cuda, ort, ..)
//! ```
//!
//! [`passes::compile::compile`] derives the graphs of a model; nothing in it knows a level or assumes the split:
//!
//! ```
//! use photonc::model::preset::preset;
//! use photonc::passes::choose_protocol::Protocol;
//! use photonc::passes::compile::{Plan, compile};
//!
//! let config = preset("tiny").ok_or("no such preset")?;
//! let compiled = compile(&config, &[Protocol::Recgen, Protocol::Hiergen])?;
//! let Plan::Distributed { certificate, .. } = &compiled.plans[&Protocol::Recgen] else {
//!     return Err("RecGen did not distribute".into());
//! };
//! assert_eq!(certificate.tainted_coarse_nodes, 0);
//! // HierGen feeds its samples back; the refusal names the path from a sample to the state.
//! let Plan::Undistributed { declined, .. } = &compiled.plans[&Protocol::Hiergen] else {
//!     return Err("HierGen distributed".into());
//! };
//! assert_eq!(declined.path[0].op, "sample");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`export::export`] writes a [`bundle`], and a [`runtime`] generator runs it.

pub mod api;
pub mod cli;
pub mod export;
#[doc(hidden)]
pub mod fuzzing;

use photonc_bundle::json;
pub use photonc_bundle::{bundle, cache, places, program, staging};
pub use photonc_compiler::{inspect, model, passes};
pub use photonc_graph::{graph, ir};
pub use photonc_onnx as onnx;
#[cfg(feature = "serve")]
pub use photonc_server as server;
pub use photonc_tensorrt as engine;
pub use photonc_text as text;

/// From a bundle to tokens: backends that run graphs, and the generator that drives them.
pub mod runtime {
    pub use photonc_launch::{cpu, cuda, launch, tensorrt};
    pub use photonc_runtime::*;
}

#[cfg(doctest)]
#[doc = include_str!("../docs/rust.md")]
struct RustPage;
