//! A compiler for PHOTON language models.
pub mod bundle;
pub mod cli;
pub mod export;
pub mod graph;
pub mod ir;
pub mod model;
pub mod passes;
pub mod runtime;
