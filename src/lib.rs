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
pub mod bundle;
pub mod cache;
pub mod cli;
pub mod engine;
pub mod export;
pub mod graph;
pub mod inspect;
pub mod ir;
mod json;
pub mod model;
pub mod onnx;
pub mod passes;
pub mod places;
pub mod program;
pub mod runtime;
#[cfg(feature = "serve")]
pub mod server;
pub mod staging;
pub mod text;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
