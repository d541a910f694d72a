//! Shapes of the launches of `codes.cu`: products with weights in few bits, and the weights themselves. Owns the choice
//! between its kernels, whose wants are written at the top of the source.

use super::launch::{LINEAR_WARPS, LaunchError, MOST_ACROSS, PARTIAL_BYTES, PIECE_BYTES, Streamed};
use super::launch::{Shape, THREADS, across_x, aligned, positive, walk};
use crate::launch::arguments::{CodesArguments, DequantizeArguments};
use crate::launch::device::Properties;
use photonc_graph::ir::dtype::Dtype;

/// A variant of `codes_m*`.
struct Variant {
    /// Rows of `x` at once.
    rows: usize,
    /// Tiles of 16 weight rows at once.
    tiles: usize,
    /// Steps that are copied ahead.
    stages: usize,
    /// Blocks that its registers let share a multiprocessor.
    resident: usize,
    name: &'static str,
}

const fn variant(rows: usize, tiles: usize, stages: usize, resident: usize, name: &'static str) -> Variant {
    Variant { rows, tiles, stages, resident, name }
}

/// Of codes of a byte.
const WHOLE: [Variant; 4] = [
    variant(8, 1, 5, 2, "codes_m8_r1"),
    variant(8, 2, 3, 2, "codes_m8_r2"),
    variant(16, 1, 3, 2, "codes_m16_r1"),
    variant(16, 2, 2, 2, "codes_m16_r2"),
];
/// Of codes of half a byte.
const HALF: [Variant; 4] = [
    variant(8, 1, 3, 2, "codes_m8_r1"),
    variant(8, 2, 2, 2, "codes_m8_r2"),
    variant(16, 1, 2, 2, "codes_m16_r1"),
    variant(16, 2, 3, 1, "codes_m16_r2"),
];

/// Whether 32 columns have a scale of their own; `GROUPED` of `codes.cuh`.
fn is_grouped(scheme: i32) -> bool {
    scheme == 1
}

impl Variant {
    /// Slots of all warps, their partial sums and their sums of squares.
    const fn shared_bytes(&self, grouped: bool) -> usize {
        let (units, scales) = if grouped { (4, 256 * self.tiles) } else { (2, 0) };
        let slot = (2 * self.tiles + units * self.rows / 8) * PIECE_BYTES + 64 * units + scales;
        LINEAR_WARPS * (self.stages * slot + self.rows * PARTIAL_BYTES + 4 * self.rows)
    }
}

/// The product with a weight in few bits.
///
/// # Errors
/// A size that is not positive or too large for a grid.
pub fn product(a: &CodesArguments, dtype: Dtype, properties: &Properties) -> Result<Shape, LaunchError> {
    let (kernel, l) = ("codes", &a.linear);
    let (rows, n) = (positive(kernel, "rows", l.rows)?, positive(kernel, "n", l.n)?);
    positive(kernel, "k", l.k)?;
    let suits = dtype != Dtype::F32
        && l.k % 8 == 0
        && (l.weight | l.norm | a.scales) & 15 == 0
        && aligned(&l.x, dtype);
    if suits && let Some(shape) = streamed(a, (rows, n), properties) {
        return Ok(shape);
    }
    let across = across_x(kernel, "n", n.div_ceil(64))?;
    let down = u32::try_from(rows.div_ceil(16)).unwrap_or(u32::MAX).min(MOST_ACROSS);
    Ok(Shape { name: "codes_any", grid: [across, down, 1], threads: THREADS, shared_bytes: 0 })
}

/// The tensor-core variant; `None` where the device has too little shared memory or the rows are too many.
fn streamed(a: &CodesArguments, sizes: (usize, usize), properties: &Properties) -> Option<Shape> {
    let (rows, n) = sizes;
    let wanted = if rows > 8 { 16 } else { 8 };
    let (gated, grouped) = (a.linear.mode == 1, is_grouped(a.scheme));
    // With several rows x comes from the cache again for each tile: larger tiles save half of that.
    let tiles_of_block = if gated || (rows > 4 && n > 32 * properties.multiprocessors) { 2 } else { 1 };
    let variants = if grouped { &HALF } else { &WHOLE };
    let fits = |variant: &&Variant| {
        variant.tiles == tiles_of_block
            && variant.rows <= wanted
            && variant.shared_bytes(grouped) <= properties.shared_bytes
    };
    let variant = variants.iter().rev().find(fits)?;
    Streamed {
        name: variant.name,
        shared_bytes: variant.shared_bytes(grouped),
        resident: variant.resident,
        tiles: n.div_ceil(if gated { 16 } else { 16 * variant.tiles }),
        down: rows.div_ceil(variant.rows),
    }
    .shape(properties)
}

/// `dequantize`.
///
/// # Errors
/// A size that is not positive.
pub fn dequantize(a: &DequantizeArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let (rows, k) = (positive("dequantize", "rows", a.rows)?, positive("dequantize", "k", a.k)?);
    walk("dequantize", rows.saturating_mul(k.div_ceil(8)), THREADS, properties)
}

#[cfg(test)]
mod tests {
    use super::{HALF, Properties, WHOLE, dequantize, product};
    use crate::cuda::launcher::Source;
    use crate::launch::arguments::{CodesArguments, DequantizeArguments, LinearArguments, Rows};
    use photonc_graph::ir::dtype::Dtype;

    fn arguments(rows: i32, k: i32, n: i32, scheme: i32) -> CodesArguments {
        let x = Rows { base: 512, outer: 0, inner: i64::from(k), split: 1, unused: 0 };
        let linear = LinearArguments { x, weight: 256, rows, k, n, ..LinearArguments::default() };
        CodesArguments { linear, scales: 1024, scheme, unused: 0 }
    }

    fn chosen(a: CodesArguments, dtype: Dtype) -> &'static str {
        product(&a, dtype, &Properties::h100(232_448)).expect("a launch").name
    }

    #[test]
    fn few_rows_stream_codes_and_the_rest_is_general() {
        assert_eq!(chosen(arguments(1, 1664, 4992, 0), Dtype::Bf16), "codes_m8_r1");
        assert_eq!(chosen(arguments(8, 1664, 4992, 2), Dtype::Bf16), "codes_m8_r2");
        assert_eq!(chosen(arguments(9, 1664, 1664, 1), Dtype::F16), "codes_m16_r1");
        assert_eq!(chosen(arguments(40, 1664, 1664, 1), Dtype::F16), "codes_m16_r1");
        let gated = CodesArguments {
            linear: LinearArguments { mode: 1, ..arguments(1, 1664, 4096, 0).linear },
            ..arguments(1, 1664, 4096, 0)
        };
        assert_eq!(chosen(gated, Dtype::Bf16), "codes_m8_r2");
        for odd in [arguments(1, 1660, 64, 0), CodesArguments { scales: 1028, ..arguments(1, 1664, 64, 0) }] {
            assert_eq!(chosen(odd, Dtype::Bf16), "codes_any");
        }
        assert_eq!(chosen(arguments(1, 1664, 64, 0), Dtype::F32), "codes_any");
    }

    // What is asked for must be what the kernels lay out.
    #[test]
    fn the_variants_are_those_of_the_source() {
        let (_, after) = Source::Codes.text().split_once("#if GROUPED\nCODES(").expect("two tables");
        let (half, whole) = after.split_once("#else").expect("two tables");
        for (table, text) in [(&HALF, format!("CODES({half}")), (&WHOLE, whole.to_owned())] {
            assert_eq!(text.matches("CODES(").count(), table.len());
            for super::Variant { rows, tiles, stages, resident, name } in table {
                let line = format!("CODES({name}, {}, {tiles}, {stages}, {resident})\n", rows / 8);
                assert!(text.contains(&line), "{line}");
            }
        }
    }

    // Two blocks of the variants that say so fit on a multiprocessor of a large GPU, and none asks for more than there is.
    #[test]
    fn shared_memory_suffices() {
        for (table, grouped) in [(&HALF, true), (&WHOLE, false)] {
            for variant in table {
                let bytes = (variant.shared_bytes(grouped) + 1024) * variant.resident;
                assert!(bytes <= 228 << 10, "{} takes {bytes} bytes", variant.name);
            }
        }
        for shared in [49_152, 101_376, 166_912, 232_448] {
            for (rows, scheme) in [(1, 0), (16, 0), (1, 1), (16, 1), (16, 2)] {
                let shape =
                    product(&arguments(rows, 6656, 1664, scheme), Dtype::Bf16, &Properties::h100(shared));
                assert!(shape.expect("a launch").shared_bytes as usize <= shared);
            }
        }
    }

    // The shared memory of workstation GPUs: none of them is left to the kernel without tensor cores.
    #[test]
    fn smaller_gpus_stream_codes_too() {
        for (scheme, rows, mode) in
            [(0, 1, 0), (0, 1, 1), (0, 16, 0), (0, 16, 1), (1, 1, 1), (1, 16, 0), (1, 16, 1)]
        {
            let mut a = arguments(rows, 1664, 4096, scheme);
            a.linear.mode = mode;
            let shape = product(&a, Dtype::Bf16, &Properties::h100(101_376)).expect("a launch");
            assert_ne!(shape.name, "codes_any", "scheme {scheme}, {rows} rows, mode {mode}");
        }
    }

    #[test]
    fn sizes_without_a_launch_are_refused_by_name() {
        let error =
            product(&arguments(0, 8, 8, 0), Dtype::Bf16, &Properties::h100(232_448)).expect_err("refused");
        assert_eq!(error.to_string(), "codes: rows is 0, expected at least 1");
        let none = DequantizeArguments { rows: 1, ..DequantizeArguments::default() };
        assert_eq!(dequantize(&none, &Properties::h100(0)).expect_err("refused").what, "k");
    }
}
