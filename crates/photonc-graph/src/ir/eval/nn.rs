//! Linear maps, normalisation and rotary positions. Owns the one dot product: its order depends on the length alone.

use super::super::tensor::{Data, Tensor};
use super::{Evaluated, floats, ints};
use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSliceMut};

/// Partial sums of a dot product, added up in this order at the end.
const LANES: usize = 8;
/// Columns of a linear map computed together, so that a row of `x` is read once for all of them.
const COLUMNS: usize = 16;
/// Multiplications below which threads cost more than they save.
const PARALLEL_FROM: usize = 1 << 15;

/// Sum of products in a fixed order: element `i` goes to partial sum `i mod 8`, the rest after the last full eight
/// in order, then the partial sums pairwise.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let even = (sums[0] + sums[4]) + (sums[2] + sums[6]);
    let odd = (sums[1] + sums[5]) + (sums[3] + sums[7]);
    (even + odd) + rest
}

pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: &[usize]) -> Evaluated {
    let (outputs, inner) = (weight.shape[0], weight.shape[1]);
    let (xs, ws) = (floats(x, "linear operand")?, floats(weight, "linear weight")?);
    // A residual has an entry for every row, a bias one row for all.
    let row_stride = match bias {
        Some(addend) if addend.shape == shape => outputs,
        _ => 0,
    };
    let bias = bias.map(|bias| floats(bias, "linear bias")).transpose()?;
    let rows: usize = shape[..shape.len() - 1].iter().product();
    let mut values = vec![0.0; rows * outputs];
    if values.is_empty() {
        return Ok(Tensor { shape: shape.to_vec(), data: Data::float(values) });
    }
    // Column-major while computing: threads own whole columns.
    let mut columns = vec![0.0; rows * outputs];
    let fill = |(block, columns): (usize, &mut [f64])| {
        for row in 0..rows {
            let x = &xs[row * inner..(row + 1) * inner];
            for (offset, column) in columns.chunks_exact_mut(rows).enumerate() {
                let output = block * COLUMNS + offset;
                let product = dot(x, &ws[output * inner..(output + 1) * inner]);
                column[row] = bias.map_or(product, |bias| product + bias[row * row_stride + output]);
            }
        }
    };
    if rows * outputs * inner < PARALLEL_FROM {
        columns.chunks_mut(COLUMNS * rows).enumerate().for_each(fill);
    } else {
        columns.par_chunks_mut(COLUMNS * rows).enumerate().for_each(fill);
    }
    for (output, column) in columns.chunks_exact(rows).enumerate() {
        for (row, value) in column.iter().enumerate() {
            values[row * outputs + output] = *value;
        }
    }
    Ok(Tensor { shape: shape.to_vec(), data: Data::float(values) })
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Evaluated {
    let (xs, ws) = (floats(x, "rms_norm operand")?, floats(weight, "norm weight")?);
    let mut values = Vec::with_capacity(xs.len());
    for row in xs.chunks_exact(ws.len().max(1)) {
        let scale = 1.0 / (dot(row, row) / ws.len() as f64 + eps).sqrt();
        values.extend(row.iter().zip(ws).map(|(x, w)| x * scale * w));
    }
    Ok(Tensor { shape: x.shape.clone(), data: Data::float(values) })
}

pub(super) fn rope(x: &Tensor, positions: &Tensor, theta: f64) -> Evaluated {
    let (heads, entries, width) = (x.shape[1], x.shape[2], x.shape[3]);
    let (xs, positions_of) = (floats(x, "rope operand")?, ints(positions, "positions")?);
    let per_row = positions.shape.len() == 2;
    let half = width / 2;
    let rates: Vec<f64> = (0..half).map(|t| theta.powf(-2.0 * t as f64 / width as f64)).collect();
    let mut values = vec![0.0; xs.len()];
    let pairs = values.chunks_exact_mut(width.max(1)).zip(xs.chunks_exact(width.max(1)));
    for (vector, (out, x)) in pairs.enumerate() {
        let (batch, entry) = (vector / (heads * entries), vector % entries);
        let position = positions_of[if per_row { batch * entries + entry } else { entry }];
        for (t, rate) in rates.iter().enumerate() {
            let (sin, cos) = (position as f64 * rate).sin_cos();
            out[t] = x[t] * cos - x[t + half] * sin;
            out[t + half] = x[t + half] * cos + x[t] * sin;
        }
    }
    Ok(Tensor { shape: x.shape.clone(), data: Data::float(values) })
}
