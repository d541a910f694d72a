//! The CUDA runtime: verified graphs straight to a GPU, without an engine build. A graph with its sizes becomes a plan of
//! kernel launches and matrix products over one arena (`plan`); a device runs plans and records them for replay.

pub mod arguments;
pub mod backend;
pub mod bench;
pub mod bound;
pub mod cache;
pub mod ceilings;
pub mod codes;
pub mod computed;
pub mod decode;
pub mod device;
pub mod dispatch;
#[cfg(feature = "cuda")]
pub mod driver;
pub mod kernels;
pub mod launch;
pub mod launch_attention;
pub mod launch_codes;
mod lend;
#[cfg(feature = "cuda")]
pub mod libraries;
pub mod machine;
mod matmul;
pub mod needs;
#[cfg(feature = "cuda")]
pub mod nvrtc;
pub mod plan;
#[cfg(feature = "cuda")]
pub mod presence;
pub mod replicas;
pub mod weights;
