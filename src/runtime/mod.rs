//! From a bundle to tokens: backends that run graphs, and the generator that drives them.

pub mod backend;
mod batch;
pub mod cuda;
pub mod decoder;
mod draw;
pub mod drift;
pub mod error;
pub mod generator;
pub mod measure;
#[cfg(feature = "ort")]
pub mod ort;
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
mod steps;
mod stream;
pub mod tensorrt;
pub mod timing;
pub mod tract;
pub mod trajectory;
pub mod verify;
mod window;
