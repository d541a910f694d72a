//! How a bundle is opened, for every command that opens one.

use super::Failure;
use crate::bundle::Bundle;
use std::path::Path;

/// How a bundle is opened.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct OpenArgs {
    /// Do not compare the weights with their hashes, which reads all of them: for a bundle that something else vouches for
    #[arg(long)]
    pub no_verify: bool,
}

impl OpenArgs {
    /// The bundle at `path`.
    pub fn open(self, path: &Path) -> Result<Bundle, Failure> {
        Ok(if self.no_verify { Bundle::open_unverified(path)? } else { Bundle::open(path)? })
    }
}
