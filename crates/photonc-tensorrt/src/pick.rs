//! The engine of a graph that can be used here. Owns the choice among the sets of a bundle, and what is said where none fits.

use super::mismatch::{Here, Mismatch, mismatches};
use super::record::{EngineFile, EngineSource, RecordError, Sets, sets};
use photonc_bundle::bundle::Bundle;
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
        /// Those that it has.
        found: Box<Unfit>,
        /// What is here.
        here: Here,
    },
    /// The bundle has no ONNX model that an engine could be built from.
    Record(RecordError),
}

/// Engines that cannot be used.
#[derive(Debug, Default)]
pub struct Unfit {
    /// Every set that has one, with its differences.
    pub sets: Vec<(PathBuf, Vec<Mismatch>)>,
    /// What is wrong with sets and engines that cannot be read.
    pub unreadable: Vec<RecordError>,
}

impl NoEngine {
    /// Whether building engines here would help.
    #[must_use]
    pub fn mended_by_building(&self) -> bool {
        match self {
            NoEngine::None { here, .. } | NoEngine::Unfit { here, .. } => {
                here.gpu.as_ref().is_some_and(|gpu| here.vendor.serves(gpu.sm))
            }
            NoEngine::Record(_) => false,
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
            NoEngine::Unfit { bundle, graph, found, here } => {
                write!(f, "{}: no engine of graph `{graph}` can be used here", bundle.display())?;
                for (folder, found) in &found.sets {
                    let found: Vec<String> = found.iter().map(Mismatch::to_string).collect();
                    let folder = folder.strip_prefix(bundle).unwrap_or(folder);
                    write!(f, "\n  {}: {}", folder.display(), found.join("; "))?;
                }
                found.unreadable.iter().try_for_each(|error| write!(f, "\n  {error}"))?;
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
    let Sets { readable, unreadable } = sets(bundle);
    let mut unfit = Unfit { sets: Vec::new(), unreadable };
    for set in readable {
        let Ok(engine) = set.graph(graph) else { continue };
        let found = mismatches(&set.record, graph, &engine.source, &source, here);
        if !found.is_empty() {
            unfit.sets.push((set.folder.clone(), found));
            continue;
        }
        match set.intact(engine) {
            Ok(path) => return Ok(Picked { path, engine: engine.clone() }),
            Err(error) => unfit.unreadable.push(error),
        }
    }
    let (bundle, graph, here) = (bundle.root().to_owned(), graph.to_owned(), here.clone());
    if unfit.sets.is_empty() && unfit.unreadable.is_empty() {
        return Err(NoEngine::None { bundle, graph, here });
    }
    Err(NoEngine::Unfit { bundle, graph, found: Box::new(unfit), here })
}
