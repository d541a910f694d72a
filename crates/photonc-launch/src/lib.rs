//! Graphs as launch plans: calls of kernels with memory placed in advance. Owns the lowering, the decoder that is recorded
//! once, and the devices: the processor and CUDA; and TensorRT engines, which run beside them.

pub mod cpu;
pub mod cuda;
pub mod launch;
pub mod tensorrt;
