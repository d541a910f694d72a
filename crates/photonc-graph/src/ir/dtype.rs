//! Element types of graph values and of stored weights. Owns names, sizes, and what a number becomes in a type; refuses
//! conversion of stored data.

use half::{bf16, f16};
use std::fmt;

/// Element type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of binary32.
    Bf16,
    /// Two's complement 64-bit integer: token ids, lengths, positions.
    I64,
    /// Truth value, one byte.
    Bool,
}

impl Dtype {
    /// Every element type, in declaration order.
    pub const ALL: [Dtype; 5] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::I64, Dtype::Bool];

    /// Name in graph text, manifests and options: `f32`, `bf16`, ...
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::I64 => "i64",
            Dtype::Bool => "bool",
        }
    }

    /// The type of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Size of one element in bytes.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Dtype::I64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Bool => 1,
        }
    }

    /// Whether every number of this type is one of `to`: floats as themselves, and any as f32.
    #[must_use]
    pub fn widens_to(self, to: Dtype) -> bool {
        self.is_float() && (self == to || to == Dtype::F32)
    }

    /// Whether elements are floating-point numbers.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::Bf16)
    }

    /// Whether elements are floating-point numbers of two bytes, to which the reference semantics round.
    #[must_use]
    pub fn is_narrow(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::Bf16)
    }

    /// What `value` is as an element of a narrow type: the nearest one, ties to even, infinite where it is too large.
    /// Other types keep it: f32 stands for exact arithmetic in the reference semantics.
    #[must_use]
    pub fn round(self, value: f64) -> f64 {
        match self {
            Dtype::F16 => f16::from_f64(value).to_f64(),
            Dtype::Bf16 => bf16::from_f64(value).to_f64(),
            Dtype::F32 | Dtype::I64 | Dtype::Bool => value,
        }
    }

    /// Largest relative error of rounding to this type, 2^-p with p significant bits; 0 where nothing is rounded.
    #[must_use]
    pub fn unit_roundoff(self) -> f64 {
        match self {
            Dtype::F32 => 2f64.powi(-24),
            Dtype::F16 => 2f64.powi(-11),
            Dtype::Bf16 => 2f64.powi(-8),
            Dtype::I64 | Dtype::Bool => 0.0,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Dtype;

    #[test]
    fn narrow_types_round_to_nearest_even_and_overflow_to_infinity() {
        // Between 1 and 1 + 2^-10 (f16), 1 + 2^-7 (bf16): the tie goes to the even neighbour.
        assert_eq!(Dtype::F16.round(1.0 + 2f64.powi(-11)), 1.0);
        assert_eq!(Dtype::F16.round(1.0 + 3.0 * 2f64.powi(-11)), 1.0 + 2f64.powi(-9));
        assert_eq!(Dtype::Bf16.round(1.0 + 2f64.powi(-8)), 1.0);
        assert_eq!(Dtype::F16.round(65_519.0), 65_504.0);
        assert_eq!(Dtype::F16.round(65_520.0), f64::INFINITY);
        assert_eq!(Dtype::Bf16.round(65_520.0), 65_536.0);
        assert_eq!(Dtype::F32.round(0.1), 0.1);
        for dtype in [Dtype::F16, Dtype::Bf16] {
            assert!(dtype.round(f64::NAN).is_nan());
            let worst = (1..4000).map(|i| 1.0 + f64::from(i) / 4000.0);
            let worst = worst.map(|x| (dtype.round(x) - x).abs() / x).fold(0.0, f64::max);
            assert!(worst <= dtype.unit_roundoff() && worst > 0.9 * dtype.unit_roundoff());
        }
    }
}
