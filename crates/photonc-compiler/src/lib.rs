//! From a checkpoint to certified graphs. Owns models and their dialects, the passes, and what can be told of both.

pub mod inspect;
pub mod model;
pub mod passes;
