//! What the engine of a graph is built from and for: its ONNX model, its inputs and the sizes they may have.

use super::EngineError;
use crate::bundle::{Bundle, Manifest};
use crate::engine::{EngineSource, Limits, Port, Profile, Use, Vendor, choose};
use crate::graph::Graph;
use crate::ir::dim::Symbol;
use crate::ir::op::Op;
use crate::onnx;
use crate::onnx::target::Target;
use crate::passes::compile::Plan;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A graph to build.
pub(super) struct Planned {
    pub name: String,
    pub graph: Graph,
    /// Whom the ONNX model was written for.
    pub target: Target,
    pub onnx: PathBuf,
    pub source: EngineSource,
    pub inputs: Vec<Port>,
    pub profiles: Vec<Profile>,
    /// Profiles given by the user.
    pub given: Vec<Profile>,
    pub usage: Use,
    pub limits: Limits,
    /// Bytes of the weights that the graph reads.
    pub weights_bytes: u64,
}

pub(super) fn plan(
    bundle: &Bundle,
    vendor: Vendor,
    name: &str,
    given: &[Profile],
) -> Result<Planned, EngineError> {
    let graph = bundle.parsed(name)?.clone();
    // A vendor's parser reads the file: it has to be what photonc makes of the graph.
    onnx::compare(bundle, target_of(vendor), name)?;
    let manifest = bundle.manifest();
    let inputs = ports(&graph);
    let usage = usage(manifest, name);
    let limits = Limits { meta_contexts: manifest.model.max_tokens.div_ceil(manifest.model.meta_tokens) };
    let bytes_of = |name: &str| manifest.stored(name).map_or(0, |at| at.length_bytes);
    let mut weights: BTreeMap<String, u64> = BTreeMap::new();
    for id in graph.nodes() {
        match graph.op(id) {
            Op::Weight { name, .. } => weights.insert(name.to_string(), bytes_of(name)),
            Op::QuantizedWeight { name, scheme, .. } => {
                let key = scheme.key(name);
                let bytes = bytes_of(&key) + bytes_of(&format!("{key}.scale"));
                weights.insert(key, bytes)
            }
            _ => None,
        };
    }
    Ok(Planned {
        name: name.to_owned(),
        target: target_of(vendor),
        onnx: bundle.onnx(vendor.name(), name)?,
        source: EngineSource::of(bundle, vendor, name)?,
        profiles: profiles(&inputs, given, usage, limits),
        given: given.to_vec(),
        inputs,
        usage,
        limits,
        weights_bytes: weights.values().sum(),
        graph,
    })
}

/// The target whose ONNX models a vendor's engines are built from.
fn target_of(vendor: Vendor) -> Target {
    match vendor {
        Vendor::TensorrtRtx => Target::TensorrtRtx,
        Vendor::Tensorrt => Target::Tensorrt,
    }
}

/// Inputs by the names they have in the ONNX model.
pub(super) fn ports(graph: &Graph) -> Vec<Port> {
    let port = |id| match graph.op(id) {
        Op::Input { name, ty, .. } => Some(Port { name: name.to_string(), shape: ty.shape.0.clone() }),
        _ => None,
    };
    graph.inputs().into_iter().filter_map(port).collect()
}

/// The profiles given by the user, completed, or else those chosen.
pub(super) fn profiles(inputs: &[Port], given: &[Profile], usage: Use, limits: Limits) -> Vec<Profile> {
    let has =
        |symbol: &Symbol| inputs.iter().any(|input| input.shape.iter().any(|dim| dim.contains(*symbol)));
    let symbols: Vec<Symbol> = Symbol::ALL.into_iter().filter(has).collect();
    let chosen = choose(&symbols, usage, limits);
    if given.is_empty() {
        return chosen;
    }
    let mut profiles = Vec::new();
    for profile in given {
        let completed = profile.completed(&symbols, &chosen);
        if !profiles.contains(&completed) {
            profiles.push(completed);
        }
    }
    profiles
}

/// How the protocols use a graph: what follows a coarse graph sees a run-ahead, everything else whole sequences.
fn usage(manifest: &Manifest, name: &str) -> Use {
    let runs_ahead = manifest.protocols.values().any(|plan| match plan {
        Plan::Distributed { .. } => plan.parts().iter().any(|(_, graph)| *graph == name),
        Plan::Undistributed { .. } => false,
    });
    if runs_ahead { Use::RunAhead } else { Use::Sequence }
}
