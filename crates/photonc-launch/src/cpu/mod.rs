//! The processor as a device of the launch-plan runtime: kernels in the instructions that it has, threads that share their
//! work, memory that is the process's own. A call is done when `start` returns, so that streams and events need no queues.

mod attend;
mod block;
pub mod call;
pub mod device;
mod element;
mod experts;
mod general;
pub mod lanes;
mod peak;
pub mod pool;
mod product;
mod rows;
mod sample;
mod scalar;
mod scratch;
mod tile;
