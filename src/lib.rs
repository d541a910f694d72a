//! A compiler for PHOTON hierarchical language models (Ichikawa et al., arXiv 2512.20687).
//!
//! ```text
//! checkpoint ──► model ──► graph: one meta-context step of the recursive generator, with delays
//!                              │ passes: choose the protocol, prove and split, widen, canonicalise
//!                              ▼
//!         encode   coarse   expand (+ expand_step)   decode, reencode (HierGen)   score
//!                              │ export: text, ONNX, one weight store
//!                              ▼
//!                           bundle ──► runtime: backends under one generator
//! ```
//!
//! The graphs of a small model, without any checkpoint:
//!
//! ```
//! use photonc::model::preset::preset;
//! use photonc::passes::choose_protocol::Protocol;
//! use photonc::passes::compile::{Plan, compile};
//!
//! let config = preset("tiny").expect("a preset");
//! let compilation = compile(&config, &[Protocol::Recgen])?;
//! let Plan::Distributed { certificate, .. } = &compilation.plans[&Protocol::Recgen] else {
//!     unreachable!("RecGen's top state reads no sample")
//! };
//! assert_eq!(certificate.tainted_coarse_nodes, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! README.md goes from a checkpoint to tokens; ARCHITECTURE.md says where to start reading.

pub mod bundle;
pub mod cli;
pub mod export;
pub mod graph;
pub mod ir;
pub mod model;
pub mod passes;
pub mod runtime;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
