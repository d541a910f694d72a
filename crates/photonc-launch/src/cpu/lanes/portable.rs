//! Lanes in plain Rust, for processors without a form of their own.

use super::{LANES, Lanes};
use half::{bf16, f16};

/// An array.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn each(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    /// # Safety
    /// `from` is valid for sixteen elements.
    #[inline(always)]
    unsafe fn read<E>(from: *const E, f: impl Fn(E) -> f32) -> Self {
        // SAFETY: that of the caller.
        Portable(std::array::from_fn(|lane| f(unsafe { from.add(lane).read_unaligned() })))
    }
}

/// The number of an E4M3 code; the codes of NaN count on.
fn e4m3(code: u8) -> f32 {
    let (sign, rest) = (u32::from(code & 0x80) << 24, u32::from(code & 0x7f) << 20);
    // The exponent's bias is 7 there and 127 here.
    f32::from_bits(sign | rest) * f32::from_bits(0x7b80_0000)
}

// SAFETY: needs no instructions beyond the architecture's own.
unsafe impl Lanes for Portable {
    const TILE: [usize; 2] = [1, 1];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: that of the caller.
        unsafe { Self::read(from, |value| value) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: that of the caller.
        unsafe { Self::read(from, |bits| bf16::from_bits(bits).to_f32()) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: that of the caller.
        unsafe { Self::read(from, |bits| f16::from_bits(bits).to_f32()) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        // SAFETY: that of the caller.
        unsafe { Self::read(from, |code| f32::from(code.cast_signed())) }
    }
    #[inline(always)]
    unsafe fn load_fp8(from: *const u8) -> Self {
        // SAFETY: that of the caller.
        unsafe { Self::read(from, e4m3) }
    }
    #[inline(always)]
    unsafe fn load_i4(from: *const u8) -> Self {
        Portable(std::array::from_fn(|lane| {
            // SAFETY: that of the caller: eight bytes.
            let byte = unsafe { from.add(lane / 2).read() };
            f32::from(((byte >> (4 * (lane % 2))) << 4).cast_signed() >> 4)
        }))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for (lane, value) in self.0.into_iter().enumerate() {
            // SAFETY: that of the caller.
            unsafe { to.add(lane).write_unaligned(value) };
        }
    }
    #[inline(always)]
    unsafe fn fma(self, by: Self, to: Self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane].mul_add(by.0[lane], to.0[lane])))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        self.each(other, |a, b| f32::from_bits(a.to_bits() ^ b.to_bits()))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.each(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.each(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.each(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.each(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Portable(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers from -126 to 127")]
        Portable(self.0.map(|value| f32::from_bits(((value as i32 + 127).cast_unsigned()) << 23)))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = self.0;
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        lanes[0]
    }
}
