//! Values, operations and graphs: what everything else of photonc is written in.

pub mod graph;
pub mod ir;
