//! From a bundle to tokens: backends that run graphs, and the generator that drives them.

pub mod backend;
pub mod prompt;
pub mod random;
pub mod region;
pub mod sampler;
