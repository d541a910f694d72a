//! Values of results from values of operands: the reference semantics, the oracle every backend is compared with.
//!
//! Owns what operations mean on data; leaves inputs, weights, delays and protocol switches to `graph::interp`.
//! Arithmetic is binary64 inside an operation. A result of a narrow type (f16, bf16) is rounded to it once, by who knows
//! the type: `cast` here, everything else in the interpreter; f32 stands for exact arithmetic and is never rounded. Every reduction has one fixed order that
//! depends on the reduced axis alone, so a row's result is bit-identical whatever the batch or the padding beside it.
//! No data panics: an id out of range, a full cache or a NaN logit is an error that says where.

mod attention;
mod elementwise;
mod experts;
mod layout;
mod nn;
mod sample;

use super::dtype::Dtype;
use super::infer::{self, InferError};
use super::op::Op;
use super::shape::{Shape, Type};
use super::tensor::{Data, Tensor, element_count};

/// Why an operation has no value on these operands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The operands do not fit the operation.
    #[error(transparent)]
    Operands(#[from] InferError),
    /// A tensor whose shape and element count disagree.
    #[error("operand {operand} holds {found} elements, expected shape {shape:?}")]
    Elements {
        /// Position among the operands.
        operand: usize,
        /// Elements it holds.
        found: usize,
        /// Shape it claims.
        shape: Vec<usize>,
    },
    /// The operands give another shape than the graph promises.
    #[error("yields shape {found}, expected {expected:?}")]
    Result {
        /// What the operands give.
        found: Shape,
        /// What was promised.
        expected: Vec<usize>,
    },
    /// An element outside what the operation is defined on.
    #[error("{what} {found} at {at:?}, expected {expected}")]
    Value {
        /// What the element is: `row id`, `logit`, ...
        what: &'static str,
        /// The element.
        found: String,
        /// Its index in the operand that holds it.
        at: Vec<usize>,
        /// What the operation is defined on.
        expected: String,
    },
    /// An operation whose value does not follow from its operands.
    #[error("`{0}` has no value of its own, expected the interpreter to supply one")]
    External(&'static str),
}

type Evaluated = Result<Tensor, EvalError>;

/// The value of `op` on `operands`, whose concrete result shape is `shape`.
///
/// `Cast` rounds to f16 and bf16 and is the identity to f32, which the oracle does not round to.
///
/// # Errors
/// The operands do not fit the operation or the shape, an element is outside what the operation is defined on, or
/// the operation takes its value from outside (input, weight, delay, protocol switch).
pub fn eval(op: &Op, operands: &[&Tensor], shape: &[usize]) -> Evaluated {
    if is_external(op) {
        return Err(EvalError::External(op.kind().def().name));
    }
    check(op, operands, shape)?;
    match op {
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::QuantizedWeight { .. }
        | Op::Delay { .. }
        | Op::ProtocolSwitch => Err(EvalError::External(op.kind().def().name)),
        Op::Const { value } => Ok(value.to_tensor()),
        Op::Unary { function } => elementwise::unary(*function, operands[0]),
        Op::Binary { function } => elementwise::binary(*function, operands[0], operands[1], shape),
        Op::Compare { function } => elementwise::compare(*function, operands[0], operands[1], shape),
        Op::Where => elementwise::select(operands[0], operands[1], operands[2], shape),
        Op::Cast { dtype } => Ok(operands[0].clone().rounded(*dtype)),
        Op::Reshape { .. } => Ok(Tensor { shape: shape.to_vec(), data: operands[0].data.clone() }),
        Op::Transpose { perm } => layout::transpose(operands[0], perm, shape),
        Op::Concat { axis } => layout::concat(operands, *axis, shape),
        Op::Slice { axis, start, from_end, .. } => {
            layout::slice(operands[0], *axis, *start, *from_end, shape)
        }
        Op::Iota { .. } => Ok(layout::iota(shape)),
        Op::Gather => layout::gather(operands[0], operands[1], shape),
        Op::GatherRows => layout::gather_rows(operands[0], operands[1], shape),
        Op::Linear => nn::linear(operands[0], operands[1], operands.get(2).copied(), shape),
        Op::RmsNorm { eps } => nn::rms_norm(operands[0], operands[1], eps.get()),
        Op::Rope { theta } => nn::rope(operands[0], operands[1], theta.get()),
        Op::Attention { scale, mask, reach } => attention::attention(operands, scale.get(), *mask, *reach),
        Op::Route { scores, top_k, groups, kept_groups, normalize, factor } => experts::route(
            operands,
            &experts::Choice { scores: *scores, top_k: *top_k, groups: [*groups, *kept_groups] },
            *normalize,
            factor.get(),
        ),
        Op::Experts { .. } => experts::experts(operands[0], operands[1], operands[2], operands[3]),
        Op::SwiGlu => elementwise::swiglu(operands[0], operands[1]),
        Op::CacheAppend => attention::cache_append(operands[0], operands[1], operands[2]),
        Op::Shift => layout::shift(operands[0], operands[1]),
        Op::Sample { candidates } => sample::sample(operands, *candidates),
    }
}

/// Whether the interpreter supplies the value.
fn is_external(op: &Op) -> bool {
    matches!(
        op,
        Op::Input { .. }
            | Op::Weight { .. }
            | Op::QuantizedWeight { .. }
            | Op::Delay { .. }
            | Op::ProtocolSwitch
    )
}

/// Proves what the evaluators rely on: consistent tensors of fitting shapes and a result of the promised shape.
fn check(op: &Op, operands: &[&Tensor], shape: &[usize]) -> Result<(), EvalError> {
    for (index, operand) in operands.iter().enumerate() {
        if element_count(&operand.shape) != Some(operand.data.len()) {
            return Err(EvalError::Elements {
                operand: index,
                found: operand.data.len(),
                shape: operand.shape.clone(),
            });
        }
    }
    let types: Vec<Type> = operands.iter().map(|operand| type_of(operand)).collect();
    let result = match op {
        // The promised shape stands for the symbolic one, so that both count elements alike.
        Op::Reshape { .. } => infer::infer(&Op::Reshape { shape: Shape::of(shape) }, &types)?,
        op => infer::infer(op, &types)?,
    };
    if result.shape != Shape::of(shape) {
        return Err(EvalError::Result { found: result.shape, expected: shape.to_vec() });
    }
    Ok(())
}

/// The type of a tensor; floats of any width count as f32, since the oracle knows but one kind.
fn type_of(tensor: &Tensor) -> Type {
    let dtype = match tensor.data {
        Data::Float(_) => Dtype::F32,
        Data::Int(_) => Dtype::I64,
        Data::Bool(_) => Dtype::Bool,
    };
    Type::new(dtype, Shape::of(&tensor.shape))
}

fn floats<'t>(tensor: &'t Tensor, what: &str) -> Result<&'t [f64], EvalError> {
    tensor.as_floats().ok_or_else(|| kind_error(tensor, what, "floats"))
}

fn ints<'t>(tensor: &'t Tensor, what: &str) -> Result<&'t [i64], EvalError> {
    tensor.as_ints().ok_or_else(|| kind_error(tensor, what, "integers"))
}

fn bools<'t>(tensor: &'t Tensor, what: &str) -> Result<&'t [bool], EvalError> {
    tensor.as_bools().ok_or_else(|| kind_error(tensor, what, "truth values"))
}

fn kind_error(tensor: &Tensor, what: &str, expected: &str) -> EvalError {
    EvalError::Operands(InferError(format!("{what} is {}, expected {expected}", type_of(tensor))))
}

fn value_error(
    what: &'static str,
    found: impl ToString,
    at: Vec<usize>,
    expected: impl Into<String>,
) -> EvalError {
    EvalError::Value { what, found: found.to_string(), at, expected: expected.into() }
}

/// The index along each axis of element `flat` of a row-major `shape`.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (slot, size) in index.iter_mut().zip(shape).rev() {
        *slot = flat % (*size).max(1);
        flat /= (*size).max(1);
    }
    index
}

#[cfg(test)]
mod tests;
