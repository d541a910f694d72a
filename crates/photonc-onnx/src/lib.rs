//! ONNX models, with constructs that their target accepts. Owns the choice of ONNX operators; refuses what the table of
//! `rules` refuses for the target, and folds no constants.
//!
//! Weights are initialisers with external data: the model holds names, offsets and shapes, never their bytes, so its
//! size and the memory of an export do not grow with the weights. All three runtimes and `onnx.checker` refuse data
//! outside the folder of the `.onnx` file, so the stores lie in that folder or below it.

mod attention;
mod check;
mod elementwise;
mod emit;
mod experts;
mod joined;
mod linear;
mod lower;
mod mask;
mod of_bundle;
pub mod pb;
mod proto;
mod quantized;
mod rope;
pub mod rules;
mod sample;
mod scaled;
mod shapes;
mod split;
mod stored;
pub mod tapped;
pub mod target;
pub mod text;

pub use check::{CheckError, Fault, check};
use emit::Emitter;
pub use joined::{JoinedWeights, joined_weights};
pub use of_bundle::{BundleModelError, compare, describe, location, of_bundle};
use pb::{GraphProto, ModelProto, OperatorSetIdProto};
use photonc_graph::graph::Verified;
use prost::Message as _;
use rules::Refused;
use target::Target;

/// Opset of every exported model: the first with `RMSNormalization` and `RotaryEmbedding`.
pub const OPSET: i64 = 23;

/// IR version of every exported model: the highest that all three runtimes read.
pub const IR_VERSION: i64 = 10;

/// Where the elements of a weight lie: of its type in the graph, little-endian, row-major, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightLocation {
    /// File, relative to the folder of the `.onnx` file, with `/` between its parts and no `..`.
    pub file: String,
    /// First byte in the file.
    pub offset_bytes: u64,
    /// Size of the weight.
    pub length_bytes: u64,
}

/// Where weights lie, by canonical name; `None` for an unknown weight.
pub type Weights<'a> = dyn Fn(&str) -> Option<WeightLocation> + 'a;

/// Why a graph could not be exported, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// An operation that only exists before lowering.
    #[error("{scope}: `{op}` has no ONNX counterpart, lower it before export")]
    NotLowered {
        /// Where in the model.
        scope: String,
        /// Name of the operation.
        op: &'static str,
    },
    /// A place that the target refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// An input that no node reads: runtimes drop such inputs or refuse them.
    #[error("input `{name}` of graph `{graph}` is read by no node, remove it or use it")]
    UnusedInput {
        /// Name of the graph.
        graph: String,
        /// Name of the input.
        name: String,
    },
    /// A weight that the store does not have.
    #[error("{scope}: weight `{name}` is in no weight store")]
    UnknownWeight {
        /// Where in the model.
        scope: String,
        /// Canonical name.
        name: String,
    },
    /// A weight whose stored size does not fit its type.
    #[error("{scope}: weight `{name}` is stored in {found} bytes, expected {expected} ({ty})")]
    WeightSize {
        /// Where in the model.
        scope: String,
        /// Canonical name.
        name: String,
        /// Type in the graph.
        ty: String,
        /// Stored bytes.
        found: u64,
        /// Bytes of that type.
        expected: u64,
    },
    /// A weight file that runtimes would refuse.
    #[error("weight `{name}` lies in `{file}`, expected a relative path inside the folder of the ONNX file")]
    WeightPath {
        /// Canonical name.
        name: String,
        /// The path found.
        file: String,
    },
    /// A size that no input of the graph determines.
    #[error("{scope}: dimension `{dim}` follows from the size of no earlier value")]
    UnknownDim {
        /// Where in the model.
        scope: String,
        /// The dimension.
        dim: String,
    },
}

/// The ONNX model of a graph for a target. Names of inputs and outputs are those of the graph; every node's name starts with its
/// scope; symbolic dimensions are `dim_param` texts without spaces. Equal arguments give equal models.
///
/// # Errors
/// The target refuses a place of the graph, nothing reads an input, or `weights` does not place a weight.
pub fn export(
    graph: Verified<'_>,
    target: Target,
    doc: &str,
    weights: &Weights<'_>,
) -> Result<ModelProto, ExportError> {
    rules::check(graph, target)?;
    let parts = Emitter::new(graph, target, weights).lower_graph()?;
    Ok(ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "photonc".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: doc.to_owned(),
        graph: Some(GraphProto { name: graph.name().to_owned(), doc_string: doc.to_owned(), ..parts }),
        ..ModelProto::default()
    })
}

/// The bytes of a `.onnx` file. Equal models give equal bytes.
#[must_use]
pub fn to_bytes(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// The model in the bytes of a `.onnx` file.
///
/// # Errors
/// They are no ONNX model.
pub fn from_bytes(bytes: &[u8]) -> Result<ModelProto, String> {
    ModelProto::decode(bytes).map_err(|error| error.to_string())
}
