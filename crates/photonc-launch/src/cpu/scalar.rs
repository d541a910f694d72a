//! Elements of activations and weights, and how sixteen of them are read and written. Owns conversions; f32 is what kernels
//! compute in.

use super::lanes::{LANES, Lanes};
use half::{bf16, f16};

/// A type of activations.
///
/// # Safety
/// Any bits are a value, and there is no padding.
pub unsafe trait Scalar: Copy + Send + Sync + 'static {
    /// `x * norm` of a norm that a product computes is kept this much smaller, so that f16 does not overflow.
    const NORM_SHIFT: f32;
    /// All bits zero.
    const ZERO: Self;
    /// Whether it is f32 itself.
    const WIDE: bool;

    /// As f32, exactly.
    fn wide(self) -> f32;
    /// The nearest value, ties to even.
    fn narrow(value: f32) -> Self;
    /// Sixteen elements.
    ///
    /// # Safety
    /// As `Lanes`.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

// SAFETY: a float.
unsafe impl Scalar for f32 {
    const NORM_SHIFT: f32 = 1.0;
    const ZERO: Self = 0.0;
    const WIDE: bool = true;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: that of the caller.
        unsafe { L::load(from) }
    }
}

/// A float of sixteen bits.
macro_rules! short {
    ($type:ident, $load:ident, $shift:literal) => {
        // SAFETY: transparent around sixteen bits.
        unsafe impl Scalar for $type {
            const NORM_SHIFT: f32 = $shift;
            const ZERO: Self = $type::ZERO;
            const WIDE: bool = false;

            #[inline(always)]
            fn wide(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(value: f32) -> Self {
                $type::from_f32(value)
            }
            #[inline(always)]
            unsafe fn load<L: Lanes>(from: *const Self) -> L {
                // SAFETY: that of the caller.
                unsafe { L::$load(from.cast()) }
            }
        }
    };
}

short!(bf16, load_bf16, 1.0);
short!(f16, load_f16, 0.0625);

/// The first `count` of sixteen elements, the others zero.
///
/// # Safety
/// `from` is valid for `count` elements; else as `Lanes`.
#[inline(always)]
pub unsafe fn load_part<T: Scalar, L: Lanes>(from: *const T, count: usize) -> L {
    // SAFETY: that of the caller; the array has sixteen elements.
    unsafe {
        if count >= LANES {
            return T::load(from);
        }
        let mut part = [T::ZERO; LANES];
        std::ptr::copy_nonoverlapping(
            from.cast::<u8>(),
            part.as_mut_ptr().cast::<u8>(),
            count * size_of::<T>(),
        );
        T::load(part.as_ptr())
    }
}

/// Stores the first `count` lanes.
///
/// # Safety
/// `to` is valid for `count` elements; else as `Lanes`.
#[inline(always)]
pub unsafe fn store_part<T: Scalar, L: Lanes>(to: *mut T, lanes: L, count: usize) {
    // SAFETY: that of the caller; the array has sixteen elements.
    unsafe {
        if T::WIDE && count >= LANES {
            return lanes.store(to.cast());
        }
        let mut values = [0.0f32; LANES];
        lanes.store(values.as_mut_ptr());
        for (at, value) in values.iter().enumerate().take(count) {
            to.add(at).write_unaligned(T::narrow(*value));
        }
    }
}

/// Weights of a product: rows that are read sixteen columns at a time.
pub trait Weights: Copy + Send + Sync {
    /// Whether reading costs nothing but the memory.
    const WIDE: bool;

    /// Columns `column ..` of row `row`, `count` of them, the other lanes zero.
    ///
    /// # Safety
    /// The row has them; else as `Lanes`.
    unsafe fn part<L: Lanes>(&self, row: usize, column: usize, count: usize) -> L;

    /// Sixteen columns from `column` on of row `row`.
    ///
    /// # Safety
    /// The row has them; else as `Lanes`.
    #[inline(always)]
    unsafe fn whole<L: Lanes>(&self, row: usize, column: usize) -> L {
        // SAFETY: that of the caller.
        unsafe { self.part(row, column, LANES) }
    }
}

/// Rows of floats.
#[derive(Clone, Copy)]
pub struct Floats<T> {
    /// Row 0.
    pub base: *const T,
    /// Columns of a row.
    pub columns: usize,
}

// SAFETY: an address; who reads there says that it may.
unsafe impl<T: Scalar> Send for Floats<T> {}
// SAFETY: as above.
unsafe impl<T: Scalar> Sync for Floats<T> {}

impl<T: Scalar> Weights for Floats<T> {
    const WIDE: bool = T::WIDE;

    #[inline(always)]
    unsafe fn part<L: Lanes>(&self, row: usize, column: usize, count: usize) -> L {
        // SAFETY: that of the caller.
        unsafe { load_part(self.base.add(row * self.columns + column), count) }
    }
}

/// Rows of codes as they are stored, of scheme 0 (int8), 1 (int4) or 2 (fp8).
#[derive(Clone, Copy)]
pub struct Codes<const SCHEME: i32> {
    /// The codes.
    pub codes: *const u8,
    /// One for each row (int8, fp8) or for each 32 columns of a row (int4).
    pub scales: *const f32,
    /// Columns of a row.
    pub columns: usize,
}

// SAFETY: addresses; who reads there says that it may.
unsafe impl<const SCHEME: i32> Send for Codes<SCHEME> {}
// SAFETY: as above.
unsafe impl<const SCHEME: i32> Sync for Codes<SCHEME> {}

impl<const SCHEME: i32> Weights for Codes<SCHEME> {
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn part<L: Lanes>(&self, row: usize, column: usize, count: usize) -> L {
        let per_byte = if SCHEME == 1 { 2 } else { 1 };
        let mut part = [0u8; LANES];
        // SAFETY: that of the caller; the array has sixteen bytes.
        unsafe {
            let mut from = self.codes.add((row * self.columns + column) / per_byte);
            if count < LANES {
                std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), count.div_ceil(per_byte));
                from = part.as_ptr();
            }
            let (codes, scale) = match SCHEME {
                0 => (L::load_i8(from), row),
                1 => (L::load_i4(from), (row * self.columns + column) / 32),
                _ => (L::load_fp8(from), row),
            };
            codes.mul(L::splat(self.scales.add(scale).read_unaligned()))
        }
    }
}
