//! The engine of a graph that can be used here. Owns the choice among the sets of a bundle, and what is said where none fits.

use super::mismatch::{Here, Mismatch, mismatches};
use super::record::{EngineFile, EngineSource, RecordError, sets};
use crate::bundle::Bundle;
use std::fmt;
use std::path::PathBuf;

/// An engine whose bytes are those recorded, for this library and this GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// The engine.
    pub path: PathBuf,
    /// What is recorded of it.
    pub engine: EngineFile,
}

/// Why no engine of a graph can be used.
#[derive(Debug)]
pub enum NoEngine {
    /// The bundle has none.
    None {
        /// The bundle.
        bundle: PathBuf,
        /// The graph.
        graph: String,
        /// What is here.
        here: Here,
    },
    /// None of those it has fits.
    Unfit {
        /// The bundle.
        bundle: PathBuf,
        /// The graph.
        graph: String,
        /// Every set that has one, with its differences.
        sets: Vec<(PathBuf, Vec<Mismatch>)>,
        /// What is here.
        here: Here,
    },
    /// Engines that cannot be read.
    Record(RecordError),
}

impl NoEngine {
    /// Whether building engines here would help.
    #[must_use]
    pub fn mended_by_building(&self) -> bool {
        match self {
            NoEngine::None { here, .. } => here.gpu.as_ref().is_some_and(|gpu| here.vendor.serves(gpu.sm)),
            NoEngine::Unfit { sets, .. } => {
                sets.iter().flat_map(|(_, found)| found).all(Mismatch::mended_by_building)
            }
            NoEngine::Record(error) => {
                matches!(error, RecordError::Record { .. } | RecordError::Damaged { .. })
            }
        }
    }
}

impl fmt::Display for NoEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoEngine::Record(error) => error.fmt(f),
            NoEngine::None { bundle, graph, here } => {
                write!(f, "{}: no engine of graph `{graph}` for {}", bundle.display(), here.vendor)?;
                advice(f, &bundle.display().to_string(), here)
            }
            NoEngine::Unfit { bundle, graph, sets, here } => {
                write!(f, "{}: no engine of graph `{graph}` can be used here", bundle.display())?;
                for (folder, found) in sets {
                    let found: Vec<String> = found.iter().map(Mismatch::to_string).collect();
                    let folder = folder.strip_prefix(bundle).unwrap_or(folder);
                    write!(f, "\n  {}: {}", folder.display(), found.join("; "))?;
                }
                advice(f, &bundle.display().to_string(), here)
            }
        }
    }
}

fn advice(f: &mut fmt::Formatter<'_>, bundle: &str, here: &Here) -> fmt::Result {
    let name = here.vendor.name();
    match &here.gpu {
        None => write!(f, "\nrun on a machine with a GPU, or on another backend"),
        Some(gpu) if !here.vendor.serves(gpu.sm) => write!(f, "\nuse the cuda backend on this GPU"),
        Some(_) if here.vendor.capabilities().is_empty() => {
            write!(f, "\nbuild it with `photonc build {bundle} --engine {name}:current`")
        }
        Some(gpu) => write!(f, "\nbuild it with `photonc build {bundle} --engine {name}:{}`", gpu.sm.0),
    }
}

impl std::error::Error for NoEngine {}

/// The engine of `graph` that fits what is here.
///
/// # Errors
/// There is none: every set with its differences, and what to do.
pub fn pick(bundle: &Bundle, graph: &str, here: &Here) -> Result<Picked, NoEngine> {
    let source =
        EngineSource::of(bundle, here.vendor, graph).map_err(|error| NoEngine::Record(error.into()))?;
    let mut unfit = Vec::new();
    for set in sets(bundle).map_err(NoEngine::Record)? {
        let Ok(engine) = set.graph(graph) else { continue };
        let found = mismatches(&set.record, graph, &engine.source, &source, here);
        if found.is_empty() {
            let path = set.intact(engine).map_err(NoEngine::Record)?;
            return Ok(Picked { path, engine: engine.clone() });
        }
        unfit.push((set.folder.clone(), found));
    }
    let (bundle, graph, here) = (bundle.root().to_owned(), graph.to_owned(), here.clone());
    if unfit.is_empty() {
        return Err(NoEngine::None { bundle, graph, here });
    }
    Err(NoEngine::Unfit { bundle, graph, sets: unfit, here })
}
