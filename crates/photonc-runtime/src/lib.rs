//! From a bundle to tokens: backends that run graphs, and the generator that drives them.

pub mod backend;
pub mod decoder;
pub mod draws;
pub mod drift;
pub mod error;
pub mod generator;
mod graphs;
pub mod logprobs;
pub mod measure;
#[cfg(feature = "ort")]
pub mod ort;
mod paced;
pub mod penalties;
pub mod plan;
pub mod portable;
pub mod prompt;
pub mod random;
pub mod reference;
pub mod region;
pub mod request;
pub mod sampler;
pub mod schedule;
pub mod score;
mod session;
pub mod simulated;
pub mod timing;
#[cfg(feature = "tract")]
pub mod tract;
pub mod trajectory;
pub mod verify;
pub mod workers;
