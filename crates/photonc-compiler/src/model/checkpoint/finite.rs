//! The search for NaN and infinite weights in raw bytes. Owns the bit tests; whether such a weight is an error is the
//! caller's decision.

use photonc_graph::ir::dtype::Dtype;

/// Elements tested together: a block without a hit costs one branch, and its loop has none.
const BLOCK: usize = 4096;

/// Index of the first NaN or infinite element among little-endian elements of a floating-point type; `None` when all are
/// finite, and for types that cannot hold one. Trailing bytes short of an element are not looked at.
///
/// A number is not finite where every exponent bit is set.
#[must_use]
pub fn first_nonfinite(dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    match dtype {
        Dtype::F32 => first_in(bytes.as_chunks::<4>().0, |element| {
            const EXPONENT: u32 = 0x7f80_0000;
            u32::from_le_bytes(element) & EXPONENT == EXPONENT
        }),
        Dtype::F16 => first_in(bytes.as_chunks::<2>().0, |element| {
            const EXPONENT: u16 = 0x7c00;
            u16::from_le_bytes(element) & EXPONENT == EXPONENT
        }),
        Dtype::Bf16 => first_in(bytes.as_chunks::<2>().0, |element| {
            const EXPONENT: u16 = 0x7f80;
            u16::from_le_bytes(element) & EXPONENT == EXPONENT
        }),
        Dtype::I64 | Dtype::Bool => None,
    }
}

fn first_in<const N: usize>(elements: &[[u8; N]], nonfinite: impl Fn([u8; N]) -> bool) -> Option<usize> {
    for (block, chunk) in elements.chunks(BLOCK).enumerate() {
        let hit = chunk.iter().fold(false, |hit, &element| hit | nonfinite(element));
        if hit {
            return chunk.iter().position(|&element| nonfinite(element)).map(|at| block * BLOCK + at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn finds_the_first_in_every_type() {
        let mut f32s = vec![1.0f32; 10_000];
        f32s[9_000] = f32::NAN;
        f32s[9_500] = f32::INFINITY;
        let bytes: Vec<u8> = f32s.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(first_nonfinite(Dtype::F32, &bytes), Some(9_000));
        let bytes: Vec<u8> =
            [f16::MAX, f16::MIN_POSITIVE, f16::NEG_INFINITY].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(first_nonfinite(Dtype::F16, &bytes), Some(2));
        let bytes: Vec<u8> = [bf16::MAX, bf16::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(first_nonfinite(Dtype::Bf16, &bytes), Some(1));
    }

    #[test]
    fn extremes_that_are_finite_pass() {
        let bytes: Vec<u8> = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e-45]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(first_nonfinite(Dtype::F32, &bytes), None);
    }
}
