//! What targets refuse, silently drop or compute too roughly, as one table: the exporter asks it what to rewrite, the
//! check after export what must not be in a file, and docs/targets.md is made from it. Owns reasons; the rewrites
//! themselves are in `onnx`.

use super::target::Target;
use photonc_graph::graph::{Graph, NodeId, Verified};
use photonc_graph::ir::attr::{Scheme, UnaryFn};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use std::fmt;

/// What is done about a place that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Written in other operators; the text says which.
    Rewrite(&'static str),
    /// The export fails; the text says what to do instead.
    Refuse(&'static str),
}

/// An ONNX operator that a rule forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// Wherever it stands.
    Always(&'static str),
    /// Where its first operand is f16 or bf16.
    Narrow(&'static str),
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Forbidden::Always(op) => write!(f, "`{op}`"),
            Forbidden::Narrow(op) => write!(f, "`{op}` of f16 or bf16"),
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Name in messages and documentation.
    pub name: &'static str,
    /// Targets it holds for.
    pub targets: &'static [Target],
    /// What it matches, in words.
    pub subject: &'static str,
    /// What is done about it.
    pub action: Action,
    /// What was found to happen otherwise.
    pub reason: &'static str,
    /// What no file of these targets may hold.
    pub forbids: &'static [Forbidden],
    matches: fn(&Graph, NodeId) -> bool,
}

/// A place that a target refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{scope}: `{op}` yields {ty}, which target {target} refuses ({rule}): {reason}; {action}")]
pub struct Refused {
    /// Where in the model; the graph, where that is nowhere in particular.
    pub scope: String,
    /// Name of the operation.
    pub op: &'static str,
    /// Type of its value.
    pub ty: String,
    /// The target.
    pub target: Target,
    /// Name of the rule.
    pub rule: &'static str,
    /// Why.
    pub reason: &'static str,
    /// What to do instead.
    pub action: &'static str,
}

const ONNX: &[Target] = &[Target::Portable, Target::TensorrtRtx, Target::Tensorrt];
const PORTABLE: &[Target] = &[Target::Portable];
const TENSORRT: &[Target] = &[Target::TensorrtRtx, Target::Tensorrt];

/// Name of the rule that widens heads.
pub(super) const PAD_HEADS: &str = "pad-heads";
/// What heads are widened to a multiple of.
pub(super) const HEAD_MULTIPLE: usize = 8;

/// The rules, refusals first.
pub const RULES: &[Rule] = &[
    Rule {
        name: "refuse-bf16",
        targets: PORTABLE,
        subject: "any value of type bf16",
        action: Action::Refuse("export with --dtype f16 or f32, or for --target tensorrt-rtx or tensorrt"),
        reason: "tract reads no bf16 and ONNX Runtime's CPU has almost no bf16 kernels",
        forbids: &[],
        matches: |graph, id| graph.ty(id).dtype == Dtype::Bf16,
    },
    Rule {
        name: "refuse-open-state",
        targets: ONNX,
        subject: "`delay`, `protocol_switch`, `cache_append`",
        action: Action::Refuse("lower it before export"),
        reason: "an ONNX graph has no state of its own; `TensorScatter` builds in TensorRT only between a network input \
                 and a network output, and not in tract",
        forbids: &[Forbidden::Always("TensorScatter")],
        matches: |graph, id| matches!(graph.op(id), Op::Delay { .. } | Op::ProtocolSwitch | Op::CacheAppend),
    },
    Rule {
        name: "refuse-int4",
        targets: PORTABLE,
        subject: "`quantized_weight` of int4",
        action: Action::Refuse("choose int8, or export for --target tensorrt-rtx, tensorrt or cuda"),
        reason: "tract reads no int4",
        forbids: &[],
        matches: |graph, id| scheme(graph, id) == Some(Scheme::Int4),
    },
    Rule {
        name: "refuse-fp8",
        targets: PORTABLE,
        subject: "`quantized_weight` of fp8",
        action: Action::Refuse("choose int8, or export for --target tensorrt-rtx, tensorrt or cuda"),
        reason: "tract reads no fp8; in TensorRT it needs compute capability 8.9",
        forbids: &[],
        matches: |graph, id| scheme(graph, id) == Some(Scheme::Fp8),
    },
    Rule {
        name: "refuse-quantized-tables",
        targets: ONNX,
        subject: "`gather` of a `quantized_weight`",
        action: Action::Refuse("read the table as it is stored"),
        reason: "TensorRT takes codes before `DequantizeLinear` only, which would make numbers of every row",
        forbids: &[],
        matches: |graph, id| {
            let coded = |operand: &NodeId| scheme(graph, *operand).is_some();
            matches!(graph.op(id), Op::Gather) && graph.operands(id).iter().any(coded)
        },
    },
    Rule {
        name: "widen-scales",
        targets: ONNX,
        subject: "`quantized_weight` in a graph of f16 or bf16",
        action: Action::Rewrite("`DequantizeLinear` with f32 scales to f32, cast to the type"),
        reason: "tract takes no scales of f16; rounding them would be an error of the whole group",
        forbids: &[],
        matches: |graph, id| scheme(graph, id).is_some() && is_narrow(graph, id),
    },
    Rule {
        name: "no-control-flow",
        targets: ONNX,
        subject: "nothing: no operation of the table has a branch or a loop",
        action: Action::Rewrite("windows are unrolled, meta-contexts folded into the batch"),
        reason: "tract has no typed `Loop`; engines with control flow are not one launch",
        forbids: &[Forbidden::Always("If"), Forbidden::Always("Loop"), Forbidden::Always("Scan")],
        matches: |_, _| false,
    },
    Rule {
        name: "decompose-attention",
        targets: ONNX,
        subject: "`attention`",
        action: Action::Rewrite("`MatMul`, `Where`, `Softmax`, `MatMul`; past keys are concatenated outside"),
        reason: "TensorRT takes `Attention` with one output only, in f32 only for one query, and silently drops \
                 `nonpad_kv_seqlen` and `left_window_size`; `is_causal` is aligned at the first key; no additive mask \
                 hides a NaN in an unused slot",
        forbids: &[Forbidden::Always("Attention")],
        matches: |graph, id| matches!(graph.op(id), Op::Attention { .. }),
    },
    Rule {
        name: "widen-softmax",
        targets: ONNX,
        subject: "`attention` of f16 or bf16",
        action: Action::Rewrite("scores are cast to f32 before `Softmax` and back after"),
        reason: "the sum of many small probabilities loses its digits in a narrow type",
        forbids: &[],
        matches: |graph, id| matches!(graph.op(id), Op::Attention { .. }) && is_narrow(graph, id),
    },
    Rule {
        name: PAD_HEADS,
        targets: TENSORRT,
        subject: "`attention` of f16 or bf16 with heads of no multiple of 8 components, but for one query of a cache",
        action: Action::Rewrite("zeros behind queries, keys and values, cut off the result: the same values"),
        reason: "TensorRT-RTX fails to build it with an internal error (`tactics_tiled_layout`)",
        forbids: &[],
        matches: |graph, id| {
            let size = |operand: usize, axis: usize| {
                graph.operands(id).get(operand).and_then(|node| graph.ty(*node).shape.0.get(axis)?.as_const())
            };
            matches!(graph.op(id), Op::Attention { .. })
                && is_narrow(graph, id)
                && size(0, 3).is_some_and(|width| !width.is_multiple_of(HEAD_MULTIPLE))
                && (size(0, 2) != Some(1) || size(1, 2).is_some())
        },
    },
    Rule {
        name: "widen-norms",
        targets: ONNX,
        subject: "`rms_norm` of f16 or bf16",
        action: Action::Rewrite("operands are cast to f32 before `RMSNormalization`, the result back"),
        reason: "squares of more than 256 are infinite in f16; `stash_type` is an attribute that a parser may drop",
        forbids: &[],
        matches: |graph, id| matches!(graph.op(id), Op::RmsNorm { .. }) && is_narrow(graph, id),
    },
    Rule {
        name: "widen-angles",
        targets: ONNX,
        subject: "`rope` of f16 or bf16",
        action: Action::Rewrite("angles, cosines and sines in f32; the tables are rounded once"),
        reason: "positions above 2048 (f16) or 256 (bf16) are no numbers of a narrow type",
        forbids: &[],
        matches: |graph, id| matches!(graph.op(id), Op::Rope { .. }) && is_narrow(graph, id),
    },
    Rule {
        name: "widen-sampling",
        targets: ONNX,
        subject: "`sample` that reads f16 or bf16",
        action: Action::Rewrite("its operands are cast to f32"),
        reason: "`TopK` and `CumSum` have no bf16 kernels in ONNX Runtime; probabilities are summed",
        forbids: &[],
        matches: |graph, id| {
            let narrow = |operand: &NodeId| is_narrow(graph, *operand);
            matches!(graph.op(id), Op::Sample { .. }) && graph.operands(id).iter().any(narrow)
        },
    },
    Rule {
        name: "spell-out-silu",
        targets: ONNX,
        subject: "`swiglu`, `unary` silu",
        action: Action::Rewrite("`Sigmoid`, `Mul`"),
        reason: "`Swish` is of opset 24: no kernel in ONNX Runtime's CPU",
        forbids: &[Forbidden::Always("Swish"), Forbidden::Always("SwiGLU")],
        matches: |graph, id| match graph.op(id) {
            Op::SwiGlu => true,
            Op::Unary { function } => *function == UnaryFn::Silu,
            _ => false,
        },
    },
    Rule {
        name: "spell-out-linear",
        targets: ONNX,
        subject: "`linear` of f16 or bf16",
        action: Action::Rewrite("`Transpose` of the stored weight, `MatMul`, `Add`; f32 rows are a `Gemm`"),
        reason: "tract refuses `Gemm` of f16",
        forbids: &[Forbidden::Narrow("Gemm")],
        matches: |graph, id| matches!(graph.op(id), Op::Linear) && is_narrow(graph, id),
    },
];

/// How a node's weight is kept, if in few bits.
fn scheme(graph: &Graph, id: NodeId) -> Option<Scheme> {
    match graph.op(id) {
        Op::QuantizedWeight { scheme, .. } => Some(*scheme),
        _ => None,
    }
}

fn is_narrow(graph: &Graph, id: NodeId) -> bool {
    graph.ty(id).dtype.is_narrow()
}

impl Rule {
    /// Whether the rule says something about a node.
    #[must_use]
    pub fn matches(&self, graph: &Graph, id: NodeId) -> bool {
        (self.matches)(graph, id)
    }
}

/// The rules of a target, in the table's order.
pub fn rules(target: Target) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(move |rule| rule.targets.contains(&target))
}

/// Whether the rule of that name rewrites a node for a target.
#[must_use]
pub fn rewrites(target: Target, name: &str, graph: &Graph, id: NodeId) -> bool {
    rules(target)
        .any(|rule| rule.name == name && matches!(rule.action, Action::Rewrite(_)) && rule.matches(graph, id))
}

/// Checks that a target refuses nothing in a graph.
///
/// # Errors
/// The first place, in the graph's order, that a rule refuses.
pub fn check(graph: Verified<'_>, target: Target) -> Result<(), Refused> {
    for id in graph.order() {
        for rule in rules(target) {
            if let Action::Refuse(action) = rule.action
                && rule.matches(graph.graph(), id)
            {
                let scope = graph.scope(id).to_string();
                return Err(Refused {
                    scope: if scope.is_empty() { format!("graph `{}`", graph.name()) } else { scope },
                    op: graph.op(id).kind().def().name,
                    ty: graph.ty(id).to_string(),
                    target,
                    rule: rule.name,
                    reason: rule.reason,
                    action,
                });
            }
        }
    }
    Ok(())
}
