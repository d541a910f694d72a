//! Shapes and types of values. Owns broadcasting and equality of element counts; refuses evaluation of data.

use super::dim::{Bindings, Dim, Symbol};
use super::dtype::Dtype;
use std::fmt;

/// Dimensions of a value, outermost first; empty for a scalar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape without symbols.
    #[must_use]
    pub fn of(sizes: &[usize]) -> Self {
        Shape(sizes.iter().map(|size| Dim::from(*size)).collect())
    }

    /// Number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> Dim {
        self.0.iter().fold(Dim::from(1), |product, dim| product.times(dim))
    }

    /// Sizes under `bindings`.
    #[must_use]
    pub fn eval(&self, bindings: &Bindings) -> Option<Vec<usize>> {
        self.0.iter().map(|dim| dim.eval(bindings)).collect()
    }

    /// Sizes, if no symbol occurs.
    #[must_use]
    pub fn as_const(&self) -> Option<Vec<usize>> {
        self.0.iter().map(Dim::as_const).collect()
    }

    /// Whether `symbol` occurs in any dimension.
    #[must_use]
    pub fn contains(&self, symbol: Symbol) -> bool {
        self.0.iter().any(|dim| dim.contains(symbol))
    }

    /// Replaces `symbol` in every dimension.
    #[must_use]
    pub fn substitute(&self, symbol: Symbol, value: &Dim) -> Shape {
        Shape(self.0.iter().map(|dim| dim.substitute(symbol, value)).collect())
    }

    /// The shape both broadcast to (NumPy rules, aligned at the last axis).
    #[must_use]
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let one = Dim::from(1);
        let at = |shape: &Shape, axis: usize| -> Dim {
            (axis + shape.rank()).checked_sub(rank).map_or(one.clone(), |index| shape.0[index].clone())
        };
        (0..rank)
            .map(|axis| {
                let (left, right) = (at(self, axis), at(other, axis));
                if left == right || right == one {
                    Some(left)
                } else if left == one {
                    Some(right)
                } else {
                    None
                }
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }

    /// Parses the text form without brackets, e.g. `batch, 4, 32`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Shape> {
        if text.trim().is_empty() {
            return Some(Shape::default());
        }
        text.split(',').map(Dim::parse).collect::<Option<Vec<_>>>().map(Shape)
    }
}

impl<D: Into<Dim>> FromIterator<D> for Shape {
    fn from_iter<I: IntoIterator<Item = D>>(dims: I) -> Self {
        Shape(dims.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, dim) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// Element type and shape of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Shape,
}

impl Type {
    /// A type from its parts.
    #[must_use]
    pub fn new(dtype: Dtype, shape: Shape) -> Self {
        Type { dtype, shape }
    }

    /// Parses the text form, e.g. `f32[batch, 4]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Type> {
        let (dtype, rest) = text.trim().split_once('[')?;
        let shape = rest.strip_suffix(']')?;
        Some(Type { dtype: Dtype::from_name(dtype.trim())?, shape: Shape::parse(shape)? })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

impl Bindings {
    /// Every symbol that the sizes of values determine; a product of two waits until one of them is known from elsewhere.
    /// Whether the sizes fit is `Shape::eval`'s to say.
    #[must_use]
    pub fn solve(ports: &[(&Shape, &[usize])]) -> Self {
        let mut bindings = Bindings::default();
        loop {
            let axes = ports.iter().flat_map(|(shape, sizes)| shape.0.iter().zip(*sizes));
            let Some((symbol, value)) = axes.into_iter().find_map(|(dim, size)| dim.solve(*size, &bindings))
            else {
                return bindings;
            };
            bindings.bind(symbol, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shape, Type};

    #[test]
    fn broadcasting_follows_numpy() {
        let a = Shape::parse("batch, 1, 4").expect("parses");
        let b = Shape::parse("3, 4").expect("parses");
        assert_eq!(a.broadcast(&b).map(|s| s.to_string()).as_deref(), Some("[batch, 3, 4]"));
        assert_eq!(a.broadcast(&Shape::of(&[5])), None);
    }

    #[test]
    fn types_round_trip_as_text() {
        for text in ["f32[]", "i64[batch]", "bf16[4*batch*meta, 2, 32]"] {
            assert_eq!(Type::parse(text).expect("parses").to_string(), text);
        }
    }
}
