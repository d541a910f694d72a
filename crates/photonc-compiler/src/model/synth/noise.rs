//! Random weights by counter: element `n` of a tensor depends on the tensor's key and `n` alone, so that pieces can be made
//! in any order on any number of threads. Owns the generator; integer operations and single roundings only, the same on
//! every platform.

use half::f16;

use photonc_graph::ir::dtype::Dtype;

/// Elements of one tensor: a bell around `mean`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noise {
    key: u64,
    mean: f32,
    /// Step between neighbouring values.
    scale: f32,
}

impl Noise {
    /// The stream of tensor `name` under `seed`, with that mean and standard deviation.
    pub fn new(seed: u64, name: &str, mean: f64, deviation: f64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let mut key = [0u8; 8];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // The variance of a sum of four uniform 16-bit numbers is 4 (2^32 - 1) / 12.
        let unit = (f64::from(u32::MAX) / 3.0).sqrt();
        Noise { key: u64::from_le_bytes(key), mean: mean as f32, scale: (deviation / unit) as f32 }
    }

    /// Element `index`.
    pub fn element(self, index: u64) -> f32 {
        let bits = mixed(self.key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        // At most 18 bits: exact in f32.
        let centred = sum as i32 - 2 * 0xffff;
        self.mean + centred as f32 * self.scale
    }

    /// Fills `bytes` with little-endian elements from `first` on, rounded to nearest even in `dtype`. A type that holds no
    /// weights is left as it is.
    pub fn fill(self, first: u64, dtype: Dtype, bytes: &mut [u8]) {
        let elements = (first..).map(|index| self.element(index));
        match dtype {
            Dtype::F32 => {
                for (slot, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(elements) {
                    *slot = value.to_le_bytes();
                }
            }
            Dtype::F16 => {
                for (slot, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(elements) {
                    *slot = f16::from_f32(value).to_le_bytes();
                }
            }
            Dtype::Bf16 => {
                for (slot, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(elements) {
                    *slot = rounded_bf16(value).to_le_bytes();
                }
            }
            Dtype::I64 | Dtype::Bool => {}
        }
    }
}

/// Bits of a finite number rounded to nearest even; without the tests for NaN that a general conversion makes.
fn rounded_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn elements_have_the_asked_mean_and_deviation() {
        let noise = Noise::new(7, "w", 1.0, 0.25);
        let values: Vec<f64> = (0..200_000).map(|index| f64::from(noise.element(index))).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 1.0).abs() < 0.003 && (variance.sqrt() - 0.25).abs() < 0.003, "{mean} {variance}");
    }

    /// Pinned: a change here changes every synthesised checkpoint.
    #[test]
    fn elements_are_pinned() {
        let noise = Noise::new(0, "embed.weight", 0.0, 1.0);
        let bits: Vec<u32> = (0..4).map(|index| noise.element(index).to_bits()).collect();
        assert_eq!(bits, [1_068_494_912, 3_182_613_905, 1_049_723_260, 3_201_790_829]);
    }

    #[test]
    fn bf16_rounds_as_the_general_conversion() {
        let noise = Noise::new(1, "w", 0.0, 1.0);
        let values = (0..100_000).map(|index| noise.element(index));
        // Halfway cases on both sides of even.
        let ties = [0x3f80_8000, 0x3f81_8000, 0xbf80_8000].map(f32::from_bits);
        for value in values.chain(ties) {
            assert_eq!(rounded_bf16(value), bf16::from_f32(value).to_bits(), "{value}");
        }
    }

    #[test]
    fn a_piece_equals_its_elements() {
        let noise = Noise::new(3, "w", 0.0, 0.02);
        let mut bytes = [0u8; 40];
        noise.fill(1_000, Dtype::F32, &mut bytes);
        assert_eq!(bytes[36..], noise.element(1_009).to_le_bytes());
        noise.fill(1_000, Dtype::Bf16, &mut bytes);
        assert_eq!(bytes[2..4], bf16::from_f32(noise.element(1_001)).to_le_bytes());
    }
}
