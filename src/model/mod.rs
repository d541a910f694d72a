//! From a checkpoint to graphs: configuration, dialects, weights, and the equations of PHOTON as graph builders.

pub mod build;
pub mod config;
