//! Products with weights: `Linear`, `Codes` and `MatMul`. Owns the tiles and how they are shared out. Every element of a
//! result is summed in the one order of `lanes.rs`, whatever the number of rows and threads and the kind of the weights:
//! threads share rows and columns of the result, never a sum.

use super::lanes::{Form, LANES, Lanes, Work, silu, with};
use super::pool::Pool;
use super::rows::{Place, row};
use super::scalar::{Floats, Scalar, Weights, load_part, store_part};
use super::scratch;
use super::tile::{Shared, tiles};

/// Rows of a result that a thread computes at once, a multiple of 6.
const BLOCK_ROWS: usize = 126;
/// Columns of a result that a thread computes at once, at most.
const BLOCK_COLUMNS: usize = 64;
/// Weights that must be widened are so once for products of more rows.
const WIDEN_ROWS: usize = 4;

/// What is multiplied, and where the result goes.
pub struct Product<T, W> {
    /// Rows of `T`.
    pub x: Place<T>,
    /// Weight of the norm of `x`, `[k]`, or null.
    pub norm: *const T,
    /// Added to the mean square of a row before its root is taken.
    pub eps: f32,
    /// `[n, k]`, or of SwiGLU `[2 n, k]`: gate rows, then up rows.
    pub weights: W,
    /// `[n]` or null.
    pub bias: *const T,
    /// Added; its base may be null.
    pub residual: Place<T>,
    /// The result in `T`, or f32 where `wide`; `base` is that of either.
    pub out: Place<T>,
    /// The result is f32.
    pub wide: bool,
    /// `out = silu(gate) * up`.
    pub swiglu: bool,
    /// Rows of `x`, columns of it, columns of the result.
    pub sizes: [usize; 3],
}

// SAFETY: addresses; the caller of `multiply` says that they may be read and written.
unsafe impl<T: Scalar, W: Weights> Sync for Product<T, W> {}

/// Computes a product.
///
/// # Safety
/// Every address is valid for the sizes; `out` overlaps nothing but `residual`, and that only where they are the same.
pub unsafe fn multiply<T: Scalar, W: Weights>(form: Form, pool: &Pool, product: &Product<T, W>) {
    let [rows, k, n] = product.sizes;
    let direct = T::WIDE && product.norm.is_null();
    let mut held = scratch::take(if direct { 0 } else { rows * k.next_multiple_of(LANES) + rows });
    let stride = k.next_multiple_of(LANES);
    let (normed, factors) = held.split_at_mut(if direct { 0 } else { rows * stride });
    if !direct {
        let (normed, factors) = (Shared(normed.as_mut_ptr()), Shared(factors.as_mut_ptr()));
        pool.share(rows, rows * k / 8, &|r| {
            // SAFETY: row r is this piece's own; the caller's addresses are valid.
            unsafe {
                let (to, factor) = (normed.at(r * stride), factors.at(r));
                *factor = with(form, Operand { product, r, to });
            }
        });
    }
    let xs: Vec<Shared<f32>> = (0..rows)
        .map(|r| match direct {
            // SAFETY: row r of the caller's operand, which is f32.
            true => Shared(unsafe { row(&product.x, r) }.cast::<f32>()),
            // SAFETY: row r of the scratch memory.
            false => Shared(unsafe { normed.as_mut_ptr().add(r * stride) }),
        })
        .collect();
    // Several pieces for each thread, of at least a tile.
    let columns = (n / (4 * pool.threads())).next_multiple_of(8).clamp(8, BLOCK_COLUMNS);
    let (across, down) = (n.div_ceil(columns), rows.div_ceil(BLOCK_ROWS));
    // About 50 operations and 8 bytes of weights a nanosecond.
    let work_ns = n * k * (rows / 25 + 1) / 8 * if product.swiglu { 2 } else { 1 };
    let factors = &*factors;
    pool.share(across * down, work_ns, &|piece| {
        let (first_row, first_column) = (piece / across * BLOCK_ROWS, piece % across * columns);
        let count = BLOCK_ROWS.min(rows - first_row);
        let block = Block {
            product,
            xs: &xs[first_row..first_row + count],
            factors: if direct { &[] } else { &factors[first_row..first_row + count] },
            first_row,
            first_column,
            columns: columns.min(n - first_column),
        };
        block.run(form);
    });
}

/// A row of the operand as f32, times the norm's weight; yields the norm's factor.
struct Operand<'p, T, W> {
    product: &'p Product<T, W>,
    r: usize,
    to: *mut f32,
}

impl<T: Scalar, W: Weights> Work for Operand<'_, T, W> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let Product { x, norm, eps, sizes: [_, k, _], .. } = self.product;
        // SAFETY: that of the caller of `multiply`; `to` has room for k rounded up to whole vectors.
        unsafe {
            let from = row(x, self.r).cast_const();
            let mut squares = L::splat(0.0);
            for at in (0..*k).step_by(LANES) {
                let count = LANES.min(k - at);
                let mut value = load_part::<T, L>(from.add(at), count);
                if !norm.is_null() {
                    squares = value.fma(value, squares);
                    let weight = load_part::<T, L>(norm.add(at), count);
                    value = value.mul(weight).mul(L::splat(T::NORM_SHIFT));
                    if !T::WIDE {
                        let mut rounded = [T::ZERO; LANES];
                        store_part::<T, L>(rounded.as_mut_ptr(), value, LANES);
                        value = T::load(rounded.as_ptr());
                    }
                }
                value.store(self.to.add(at));
            }
            if norm.is_null() {
                return 1.0;
            }
            #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
            let mean = squares.sum() / *k as f32;
            1.0 / ((mean + eps).sqrt() * T::NORM_SHIFT)
        }
    }
}

/// A block of the result.
struct Block<'p, T, W> {
    product: &'p Product<T, W>,
    xs: &'p [Shared<f32>],
    factors: &'p [f32],
    first_row: usize,
    first_column: usize,
    columns: usize,
}

impl<T: Scalar, W: Weights> Block<'_, T, W> {
    /// Computes and stores the block.
    fn run(&self, form: Form) {
        let [_, k, n] = self.product.sizes;
        let halves = if self.product.swiglu { 2 } else { 1 };
        let stride = self.columns.next_multiple_of(LANES);
        let results = self.xs.len() * stride;
        let mut values = scratch::take(halves * results);
        for half in 0..halves {
            let (xs, weights, columns) = (self.xs, self.product.weights, self.columns);
            let first = half * n + self.first_column;
            let to = &mut values[half * results..][..results];
            if W::WIDE || xs.len() <= WIDEN_ROWS {
                with(form, Sums { xs, weights, first, columns, k, to, stride });
                continue;
            }
            let padded = k.next_multiple_of(LANES);
            let mut wide = scratch::take(columns * padded);
            with(form, Widened { weights, first, columns, k, to: &mut wide });
            let weights = Floats { base: wide.as_ptr(), columns: padded };
            with(form, Sums { xs, weights, first: 0, columns, k, to, stride });
        }
        let Product { bias, residual, out, wide, swiglu, .. } = *self.product;
        let (values, seconds) = (&values[..results], &values[(halves - 1) * results..]);
        let (factors, rows, columns) = (self.factors, self.xs.len(), self.columns);
        let first = [self.first_row, self.first_column];
        let own = Finish {
            values,
            seconds,
            stride,
            factors,
            bias,
            residual,
            out,
            wide,
            swiglu,
            rows,
            columns,
            first,
        };
        with(form, own);
    }
}

/// Rows of weights as f32, filled up to whole vectors.
struct Widened<'p, W> {
    weights: W,
    first: usize,
    columns: usize,
    k: usize,
    to: &'p mut [f32],
}

impl<W: Weights> Work for Widened<'_, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for column in 0..self.columns {
            for at in (0..self.k).step_by(LANES) {
                let count = LANES.min(self.k - at);
                let to = &mut self.to[column * self.k.next_multiple_of(LANES) + at..][..LANES];
                // SAFETY: the weights have the row; `to` has sixteen elements.
                unsafe { self.weights.part::<L>(self.first + column, at, count).store(to.as_mut_ptr()) };
            }
        }
    }
}

/// Factor, activation, bias and residual of a block's elements, and their store.
struct Finish<'p, T> {
    values: &'p [f32],
    seconds: &'p [f32],
    stride: usize,
    factors: &'p [f32],
    bias: *const T,
    residual: Place<T>,
    out: Place<T>,
    wide: bool,
    swiglu: bool,
    rows: usize,
    columns: usize,
    first: [usize; 2],
}

impl<T: Scalar> Work for Finish<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for r in 0..self.rows {
            let at = self.first[0] + r;
            // SAFETY: the row's elements are those of the product; scratch rows are whole vectors.
            unsafe {
                let factor = L::splat(self.factors.get(r).copied().unwrap_or(1.0));
                for c in (0..self.columns).step_by(LANES) {
                    let (count, column) = (LANES.min(self.columns - c), self.first[1] + c);
                    let from = r * self.stride + c;
                    let mut value = L::load(self.values.as_ptr().add(from)).mul(factor);
                    if self.swiglu {
                        value = silu(value).mul(L::load(self.seconds.as_ptr().add(from)).mul(factor));
                    }
                    if !self.bias.is_null() {
                        value = value.add(load_part::<T, L>(self.bias.add(column), count));
                    }
                    if !self.residual.base.is_null() {
                        value = value.add(load_part::<T, L>(row(&self.residual, at).add(column), count));
                    }
                    match self.wide {
                        true => {
                            store_part::<f32, L>(row(&self.out.cast::<f32>(), at).add(column), value, count)
                        }
                        false => store_part::<T, L>(row(&self.out, at).add(column), value, count),
                    }
                }
            }
        }
    }
}

/// Sums of products: rows times columns of weights.
struct Sums<'p, W> {
    xs: &'p [Shared<f32>],
    weights: W,
    first: usize,
    columns: usize,
    k: usize,
    to: &'p mut [f32],
    stride: usize,
}

impl<W: Weights> Work for Sums<'_, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Sums { xs, weights, first, columns, k, to, stride } = self;
        // SAFETY: the rows and columns are those of the product, whose addresses are valid.
        unsafe { tiles::<L, W>(xs, &weights, first, columns, k, to, stride) };
    }
}
