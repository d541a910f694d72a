//! The backends that `--backend` offers and `doctor` lists. Owns their names and how each is loaded.

use super::Failure;
use crate::bundle::Bundle;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::Plan;
use crate::runtime::backend::Backend;
use crate::runtime::error::RuntimeError;
use crate::runtime::generator::Generator;
use crate::runtime::plan::{ENCODE, WINDOW};
use crate::runtime::reference::Reference;
use crate::runtime::sampler::Sampling;
use crate::runtime::tract::Tract;
use std::path::Path;

/// The version in Cargo.lock; a test compares them.
pub const TRACT_VERSION: &str = "0.23.9";

/// A backend by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendName {
    /// ONNX in pure Rust, built in
    Tract,
    /// Interprets the graphs in binary64: slow, the oracle
    Reference,
}

impl BackendName {
    /// Every backend.
    pub const ALL: [BackendName; 2] = [BackendName::Tract, BackendName::Reference];

    /// Name in options and output.
    pub fn name(self) -> &'static str {
        match self {
            BackendName::Tract => "tract",
            BackendName::Reference => "reference",
        }
    }

    /// Version of the code that runs the graphs.
    pub fn version(self) -> &'static str {
        match self {
            BackendName::Tract => TRACT_VERSION,
            BackendName::Reference => env!("CARGO_PKG_VERSION"),
        }
    }

    /// What it is, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            BackendName::Tract => "runs the ONNX models on the CPU, the default",
            BackendName::Reference => "interprets the graphs in binary64: slow, the oracle",
        }
    }

    /// Opens a bundle on this backend.
    pub fn open(self, path: &Path) -> Result<(Bundle, Generator), Failure> {
        let bundle = Bundle::open(path)?;
        let backend: Box<dyn Backend> = match self {
            BackendName::Tract => Box::new(Tract::of_bundle(bundle.clone())),
            BackendName::Reference => Box::new(Reference::of_bundle(bundle.clone())),
        };
        let generator = Generator::of_bundle(&bundle, backend)?;
        Ok((bundle, generator))
    }
}

/// Loads the graphs that a generation will run, so that its times are those of generation; tells whether tokens are drawn
/// outside the graphs.
pub fn load_graphs(
    generator: &mut Generator,
    protocol: Protocol,
    sampling: &Sampling,
) -> Result<bool, Failure> {
    let on_host = generator.draws_on_host(protocol, sampling)?;
    let plan = generator.program().plan(protocol)?.clone();
    let (step, draw) = match &plan {
        Plan::Distributed { coarse, expand, prepare, .. } => (Some(coarse), (expand, Some(prepare))),
        Plan::Undistributed { decode, prepare, reencode, .. } => {
            (reencode.as_ref(), (decode, prepare.as_ref()))
        }
    };
    let drawing = match (on_host, draw) {
        (true, (_, Some(prepare))) => vec![prepare.as_str(), WINDOW],
        (_, (whole, _)) => vec![whole.as_str()],
    };
    let backend = generator.backend();
    for graph in [ENCODE].into_iter().chain(step.map(String::as_str)).chain(drawing) {
        backend.prepare(graph).map_err(RuntimeError::from)?;
    }
    Ok(on_host)
}
