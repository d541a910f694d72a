//! Floats as stored: little-endian elements of a type, to and from binary64. Owns the rounding on the way down; integers
//! and truth values are no business of its.

use super::dtype::Dtype;
use half::{bf16, f16};

/// The floats that `bytes` hold, exact; bytes after the last whole element are left out. Of types that are no float: none.
#[must_use]
pub fn floats_of(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
        Dtype::Bf16 => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
        Dtype::I64 | Dtype::Bool => Vec::new(),
    }
}

/// `values` as elements of `dtype`, rounded to nearest by way of f32: what a device does that computes in f32. Of types
/// that are no float: none.
#[must_use]
pub fn bytes_of(dtype: Dtype, values: &[f64]) -> Vec<u8> {
    let values = values.iter().map(|value| narrow(*value));
    match dtype {
        Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        Dtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::Bf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        Dtype::I64 | Dtype::Bool => Vec::new(),
    }
}

/// The nearest f32.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
pub fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::{bytes_of, floats_of};
    use crate::ir::dtype::Dtype;

    #[test]
    fn every_float_type_holds_what_it_can() {
        for (dtype, exact) in [(Dtype::F32, 1.0 + 2f64.powi(-23)), (Dtype::F16, 1.0 + 2f64.powi(-10))] {
            assert_eq!(floats_of(dtype, &bytes_of(dtype, &[exact, -0.5])), [exact, -0.5], "{dtype}");
        }
        assert_eq!(floats_of(Dtype::Bf16, &bytes_of(Dtype::Bf16, &[3.140_625, 1.001])), [3.140_625, 1.0]);
    }

    #[test]
    fn part_of_an_element_is_no_element() {
        assert_eq!(floats_of(Dtype::F32, &[0, 0, 128, 63, 7]), [1.0]);
    }
}
