//! Randomness of sampling: the counter-based generator Philox4x32-10 (Salmon et al., SC 2011). Owns the mapping from
//! (seed, sample, token) to a uniform number; holds no state, so results do not depend on batching or order.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words of a counter under a key.
#[must_use]
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let (high0, low0) = wide_product(MULTIPLIERS[0], counter[0]);
        let (high1, low1) = wide_product(MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

/// The uniform number in `[0, 1)`, a multiple of 2^-24, that draws token `token` (counted among the generated ones)
/// of sample `sample` under `seed`.
#[must_use]
pub fn uniform(seed: u64, sample: u64, token: u64) -> f32 {
    let [seed_low, seed_high] = halves(seed);
    let [sample_low, sample_high] = halves(sample);
    let [token_low, token_high] = halves(token);
    let words = philox4x32([token_low, token_high, sample_low, sample_high], [seed_low, seed_high]);
    // 24 bits are a whole number that f32 holds exactly.
    (words[0] >> 8) as f32 * (1.0 / 16_777_216.0)
}

fn wide_product(a: u32, b: u32) -> (u32, u32) {
    let [low, high] = halves(u64::from(a) * u64::from(b));
    (high, low)
}

fn halves(value: u64) -> [u32; 2] {
    [(value & 0xFFFF_FFFF) as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::{philox4x32, uniform};

    // The known answers published with the Random123 library (kat_vectors).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniforms_lie_in_the_unit_interval_and_depend_on_every_part_of_the_key() {
        let mean = (0..4096).map(|token| f64::from(uniform(7, 0, token))).sum::<f64>() / 4096.0;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
        let base = uniform(1, 2, 3);
        assert!((0.0..1.0).contains(&base));
        assert!(base != uniform(1 << 33, 2, 3) && base != uniform(1, 3, 3) && base != uniform(1, 2, 4));
    }
}
