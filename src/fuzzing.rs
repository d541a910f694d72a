//! Readers that are no part of the library's face, for the fuzz targets in `fuzz/` alone: they may change with every version.

pub use crate::cli::read_prompts;
#[cfg(feature = "serve")]
pub use crate::server::read_body;
