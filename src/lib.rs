//! photonc
pub mod ir;
pub mod model;
