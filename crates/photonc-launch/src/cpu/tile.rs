//! Tiles of a product: some rows times some rows of weights, their sums in registers.

use super::lanes::{LANES, Lanes};
use super::scalar::{Weights, load_part};

/// An address that threads share.
#[derive(Clone, Copy)]
pub struct Shared<T>(pub *mut T);

// SAFETY: an address; who uses it says that it may.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The address `by` elements on.
    ///
    /// # Safety
    /// `by` elements on is the same memory.
    pub unsafe fn at(self, by: usize) -> *mut T {
        // SAFETY: that of the caller.
        unsafe { self.0.add(by) }
    }
}

/// Rows times columns of weights; row groups outside, so that a group stays in the first-level cache and the block of
/// weights in the second.
///
/// # Safety
/// The rows have `k` elements and the weights the columns; `to` has `xs.len()` rows of `stride` elements.
#[inline(always)]
pub unsafe fn tiles<L: Lanes, W: Weights>(
    xs: &[Shared<f32>],
    weights: &W,
    first: usize,
    columns: usize,
    k: usize,
    to: &mut [f32],
    stride: usize,
) {
    let mut r = 0;
    while r < xs.len() {
        let rows = &xs[r..];
        let out = &mut to[r * stride..];
        macro_rules! group {
            ($($rows:literal)*) => { $(
                if const { $rows <= L::TILE[0] && (W::WIDE || $rows <= 4) } && rows.len() >= $rows {
                    let group: [*const f32; $rows] = std::array::from_fn(|at| rows[at].0.cast_const());
                    // SAFETY: that of the caller.
                    unsafe { columns_of::<L, W, $rows>(group, weights, first, columns, k, out, stride) };
                    r += $rows;
                    continue;
                }
            )* };
        }
        group!(6 4 3 2 1);
    }
}

#[inline(always)]
unsafe fn columns_of<L: Lanes, W: Weights, const R: usize>(
    xs: [*const f32; R],
    weights: &W,
    first: usize,
    columns: usize,
    k: usize,
    to: &mut [f32],
    stride: usize,
) {
    let mut c = 0;
    while c < columns {
        macro_rules! group {
            ($($columns:literal)*) => { $(
                // One row reads its weights from as many places as many rows do.
                if const { $columns <= L::TILE[1] || R == 1 } && columns - c >= $columns {
                    // SAFETY: that of the caller.
                    unsafe { tile::<L, W, R, $columns>(xs, weights, first + c, k, &mut to[c..], stride) };
                    c += $columns;
                    continue;
                }
            )* };
        }
        group!(4 2 1);
    }
}

/// One tile, its sums in registers.
#[inline(always)]
unsafe fn tile<L: Lanes, W: Weights, const R: usize, const C: usize>(
    xs: [*const f32; R],
    weights: &W,
    first: usize,
    k: usize,
    to: &mut [f32],
    stride: usize,
) {
    // SAFETY: that of the caller.
    unsafe {
        let mut sums = [[L::splat(0.0); C]; R];
        let whole = k - k % LANES;
        let mut at = 0;
        while at < whole {
            // Its own each time round: carried over, it would take registers from the sums.
            let mut columns = [L::splat(0.0); C];
            for (c, column) in columns.iter_mut().enumerate() {
                *column = weights.whole::<L>(first + c, at);
            }
            for r in 0..R {
                let x = L::load(xs[r].add(at));
                for c in 0..C {
                    sums[r][c] = x.fma(columns[c], sums[r][c]);
                }
            }
            at += LANES;
        }
        if at < k {
            let mut columns = [L::splat(0.0); C];
            for (c, column) in columns.iter_mut().enumerate() {
                *column = weights.part::<L>(first + c, at, k - at);
            }
            for r in 0..R {
                let x = load_part::<f32, L>(xs[r].add(at), k - at);
                for c in 0..C {
                    sums[r][c] = x.fma(columns[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            let out = &mut to[r * stride..][..C];
            if C == 4 {
                out.copy_from_slice(&L::sum4([sums[r][0], sums[r][1], sums[r][2], sums[r][C - 1]]));
            } else {
                for c in 0..C {
                    out[c] = sums[r][c].sum();
                }
            }
        }
    }
}
