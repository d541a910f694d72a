//! Checkpoints and bundles on disk: making, showing, checking and comparing them. Owns only which part of the library does it.

use super::backends::{Chosen, LoadOptions};
use super::error::Error;
use crate::bundle::{Bundle, is_bundle};
use crate::export::{ExportOptions, ExportReport, Progress};
use crate::graph::interp::WeightCache;
use crate::inspect::diff::Difference;
use crate::inspect::gpu::Gpu;
use crate::inspect::source::{protocols, subject_title};
use crate::inspect::{Setting, Subject, page};
use crate::model::checkpoint::Checkpoint;
use crate::model::dialect::DialectChoice;
use crate::passes::compile::compile;
use crate::runtime::reference::BundleWeights;
use crate::runtime::verify::{Comparison, compare};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// The GPU whose ceilings costs are predicted from; it decides no difference of graphs or weights.
const GPU: &str = "h100";

/// Compiles a checkpoint into a bundle. `progress` is told of stages and bytes, on threads of the export.
///
/// # Errors
/// The checkpoint cannot be used, or no bundle can be written.
pub fn export(options: &ExportOptions, progress: &(dyn Fn(Progress) + Sync)) -> Result<ExportReport, Error> {
    Ok(crate::export::export(options, progress)?)
}

/// What a checkpoint or a bundle holds, as `photonc inspect --json` says it.
///
/// # Errors
/// It cannot be read or does not compile.
pub fn inspect(path: &Path) -> Result<Value, Error> {
    let shown = path.to_string_lossy();
    if is_bundle(path) {
        return Ok(page::bundle(&shown, &Bundle::open(path)?));
    }
    let checkpoint = Checkpoint::open(path, &DialectChoice::Recognise)?;
    let compilation = compile(&checkpoint.config, &protocols(&checkpoint.config))?;
    Ok(page::checkpoint(&shown, &checkpoint, &compilation))
}

/// Compares every graph of a bundle on a backend with the reference, on random inputs.
///
/// # Errors
/// The bundle cannot be read, or a graph does not run.
pub fn verify(path: &Path, options: &LoadOptions, seed: u64) -> Result<Vec<Comparison>, Error> {
    let chosen = Chosen::of(options)?;
    let bundle = if options.verify { Bundle::open(path)? } else { Bundle::open_unverified(path)? };
    let weights = WeightCache::new(BundleWeights(Arc::new(bundle.clone())));
    let mut comparisons = Vec::new();
    for name in bundle.manifest().graphs.keys() {
        let unusable = |error| Error::new(super::ErrorKind::Checkpoint, format!("graph `{name}`: {error}"));
        let graph = bundle.parsed(name)?.verify().map_err(unusable)?;
        // One graph at a time: a backend keeps the weights of what it has loaded.
        let mut backend = chosen.with_graph(&bundle, graph, None)?;
        comparisons.push(compare(graph, &weights, backend.as_mut(), seed)?);
    }
    Ok(comparisons)
}

/// What differs between two checkpoints or bundles; weights by their bytes if asked, which reads all of them.
///
/// # Errors
/// One of them cannot be read or does not compile.
pub fn diff(left: &Path, right: &Path, weights: bool) -> Result<Difference, Error> {
    let (left, right) = (subject(left, weights)?, subject(right, weights)?);
    let gpu = Gpu::named(GPU).ok_or_else(|| Error::internal("a GPU that is not in the table"))?;
    Ok(Difference::between(&left, &right, &Setting::of(&left), gpu))
}

fn subject(path: &Path, weights: bool) -> Result<Subject, Error> {
    let title = subject_title(path);
    if is_bundle(path) {
        return Ok(Subject::of_bundle(&title, &Bundle::open(path)?, weights)?);
    }
    let checkpoint = Checkpoint::open(path, &DialectChoice::Recognise)?;
    let compilation = compile(&checkpoint.config, &protocols(&checkpoint.config))?;
    Ok(Subject::of_checkpoint(&title, &checkpoint, compilation, weights)?)
}
