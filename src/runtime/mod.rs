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
#[cfg(any(feature = "cuda", feature = "ort"))]
#[cfg_attr(not(feature = "ort"), allow(dead_code, reason = "CUDA's libraries have a search of their own"))]
mod places;
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
pub mod timing;
pub mod tract;
pub mod trajectory;
pub mod verify;
mod window;
