//! A compiler for PHOTON language models.
pub mod cli;
pub mod graph;
pub mod ir;
pub mod model;
pub mod passes;
