//! Operations that only move elements. Each is a list of runs copied from its operands, whatever their element type.

use super::super::infer::InferError;
use super::super::tensor::{Data, Tensor};
use super::{EvalError, Evaluated, ints, unravel, value_error};

/// `len` elements of operand `source` from element `start`.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) source: usize,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// The runs one after the other as a tensor `[shape]`.
pub(super) fn assemble(sources: &[&Tensor], runs: &[Run], shape: &[usize]) -> Evaluated {
    let data = match sources.first().map(|tensor| &tensor.data) {
        Some(Data::Float(_)) => copy(sources, runs, Tensor::as_floats).map(Data::float),
        Some(Data::Int(_)) => copy(sources, runs, Tensor::as_ints).map(Data::int),
        Some(Data::Bool(_)) => copy(sources, runs, Tensor::as_bools).map(Data::bool),
        None => None,
    };
    let data = data.ok_or_else(|| InferError("operands of different element types".to_owned()))?;
    Ok(Tensor { shape: shape.to_vec(), data })
}

fn copy<'t, T: Copy + 't>(
    sources: &[&'t Tensor],
    runs: &[Run],
    view: fn(&'t Tensor) -> Option<&'t [T]>,
) -> Option<Vec<T>> {
    let views: Vec<&[T]> = sources.iter().map(|tensor| view(tensor)).collect::<Option<_>>()?;
    let mut result = Vec::with_capacity(runs.iter().map(|run| run.len).sum());
    for run in runs {
        result.extend_from_slice(views[run.source].get(run.start..run.start + run.len)?);
    }
    Some(result)
}

pub(super) fn transpose(x: &Tensor, perm: &[usize], shape: &[usize]) -> Evaluated {
    let strides = strides(&x.shape);
    // Axes at the end that stay in place are copied together.
    let moved = perm.iter().enumerate().rposition(|(axis, from)| axis != *from).map_or(0, |last| last + 1);
    let len: usize = shape[moved..].iter().product();
    let rows: usize = shape[..moved].iter().product();
    let runs: Vec<Run> = (0..rows)
        .map(|row| {
            let index = unravel(row, &shape[..moved]);
            let start = index.iter().zip(perm).map(|(at, axis)| at * strides[*axis]).sum();
            Run { source: 0, start, len }
        })
        .collect();
    assemble(&[x], &runs, shape)
}

pub(super) fn concat(operands: &[&Tensor], axis: usize, shape: &[usize]) -> Evaluated {
    let outer: usize = shape[..axis].iter().product();
    let mut runs = Vec::with_capacity(outer * operands.len());
    for row in 0..outer {
        for (source, operand) in operands.iter().enumerate() {
            let len: usize = operand.shape[axis..].iter().product();
            runs.push(Run { source, start: row * len, len });
        }
    }
    assemble(operands, &runs, shape)
}

pub(super) fn slice(x: &Tensor, axis: usize, start: usize, from_end: bool, shape: &[usize]) -> Evaluated {
    let size = x.shape[axis];
    let first = if from_end { size - start } else { start };
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let runs: Vec<Run> = (0..outer)
        .map(|row| Run { source: 0, start: (row * size + first) * inner, len: shape[axis] * inner })
        .collect();
    assemble(&[x], &runs, shape)
}

pub(super) fn iota(shape: &[usize]) -> Tensor {
    let count: i64 = shape.iter().product::<usize>().try_into().unwrap_or(i64::MAX);
    Tensor { shape: shape.to_vec(), data: Data::int((0..count).collect()) }
}

pub(super) fn gather(table: &Tensor, ids: &Tensor, shape: &[usize]) -> Evaluated {
    let width = table.shape[1];
    let runs = row_runs(table.shape[0], width, ids, |_| 0)?;
    assemble(&[table], &runs, shape)
}

pub(super) fn gather_rows(x: &Tensor, index: &Tensor, shape: &[usize]) -> Evaluated {
    let (rows, width, picked) = (x.shape[1], x.shape[2], index.shape[1]);
    let runs = row_runs(rows, width, index, |position| position / picked * rows)?;
    assemble(&[x], &runs, shape)
}

/// One run per id: the row it names after `base(position)` rows, of `rows` rows that can be named.
fn row_runs(
    rows: usize,
    width: usize,
    ids: &Tensor,
    base: impl Fn(usize) -> usize,
) -> Result<Vec<Run>, EvalError> {
    let place = |(position, id): (usize, &i64)| match usize::try_from(*id) {
        Ok(row) if row < rows => Ok(Run { source: 0, start: (base(position) + row) * width, len: width }),
        _ => Err(value_error(
            "row id",
            id,
            unravel(position, &ids.shape),
            format!("at least 0 and less than {rows}"),
        )),
    };
    ints(ids, "row ids")?.iter().enumerate().map(place).collect()
}

pub(super) fn shift(x: &Tensor, init: &Tensor) -> Evaluated {
    let entry: usize = x.shape[2..].iter().product();
    let (rows, entries) = (x.shape[0], x.shape[1]);
    let mut runs = Vec::with_capacity(2 * rows);
    if entries > 0 {
        for row in 0..rows {
            runs.push(Run { source: 1, start: row * entry, len: entry });
            runs.push(Run { source: 0, start: row * entries * entry, len: (entries - 1) * entry });
        }
    }
    assemble(&[x, init], &runs, &x.shape)
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
