//! The backends that `--backend` offers and `doctor` lists. Owns their names and how each is loaded.

use super::Failure;
use crate::bundle::Bundle;
use crate::runtime::backend::Backend;
use crate::runtime::generator::Generator;
use crate::runtime::reference::Reference;
use std::path::Path;

/// A backend by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendName {
    /// Interprets the graphs in binary64: slow, the oracle
    Reference,
}

impl BackendName {
    /// Every backend.
    pub const ALL: [BackendName; 1] = [BackendName::Reference];

    /// Name in options and output.
    pub fn name(self) -> &'static str {
        match self {
            BackendName::Reference => "reference",
        }
    }

    /// Version of the code that runs the graphs.
    pub fn version(self) -> &'static str {
        match self {
            BackendName::Reference => env!("CARGO_PKG_VERSION"),
        }
    }

    /// What it is, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            BackendName::Reference => "interprets the graphs in binary64: slow, the oracle",
        }
    }

    /// Opens a bundle on this backend.
    pub fn open(self, path: &Path) -> Result<(Bundle, Generator), Failure> {
        let bundle = Bundle::open(path)?;
        let backend: Box<dyn Backend> = match self {
            BackendName::Reference => Box::new(Reference::of_bundle(bundle.clone())),
        };
        let generator = Generator::of_bundle(&bundle, backend)?;
        Ok((bundle, generator))
    }
}
