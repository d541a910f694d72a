//! Shapes of launches: which variant of a kernel answers given arguments, with how many blocks, threads and bytes of
//! shared memory. Pure; owns the limits of grids and the choice between the fast and the general kernels, whose wants are
//! written at the top of their sources.

use crate::launch::arguments::{
    ElementArguments, EmbedArguments, GatherArguments, IotaArguments, LinearArguments, NormArguments,
    ReadArguments, Rows, SampleArguments, SwigluArguments, UniformArguments,
};
use crate::launch::device::Properties;
use photonc_graph::ir::dtype::Dtype;

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The kernel, a name in its source.
    pub name: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
}

/// Arguments that no launch can answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}: {what} is {found}, expected {expected}")]
pub struct LaunchError {
    /// The kernel asked for.
    pub kernel: &'static str,
    /// The argument.
    pub what: &'static str,
    /// What it is.
    pub found: i64,
    /// What it may be.
    pub expected: String,
}

/// Blocks along y or z at most; along x there may be 2^31 - 1.
pub(super) const MOST_ACROSS: u32 = 65_535;
/// Threads of `linear_*`, of `codes.cu` and `rows.cu`.
pub(super) const THREADS: u32 = 256;
/// Threads of `sample.cu`.
const SAMPLE_THREADS: u32 = 512;
/// Shared memory that a block takes beyond what it asks for.
const BLOCK_OVERHEAD_BYTES: usize = 1024;
/// `PIECE` of `few.cuh`, `NORM_PIECE` of `skinny.cu`, and its warps.
pub(super) const PIECE_BYTES: usize = 512;
const NORM_PIECE_BYTES: usize = 64;
pub(super) const LINEAR_WARPS: usize = 8;
/// `PARTIAL_STRIDE` of `few.cuh` times four bytes.
pub(super) const PARTIAL_BYTES: usize = 20 * 4;

/// A positive size of an argument as a number of things to launch for.
pub(super) fn positive(kernel: &'static str, what: &'static str, size: i32) -> Result<usize, LaunchError> {
    let error = || LaunchError { kernel, what, found: i64::from(size), expected: "at least 1".to_owned() };
    usize::try_from(size).ok().filter(|size| *size > 0).ok_or_else(error)
}

/// A number of blocks as a grid's x.
pub(super) fn across_x(kernel: &'static str, what: &'static str, blocks: usize) -> Result<u32, LaunchError> {
    let most = usize::try_from(i32::MAX).unwrap_or(usize::MAX);
    let error = || LaunchError {
        kernel,
        what,
        found: i64::try_from(blocks).unwrap_or(i64::MAX),
        expected: format!("at most {most} blocks"),
    };
    u32::try_from(blocks).ok().filter(|_| blocks <= most).ok_or_else(error)
}

/// Whether every row begins at a multiple of 16 bytes.
pub(super) fn aligned(rows: &Rows, dtype: Dtype) -> bool {
    let size = i64::try_from(dtype.size_bytes()).unwrap_or(i64::MAX);
    let strides = (rows.outer.wrapping_mul(size) | rows.inner.wrapping_mul(size)) & 15;
    rows.base & 15 == 0 && strides == 0
}

/// A kernel that walks over `items` with one thread each, a limited number of blocks at a time.
pub(super) fn walk(
    name: &'static str,
    items: usize,
    threads: u32,
    properties: &Properties,
) -> Result<Shape, LaunchError> {
    let wanted = items.div_ceil(threads as usize).max(1);
    let grid = across_x(name, "multiprocessors", wanted.min(properties.multiprocessors.max(1) * 16))?;
    Ok(Shape { name, grid: [grid, 1, 1], threads, shared_bytes: 0 })
}

/// A variant of `linear_skinny_*`.
struct Skinny {
    /// Rows of `x` at once, a multiple of 8.
    rows: usize,
    /// Tiles of 16 weight rows at once.
    tiles: usize,
    /// Steps that are copied ahead.
    stages: usize,
    /// Blocks that its registers let share a multiprocessor.
    resident: usize,
    name: &'static str,
}

const fn variant(rows: usize, tiles: usize, stages: usize, resident: usize, name: &'static str) -> Skinny {
    Skinny { rows, tiles, stages, resident, name }
}

const SKINNY: [Skinny; 8] = [
    variant(8, 1, 7, 2, "linear_skinny_m8_r1"),
    variant(8, 2, 4, 2, "linear_skinny_m8_r2"),
    variant(16, 1, 5, 2, "linear_skinny_m16_r1"),
    variant(16, 2, 3, 2, "linear_skinny_m16_r2"),
    variant(32, 1, 3, 2, "linear_skinny_m32_r1"),
    variant(32, 2, 2, 2, "linear_skinny_m32_r2"),
    variant(64, 1, 2, 2, "linear_skinny_m64_r1"),
    variant(64, 2, 4, 1, "linear_skinny_m64_r2"),
];

impl Skinny {
    /// Slots of all warps, their partial sums and their sums of squares.
    const fn shared_bytes(&self) -> usize {
        let slot = (2 * self.tiles + self.rows / 8) * PIECE_BYTES + NORM_PIECE_BYTES;
        let summed_rows = if self.rows < 32 { self.rows } else { 32 };
        LINEAR_WARPS * (self.stages * slot + summed_rows * PARTIAL_BYTES + 4 * self.rows)
    }
}

/// The rows at once of a variant of `linear_skinny_*`, by its name.
pub(super) fn skinny_rows(name: &str) -> Option<usize> {
    SKINNY.iter().find(|variant| variant.name == name).map(|variant| variant.rows)
}

/// Whether tensor cores and 16-byte loads can do a product.
fn suits_skinny(a: &LinearArguments, dtype: Dtype) -> bool {
    let addresses = (a.weight | a.norm) & 15 == 0;
    dtype != Dtype::F32 && a.k % 8 == 0 && addresses && aligned(&a.x, dtype)
}

/// The product `linear_*`.
///
/// # Errors
/// A size that is not positive or too large for a grid.
pub fn linear(a: &LinearArguments, dtype: Dtype, properties: &Properties) -> Result<Shape, LaunchError> {
    let kernel = "linear";
    let (rows, n) = (positive(kernel, "rows", a.rows)?, positive(kernel, "n", a.n)?);
    positive(kernel, "k", a.k)?;
    if suits_skinny(a, dtype)
        && let Some(shape) = skinny(a, (rows, n), properties)
    {
        return Ok(shape);
    }
    if let Some(shape) = few_rows(a, (rows, n), dtype)? {
        return Ok(shape);
    }
    let across = across_x(kernel, "n", n.div_ceil(64))?;
    let down = u32::try_from(rows.div_ceil(16)).unwrap_or(u32::MAX).min(MOST_ACROSS);
    Ok(Shape { name: "linear_any", grid: [across, down, 1], threads: THREADS, shared_bytes: 0 })
}

/// Variants of `linear_rows_*` by the rows that they take at once.
const FEW_ROWS: [(usize, &str); 4] =
    [(1, "linear_rows_m1"), (2, "linear_rows_m2"), (4, "linear_rows_m4"), (8, "linear_rows_m8")];

/// `linear_rows_*`: f32 whose rows 16-byte loads can read.
fn few_rows(
    a: &LinearArguments,
    (rows, n): (usize, usize),
    dtype: Dtype,
) -> Result<Option<Shape>, LaunchError> {
    if dtype != Dtype::F32 || a.k % 4 != 0 || (a.weight | a.norm) & 15 != 0 || !aligned(&a.x, dtype) {
        return Ok(None);
    }
    let fits = |(at_once, _): &&(usize, &str)| *at_once >= rows.min(8);
    let Some(&(at_once, name)) = FEW_ROWS.iter().find(fits) else { return Ok(None) };
    let Some(down) = u32::try_from(rows.div_ceil(at_once)).ok().filter(|down| *down <= MOST_ACROSS) else {
        return Ok(None);
    };
    let pairs = if a.mode == 1 { n } else { n.div_ceil(2) };
    let across = across_x("linear", "n", pairs.div_ceil(LINEAR_WARPS))?;
    Ok(Some(Shape { name, grid: [across, down, 1], threads: THREADS, shared_bytes: 0 }))
}

/// The tensor-core variant; `None` where the device has too little shared memory or the rows are too many.
fn skinny(a: &LinearArguments, sizes: (usize, usize), properties: &Properties) -> Option<Shape> {
    let (rows, n) = sizes;
    let wanted = rows.clamp(8, 64).next_power_of_two();
    let gated = a.mode == 1;
    // With many rows it is x that comes from the cache again for each tile: larger tiles save half of that.
    let tiles_of_block = if gated || (wanted >= 32 && n > 32 * properties.multiprocessors) { 2 } else { 1 };
    let fits = |variant: &&Skinny| {
        variant.tiles == tiles_of_block
            && variant.rows <= wanted
            && variant.shared_bytes() <= properties.shared_bytes
    };
    let variant = SKINNY.iter().rev().find(fits)?;
    Streamed {
        name: variant.name,
        shared_bytes: variant.shared_bytes(),
        resident: variant.resident,
        tiles: n.div_ceil(if gated { 16 } else { 16 * variant.tiles }),
        down: rows.div_ceil(variant.rows),
    }
    .shape(properties)
}

/// A kernel whose blocks walk over tiles of weight rows.
pub(super) struct Streamed {
    pub(super) name: &'static str,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: usize,
    /// Blocks that its registers let share a multiprocessor.
    pub(super) resident: usize,
    pub(super) tiles: usize,
    /// Times that the rows of `x` are walked over.
    pub(super) down: usize,
}

impl Streamed {
    /// As many blocks as run at once, each with the same number of tiles; `None` if the rows are too many.
    pub(super) fn shape(&self, properties: &Properties) -> Option<Shape> {
        let room =
            (properties.shared_bytes + BLOCK_OVERHEAD_BYTES) / (self.shared_bytes + BLOCK_OVERHEAD_BYTES);
        let at_once = properties.multiprocessors.max(1) * room.clamp(1, self.resident);
        let rounds = self.tiles.div_ceil(at_once);
        let down = u32::try_from(self.down).ok().filter(|down| *down <= MOST_ACROSS)?;
        Some(Shape {
            name: self.name,
            grid: [u32::try_from(self.tiles.div_ceil(rounds)).ok()?, down, 1],
            threads: THREADS,
            shared_bytes: u32::try_from(self.shared_bytes).ok()?,
        })
    }
}

/// `rms_norm`.
///
/// # Errors
/// A size that is not positive.
pub fn rms_norm(a: &NormArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let rows = positive("rms_norm", "rows", a.rows)?;
    positive("rms_norm", "width", a.width)?;
    walk("rms_norm", rows.saturating_mul(THREADS as usize), THREADS, properties)
}

/// `swiglu`.
///
/// # Errors
/// A size that is not positive.
pub fn swiglu(a: &SwigluArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let items = positive("swiglu", "rows", a.rows)? * positive("swiglu", "width", a.width)?;
    walk("swiglu", items.div_ceil(8), THREADS, properties)
}

/// `embed`.
///
/// # Errors
/// A size that is not positive.
pub fn embed(a: &EmbedArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    positive("embed", "vocabulary", a.vocabulary)?;
    let items = positive("embed", "rows", a.rows)? * positive("embed", "width", a.width)?;
    walk("embed", items.div_ceil(8), THREADS, properties)
}

/// `gather_rows`.
///
/// # Errors
/// A size that is not positive.
pub fn gather_rows(a: &GatherArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let kernel = "gather_rows";
    let rows = positive(kernel, "batch", a.batch)?.saturating_mul(positive(kernel, "count", a.count)?);
    let items = rows.saturating_mul(positive(kernel, "width", a.width)?);
    walk(kernel, items.div_ceil(8), THREADS, properties)
}

/// `elementwise`.
///
/// # Errors
/// A size that is not positive.
pub fn elementwise(a: &ElementArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let mut items = 1usize;
    for size in a.size {
        items = items.saturating_mul(positive("elementwise", "size", size)?);
    }
    walk("elementwise", items, THREADS, properties)
}

/// `iota`.
///
/// # Errors
/// A size that is not positive.
pub fn iota(a: &IotaArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    walk("iota", positive("iota", "count", a.count)?, THREADS, properties)
}

/// `read_words`; as many blocks as `out` has room for.
///
/// # Errors
/// Nothing to read.
pub fn read_words(a: &ReadArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let nothing = || LaunchError {
        kernel: "read_words",
        what: "words",
        found: a.words,
        expected: "at least 1".to_owned(),
    };
    let words = usize::try_from(a.words).ok().filter(|words| *words > 0).ok_or_else(nothing)?;
    walk("read_words", words, THREADS, properties)
}

/// `uniforms`.
///
/// # Errors
/// A size that is not positive.
pub fn uniforms(a: &UniformArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let items = positive("uniforms", "rows", a.rows)? * positive("uniforms", "count", a.count)?;
    walk("uniforms", items, SAMPLE_THREADS, properties)
}

/// `sample`.
///
/// # Errors
/// A size that is not positive.
pub fn sample(a: &SampleArguments) -> Result<Shape, LaunchError> {
    let name = "sample";
    positive(name, "vocabulary", a.vocabulary)?;
    positive(name, "rows_per_parameter", a.rows_per_parameter)?;
    let rows = across_x(name, "rows", positive(name, "rows", a.rows)?)?;
    Ok(Shape { name, grid: [rows, 1, 1], threads: SAMPLE_THREADS, shared_bytes: 0 })
}

#[cfg(test)]
mod tests {
    use super::{Rows, linear, rms_norm, sample};
    use crate::cuda::launcher::Source;
    use crate::launch::arguments::{LinearArguments, NormArguments, SampleArguments};
    use crate::launch::device::Properties;
    use photonc_graph::ir::dtype::Dtype;

    fn product(rows: i32, k: i32, n: i32, mode: i32) -> LinearArguments {
        let x = Rows { base: 512, outer: 0, inner: i64::from(k), split: 1, unused: 0 };
        LinearArguments { x, weight: 256, rows, k, n, mode, ..LinearArguments::default() }
    }

    fn chosen(a: LinearArguments, dtype: Dtype) -> &'static str {
        linear(&a, dtype, &Properties::h100(232_448)).expect("a launch").name
    }

    #[test]
    fn products_take_the_smallest_tile_that_holds_their_rows() {
        for (rows, name) in [
            (1, "linear_skinny_m8_r1"),
            (9, "linear_skinny_m16_r1"),
            (32, "linear_skinny_m32_r1"),
            (33, "linear_skinny_m64_r1"),
            (1000, "linear_skinny_m64_r1"),
        ] {
            assert_eq!(chosen(product(rows, 1664, 1664, 0), Dtype::Bf16), name);
        }
        assert_eq!(chosen(product(1, 1664, 4096, 1), Dtype::F16), "linear_skinny_m8_r2");
        assert_eq!(chosen(product(64, 1664, 4992, 0), Dtype::Bf16), "linear_skinny_m64_r2");
    }

    #[test]
    fn what_the_fast_kernels_cannot_read_goes_to_the_general_one() {
        let odd_k = product(1, 1660, 64, 0);
        let mut skewed = product(1, 1664, 64, 0);
        skewed.x.base += 2;
        let mut strided = product(1, 1664, 64, 0);
        strided.x.inner += 4;
        for a in [odd_k, skewed, strided] {
            assert_eq!(chosen(a, Dtype::Bf16), "linear_any");
        }
        let mut strided = product(1, 1664, 64, 0);
        strided.x.inner += 2;
        for a in [product(1, 1662, 64, 0), strided] {
            assert_eq!(chosen(a, Dtype::F32), "linear_any");
        }
    }

    #[test]
    fn f32_takes_up_to_eight_rows_at_once() {
        for (rows, name, grid) in [
            (1, "linear_rows_m1", [104, 1, 1]),
            (3, "linear_rows_m4", [104, 1, 1]),
            (16, "linear_rows_m8", [104, 2, 1]),
        ] {
            let shape = linear(&product(rows, 1664, 1664, 0), Dtype::F32, &Properties::h100(232_448))
                .expect("a launch");
            assert_eq!((shape.name, shape.grid), (name, grid));
        }
        let gated =
            linear(&product(1, 1664, 4096, 1), Dtype::F32, &Properties::h100(232_448)).expect("a launch");
        assert_eq!(gated.grid, [512, 1, 1]);
    }

    // What is asked for must be what the kernel lays out.
    #[test]
    fn the_variants_are_those_of_the_source() {
        for variant in &super::SKINNY {
            let super::Skinny { rows, tiles, stages, resident, name } = variant;
            let line = format!("SKINNY({name}, {}, {tiles}, {stages}, {resident})\n", rows / 8);
            assert!(Source::Skinny.text().contains(&line), "{line}");
        }
        assert_eq!(Source::Skinny.text().matches("\nSKINNY(linear_skinny").count(), super::SKINNY.len());
    }

    // Every block that runs at the same time has the same number of tiles.
    #[test]
    fn blocks_fill_the_device_once() {
        let shape =
            linear(&product(1, 1664, 4992, 0), Dtype::Bf16, &Properties::h100(232_448)).expect("a launch");
        assert_eq!(shape.grid, [156, 1, 1]);
        let shape =
            linear(&product(1, 1664, 1664, 0), Dtype::Bf16, &Properties::h100(232_448)).expect("a launch");
        assert_eq!(shape.grid, [104, 1, 1]);
    }

    #[test]
    fn no_launch_asks_for_more_shared_memory_than_there_is() {
        for shared in [49_152, 101_376, 166_912, 232_448] {
            for rows in [1, 8, 16, 32, 64, 65] {
                for (k, n, mode) in [(8, 1, 0), (1664, 4992, 0), (6656, 1664, 0), (20_000, 4096, 1)] {
                    let a = product(rows, k, n, mode);
                    let shape = linear(&a, Dtype::Bf16, &Properties::h100(shared)).expect("a launch");
                    assert!(shape.shared_bytes as usize <= shared, "{shape:?}");
                    assert!(shape.grid[1] <= 65_535);
                }
            }
        }
    }

    #[test]
    fn sizes_without_a_launch_are_refused_by_name() {
        let error =
            linear(&product(0, 8, 8, 0), Dtype::Bf16, &Properties::h100(232_448)).expect_err("refused");
        assert_eq!(error.to_string(), "linear: rows is 0, expected at least 1");
        let none = NormArguments { rows: 1, ..NormArguments::default() };
        assert_eq!(rms_norm(&none, &Properties::h100(0)).expect_err("refused").what, "width");
        let none = SampleArguments { rows: 1, vocabulary: 1, ..SampleArguments::default() };
        assert_eq!(sample(&none).expect_err("refused").what, "rows_per_parameter");
    }
}
