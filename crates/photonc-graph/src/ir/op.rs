//! The operation table: one row per operation. Owns names, attributes, arity and the ONNX counterpart; what an
//! operation means is in `infer` (types) and `eval` (values).

use super::attr::{Attribute, BinaryFn, CompareFn, Mask, Reach, Real, Role, Scheme, Scores, UnaryFn};
use super::dtype::Dtype;
use super::shape::{Shape, Type};
use super::tensor::Literal;
use std::sync::Arc;

/// Static facts about one kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpDef {
    /// Name in graph text.
    pub name: &'static str,
    /// Shape signature and meaning, from the table's doc lines.
    pub doc: &'static str,
    /// Least number of operands.
    pub min_operands: usize,
    /// Greatest number of operands.
    pub max_operands: usize,
    /// ONNX operator and the opset it needs, or how it is expressed.
    pub onnx: &'static str,
}

macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])*
        $variant:ident $({ $($field:ident : $fty:ty),* $(,)? })? = $name:literal, $min:literal ..= $max:expr, $onnx:literal;
    )*) => {
        /// An operation with its attributes.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "fields are described in the doc line of their row")]
        pub enum Op { $( $(#[doc = $doc])* $variant $({ $($field: $fty),* })? ),* }

        /// An operation without its attributes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum OpKind { $( $(#[doc = $doc])* $variant ),* }

        impl OpKind {
            /// Every operation, in table order.
            pub const ALL: &'static [OpKind] = &[$(OpKind::$variant),*];

            /// The row of the table.
            #[must_use]
            pub fn def(self) -> OpDef {
                match self {
                    $(OpKind::$variant => OpDef {
                        name: $name,
                        doc: concat!($($doc, "\n"),*),
                        min_operands: $min,
                        max_operands: $max,
                        onnx: $onnx,
                    }),*
                }
            }

            /// The operation of that name in graph text.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.def().name == name)
            }

            /// Names of the attributes, in the order they are printed.
            #[must_use]
            pub fn attribute_names(self) -> &'static [&'static str] {
                match self { $(OpKind::$variant => &[$($(stringify!($field)),*)?]),* }
            }
        }

        impl Op {
            /// The operation without its attributes.
            #[must_use]
            pub fn kind(&self) -> OpKind {
                match self { $(Op::$variant $({ $($field: _),* })? => OpKind::$variant),* }
            }

            /// Attribute names and their text, in table order, but for those that the text may leave out.
            #[must_use]
            pub fn attributes(&self) -> Vec<(&'static str, String)> {
                let all: Vec<Option<(&'static str, String)>> = match self {
                    $(Op::$variant $({ $($field),* })? => vec![$($(said(stringify!($field), $field)),*)?]),*
                };
                all.into_iter().flatten().collect()
            }

            /// Builds an operation from its attributes' text; an error names the attribute that is missing or bad.
            ///
            /// # Errors
            /// The name of the first attribute that `get` does not have or whose text does not parse.
            pub fn from_attributes<'a>(
                kind: OpKind,
                get: impl Fn(&str) -> Option<&'a str>,
            ) -> Result<Op, &'static str> {
                let _ = &get;
                match kind {
                    $(OpKind::$variant => Ok(Op::$variant $({ $($field: {
                        let value = match get(stringify!($field)) {
                            Some(text) => <$fty as Attribute>::parse(text),
                            None => <$fty as Attribute>::implied(),
                        };
                        value.ok_or(stringify!($field))?
                    }),* })?)),*
                }
            }
        }
    };
}

/// An attribute's name and text, unless the text may leave it out.
fn said<A: Attribute + PartialEq>(name: &'static str, value: &A) -> Option<(&'static str, String)> {
    (A::implied().as_ref() != Some(value)).then(|| (name, value.print()))
}

operations! {
    /// `-> ty`. A value given by the caller.
    Input { name: Arc<str>, ty: Type, role: Role } = "input", 0..=0, "graph input";
    /// `-> ty`. A stored tensor of the model, by its canonical name.
    Weight { name: Arc<str>, ty: Type } = "weight", 0..=0, "initializer, external data";
    /// `-> ty`. A quantized matrix `[N, K]` of the model: `code * scale`, a scale for each row (int8), each 32
    /// columns of a row (int4) or the whole (fp8: E4M3); symmetric.
    QuantizedWeight { name: Arc<str>, ty: Type, scheme: Scheme } = "quantized_weight", 0..=0, "initializers, DequantizeLinear (21)";
    /// `-> type of value`. A small constant.
    Const { value: Literal } = "const", 0..=0, "initializer";
    /// `next -> ty`. The value `next` had in the step before (z^-1); in the first step the state given by prefill.
    Delay { name: Arc<str>, ty: Type } = "delay", 1..=1, "lowered before export";
    /// `[..T], [..T] -> [..T]`. HierGen's source, then RecGen's where it is defined; resolved by `choose-protocol`.
    ProtocolSwitch = "protocol_switch", 1..=2, "lowered before export";
    /// `[..] -> [..]`. Elementwise function.
    Unary { function: UnaryFn } = "unary", 1..=1, "Neg, Sigmoid, Tanh, Mul";
    /// `[..], [..] -> broadcast`. Elementwise function.
    Binary { function: BinaryFn } = "binary", 2..=2, "Add, Sub, Mul, Max, Min";
    /// `[..], [..] -> bool broadcast`. Elementwise comparison.
    Compare { function: CompareFn } = "compare", 2..=2, "Less, Equal";
    /// `bool [..], [..], [..] -> broadcast`. The second operand where true, else the third.
    Where = "where", 3..=3, "Where";
    /// `[..] -> dtype [..]`. Between float types; narrowing rounds to nearest, ties to even.
    Cast { dtype: Dtype } = "cast", 1..=1, "Cast";
    /// `[..] -> shape`. Same elements, row-major.
    Reshape { shape: Shape } = "reshape", 1..=1, "Reshape";
    /// `[d_0, ..] -> [d_perm[0], ..]`. Axis `i` of the result is axis `perm[i]` of the operand.
    Transpose { perm: Vec<usize> } = "transpose", 1..=1, "Transpose";
    /// `[.., a, ..], [.., b, ..] -> [.., a + b, ..]`. Side by side along `axis`.
    Concat { axis: usize } = "concat", 1..=usize::MAX, "Concat";
    /// `[.., d, ..] -> [.., len, ..]`. `len` entries of `axis` from `start`, counted from the end if `from_end`
    /// (then `start` is the distance of the first entry from the end).
    Slice { axis: usize, start: usize, len: usize, from_end: bool } = "slice", 1..=1, "Slice, Split";
    /// `[.., d, ..] -> i64 [d]`. 0, 1, .. along `axis` of the operand, whose values are not read.
    Iota { axis: usize } = "iota", 1..=1, "Shape, Gather, Range";
    /// `[V, D], i64 [..] -> [.., D]`. Rows of a table.
    Gather = "gather", 2..=2, "Gather";
    /// `[B, M, D], i64 [B, k] -> [B, k, D]`. Entry `b, i` is row `index[b, i]` of `x[b]`.
    GatherRows = "gather_rows", 2..=2, "Expand, GatherElements";
    /// `[.., K], [N, K], ([N] or [.., N]) -> [.., N]`. `x W^T`, plus a bias of every row or a residual of the result's
    /// shape; products accumulate in f32 or wider.
    Linear = "linear", 2..=3, "Gemm; Transpose, MatMul, Add";
    /// `[.., D], [D] -> [.., D]`. `x * rsqrt(mean(x^2) + eps) * w`, statistics in f32 or wider.
    RmsNorm { eps: Real } = "rms_norm", 2..=2, "RMSNormalization (23)";
    /// `[B, H, n, d], i64 [n] or [B, n] -> [B, H, n, d]`. Rotates the halves of a head by `position * theta^(-2t/d)`.
    Rope { theta: Real } = "rope", 2..=2, "RotaryEmbedding (23)";
    /// `[B, H, n, d], [B, G, m, d], [B, G, m, e], (i64 [B]), ([H]) -> [B, H, n, e]`. Softmax attention; query head `h`
    /// reads key head `h / (H / G)`; `mask` says which keys a query sees, `lengths` follows the values where it needs
    /// one; `reach` hides those that are far. The last operand, if there is one more, are sinks: a logit of each head, not
    /// scaled, that joins the softmax and has no value.
    Attention { scale: Real, mask: Mask, reach: Reach } = "attention", 3..=5, "MatMul, Softmax, MatMul";
    /// `[..], [..] -> [..]`. `silu(gate) * up`.
    SwiGlu = "swiglu", 2..=2, "Sigmoid, Mul, Mul";
    /// `[.., E], ([E]) -> [.., E]`. Gates of a router: `scores` of the logits; the `top_k` experts whose score plus bias
    /// is largest (ties: lowest first) keep their score without the bias, the others are 0. With `groups` above 1 only
    /// experts of the `kept_groups` best groups stand to choice; a group of consecutive experts is as good as the sum of
    /// its two largest biased scores. If `normalize`, gates are divided by their sum; then times `factor`.
    Route {
        scores: Scores, top_k: usize, groups: usize, kept_groups: usize, normalize: bool, factor: Real,
    } = "route", 1..=2, "Sigmoid or Softmax, TopK, Equal, ReduceSum, Mul, Div";
    /// `[.., W], [.., E], [E, W, 2I], [E, I, W] -> [.., W]`. Sum over the experts of a gate (the second operand) times
    /// the expert's `(silu(x G) * (x U)) D`, where `[G | U]` is its part of the third operand and `D` of the fourth. At
    /// most `top_k` gates of a row are not 0; an expert whose gate is 0 adds nothing, whatever it would yield.
    Experts { top_k: usize } = "experts", 4..=4, "MatMul over every expert: E / top_k times the arithmetic";
    /// `[B, G, S, d], [B, G, n, d], i64 [B] -> [B, G, S, d]`. Writes the new slice of row `b` at slots
    /// `lengths[b] ..`; later slots keep what they hold.
    CacheAppend = "cache_append", 3..=3, "new slice as graph output";
    /// `[B, G, ..], [B, 1, ..] -> [B, G, ..]`. The operand one place later along axis 1, the first entry from `init`.
    Shift = "shift", 2..=2, "Concat, Slice";
    /// `[R, n, V], [R, n], [B], i64 [B], [B] -> i64 [R, n]`. Draws a token from logits with a uniform number,
    /// temperature, top-k and top-p; row `r` takes the parameters of row `r / (R / B)`. Temperature 0 is greedy.
    /// Among the `candidates` largest logits (ties: lowest id first), keeps the first `top_k`, then the shortest
    /// prefix whose mass reaches `top_p`, and takes the first whose cumulative mass exceeds `uniform * kept mass`.
    Sample { candidates: usize } = "sample", 5..=5, "TopK, Softmax, CumSum, Less, GatherElements";
}

impl Op {
    /// Whether the operation takes no operands by nature: inputs, weights, constants.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Input { .. } | Op::Weight { .. } | Op::QuantizedWeight { .. } | Op::Const { .. })
    }

    /// Whether the operation carries state from one step to the next.
    #[must_use]
    pub fn is_delay(&self) -> bool {
        matches!(self, Op::Delay { .. })
    }
}
