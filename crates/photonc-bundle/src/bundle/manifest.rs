//! `photon.json`: what a bundle contains and what it was made from. Owns the format; a function of input, options and
//! version only, so no paths outside the bundle, no times and no measurements.

use super::hash::Blake3;
use crate::program::{Plan, Protocol, Remainder};
use indexmap::IndexMap;
use photonc_graph::graph::{NodeId, Verified};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Version of the bundle format written and read.
pub const FORMAT: u32 = 2;

/// Longest manifest, graph text or ONNX model that is read, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 16 << 20;

/// Everything known about a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// Version of photonc that wrote it.
    pub photonc: String,
    /// What it was made from.
    pub source: SourceRecord,
    /// The model.
    pub model: ModelRecord,
    /// Element type of activations, and of weights where they are not stored in a narrower one.
    pub precision: String,
    /// How each protocol generates, with the certificate of its split or the reason there is none.
    pub protocols: IndexMap<Protocol, Plan>,
    /// Graphs by name.
    pub graphs: IndexMap<String, GraphRecord>,
    /// ONNX models by target and graph.
    pub onnx: BTreeMap<String, BTreeMap<String, FileRecord>>,
    /// Weights files by path inside the bundle.
    pub weight_files: BTreeMap<String, FileRecord>,
    /// Where each weight stands, by canonical name.
    pub weights: BTreeMap<String, WeightRecord>,
    /// Copies, in the type of the graphs, of weights that are stored in a narrower one: what ONNX models read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub widened: BTreeMap<String, WeightRecord>,
    /// Weights in few bits by the name of their codes, `NAME@SCHEME`; beside it some may stand whole in `weights`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quantized: BTreeMap<String, QuantizedRecord>,
    /// Files carried from the checkpoint unchanged, by name.
    pub carried: BTreeMap<String, FileRecord>,
}

impl Manifest {
    /// Where ONNX models find a tensor: a weight in the type of the graphs, or by their own names the codes or the scales of
    /// one.
    #[must_use]
    pub fn stored(&self, name: &str) -> Option<&WeightRecord> {
        stored(&self.widened, &self.weights, &self.quantized, name)
    }

    /// Type of the graphs' activations, and of weights where they are not stored in a narrower one.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        Dtype::from_name(&self.precision).expect("invariant: compared when a bundle is opened")
    }

    /// Size in bytes of the weights files, copies for ONNX models left out.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        let copies: BTreeSet<&str> = self.widened.values().map(|record| record.file.as_str()).collect();
        let own = self.weight_files.values().filter(|file| !copies.contains(file.file.as_str()));
        own.map(|file| file.bytes).fold(0, u64::saturating_add)
    }
}

/// [`Manifest::stored`] of a manifest in the making.
#[must_use]
pub fn stored<'m>(
    widened: &'m BTreeMap<String, WeightRecord>,
    weights: &'m BTreeMap<String, WeightRecord>,
    quantized: &'m BTreeMap<String, QuantizedRecord>,
    name: &str,
) -> Option<&'m WeightRecord> {
    let codes = || quantized.get(name).map(|record| &record.codes);
    let scales = || Some(&quantized.get(name.strip_suffix(".scale")?)?.scales);
    widened.get(name).or_else(|| weights.get(name)).or_else(codes).or_else(scales)
}

/// What a bundle was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Hashes of the checkpoint's files by file name.
    pub files: BTreeMap<String, Blake3>,
    /// Name of the dialect it was read as.
    pub dialect: String,
}

/// The model, with every choice resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Configuration in the canonical form.
    pub config: Value,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Tokens of a meta-context.
    pub meta_tokens: usize,
    /// Longest sequence, prompt and generated tokens together, in tokens; bounds the caches.
    pub max_tokens: usize,
    /// What stands for a meta-context that a prompt begins.
    #[serde(default, skip_serializing_if = "Remainder::is_default")]
    pub remainder: Remainder,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path inside the bundle.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of the contents.
    pub blake3: Blake3,
}

/// A graph: its text and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphRecord {
    /// The canonical text.
    #[serde(flatten)]
    pub text: FileRecord,
    /// Inputs in the graph's order.
    pub inputs: Vec<PortRecord>,
    /// Outputs in the graph's order.
    pub outputs: Vec<PortRecord>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    /// Name.
    pub name: String,
    /// Element type: `f32`, `i64`, ...
    pub dtype: String,
    /// Dimensions: numbers, or polynomials in `batch`, `meta` and `capacity`.
    pub shape: Vec<String>,
    /// What it holds and in which unit.
    pub meaning: String,
}

/// Where a weight stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightRecord {
    /// Path of the weights file inside the bundle.
    pub file: String,
    /// Name in that file.
    pub tensor: String,
    /// Element type: `f32`, `bf16`, ...
    pub dtype: String,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Offset of the first byte in the file.
    pub offset_bytes: u64,
    /// Number of bytes.
    pub length_bytes: u64,
}

/// A matrix in few bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizedRecord {
    /// Canonical name of the weight.
    pub weight: String,
    /// `int8`, `int4` or `fp8`.
    pub scheme: String,
    /// Codes, row-major, of the weight's shape; two of int4 share a byte, the first in its lower half.
    pub codes: WeightRecord,
    /// Scales, f32.
    pub scales: WeightRecord,
}

impl GraphRecord {
    /// The record of a graph whose text was written as `text`.
    #[must_use]
    pub fn new(graph: Verified<'_>, text: FileRecord) -> Self {
        let port = |name: &str, id: NodeId| {
            let ty = graph.ty(id);
            PortRecord {
                name: name.to_owned(),
                dtype: ty.dtype.name().to_owned(),
                shape: ty.shape.0.iter().map(ToString::to_string).collect(),
                meaning: meaning(name).to_owned(),
            }
        };
        let inputs = graph.inputs().into_iter().filter_map(|id| match graph.op(id) {
            Op::Input { name, .. } => Some(port(name, id)),
            _ => None,
        });
        GraphRecord {
            text,
            inputs: inputs.collect(),
            outputs: graph.outputs().iter().map(|output| port(&output.name, output.node)).collect(),
        }
    }
}

/// What a port of that name holds, for readers of the manifest.
fn meaning(name: &str) -> &'static str {
    let (base, next) = match name.strip_prefix("next.") {
        Some(base) => (base, true),
        None => (name, false),
    };
    match base {
        "ids" => "token ids",
        "lengths" => "meta-contexts in use, per row",
        "top_state" => "state of the newest top-level unit",
        "reconstruction" => "decoder outputs that condition the level below",
        "conditions" => "prefix vectors of the level-1 windows",
        "uniforms" => "uniform numbers in [0, 1), one per token",
        "forced" => "tokens to take in place of drawn ones; negative where one is drawn",
        "temperature" => "divides the logits; 0 is greedy",
        "top_k" => "candidates kept, 1 or more",
        "top_p" => "mass kept, above 0 and up to 1",
        "logits" => "unnormalised log-probabilities of the token at that place",
        "position" => "position in the level-1 window",
        "vector" => "vector at that position of the level-1 window",
        _ if base.starts_with("carry.") => "newest reconstruction of a lower level",
        _ if base.ends_with(".key") || base.ends_with(".value") => {
            if next {
                "new slice of a cache, for the slots after the row's length"
            } else {
                "cache; slots past the row's length may hold anything"
            }
        }
        _ => "",
    }
}
