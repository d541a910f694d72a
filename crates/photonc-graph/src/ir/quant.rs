//! Weights in few bits: what a stored code means, and which code stands for a number. Owns the schemes, all symmetric
//! (zero is zero); knows neither files nor graphs.
//!
//! A matrix `[N, K]` is `code * scale` with one f32 scale for each group of elements. The largest magnitude of a group
//! gets the largest code; codes are rounded to nearest, ties to even.

use super::attr::Scheme;

/// Elements of a row that share a scale in `int4`.
pub const BLOCK: usize = 32;

/// Largest magnitude that is used of E4M3.
const FP8_MAX: f32 = 448.0;

impl Scheme {
    /// Magnitude of the largest code.
    #[must_use]
    pub fn limit(self) -> f32 {
        match self {
            Scheme::Int8 => 127.0,
            Scheme::Int4 => 7.0,
            Scheme::Fp8 => FP8_MAX,
        }
    }

    /// Name of the codes of a weight, in files and models; their scales end in `.scale`.
    #[must_use]
    pub fn key(self, weight: &str) -> String {
        format!("{weight}@{}", self.name())
    }

    /// Sizes of the scales of a matrix `[rows, columns]`; `None` if the scheme does not fit it.
    #[must_use]
    pub fn scale_shape(self, [rows, columns]: [usize; 2]) -> Option<Vec<usize>> {
        match self {
            Scheme::Int8 => Some(vec![rows]),
            Scheme::Int4 => (columns > 0 && columns % BLOCK == 0).then(|| vec![rows, columns / BLOCK]),
            Scheme::Fp8 => Some(Vec::new()),
        }
    }

    /// Type and sizes by which a safetensors file has the codes of a matrix `[rows, columns]`.
    #[must_use]
    pub fn stored_as(self, [rows, columns]: [usize; 2]) -> (&'static str, [usize; 2]) {
        match self {
            Scheme::Int8 => ("I8", [rows, columns]),
            Scheme::Int4 => ("U8", [rows, columns / 2]),
            Scheme::Fp8 => ("F8_E4M3", [rows, columns]),
        }
    }

    /// Successive elements, row-major, that share a scale.
    #[must_use]
    pub fn group(self, [rows, columns]: [usize; 2]) -> usize {
        match self {
            Scheme::Int8 => columns,
            Scheme::Int4 => BLOCK,
            Scheme::Fp8 => rows * columns,
        }
    }

    /// Bytes of the codes of `elements` elements; two codes of `int4` share a byte, the first in its lower half.
    #[must_use]
    pub fn code_bytes(self, elements: usize) -> usize {
        match self {
            Scheme::Int8 | Scheme::Fp8 => elements,
            Scheme::Int4 => elements.div_ceil(2),
        }
    }

    /// The scale of a group whose largest magnitude is `largest`; a group of zeros has scale 1.
    #[must_use]
    pub fn scale(self, largest: f32) -> f32 {
        let scale = largest / self.limit();
        // The quotient of a subnormal number may be 0.
        if scale > 0.0 { scale } else { 1.0 }
    }

    /// The code of an element: two's complement, or the bits of E4M3.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of the codes")]
    pub fn encode(self, value: f32, scale: f32) -> u8 {
        let scaled = (value / scale).clamp(-self.limit(), self.limit());
        match self {
            Scheme::Int8 => (scaled.round_ties_even() as i8).cast_unsigned(),
            Scheme::Int4 => (scaled.round_ties_even() as i8).cast_unsigned() & 0xf,
            Scheme::Fp8 => e4m3(scaled),
        }
    }

    /// The element that a code stands for.
    #[must_use]
    pub fn decode(self, code: u8, scale: f32) -> f64 {
        let number = match self {
            Scheme::Int8 => f64::from(code.cast_signed()),
            // Shifting up and down again extends the sign.
            Scheme::Int4 => f64::from((code << 4).cast_signed() >> 4),
            Scheme::Fp8 if code & 0x80 == 0 => magnitude(code),
            Scheme::Fp8 => -magnitude(code & 0x7f),
        };
        number * f64::from(scale)
    }

    /// The code of element `at` of codes as they are stored.
    #[must_use]
    fn code(self, codes: &[u8], at: usize) -> u8 {
        match self {
            Scheme::Int4 => codes[at / 2] >> (4 * (at % 2)) & 0xf,
            Scheme::Int8 | Scheme::Fp8 => codes[at],
        }
    }

    /// The elements of rows whose codes and scales are given as they are stored; `None` if their numbers do not fit.
    #[must_use]
    pub fn decoded(self, [rows, columns]: [usize; 2], codes: &[u8], scales: &[f32]) -> Option<Vec<f64>> {
        let elements = rows.checked_mul(columns)?;
        let wanted = self.scale_shape([rows, columns])?.iter().product::<usize>();
        if codes.len() != self.code_bytes(elements) || wanted != scales.len() {
            return None;
        }
        let group = self.group([rows, columns]).max(1);
        Some((0..elements).map(|at| self.decode(self.code(codes, at), scales[at / group])).collect())
    }

    /// The codes of a matrix and their scales, as they are stored; `None` if the scheme does not fit it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "stored weights are f32 at most")]
    pub fn coded(self, shape: [usize; 2], values: &[f64]) -> Option<(Vec<u8>, Vec<f32>)> {
        self.scale_shape(shape)?;
        let (mut codes, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
        for group in values.chunks(self.group(shape).max(1)) {
            let largest = group.iter().fold(0f32, |largest, value| largest.max((*value as f32).abs()));
            let scale = self.scale(largest);
            scales.push(scale);
            codes.extend(group.iter().map(|value| self.encode(*value as f32, scale)));
        }
        if self == Scheme::Int4 {
            codes = codes.as_chunks::<2>().0.iter().map(|[low, high]| low | (high << 4)).collect();
        }
        Some((codes, scales))
    }

    /// A matrix as its codes give it back; `None` if the scheme does not fit it.
    #[must_use]
    pub fn rounded(self, shape: [usize; 2], values: &[f64]) -> Option<Vec<f64>> {
        let (codes, scales) = self.coded(shape, values)?;
        self.decoded(shape, &codes, &scales)
    }
}

/// The number of a positive code of E4M3: four bits of exponent (bias 7), three of mantissa, subnormal below 2^-6.
fn magnitude(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3), f64::from(code & 7) / 8.0);
    if exponent == 0 { mantissa * 2f64.powi(-6) } else { (1.0 + mantissa) * 2f64.powi(exponent - 7) }
}

/// The nearest number of E4M3 to one of at most `FP8_MAX`, ties to the even code.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most sixteen steps")]
fn e4m3(value: f32) -> u8 {
    /// Exponent of the smallest normal number; below it numbers are as far apart as above.
    const LEAST: i32 = -6;
    // A subnormal f32 is far below.
    let exponent = ((value.abs().to_bits() >> 23) as i32 - 127).max(LEAST);
    // Eight steps from a power of two to the next; a division by a power of two is exact.
    let steps = (f64::from(value.abs()) / 2f64.powi(exponent - 3)).round_ties_even() as u8;
    // Sixteen steps are the next exponent, fewer than eight a subnormal number: the sum carries into the exponent's bits.
    let code = (((exponent - LEAST) as u8) << 3) + steps;
    if value.is_sign_negative() { code | 0x80 } else { code }
}

#[cfg(test)]
mod tests {
    use super::Scheme;

    #[test]
    fn integers_round_to_even_and_reach_both_ends() {
        for (scheme, limit) in [(Scheme::Int8, 127), (Scheme::Int4, 7)] {
            for code in -limit..=limit {
                let number = code as f32 * 0.5;
                assert_eq!(
                    scheme.decode(scheme.encode(number, 0.5), 0.5),
                    f64::from(number),
                    "{scheme:?} {code}"
                );
            }
            assert_eq!(scheme.decode(scheme.encode(2.5, 1.0), 1.0), 2.0);
            assert_eq!(scheme.decode(scheme.encode(-3.5, 1.0), 1.0), -4.0);
            assert_eq!(scheme.decode(scheme.encode(1e9, 1.0), 1.0), f64::from(limit));
        }
    }

    #[test]
    fn e4m3_is_itself_and_rounds_to_the_nearest() {
        for code in (0..0x7fu8).chain(0x80..0xff) {
            let number = Scheme::Fp8.decode(code, 1.0);
            assert_eq!(Scheme::Fp8.encode(number as f32, 1.0), code, "{number}");
        }
        let through = |x: f32| Scheme::Fp8.decode(Scheme::Fp8.encode(x, 1.0), 1.0);
        // Between 16 and 18 the tie goes to the even mantissa, between 18 and 20 up.
        assert_eq!([through(17.0), through(17.01), through(19.0), through(448.0)], [16.0, 18.0, 20.0, 448.0]);
        assert_eq!(through(2f32.powi(-10)), 0.0);
        assert_eq!(through(-(3.0 * 2f32.powi(-10))), -(2f64.powi(-8)));
    }

    #[test]
    fn errors_stay_below_half_a_step_of_their_group() {
        let values: Vec<f64> =
            (0..128).map(|i| ((i * 37 % 101) as f64 - 50.0) * 0.01 * (1.0 + i as f64)).collect();
        for scheme in [Scheme::Int8, Scheme::Int4] {
            let rounded = scheme.rounded([2, 64], &values).expect("fits");
            let group = scheme.group([2, 64]);
            for (values, rounded) in values.chunks(group).zip(rounded.chunks(group)) {
                let step = values.iter().fold(0f64, |a, b| a.max(b.abs())) / f64::from(scheme.limit());
                assert!(values.iter().zip(rounded).all(|(a, b)| (a - b).abs() <= step * 0.500_01));
            }
        }
        assert_eq!(Scheme::Int4.rounded([1, 33], &[0.0; 33]), None);
        assert_eq!(Scheme::Int8.rounded([1, 2], &[0.0, 0.0]), Some(vec![0.0, 0.0]));
    }
}
