//! Values in memory. `Literal` is a constant inside a graph: comparable, hashable, an element of its type. `Tensor` is
//! what the reference semantics compute with: floats as binary64, of which those of narrow types are rounded to them.

use super::dtype::Dtype;
use super::shape::{Shape, Type};
use std::sync::Arc;

/// A constant inside a graph. Floats are kept as binary64 bits, so equality and hashing are exact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Literal {
    dtype: Dtype,
    shape: Vec<usize>,
    bits: Arc<[u64]>,
}

impl Literal {
    /// Integers `[shape]` of type i64; `None` if the count differs.
    #[must_use]
    pub fn ints(shape: &[usize], values: &[i64]) -> Option<Self> {
        let bits = values.iter().map(|value| value.cast_unsigned()).collect();
        Self::checked(Dtype::I64, shape, bits)
    }

    /// Floats `[shape]` rounded to `dtype`; `None` if the count differs or `dtype` is no float.
    #[must_use]
    pub fn floats(dtype: Dtype, shape: &[usize], values: &[f64]) -> Option<Self> {
        if !dtype.is_float() {
            return None;
        }
        Self::checked(dtype, shape, values.iter().map(|value| dtype.round(*value).to_bits()).collect())
    }

    /// Truth values `[shape]`; `None` if the count differs.
    #[must_use]
    pub fn bools(shape: &[usize], values: &[bool]) -> Option<Self> {
        Self::checked(Dtype::Bool, shape, values.iter().map(|value| u64::from(*value)).collect())
    }

    fn checked(dtype: Dtype, shape: &[usize], bits: Arc<[u64]>) -> Option<Self> {
        (element_count(shape) == Some(bits.len())).then(|| Literal { dtype, shape: shape.to_vec(), bits })
    }

    /// The same elements as another type; floats to floats, or anything from a tensor of that kind.
    #[must_use]
    pub fn from_tensor(dtype: Dtype, tensor: &Tensor) -> Option<Self> {
        match (&tensor.data, dtype) {
            (Data::Float(values), dtype) if dtype.is_float() => Self::floats(dtype, &tensor.shape, values),
            (Data::Int(values), Dtype::I64) => Self::ints(&tensor.shape, values),
            (Data::Bool(values), Dtype::Bool) => Self::bools(&tensor.shape, values),
            _ => None,
        }
    }

    /// Element type and shape.
    #[must_use]
    pub fn ty(&self) -> Type {
        Type::new(self.dtype, Shape::of(&self.shape))
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Sizes of the axes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bits.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// Number of elements that are not zero (or `false`).
    #[must_use]
    pub fn nonzero(&self) -> usize {
        self.bits.iter().filter(|bits| **bits != 0).count()
    }

    /// As a tensor of the reference semantics.
    #[must_use]
    pub fn to_tensor(&self) -> Tensor {
        let data = match self.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                Data::float(self.bits.iter().map(|bits| f64::from_bits(*bits)).collect())
            }
            Dtype::I64 => Data::int(self.bits.iter().map(|bits| bits.cast_signed()).collect()),
            Dtype::Bool => Data::bool(self.bits.iter().map(|bits| *bits != 0).collect()),
        };
        Tensor { shape: self.shape.clone(), data }
    }
}

/// Elements of a tensor, row-major, shared on clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Any float type, held as binary64.
    Float(Arc<Vec<f64>>),
    /// 64-bit integers.
    Int(Arc<Vec<i64>>),
    /// Truth values.
    Bool(Arc<Vec<bool>>),
}

impl Data {
    /// Floats.
    #[must_use]
    pub fn float(values: Vec<f64>) -> Self {
        Data::Float(Arc::new(values))
    }

    /// Integers.
    #[must_use]
    pub fn int(values: Vec<i64>) -> Self {
        Data::Int(Arc::new(values))
    }

    /// Truth values.
    #[must_use]
    pub fn bool(values: Vec<bool>) -> Self {
        Data::Bool(Arc::new(values))
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Data::Float(values) => values.len(),
            Data::Int(values) => values.len(),
            Data::Bool(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Elements of a tensor `[shape]`; `None` if there are more than can be counted.
#[must_use]
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))
}

/// A value of the reference semantics, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Data,
}

impl Tensor {
    /// Floats `[shape]`; `None` if the count differs.
    #[must_use]
    pub fn floats(shape: &[usize], values: Vec<f64>) -> Option<Self> {
        (element_count(shape) == Some(values.len()))
            .then(|| Tensor { shape: shape.to_vec(), data: Data::float(values) })
    }

    /// Integers `[shape]`; `None` if the count differs.
    #[must_use]
    pub fn ints(shape: &[usize], values: Vec<i64>) -> Option<Self> {
        (element_count(shape) == Some(values.len()))
            .then(|| Tensor { shape: shape.to_vec(), data: Data::int(values) })
    }

    /// Zeros (or `false`) of a type.
    #[must_use]
    pub fn zeros(dtype: Dtype, shape: &[usize]) -> Self {
        let count = shape.iter().product();
        let data = match dtype {
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Data::float(vec![0.0; count]),
            Dtype::I64 => Data::int(vec![0; count]),
            Dtype::Bool => Data::bool(vec![false; count]),
        };
        Tensor { shape: shape.to_vec(), data }
    }

    /// Floats, if that is what it holds.
    #[must_use]
    pub fn as_floats(&self) -> Option<&[f64]> {
        match &self.data {
            Data::Float(values) => Some(values),
            Data::Int(_) | Data::Bool(_) => None,
        }
    }

    /// Integers, if that is what it holds.
    #[must_use]
    pub fn as_ints(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Int(values) => Some(values),
            Data::Float(_) | Data::Bool(_) => None,
        }
    }

    /// Truth values, if that is what it holds.
    #[must_use]
    pub fn as_bools(&self) -> Option<&[bool]> {
        match &self.data {
            Data::Bool(values) => Some(values),
            Data::Float(_) | Data::Int(_) => None,
        }
    }

    /// The same elements as numbers of `dtype`: rounded if that is a narrow float.
    #[must_use]
    pub fn rounded(self, dtype: Dtype) -> Self {
        match self.data {
            Data::Float(mut values) if dtype.is_narrow() => {
                Arc::make_mut(&mut values).iter_mut().for_each(|value| *value = dtype.round(*value));
                Tensor { shape: self.shape, data: Data::Float(values) }
            }
            data => Tensor { shape: self.shape, data },
        }
    }

    /// Whether the elements are of the kind that `dtype` is.
    #[must_use]
    pub fn holds(&self, dtype: Dtype) -> bool {
        match self.data {
            Data::Float(_) => dtype.is_float(),
            Data::Int(_) => dtype == Dtype::I64,
            Data::Bool(_) => dtype == Dtype::Bool,
        }
    }
}
