//! Elementwise operations and broadcasting. Integers wrap on overflow as every target does; NaN goes through every
//! float operation, `max` and `min` included.

use super::super::attr::{BinaryFn, CompareFn, UnaryFn};
use super::super::infer::InferError;
use super::super::tensor::{Data, Tensor};
use super::{EvalError, Evaluated, bools, floats};

pub(super) fn unary(function: UnaryFn, x: &Tensor) -> Evaluated {
    let apply: fn(f64) -> f64 = match function {
        UnaryFn::Neg => |x| -x,
        UnaryFn::Silu => silu,
        UnaryFn::Sigmoid => sigmoid,
        UnaryFn::Tanh => f64::tanh,
    };
    let values = floats(x, function.name())?.iter().map(|value| apply(*value)).collect();
    Ok(Tensor { shape: x.shape.clone(), data: Data::float(values) })
}

pub(super) fn swiglu(gate: &Tensor, up: &Tensor) -> Evaluated {
    let (gates, ups) = (floats(gate, "gate")?, floats(up, "up")?);
    let values = gates.iter().zip(ups).map(|(gate, up)| silu(*gate) * up).collect();
    Ok(Tensor { shape: gate.shape.clone(), data: Data::float(values) })
}

pub(super) fn binary(function: BinaryFn, left: &Tensor, right: &Tensor, shape: &[usize]) -> Evaluated {
    let data = match (&left.data, &right.data) {
        (Data::Float(_), Data::Float(_)) => {
            let apply: fn(f64, f64) -> f64 = match function {
                BinaryFn::Add => |a, b| a + b,
                BinaryFn::Sub => |a, b| a - b,
                BinaryFn::Mul => |a, b| a * b,
                BinaryFn::Max => |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) },
                BinaryFn::Min => |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) },
            };
            let (a, b) = (floats(left, "left operand")?, floats(right, "right operand")?);
            Data::float(zip(a, &left.shape, b, &right.shape, shape, apply))
        }
        (Data::Int(a), Data::Int(b)) => {
            let apply: fn(i64, i64) -> i64 = match function {
                BinaryFn::Add => i64::wrapping_add,
                BinaryFn::Sub => i64::wrapping_sub,
                BinaryFn::Mul => i64::wrapping_mul,
                BinaryFn::Max => i64::max,
                BinaryFn::Min => i64::min,
            };
            Data::int(zip(a, &left.shape, b, &right.shape, shape, apply))
        }
        _ => return mixed(function.name()),
    };
    Ok(Tensor { shape: shape.to_vec(), data })
}

pub(super) fn compare(function: CompareFn, left: &Tensor, right: &Tensor, shape: &[usize]) -> Evaluated {
    let values = match (&left.data, &right.data) {
        (Data::Float(a), Data::Float(b)) => {
            let apply: fn(f64, f64) -> bool = match function {
                CompareFn::Less => |a, b| a < b,
                CompareFn::Equal => |a, b| a == b,
            };
            zip(a, &left.shape, b, &right.shape, shape, apply)
        }
        (Data::Int(a), Data::Int(b)) => {
            let apply: fn(i64, i64) -> bool = match function {
                CompareFn::Less => |a, b| a < b,
                CompareFn::Equal => |a, b| a == b,
            };
            zip(a, &left.shape, b, &right.shape, shape, apply)
        }
        _ => return mixed(function.name()),
    };
    Ok(Tensor { shape: shape.to_vec(), data: Data::bool(values) })
}

pub(super) fn select(condition: &Tensor, yes: &Tensor, no: &Tensor, shape: &[usize]) -> Evaluated {
    let truth = bools(condition, "condition")?;
    let picks = broadcast(truth, &condition.shape, shape);
    let data = match (&yes.data, &no.data) {
        (Data::Float(a), Data::Float(b)) => Data::float(pick(&picks, a, yes, b, no, shape)),
        (Data::Int(a), Data::Int(b)) => Data::int(pick(&picks, a, yes, b, no, shape)),
        (Data::Bool(a), Data::Bool(b)) => Data::bool(pick(&picks, a, yes, b, no, shape)),
        _ => return mixed("where"),
    };
    Ok(Tensor { shape: shape.to_vec(), data })
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn mixed<T>(name: &str) -> Result<T, EvalError> {
    Err(EvalError::Operands(InferError(format!("{name} of different element types"))))
}

fn pick<T: Copy>(picks: &[bool], a: &[T], yes: &Tensor, b: &[T], no: &Tensor, shape: &[usize]) -> Vec<T> {
    let (a, b) = (broadcast(a, &yes.shape, shape), broadcast(b, &no.shape, shape));
    picks.iter().zip(a).zip(b).map(|((pick, a), b)| if *pick { a } else { b }).collect()
}

fn zip<T: Copy, R>(
    a: &[T],
    a_shape: &[usize],
    b: &[T],
    b_shape: &[usize],
    shape: &[usize],
    apply: fn(T, T) -> R,
) -> Vec<R> {
    if a_shape == shape && b_shape == shape {
        return a.iter().zip(b).map(|(a, b)| apply(*a, *b)).collect();
    }
    let (a, b) = (broadcast(a, a_shape, shape), broadcast(b, b_shape, shape));
    a.into_iter().zip(b).map(|(a, b)| apply(a, b)).collect()
}

/// The elements of `values` `[from]` repeated to `[to]`, aligned at the last axis.
fn broadcast<T: Copy>(values: &[T], from: &[usize], to: &[usize]) -> Vec<T> {
    if from == to {
        return values.to_vec();
    }
    let missing = to.len() - from.len();
    let mut strides = vec![0usize; to.len()];
    let mut stride = 1;
    for (axis, size) in from.iter().enumerate().rev() {
        if *size != 1 {
            strides[missing + axis] = stride;
        }
        stride *= size;
    }
    let count = to.iter().product();
    let mut index = vec![0usize; to.len()];
    let mut at = 0;
    let mut result = Vec::with_capacity(count);
    for _ in 0..count {
        result.push(values[at]);
        for axis in (0..to.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < to[axis] {
                break;
            }
            at -= strides[axis] * to[axis];
            index[axis] = 0;
        }
    }
    result
}
