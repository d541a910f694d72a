//! Attribute values of operations and their text. Owns printing and parsing of one attribute; the braces, names and
//! commas around them belong to the graph text.

use super::dtype::Dtype;
use super::shape::{Shape, Type};
use super::tensor::Literal;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// A value that can stand in an operation's braces; printing and parsing are inverse.
pub trait Attribute: Sized {
    /// Text without a comma outside brackets, quotes or parentheses.
    fn print(&self) -> String;
    /// The value of that text.
    fn parse(text: &str) -> Option<Self>;
    /// The value that stands where the attribute is left out of the text; `None` if it may not be.
    fn implied() -> Option<Self> {
        None
    }
}

/// A binary64 number compared and hashed by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Real(u64);

impl From<f64> for Real {
    fn from(value: f64) -> Self {
        Real(value.to_bits())
    }
}

impl Real {
    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl Attribute for Real {
    fn print(&self) -> String {
        format!("{:?}", self.get())
    }
    fn parse(text: &str) -> Option<Self> {
        text.parse::<f64>().ok().map(Real::from)
    }
}

impl Attribute for usize {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Attribute for bool {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Attribute for Arc<str> {
    fn print(&self) -> String {
        format!("\"{self}\"")
    }
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('"')?.strip_suffix('"')?;
        (!inner.is_empty() && inner.chars().all(|c| c.is_ascii_graphic() && c != '"')).then(|| inner.into())
    }
}

impl Attribute for Dtype {
    fn print(&self) -> String {
        self.name().to_owned()
    }
    fn parse(text: &str) -> Option<Self> {
        Dtype::from_name(text)
    }
}

impl Attribute for Shape {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Self> {
        Shape::parse(text.strip_prefix('[')?.strip_suffix(']')?)
    }
}

impl Attribute for Type {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Self> {
        Type::parse(text)
    }
}

impl Attribute for Vec<usize> {
    fn print(&self) -> String {
        let items: Vec<String> = self.iter().map(usize::to_string).collect();
        format!("[{}]", items.join(", "))
    }
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        if inner.trim().is_empty() {
            return Some(Vec::new());
        }
        inner.split(',').map(|item| item.trim().parse().ok()).collect()
    }
}

impl Attribute for Literal {
    fn print(&self) -> String {
        let mut text = format!("{}(", self.ty());
        let tensor = self.to_tensor();
        for index in 0..self.len() {
            let gap = if index == 0 { "" } else { " " };
            // Writing to a string cannot fail.
            let _ = match &tensor.data {
                super::tensor::Data::Float(values) => write!(text, "{gap}{:?}", values[index]),
                super::tensor::Data::Int(values) => write!(text, "{gap}{}", values[index]),
                super::tensor::Data::Bool(values) => write!(text, "{gap}{}", values[index]),
            };
        }
        text.push(')');
        text
    }
    fn parse(text: &str) -> Option<Self> {
        let (ty, rest) = text.split_once('(')?;
        let items: Vec<&str> = rest.strip_suffix(')')?.split_whitespace().collect();
        let ty = Type::parse(ty)?;
        let shape = ty.shape.as_const()?;
        match ty.dtype {
            Dtype::I64 => {
                let values: Option<Vec<i64>> = items.iter().map(|item| item.parse().ok()).collect();
                Literal::ints(&shape, &values?)
            }
            Dtype::Bool => {
                let values: Option<Vec<bool>> = items.iter().map(|item| item.parse().ok()).collect();
                Literal::bools(&shape, &values?)
            }
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                let values: Option<Vec<f64>> = items.iter().map(|item| item.parse().ok()).collect();
                Literal::floats(ty.dtype, &shape, &values?)
            }
        }
    }
}

/// Declares an enum whose variants have names in graph text.
macro_rules! named {
    ($(#[doc = $doc:literal])* $type:ident { $($(#[doc = $item:literal])* $variant:ident = $name:literal),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[doc = $item])* $variant),* }

        impl $type {
            /// Every variant, in declaration order.
            pub const ALL: &'static [$type] = &[$($type::$variant),*];

            /// Name in graph text.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),* }
            }
        }

        impl Attribute for $type {
            fn print(&self) -> String {
                self.name().to_owned()
            }
            fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|item| item.name() == text)
            }
        }
    };
}

named! {
    /// Elementwise functions of one operand.
    UnaryFn {
        /// `-x`
        Neg = "neg",
        /// `x * sigmoid(x)`
        Silu = "silu",
        /// `1 / (1 + exp(-x))`
        Sigmoid = "sigmoid",
        /// Hyperbolic tangent
        Tanh = "tanh",
    }
}

named! {
    /// Elementwise functions of two operands, broadcast.
    BinaryFn {
        /// `a + b`
        Add = "add",
        /// `a - b`
        Sub = "sub",
        /// `a * b`
        Mul = "mul",
        /// The larger of both.
        Max = "max",
        /// The smaller of both.
        Min = "min",
    }
}

named! {
    /// Elementwise comparisons, broadcast.
    CompareFn {
        /// `a < b`
        Less = "less",
        /// `a == b`
        Equal = "equal",
    }
}

named! {
    /// How a stored matrix is kept in few bits; `ir::quant` says what the codes mean.
    Scheme {
        /// 8-bit integers, a scale for each output.
        Int8 = "int8",
        /// 4-bit integers, a scale for each 32 inputs of an output.
        Int4 = "int4",
        /// 8-bit floats (E4M3), one scale.
        Fp8 = "fp8",
    }
}

named! {
    /// Which keys a query position of `Attention` sees; `n` queries, `m` keys.
    Mask {
        /// Query `i` sees keys `j <= i + m - n`: causal, aligned at the end.
        Causal = "causal",
        /// Key slot = position; query `i` of row `b` sees slots `j <= lengths[b] + i`.
        Cache = "cache",
        /// The first `m - n` keys are cache slots, visible where `j < lengths[b]`; the last `n` are new, causal.
        Past = "past",
    }
}

/// Which of the keys that its mask lets it see a query reads. A graph's text says nothing of a reach that hides none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reach {
    /// Only the query's own position and those before it, so many in all.
    pub window: Option<NonZeroUsize>,
    /// Only positions of the query's own tile: those from the last multiple of this size on.
    pub tile: Option<NonZeroUsize>,
    /// Keys before the queries' own that are new too, not slots of the cache (`past` only).
    pub recent: usize,
}

impl Reach {
    /// Every key that the mask lets a query see.
    pub const ALL: Reach = Reach { window: None, tile: None, recent: 0 };

    /// A window of that many positions; `None` sees all.
    #[must_use]
    pub fn window(size: Option<usize>) -> Self {
        Reach { window: size.and_then(NonZeroUsize::new), ..Reach::ALL }
    }

    /// Whether a query may be kept from a position before its own.
    #[must_use]
    pub fn hides(self) -> bool {
        self.window.is_some() || self.tile.is_some()
    }

    /// The first position that a query at `position` reads.
    #[must_use]
    pub fn first(self, position: usize) -> usize {
        let near = self.window.map_or(0, |size| (position + 1).saturating_sub(size.get()));
        self.tile.map_or(0, |size| position / size.get() * size.get()).max(near)
    }
}

impl Attribute for Reach {
    fn print(&self) -> String {
        let sizes = [("window", self.window.map_or(0, NonZeroUsize::get))].into_iter();
        let sizes = sizes.chain([("tile", self.tile.map_or(0, NonZeroUsize::get)), ("recent", self.recent)]);
        let parts: Vec<String> =
            sizes.filter(|(_, size)| *size > 0).map(|(name, size)| format!("{name} {size}")).collect();
        if parts.is_empty() { "all".to_owned() } else { parts.join(" ") }
    }
    fn parse(text: &str) -> Option<Self> {
        let mut reach = Reach::ALL;
        if text == "all" {
            return Some(reach);
        }
        let mut words = text.split_whitespace();
        while let Some(name) = words.next() {
            let size: NonZeroUsize = words.next()?.parse().ok()?;
            match name {
                "window" if reach.window.is_none() => reach.window = Some(size),
                "tile" if reach.tile.is_none() => reach.tile = Some(size),
                "recent" if reach.recent == 0 => reach.recent = size.get(),
                _ => return None,
            }
        }
        (reach != Reach::ALL).then_some(reach)
    }
    fn implied() -> Option<Self> {
        Some(Reach::ALL)
    }
}

named! {
    /// What a router makes of its logits.
    Scores {
        /// Each expert by itself.
        Sigmoid = "sigmoid",
        /// Against all others.
        Softmax = "softmax",
    }
}

named! {
    /// What an input of a step program is, from one meta-context step to the next.
    Role {
        /// A fresh value every step: uniforms.
        PerStep = "per_step",
        /// One value for the whole generation: sampling parameters.
        Invariant = "invariant",
        /// Meta-contexts so far: one more every step.
        Counter = "counter",
        /// Given by the caller of a graph without steps.
        Argument = "argument",
    }
}
