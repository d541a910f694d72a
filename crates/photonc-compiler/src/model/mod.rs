//! From a checkpoint to graphs: configuration, dialects, weights, and the equations of PHOTON as graph builders.

pub mod alternatives;
pub mod build;
pub mod checkpoint;
pub mod config;
pub mod config_json;
pub mod dialect;
pub mod forecast;
pub mod parameter_table;
pub mod parameters;
pub mod preset;
pub mod synth;
pub mod validate;
