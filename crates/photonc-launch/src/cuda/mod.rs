//! CUDA as a device of the launch-plan runtime: which kernel answers which call with how many blocks, the kernels' sources,
//! their compilation, and the driver.

pub mod cache;
pub mod dispatch;
#[cfg(feature = "cuda")]
pub mod driver;
pub mod kernels;
pub mod launch;
pub mod launch_attention;
pub mod launch_codes;
pub mod launch_general;
pub mod launcher;
#[cfg(feature = "cuda")]
pub mod libraries;
#[cfg(feature = "cuda")]
pub mod nvrtc;
#[cfg(feature = "cuda")]
pub mod presence;
