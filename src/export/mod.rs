//! From verified graphs to files for other runtimes. Owns formats; refuses to change what a graph computes: a graph
//! that a format cannot hold must be lowered by passes first.

pub mod onnx;
