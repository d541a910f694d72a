//! Lanes in AVX-512F: one register.

use super::Lanes;
#[allow(clippy::wildcard_imports, reason = "the names of instructions")]
use std::arch::x86_64::*;

/// One register.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

impl Avx512 {
    #[inline(always)]
    unsafe fn quarters_sum(x: __m512) -> __m512 {
        // SAFETY: that of the caller.
        unsafe {
            let x = _mm512_add_ps(x, _mm512_permute_ps::<0b01_00_11_10>(x));
            _mm512_add_ps(x, _mm512_permute_ps::<0b10_11_00_01>(x))
        }
    }
}

/// The upper half of each added to its lower one: that of `x`, then that of `y`.
#[inline(always)]
unsafe fn halves_sum(x: __m512, y: __m512) -> __m512 {
    // SAFETY: that of the caller.
    unsafe {
        let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(x, y);
        _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(x, y))
    }
}

// SAFETY: the instructions are those of AVX-512F and AVX2; `Form::usable` asks for both.
unsafe impl Lanes for Avx512 {
    const TILE: [usize; 2] = [6, 4];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: that of the caller, here and below.
        Avx512(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: as above.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
    }
    #[inline(always)]
    unsafe fn load_fp8(from: *const u8) -> Self {
        // SAFETY: as above.
        unsafe {
            let code = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            let sign = _mm512_slli_epi32::<24>(_mm512_and_si512(code, _mm512_set1_epi32(0x80)));
            let rest = _mm512_slli_epi32::<20>(_mm512_and_si512(code, _mm512_set1_epi32(0x7f)));
            let value = _mm512_castsi512_ps(_mm512_or_si512(sign, rest));
            Avx512(_mm512_mul_ps(value, _mm512_castsi512_ps(_mm512_set1_epi32(0x7b80_0000))))
        }
    }
    #[inline(always)]
    unsafe fn load_i4(from: *const u8) -> Self {
        // SAFETY: as above; eight bytes are read.
        unsafe {
            let bytes = _mm_loadl_epi64(from.cast());
            let codes = _mm_unpacklo_epi8(bytes, _mm_srli_epi16::<4>(bytes));
            let codes = _mm512_slli_epi32::<28>(_mm512_cvtepu8_epi32(codes));
            Avx512(_mm512_cvtepi32_ps(_mm512_srai_epi32::<28>(codes)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, by: Self, to: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_fmadd_ps(self.0, by.0, to.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe {
            let both = _mm512_xor_si512(_mm512_castps_si512(self.0), _mm512_castps_si512(other.0));
            _mm512_castsi512_ps(both)
        })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as above.
        Avx512(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let x = _mm512_add_ps(self.0, _mm512_shuffle_f32x4::<0b01_00_11_10>(self.0, self.0));
            let x = _mm512_add_ps(x, _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x));
            _mm512_cvtss_f32(Self::quarters_sum(x))
        }
    }
    // The adds of four `sum`, two or four of them in one instruction.
    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: as above.
        unsafe {
            let (ab, cd) = (halves_sum(a.0, b.0), halves_sum(c.0, d.0));
            let low = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
            let x = _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd));
            let x = Self::quarters_sum(x);
            [
                _mm512_cvtss_f32(x),
                _mm_cvtss_f32(_mm512_extractf32x4_ps::<1>(x)),
                _mm_cvtss_f32(_mm512_extractf32x4_ps::<2>(x)),
                _mm_cvtss_f32(_mm512_extractf32x4_ps::<3>(x)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}
