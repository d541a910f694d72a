//! Sixteen f32 numbers at once, in the instructions that the processor has. Owns the order in which a row of products is
//! summed, the same in every form: lane `l` sums the elements `l`, `l + 16`, .. by fused multiply-adds, then the upper half
//! of the lanes is added to the lower, four times. The last, partial sixteen are filled up with zeros.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use portable::Portable;

/// Numbers in a vector.
pub const LANES: usize = 16;

/// Sixteen f32 numbers.
///
/// # Safety
/// Every method is called only where the processor has the form's instructions, from functions that are compiled for them;
/// pointers are valid for sixteen elements, aligned to one byte.
#[allow(clippy::missing_safety_doc, reason = "the contract of all methods is the trait's")]
pub unsafe trait Lanes: Copy {
    /// Rows and columns of the result that a wide product computes at once, at most 6 and 4.
    const TILE: [usize; 2];

    /// `value` in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen f32.
    unsafe fn load(from: *const f32) -> Self;
    /// Sixteen bf16, widened.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Sixteen f16, widened.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// Sixteen signed bytes.
    unsafe fn load_i8(from: *const u8) -> Self;
    /// Sixteen E4M3 numbers.
    unsafe fn load_fp8(from: *const u8) -> Self;
    /// Sixteen signed halves of eight bytes, the lower half of a byte first.
    unsafe fn load_i4(from: *const u8) -> Self;
    /// Stores sixteen f32.
    unsafe fn store(self, to: *mut f32);
    /// `self * by + to`, rounded once.
    unsafe fn fma(self, by: Self, to: Self) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// The bits that differ.
    unsafe fn xor(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// The larger of each pair; `other` where one is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller of each pair; `other` where one is NaN.
    unsafe fn min(self, other: Self) -> Self;
    /// The nearest whole numbers, ties to even.
    unsafe fn round(self) -> Self;
    /// `2^self` of whole numbers from -126 to 127.
    unsafe fn power_of_two(self) -> Self;
    /// The sum of the lanes, upper halves added to lower ones.
    unsafe fn sum(self) -> f32;
    /// Four sums.
    #[inline(always)]
    unsafe fn sum4(vectors: [Self; 4]) -> [f32; 4] {
        // SAFETY: that of the caller.
        vectors.map(|vector| unsafe { vector.sum() })
    }
    /// Asks for the line of an address, which need not be valid.
    #[inline(always)]
    unsafe fn prefetch(_address: *const u8) {}
}

/// Which instructions kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Plain Rust.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512F, and what `Avx2` has.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AArch64.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Form {
    /// Every form that this processor can run, the best last.
    #[must_use]
    pub fn usable() -> Vec<Form> {
        #[allow(unused_mut, reason = "only some architectures have more than one form")]
        let mut forms = vec![Form::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            forms.push(Form::Avx2);
            if is_x86_feature_detected!("avx512f") {
                forms.push(Form::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        forms.push(Form::Neon);
        forms
    }

    /// The best form of this processor.
    #[must_use]
    pub fn best() -> Form {
        Form::usable().last().copied().unwrap_or(Form::Portable)
    }

    /// Name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Form::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Form::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Form::Neon => "NEON",
        }
    }
}

/// Work that is written once for all forms.
pub trait Work {
    /// What it yields.
    type Output;

    /// Does it.
    ///
    /// # Safety
    /// The processor has the form's instructions.
    unsafe fn run<L: Lanes>(self) -> Self::Output;
}

/// Does `work` in a form that this processor has.
#[inline]
pub fn with<W: Work>(form: Form, work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<W: Work>(work: W) -> W::Output {
        // SAFETY: that of the caller.
        unsafe { work.run::<Avx2>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    unsafe fn avx512<W: Work>(work: W) -> W::Output {
        // SAFETY: that of the caller.
        unsafe { work.run::<Avx512>() }
    }
    // SAFETY: a form exists only where the processor was found to have its instructions (`Form::usable`).
    unsafe {
        match form {
            Form::Portable => work.run::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            Form::Avx2 => avx2(work),
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 => avx512(work),
            #[cfg(target_arch = "aarch64")]
            Form::Neon => work.run::<Neon>(),
        }
    }
}

/// `exp` of every lane, within two units in the last place; 0 below -104, infinity above 88.8.
///
/// # Safety
/// As `Lanes`.
#[inline(always)]
pub unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: that of the caller.
    unsafe {
        // exp(x) = 2^n exp(r) with |r| <= ln(2) / 2; the Taylor series to r^7 leaves less than 2^-26. Two factors of 2^(n/2)
        // reach every finite result.
        let x = L::splat(89.0).min(L::splat(-104.0).max(x));
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let r = n.fma(L::splat(-0.693_359_4), x);
        let r = n.fma(L::splat(2.121_944_4e-4), r);
        let mut p = L::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.fma(r, L::splat(c));
        }
        let half = n.mul(L::splat(0.5)).round();
        p.mul(half.power_of_two()).mul(n.sub(half).power_of_two())
    }
}

/// `1 / (1 + exp(-x))` of every lane.
///
/// # Safety
/// As `Lanes`.
#[inline(always)]
pub unsafe fn sigmoid<L: Lanes>(x: L) -> L {
    // SAFETY: that of the caller.
    unsafe { L::splat(1.0).div(L::splat(1.0).add(exp(L::splat(0.0).sub(x)))) }
}

/// `x * sigmoid(x)` of every lane.
///
/// # Safety
/// As `Lanes`.
#[inline(always)]
pub unsafe fn silu<L: Lanes>(x: L) -> L {
    // SAFETY: that of the caller.
    unsafe { x.mul(sigmoid(x)) }
}

#[cfg(test)]
mod tests {
    use super::{Form, LANES, Lanes, Work, exp, with};

    struct Every<'a>(&'a [f32; LANES], &'a [u8; 64]);

    impl Work for Every<'_> {
        type Output = Vec<u32>;

        unsafe fn run<L: Lanes>(self) -> Vec<u32> {
            let mut out = Vec::new();
            // SAFETY: both arrays have sixteen elements of every type read.
            unsafe {
                let (x, bytes) = (L::load(self.0.as_ptr()), self.1.as_ptr());
                let bf16 = L::load_bf16(bytes.cast());
                let y = L::load_i8(bytes.add(1));
                let results = [
                    x,
                    bf16,
                    L::load_f16(bytes.add(1).cast()),
                    y,
                    L::load_fp8(bytes.add(3)),
                    L::load_i4(bytes.add(5)),
                    x.fma(y, x),
                    x.add(y),
                    x.sub(y),
                    // Its sign, so that no form has a NaN here.
                    x.xor(L::splat(-0.0)),
                    x.mul(y),
                    x.div(y),
                    x.max(y),
                    x.min(y),
                    x.round(),
                    exp(x),
                    y.min(L::splat(100.0)).power_of_two(),
                ];
                for result in results {
                    let mut values = [0.0f32; LANES];
                    result.store(values.as_mut_ptr());
                    // One NaN is as good as another.
                    out.extend(values.map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }));
                }
                out.push(x.sum().to_bits());
                out.extend(L::sum4([x, y, x.mul(x), x.sub(y)]).map(f32::to_bits));
                assert_eq!(L::sum4([x, y, x, y])[1].to_bits(), y.sum().to_bits());
            }
            out
        }
    }

    // Results do not depend on what a processor has: every form gives the same bits.
    #[test]
    fn every_form_computes_the_same_bits() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        // Miri takes a second for each.
        let cases = if cfg!(miri) { 3 } else { 200 };
        for _ in 0..cases {
            let floats: [f32; LANES] = std::array::from_fn(|_| {
                (next() as f32 / 2f32.powi(30) - 1.0) * 2f32.powi((next() % 12) as i32 - 4)
            });
            let bytes: [u8; 64] = std::array::from_fn(|_| (next() >> 7) as u8);
            let expected = with(Form::Portable, Every(&floats, &bytes));
            for form in Form::usable() {
                assert_eq!(with(form, Every(&floats, &bytes)), expected, "{form:?} of {floats:?}");
            }
        }
    }

    struct Exp([f32; LANES]);

    impl Work for Exp {
        type Output = [f32; LANES];

        unsafe fn run<L: Lanes>(mut self) -> [f32; LANES] {
            // SAFETY: the array has sixteen elements.
            unsafe { exp(L::load(self.0.as_ptr())).store(self.0.as_mut_ptr()) };
            self.0
        }
    }

    #[test]
    fn the_exponential_is_within_two_units() {
        for i in (-1040i16..890).step_by(if cfg!(miri) { 193 } else { 1 }) {
            let x: [f32; LANES] = std::array::from_fn(|lane| f32::from(i) / 10.0 + lane as f32 / 160.0);
            for (x, found) in x.into_iter().zip(with(Form::best(), Exp(x))) {
                let expected = f64::from(x).exp();
                let unit = (expected * f64::from(f32::EPSILON)).max(2f64.powi(-149));
                let close = (f64::from(found) - expected).abs() <= 2.0 * unit;
                assert!(close || expected > f64::from(f32::MAX) && found.is_infinite(), "exp({x}) = {found}");
            }
        }
        let ends = with(Form::best(), Exp([f32::NEG_INFINITY; LANES]));
        assert_eq!(ends[0], 0.0);
    }
}
