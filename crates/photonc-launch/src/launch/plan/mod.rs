//! From a verified graph with its sizes to a launch plan: kernels and matrix products in order, over buffers that have
//! sizes but no addresses yet. Pure: no device is needed to make, print or check a plan.

mod arena;
mod attend;
mod attention;
mod demand;
mod elements;
mod emit;
mod experts;
mod general;
mod place;
mod print;
mod products;
mod stored;
pub mod view;
pub mod weights;
mod window_keys;

pub use attention::MOST_HEAD_DIM;

use super::arguments::{
    Access, Addresses as _, AppendArguments, AttendArguments, CodesArguments, DequantizeArguments,
    ElementArguments, EmbedArguments, ExpertsArguments, GatherArguments, GeneralArguments, IotaArguments,
    LinearArguments, NormArguments, Plain as _, ReadArguments, RopeArguments, RouteArguments,
    SampleArguments, SwigluArguments, UniformArguments,
};
use super::device::MatMul;
use photonc_graph::graph::{Scope, Verified};
use photonc_graph::ir::dim::Bindings;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::Literal;
use std::collections::{BTreeMap, BTreeSet};
use view::Element;
use weights::WeightLayout;

/// What a buffer of a plan holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// An input of the graph, given by the caller.
    Input {
        /// Its name.
        name: String,
    },
    /// An output of the graph; the caller says where it goes.
    Output {
        /// Its name.
        name: String,
    },
    /// Weights, by index into the layout's packs.
    Weights {
        /// The pack.
        pack: usize,
    },
    /// A constant of the graph.
    Constant(Literal),
    /// Cosines and sines of the rotary angles, f32 `[positions, half, 2]`.
    Rotation {
        /// Base of the angles' geometric series, as bits.
        theta: u64,
        /// Half the width of a head.
        half: usize,
        /// Positions from 0.
        positions: usize,
    },
    /// Memory of the plan itself, at this byte of the arena.
    Arena {
        /// Offset in the arena, a multiple of 256.
        offset_bytes: usize,
    },
}

/// A buffer of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// What it holds.
    pub contents: Contents,
    /// Element type.
    pub element: Element,
    /// Size in bytes.
    pub bytes: usize,
}

/// A kernel with its arguments, addresses symbolic (`view::symbolic`), or a product for cuBLASLt.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is the kernel of its arguments in kernels/abi.cuh")]
pub enum Call {
    Linear(LinearArguments),
    Codes(CodesArguments),
    Dequantize(DequantizeArguments),
    MatMul(MatMul),
    Norm(NormArguments),
    Swiglu(SwigluArguments),
    Embed(EmbedArguments),
    AttendWindow(AttendArguments, usize),
    AttendCache(AttendArguments, usize),
    AttendStream(AttendArguments, usize),
    AppendKeys(AttendArguments, usize),
    Sample(SampleArguments),
    Element(ElementArguments),
    Gather(GatherArguments),
    Iota(IotaArguments),
    Uniforms(UniformArguments),
    Read(ReadArguments),
    Rope(RopeArguments),
    AttendGeneral(GeneralArguments),
    Append(AppendArguments),
    Route(RouteArguments),
    ExpertsUp(ExpertsArguments),
    ExpertsDown(ExpertsArguments),
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where in the model it comes from.
    pub scope: Scope,
    /// What is called.
    pub call: Call,
    /// Type of the whole matrix of weights that it reads; that of activations where it reads none.
    pub matrices: Dtype,
}

/// A launch plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the graph.
    pub graph: String,
    /// Type of activations and weights.
    pub dtype: Dtype,
    /// Buffers by index.
    pub buffers: Vec<Buffer>,
    /// Steps in order; each may read what earlier ones wrote.
    pub steps: Vec<Step>,
    /// Size of the arena in bytes.
    pub arena_bytes: usize,
}

/// Which kernels serve which sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Products of at most this many rows stream their weights once through a kernel of ours.
    pub skinny_rows: usize,
    /// Products with weights in few bits of at most this many rows, or those of `skinny_rows`, multiply codes; those of more
    /// make the weight first.
    pub code_rows: usize,
    /// Products of at most this many rows compute the norm of their operand themselves.
    pub folded_norm_rows: usize,
    /// Of a value with at most this many rows, products of a slice are computed with those of the whole.
    pub joined_rows: usize,
}

/// Variable that sets fields of a [`Tuning`] for measurements: `skinny_rows=32,folded_norm_rows=8`.
const TUNING_VARIABLE: &str = "PHOTONC_CUDA_TUNING";

impl Tuning {
    /// Every product, whatever its rows, in the kernels that multiply few: they sum in one order, so that results do not
    /// depend on the batch.
    pub const ANY_ROWS: Tuning = Tuning {
        skinny_rows: usize::MAX,
        code_rows: usize::MAX,
        folded_norm_rows: usize::MAX,
        joined_rows: 16,
    };

    /// The same, but for the fields that `PHOTONC_CUDA_TUNING` sets.
    ///
    /// # Errors
    /// The part of the variable that is no field with a number, and the fields there are.
    pub fn from_environment(self) -> Result<Self, String> {
        let value = std::env::var_os(TUNING_VARIABLE).unwrap_or_default();
        let text = value.to_str().ok_or_else(|| format!("{TUNING_VARIABLE} is not UTF-8"))?;
        self.with(text).map_err(|error| format!("{TUNING_VARIABLE}: {error}"))
    }

    fn with(mut self, text: &str) -> Result<Self, String> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let fields: [(&str, &mut usize); 4] = [
                ("skinny_rows", &mut self.skinny_rows),
                ("code_rows", &mut self.code_rows),
                ("folded_norm_rows", &mut self.folded_norm_rows),
                ("joined_rows", &mut self.joined_rows),
            ];
            let names = fields.each_ref().map(|(name, _)| *name).join(", ");
            let wrong = || format!("`{part}`, expected FIELD=NUMBER with one of {names}");
            let (name, number) = part.split_once('=').ok_or_else(wrong)?;
            let (_, field) = fields.into_iter().find(|(field, _)| *field == name).ok_or_else(wrong)?;
            *field = number.parse().map_err(|_| wrong())?;
        }
        Ok(self)
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { skinny_rows: 16, code_rows: 16, folded_norm_rows: 16, joined_rows: 16 }
    }
}

/// How a graph is lowered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanOptions {
    /// Outputs `next.NAME` go to the memory of input `NAME`: caches grow in place, the rest is replaced at the end.
    pub in_place: bool,
    /// Element types of inputs that differ from what the graph's kernels read by themselves.
    pub inputs: BTreeMap<String, Element>,
    /// Strides in elements of outputs that are not row-major.
    pub output_strides: BTreeMap<String, Vec<i64>>,
    /// The outputs that are wanted; all of them if `None`.
    pub outputs: Option<BTreeSet<String>>,
    /// Gives samplers an input `min_p` besides those of the graph, f32 `[batch]`.
    pub min_p: bool,
    /// Which kernels serve which sizes.
    pub tuning: Tuning,
}

impl PlanOptions {
    /// Whether an output is wanted.
    #[must_use]
    pub fn wants(&self, output: &str) -> bool {
        self.outputs.as_ref().is_none_or(|wanted| wanted.contains(output))
    }
}

/// Why a graph has no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("graph `{graph}`, {scope}: {message}")]
pub struct PlanError {
    /// The graph.
    pub graph: String,
    /// Where in the model.
    pub scope: Scope,
    /// What has no kernel, and why.
    pub message: String,
}

/// Lowers `graph` at the sizes of `bindings`, activations and weights of type `dtype`.
///
/// # Errors
/// An operation has no kernel, or a symbol has no size.
pub fn lower(
    graph: Verified<'_>,
    bindings: &Bindings,
    dtype: Dtype,
    layout: &WeightLayout,
    options: &PlanOptions,
) -> Result<Plan, PlanError> {
    let mut plan = emit::emit(graph.graph(), bindings, dtype, layout, options)?;
    arena::assign(&mut plan);
    Ok(plan)
}

impl Plan {
    /// The buffer of an input.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&Buffer> {
        self.buffers
            .iter()
            .find(|buffer| matches!(&buffer.contents, Contents::Input { name: known } if known == name))
    }

    /// The buffer of an output.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&Buffer> {
        self.buffers
            .iter()
            .find(|buffer| matches!(&buffer.contents, Contents::Output { name: known } if known == name))
    }

    /// Names and buffers of the inputs that steps read.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &Buffer)> {
        self.buffers.iter().filter_map(|buffer| match &buffer.contents {
            Contents::Input { name } => Some((name.as_str(), buffer)),
            _ => None,
        })
    }

    /// Packs of weights that steps read.
    pub fn packs(&self) -> impl Iterator<Item = usize> + '_ {
        self.buffers.iter().filter_map(|buffer| match &buffer.contents {
            Contents::Weights { pack } => Some(*pack),
            _ => None,
        })
    }
}

impl Call {
    /// The kernel's one argument, byte by byte; empty for products of cuBLASLt.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Call::Linear(arguments) => arguments.bytes(),
            Call::Codes(arguments) => arguments.bytes(),
            Call::Dequantize(arguments) => arguments.bytes(),
            Call::MatMul(_) => Vec::new(),
            Call::Norm(arguments) => arguments.bytes(),
            Call::Swiglu(arguments) => arguments.bytes(),
            Call::Embed(arguments) => arguments.bytes(),
            Call::AttendWindow(arguments, _)
            | Call::AttendCache(arguments, _)
            | Call::AttendStream(arguments, _)
            | Call::AppendKeys(arguments, _) => arguments.bytes(),
            Call::Sample(arguments) => arguments.bytes(),
            Call::Element(arguments) => arguments.bytes(),
            Call::Gather(arguments) => arguments.bytes(),
            Call::Iota(arguments) => arguments.bytes(),
            Call::Uniforms(arguments) => arguments.bytes(),
            Call::Read(arguments) => arguments.bytes(),
            Call::Rope(arguments) => arguments.bytes(),
            Call::AttendGeneral(arguments) => arguments.bytes(),
            Call::Append(arguments) => arguments.bytes(),
            Call::Route(arguments) => arguments.bytes(),
            Call::ExpertsUp(arguments) | Call::ExpertsDown(arguments) => arguments.bytes(),
        }
    }

    /// Calls `visit` with every address.
    pub fn addresses(&mut self, visit: &mut dyn FnMut(&mut u64, Access)) {
        match self {
            Call::Linear(arguments) => arguments.addresses(visit),
            Call::Codes(arguments) => arguments.addresses(visit),
            Call::Dequantize(arguments) => arguments.addresses(visit),
            Call::MatMul(arguments) => arguments.addresses(visit),
            Call::Norm(arguments) => arguments.addresses(visit),
            Call::Swiglu(arguments) => arguments.addresses(visit),
            Call::Embed(arguments) => arguments.addresses(visit),
            Call::AttendWindow(arguments, _)
            | Call::AttendCache(arguments, _)
            | Call::AttendStream(arguments, _)
            | Call::AppendKeys(arguments, _) => arguments.addresses(visit),
            Call::Sample(arguments) => arguments.addresses(visit),
            Call::Element(arguments) => arguments.addresses(visit),
            Call::Gather(arguments) => arguments.addresses(visit),
            Call::Iota(arguments) => arguments.addresses(visit),
            Call::Uniforms(arguments) => arguments.addresses(visit),
            Call::Read(arguments) => arguments.addresses(visit),
            Call::Rope(arguments) => arguments.addresses(visit),
            Call::AttendGeneral(arguments) => arguments.addresses(visit),
            Call::Append(arguments) => arguments.addresses(visit),
            Call::Route(arguments) => arguments.addresses(visit),
            Call::ExpertsUp(arguments) | Call::ExpertsDown(arguments) => arguments.addresses(visit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tuning;

    #[test]
    fn a_tuning_is_read_by_field() {
        let found = Tuning::default().with("skinny_rows=8, code_rows=32,folded_norm_rows=0").expect("fields");
        assert_eq!(found, Tuning { skinny_rows: 8, code_rows: 32, folded_norm_rows: 0, ..Tuning::default() });
        assert_eq!(Tuning::default().with(""), Ok(Tuning::default()));
    }

    #[test]
    fn what_is_no_tuning_is_refused_with_the_fields() {
        for text in ["skinny_rows", "rows=3", "skinny_rows=many"] {
            let error = Tuning::default().with(text).expect_err("refused");
            assert!(error.contains(text) && error.contains("folded_norm_rows"), "{error}");
        }
    }
}
