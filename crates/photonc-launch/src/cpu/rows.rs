//! Operations on rows: norms, SwiGLU, embeddings, gathers, counting, and the reading whose time is the ceiling of all that
//! read.

use super::lanes::{Form, LANES, Lanes, Work, silu, with};
use super::pool::Pool;
use super::scalar::{Scalar, load_part, store_part};
use crate::launch::arguments::{
    EmbedArguments, GatherArguments, IotaArguments, NormArguments, ReadArguments, Rows, SwigluArguments,
};

/// Rows of a matrix that may be part of a larger tensor.
#[derive(Clone, Copy)]
pub struct Place<T> {
    /// Address of row 0.
    pub base: *mut T,
    outer: i64,
    inner: i64,
    split: i64,
}

// SAFETY: an address; who reads and writes there says that it may.
unsafe impl<T> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Place<T> {}

impl<T> Place<T> {
    /// Rows of a call.
    #[must_use]
    pub fn of(rows: &Rows) -> Self {
        let split = i64::from(rows.split.max(1));
        Place { base: rows.base as *mut T, outer: rows.outer, inner: rows.inner, split }
    }

    /// Rows `stride` elements apart.
    #[must_use]
    pub fn apart(base: u64, stride: usize) -> Self {
        let outer = i64::try_from(stride).unwrap_or(i64::MAX);
        Place { base: base as *mut T, outer, inner: 0, split: 1 }
    }

    /// The same rows of another type, from the same address on.
    #[must_use]
    pub fn cast<E>(&self) -> Place<E> {
        let Place { base, outer, inner, split } = *self;
        Place { base: base.cast(), outer, inner, split }
    }
}

/// Address of row `r`.
///
/// # Safety
/// The rows have it.
#[inline(always)]
pub unsafe fn row<T>(rows: &Place<T>, r: usize) -> *mut T {
    let r = r as i64;
    let elements = r / rows.split * rows.outer + r % rows.split * rows.inner;
    // SAFETY: that of the caller.
    unsafe { rows.base.offset(elements as isize) }
}

/// Sizes are counts of a call, never negative.
pub fn size(count: i32) -> usize {
    usize::try_from(count).unwrap_or(0)
}

/// One row of `Norm`.
struct NormRow<T> {
    x: *const T,
    residual: *const T,
    sum: *mut T,
    out: *mut T,
    weight: *const T,
    width: usize,
    eps: f32,
}

impl<T: Scalar> NormRow<T> {
    /// The value that is normed, as T holds it.
    #[inline(always)]
    unsafe fn value<L: Lanes>(&self, at: usize, count: usize) -> L {
        // SAFETY: that of the caller.
        unsafe {
            let value = load_part::<T, L>(self.x.add(at), count);
            if self.residual.is_null() {
                return value;
            }
            let value = value.add(load_part::<T, L>(self.residual.add(at), count));
            if T::WIDE {
                return value;
            }
            let mut rounded = [T::ZERO; LANES];
            store_part::<T, L>(rounded.as_mut_ptr(), value, LANES);
            T::load(rounded.as_ptr())
        }
    }
}

impl<T: Scalar> Work for NormRow<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: that of the caller of `norm`.
        unsafe {
            let mut squares = L::splat(0.0);
            for at in (0..self.width).step_by(LANES) {
                let value = self.value::<L>(at, LANES.min(self.width - at));
                squares = value.fma(value, squares);
            }
            #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
            let mean = squares.sum() / self.width as f32;
            let scale = L::splat(1.0 / (mean + self.eps).sqrt());
            for at in (0..self.width).step_by(LANES) {
                let count = LANES.min(self.width - at);
                // Read before anything is stored: out, sum, residual and x may share memory.
                let value = self.value::<L>(at, count);
                if !self.sum.is_null() {
                    store_part::<T, L>(self.sum.add(at), value, count);
                }
                let weight = load_part::<T, L>(self.weight.add(at), count);
                store_part::<T, L>(self.out.add(at), value.mul(scale).mul(weight), count);
            }
        }
    }
}

/// `Norm`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn norm<T: Scalar>(form: Form, pool: &Pool, a: &NormArguments) {
    let (x, residual) = (Place::<T>::of(&a.x), Place::<T>::of(&a.residual));
    let (sum, out) = (Place::<T>::of(&a.sum), Place::<T>::of(&a.out));
    pool.share(size(a.rows), size(a.rows) * size(a.width) / 4, &|r| {
        // SAFETY: that of the caller; absent rows have no address.
        let at = |rows: &Place<T>| unsafe {
            if rows.base.is_null() { std::ptr::null_mut() } else { row(rows, r) }
        };
        let work = NormRow {
            x: at(&x).cast_const(),
            residual: at(&residual).cast_const(),
            sum: at(&sum),
            out: at(&out),
            weight: a.weight as *const T,
            width: size(a.width),
            eps: a.eps,
        };
        with(form, work);
    });
}

/// One row of `Swiglu`.
struct SwigluRow<T>(*const T, *const T, *mut T, usize);

impl<T: Scalar> Work for SwigluRow<T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let SwigluRow(gate, up, out, width) = self;
        for at in (0..width).step_by(LANES) {
            let count = LANES.min(width - at);
            // SAFETY: that of the caller of `swiglu`.
            unsafe {
                let up = load_part::<T, L>(up.add(at), count);
                let value = silu(load_part::<T, L>(gate.add(at), count)).mul(up);
                store_part::<T, L>(out.add(at), value, count);
            }
        }
    }
}

/// `Swiglu`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn swiglu<T: Scalar>(form: Form, pool: &Pool, a: &SwigluArguments) {
    let (gate, up, out) = (Place::<T>::of(&a.gate), Place::<T>::of(&a.up), Place::<T>::of(&a.out));
    pool.share(size(a.rows), size(a.rows) * size(a.width), &|r| {
        // SAFETY: that of the caller.
        let work = unsafe { SwigluRow(row(&gate, r), row(&up, r), row(&out, r), size(a.width)) };
        with(form, work);
    });
}

/// `Embed` from a table of `W`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn embed<T: Scalar, W: Scalar>(a: &EmbedArguments) {
    let (out, width) = (Place::<T>::of(&a.out), size(a.width));
    for r in 0..size(a.rows) {
        // SAFETY: that of the caller; ids outside the vocabulary read nothing.
        unsafe {
            let id = (a.ids as *const i64).add(r).read_unaligned();
            let to = row(&out, r);
            let known = id >= 0 && id < i64::from(a.vocabulary);
            let from = (a.table as *const W).offset(if known { id as isize * width as isize } else { 0 });
            for at in 0..width {
                let value = if known { T::narrow(from.add(at).read_unaligned().wide()) } else { T::ZERO };
                to.add(at).write_unaligned(value);
            }
        }
    }
}

/// `Gather`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn gather<T: Scalar>(a: &GatherArguments) {
    let (width, count) = (size(a.width), size(a.count));
    for r in 0..size(a.batch) * count {
        let (batch, i) = ((r / count) as i64, (r % count) as i64);
        // SAFETY: that of the caller; positions outside read nothing.
        unsafe {
            let index = (batch * a.index_row + i * a.index_inner) as isize;
            let at = (a.index as *const i64).offset(index).read_unaligned();
            let to = (a.out as *mut T).add(r * width);
            if at >= 0 && at < i64::from(a.length) {
                let from = (a.x as *const T).offset((batch * a.x_row + at * a.x_position) as isize);
                std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast(), width * size_of::<T>());
            } else {
                std::ptr::write_bytes(to.cast::<u8>(), 0, width * size_of::<T>());
            }
        }
    }
}

/// `Iota`.
///
/// # Safety
/// The address is valid.
pub unsafe fn iota(a: &IotaArguments) {
    for i in 0..size(a.count) {
        // SAFETY: that of the caller.
        unsafe { (a.out as *mut i64).add(i).write_unaligned(i as i64) };
    }
}

/// `Read`: every word is read once and has a part in the first result; the others are zero.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn read(form: Form, pool: &Pool, a: &ReadArguments) {
    const PIECE_WORDS: usize = 1 << 16;
    let words = usize::try_from(a.words).unwrap_or(0);
    let all = std::sync::atomic::AtomicU64::new(0);
    pool.share(words.div_ceil(PIECE_WORDS), words, &|piece| {
        let first = piece * PIECE_WORDS;
        let count = PIECE_WORDS.min(words - first);
        // SAFETY: that of the caller.
        let part = with(form, ReadWork(unsafe { (a.data as *const u64).add(2 * first) }, count));
        all.fetch_xor(part, std::sync::atomic::Ordering::Relaxed);
    });
    // SAFETY: that of the caller.
    unsafe { (a.out as *mut u64).write_unaligned(all.into_inner()) };
}

struct ReadWork(*const u64, usize);

impl Work for ReadWork {
    type Output = u64;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> u64 {
        const SUMS: usize = 4;
        // Vectors by hand: left to itself the compiler gathers single numbers, at a fifth of the rate.
        let (vectors, words) = (self.1 / 4, self.0.cast::<f32>());
        let whole = vectors / SUMS * SUMS;
        let mut all = 0;
        // SAFETY: that of the caller of `read`: 16 bytes a word, four words a vector.
        unsafe {
            let mut sums = [L::splat(0.0); SUMS];
            for at in (0..whole).step_by(SUMS) {
                for (by, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.xor(L::load(words.add((at + by) * LANES)));
                }
            }
            let mut kept = [0u64; LANES / 2];
            for sum in sums {
                sum.store(kept.as_mut_ptr().cast());
                all = kept.iter().fold(all, |all, part| all ^ part);
            }
            for at in 8 * whole..2 * self.1 {
                all ^= self.0.add(at).read_unaligned();
            }
        }
        all
    }
}
