//! Axes made smaller, everywhere at once: where the same number meant different things the result does not type, and is
//! no candidate.

use photonc_graph::ir::dim::{Dim, Symbol};
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::{Shape, Type};
use photonc_graph::ir::tensor::{Data, Literal, Tensor};

/// A change of axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resize {
    /// The symbol becomes 1.
    Bind(Symbol),
    /// Every axis of size `from` becomes `to`, which is less.
    Shrink {
        /// The old size.
        from: usize,
        /// The new size.
        to: usize,
    },
}

impl Resize {
    fn shape(&self, shape: &Shape) -> Shape {
        match self {
            Resize::Bind(symbol) => shape.substitute(*symbol, &Dim::from(1)),
            Resize::Shrink { from, to } => {
                let dim =
                    |dim: &Dim| if dim.as_const() == Some(*from) { Dim::from(*to) } else { dim.clone() };
                Shape(shape.0.iter().map(dim).collect())
            }
        }
    }

    fn ty(&self, ty: &Type) -> Type {
        Type::new(ty.dtype, self.shape(&ty.shape))
    }

    /// The operation with its own types and shapes changed.
    pub fn op(&self, op: &Op) -> Option<Op> {
        Some(match op {
            Op::Input { name, ty, role } => Op::Input { name: name.clone(), ty: self.ty(ty), role: *role },
            Op::Weight { name, ty } => Op::Weight { name: name.clone(), ty: self.ty(ty) },
            Op::QuantizedWeight { name, ty, scheme } => {
                Op::QuantizedWeight { name: name.clone(), ty: self.ty(ty), scheme: *scheme }
            }
            Op::Delay { name, ty } => Op::Delay { name: name.clone(), ty: self.ty(ty) },
            Op::Const { value } => Op::Const { value: crop(value, &self.ty(&value.ty()).shape.as_const()?)? },
            Op::Reshape { shape } => Op::Reshape { shape: self.shape(shape) },
            other => other.clone(),
        })
    }
}

/// Attributes that count entries of the first operand, kept inside it.
pub fn fit(op: Op, operand: &Shape) -> Op {
    match op {
        Op::Slice { axis, start, len, from_end } => match operand.0.get(axis).and_then(Dim::as_const) {
            Some(size) => {
                let len = len.min(size);
                let start = if from_end { start.clamp(len, size) } else { start.min(size - len) };
                Op::Slice { axis, start, len, from_end }
            }
            None => Op::Slice { axis, start, len, from_end },
        },
        Op::Sample { candidates } => {
            let vocab = operand.0.last().and_then(Dim::as_const).unwrap_or(candidates);
            Op::Sample { candidates: candidates.min(vocab) }
        }
        other => other,
    }
}

/// The first entries along every axis.
fn crop(value: &Literal, shape: &[usize]) -> Option<Literal> {
    let old = value.shape();
    let count: usize = shape.iter().product();
    let place = |mut flat: usize| {
        let mut index = vec![0; shape.len()];
        for (slot, size) in index.iter_mut().zip(shape).rev() {
            *slot = flat % size;
            flat /= size;
        }
        index.iter().zip(old).fold(0, |at, (index, size)| at * size + index)
    };
    let tensor = value.to_tensor();
    let data = match &tensor.data {
        Data::Float(all) => Data::float((0..count).map(|at| all[place(at)]).collect()),
        Data::Int(all) => Data::int((0..count).map(|at| all[place(at)]).collect()),
        Data::Bool(all) => Data::bool((0..count).map(|at| all[place(at)]).collect()),
    };
    Literal::from_tensor(value.dtype(), &Tensor { shape: shape.to_vec(), data })
}
