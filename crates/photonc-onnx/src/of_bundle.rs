//! ONNX models of an opened bundle, made from its graphs. Owns that a runtime runs what the graph text says: a model file of
//! this version is compared with what the graph exports, byte for byte, and never trusted in its place.

use super::target::Target;
use super::{ExportError, WeightLocation, export, to_bytes};
use photonc_bundle::bundle::{Bundle, BundleError, FileRecord, Layout};
use photonc_bundle::program::{Plan, Protocol};
use photonc_graph::graph::VerifyError;

/// Why a graph of a bundle has no ONNX model.
#[derive(Debug, thiserror::Error)]
pub enum BundleModelError {
    /// The bundle lacks the graph, or its model is not that of the graph.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The graph is not valid.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Weights are stored in a narrower type than that of the graphs, and there is no copy for models.
    #[error(
        "weight `{weight}` is stored in {stored}, ONNX models of the bundle read {read}: export with --target portable, which writes a copy, or run on backend cpu or cuda"
    )]
    Narrow {
        /// Canonical name of the first.
        weight: String,
        /// Its type.
        stored: String,
        /// The graphs' type.
        read: String,
    },
    /// The graph has no ONNX form for the target.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The ONNX model of a graph of a bundle, made from its text. Where the bundle has a model for the target that was written by
/// this version of photonc, it is compared.
///
/// # Errors
/// No such graph, a target that refuses it, or a stored model that is another one.
pub fn of_bundle(bundle: &Bundle, target: Target, graph: &str) -> Result<Vec<u8>, BundleModelError> {
    let model = made(bundle, target, graph)?;
    let manifest = bundle.manifest();
    let stored = manifest.onnx.get(target.name()).and_then(|graphs| graphs.get(graph));
    if let Some(record) = stored.filter(|_| manifest.photonc == env!("CARGO_PKG_VERSION")) {
        same(bundle, graph, record, &model)?;
    }
    Ok(model)
}

/// Compares the stored ONNX model of a graph with what its text exports: for those who hand the file to a library that reads
/// it by path.
///
/// # Errors
/// No such model, or another one: that of another version of photonc too, where it wrote the graph otherwise.
pub fn compare(bundle: &Bundle, target: Target, graph: &str) -> Result<(), BundleModelError> {
    let record = bundle.onnx_record(target.name(), graph)?;
    same(bundle, graph, record, &made(bundle, target, graph)?)
}

fn made(bundle: &Bundle, target: Target, graph: &str) -> Result<Vec<u8>, BundleModelError> {
    let manifest = bundle.manifest();
    let narrow = |name: &&String| manifest.stored(name).is_some_and(|at| at.dtype != manifest.precision);
    if let Some(weight) = manifest.weights.keys().find(narrow) {
        let stored = manifest.weights[weight].dtype.clone();
        return Err(BundleModelError::Narrow {
            weight: weight.clone(),
            stored,
            read: manifest.precision.clone(),
        });
    }
    let verified = bundle.parsed(graph)?.verify()?;
    let doc = describe(graph, &manifest.protocols);
    Ok(to_bytes(&export(verified, target, &doc, &|weight| location(bundle, weight))?))
}

fn same(bundle: &Bundle, graph: &str, record: &FileRecord, model: &[u8]) -> Result<(), BundleModelError> {
    if bundle.read(record)? == model {
        return Ok(());
    }
    let writer = &bundle.manifest().photonc;
    Err(BundleModelError::Bundle(BundleError::Differs {
        path: bundle.root().join(&record.file),
        message: format!(
            "is not the ONNX model of graph `{graph}` as its text has it (photonc {writer} wrote it)"
        ),
    }))
}

/// Where a weight of a bundle stands, as ONNX models of the bundle name it.
#[must_use]
pub fn location(bundle: &Bundle, name: &str) -> Option<WeightLocation> {
    bundle.manifest().stored(name).map(|at| WeightLocation {
        file: Layout::beside_onnx(&at.file),
        offset_bytes: at.offset_bytes,
        length_bytes: at.length_bytes,
    })
}

/// One sentence on what a graph is for, for people who meet the ONNX file alone.
#[must_use]
pub fn describe<'p>(name: &str, plans: impl IntoIterator<Item = (&'p Protocol, &'p Plan)>) -> String {
    let uses = plans.into_iter().filter(|(_, plan)| plan.parts().iter().any(|(_, graph)| *graph == name));
    let uses: Vec<&str> = uses.map(|(protocol, _)| protocol.name()).collect();
    match uses.is_empty() {
        true => format!("PHOTON graph `{name}`"),
        false => format!("PHOTON graph `{name}` of {}", uses.join(" and ")),
    }
}
