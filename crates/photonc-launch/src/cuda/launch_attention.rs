//! Shapes of the launches of attention: windows, caches, streams. Owns what these kernels ask of a head's layout;
//! refuses odd head widths.

use super::launch::{LaunchError, Shape, across_x, positive};
use crate::cuda::launcher::Source;
use crate::launch::arguments::{AttendArguments, Heads};
use crate::launch::device::Properties;
use crate::launch::plan::MOST_HEAD_DIM;
use photonc_graph::ir::dtype::Dtype;

/// Queries of a block of `attend_stream`, and the fewest for which it is worth one.
const STREAM_QUERIES: usize = 64;
const LEAST_STREAM_QUERIES: usize = 16;
const THREADS: u32 = 256;
const SMALL_BLOCK: u32 = 64;
/// Two angles are read at once.
const TABLE_ALIGN_BYTES: u64 = 16;

/// Keys that the variants of `attend_window` hold.
const WINDOWS: [(i32, &str); 3] = [(4, "attend_window_4"), (8, "attend_window_8"), (16, "attend_window_16")];

/// Lanes of a warp that share a head: `LANES` of `attention.cuh`.
fn lanes(head_dim: usize) -> usize {
    let half = head_dim / 2;
    let words = if half.is_multiple_of(2) { half / 2 } else { half };
    words.next_power_of_two().min(32)
}

fn check(
    kernel: &'static str,
    a: &AttendArguments,
    head_dim: usize,
    dtype: Dtype,
) -> Result<(), LaunchError> {
    let error = |what, found, expected: String| Err(LaunchError { kernel, what, found, expected });
    if !head_dim.is_multiple_of(2) || head_dim == 0 || head_dim > MOST_HEAD_DIM {
        let found = i64::try_from(head_dim).unwrap_or(i64::MAX);
        return error("head_dim", found, format!("an even number up to {MOST_HEAD_DIM}"));
    }
    positive(kernel, "rows", a.rows)?;
    positive(kernel, "heads", a.heads)?;
    positive(kernel, "kv_heads", a.kv_heads)?;
    positive(kernel, "rows_per_length", a.rows_per_length)?;
    if a.heads % a.kv_heads != 0 {
        return error("heads", i64::from(a.heads), format!("a multiple of kv_heads ({})", a.kv_heads));
    }
    if a.table != 0 {
        positive(kernel, "table_positions", a.table_positions)?;
        if !a.table.is_multiple_of(TABLE_ALIGN_BYTES) {
            let found = i64::try_from(a.table).unwrap_or(i64::MAX);
            return error("table", found, format!("an address that is a multiple of {TABLE_ALIGN_BYTES}"));
        }
    }
    let word = 2 * dtype.size_bytes() as u64;
    for (what, heads) in layout(a) {
        if !heads.base.is_multiple_of(word) {
            let found = i64::try_from(heads.base).unwrap_or(i64::MAX);
            return error(what, found, format!("an address that is a multiple of {word}"));
        }
        for stride in [heads.row, heads.position, heads.head] {
            if stride % 2 != 0 {
                return error(what, stride, "even strides".to_owned());
            }
        }
    }
    Ok(())
}

fn layout(a: &AttendArguments) -> [(&'static str, Heads); 8] {
    [
        ("q", a.q),
        ("k", a.k),
        ("v", a.v),
        ("cache_k", a.cache_k),
        ("cache_v", a.cache_v),
        ("store_k", a.store_k),
        ("store_v", a.store_v),
        ("out", a.out),
    ]
}

fn pairs(kernel: &'static str, a: &AttendArguments) -> Result<usize, LaunchError> {
    Ok(positive(kernel, "rows", a.rows)?.saturating_mul(positive(kernel, "kv_heads", a.kv_heads)?))
}

/// Where the kernel that `attend` has chosen is compiled from.
pub(super) fn source(name: &str) -> Source {
    match name {
        "attend_stream" => Source::Stream,
        _ if WINDOWS.iter().any(|(_, window)| *window == name) => Source::Window,
        _ => Source::Attention,
    }
}

/// Meta-contexts to which shorter prompts are padded: so many queries are more than windows have, and causal attention then
/// has one kernel.
#[must_use]
pub fn least_prompt(properties: &Properties) -> usize {
    if properties.batch_invariant { LEAST_STREAM_QUERIES + 1 } else { 1 }
}

/// Attention: `attend_window_*` where all keys of every row are known to be few, `attend_stream` where there are no new
/// keys and many queries, else `attend_cache_*`.
///
/// # Errors
/// A layout that the kernels cannot read, or sizes out of range.
pub fn attend(
    a: &AttendArguments,
    head_dim: usize,
    dtype: Dtype,
    properties: &Properties,
) -> Result<Shape, LaunchError> {
    let kernel = "attend";
    check(kernel, a, head_dim, dtype)?;
    let queries = positive(kernel, "queries", a.queries)?;
    let total = a.past_base.saturating_add(a.keys);
    let held = WINDOWS.iter().find(|(keys, _)| total <= *keys);
    if let Some(&(keys, name)) = held
        && a.lengths == 0
        && (head_dim <= 128 || keys <= 8)
        && queries <= LEAST_STREAM_QUERIES
    {
        let windows = pairs(kernel, a)?;
        // The kernel counts them in 32 bits.
        if u32::try_from(windows).is_err() {
            return Err(LaunchError {
                kernel,
                what: "rows times kv_heads",
                found: i64::try_from(windows).unwrap_or(i64::MAX),
                expected: format!("at most {}", u32::MAX),
            });
        }
        let all = windows.saturating_mul(lanes(head_dim));
        // Few windows spread over the device in small blocks.
        let threads =
            if all <= properties.multiprocessors * SMALL_BLOCK as usize { SMALL_BLOCK } else { THREADS };
        let grid = [across_x(kernel, "rows", all.div_ceil(threads as usize))?, 1, 1];
        return Ok(Shape { name, grid, threads, shared_bytes: 0 });
    }
    if a.keys == 0 && queries >= LEAST_STREAM_QUERIES {
        return stream(a, queries, head_dim, dtype);
    }
    let blocks = pairs(kernel, a)?;
    let name = if queries * positive(kernel, "heads", a.heads / a.kv_heads)? == 1 {
        "attend_cache_1"
    } else {
        "attend_cache_4"
    };
    // Few blocks are wide, so that each has many keys in flight; many fill the device by themselves.
    let many = blocks >= 8 * properties.multiprocessors || properties.batch_invariant;
    let threads = if many { 64 } else { THREADS };
    Ok(Shape { name, grid: [across_x(kernel, "rows", blocks)?, 1, 1], threads, shared_bytes: 0 })
}

fn stream(a: &AttendArguments, queries: usize, head_dim: usize, dtype: Dtype) -> Result<Shape, LaunchError> {
    let name = "attend_stream";
    if dtype == Dtype::F32 {
        let blocks = pairs(name, a)?.saturating_mul(queries);
        return Ok(Shape {
            name,
            grid: [across_x(name, "queries", blocks)?, 1, 1],
            threads: THREADS,
            shared_bytes: 0,
        });
    }
    let padded = head_dim.next_multiple_of(16);
    let tile = if padded <= 128 { 64 } else { 32 };
    let shared = 2 * ((STREAM_QUERIES + tile) * (padded + 8) + padded * (tile + 8));
    let heads = positive(name, "rows", a.rows)?.saturating_mul(positive(name, "heads", a.heads)?);
    let blocks = heads.saturating_mul(queries.div_ceil(STREAM_QUERIES));
    Ok(Shape {
        name,
        grid: [across_x(name, "queries", blocks)?, 1, 1],
        threads: 128,
        shared_bytes: u32::try_from(shared).unwrap_or(u32::MAX),
    })
}

/// `append_keys`.
///
/// # Errors
/// A layout that the kernel cannot read, or sizes out of range.
pub fn append_keys(a: &AttendArguments, head_dim: usize, dtype: Dtype) -> Result<Shape, LaunchError> {
    let name = "append_keys";
    check(name, a, head_dim, dtype)?;
    let units = pairs(name, a)?.saturating_mul(positive(name, "keys", a.keys)?);
    let threads = units.saturating_mul(lanes(head_dim));
    let grid = [across_x(name, "keys", threads.div_ceil(THREADS as usize))?, 1, 1];
    Ok(Shape { name, grid, threads: THREADS, shared_bytes: 0 })
}

#[cfg(test)]
mod tests {
    use super::{append_keys, attend};
    use crate::launch::arguments::AttendArguments;
    use crate::launch::device::Properties;
    use photonc_graph::ir::dtype::Dtype;

    fn step(queries: i32, keys: i32, past_base: i32) -> AttendArguments {
        let base = AttendArguments {
            rows: 2,
            heads: 32,
            kv_heads: 32,
            rows_per_length: 1,
            ..AttendArguments::default()
        };
        AttendArguments { queries, keys, past_base, ..base }
    }

    fn chosen(a: &AttendArguments, head_dim: usize) -> &'static str {
        attend(a, head_dim, Dtype::Bf16, &Properties::h100(232_448)).expect("a launch").name
    }

    #[test]
    fn few_keys_are_held_many_are_read_and_streams_are_tiled() {
        assert_eq!(chosen(&step(1, 1, 3), 52), "attend_window_4");
        assert_eq!(chosen(&step(2, 5, 0), 52), "attend_window_8");
        assert_eq!(chosen(&step(1, 1, 15), 52), "attend_window_16");
        assert_eq!(chosen(&step(1, 1, 15), 256), "attend_cache_1");
        assert_eq!(chosen(&step(1, 1, 16), 52), "attend_cache_1");
        assert_eq!(chosen(&step(2, 2, 16), 52), "attend_cache_4");
        assert_eq!(chosen(&step(64, 0, 64), 52), "attend_stream");
        // A length on the device may be anything.
        let unknown = AttendArguments { lengths: 256, ..step(1, 1, 0) };
        assert_eq!(chosen(&unknown, 52), "attend_cache_1");
    }

    #[test]
    fn a_block_has_as_many_heads_as_its_lanes_hold() {
        let shape = attend(&step(1, 1, 3), 52, Dtype::Bf16, &Properties::h100(232_448)).expect("a launch");
        assert_eq!((shape.grid, shape.threads), ([16, 1, 1], 64));
        let shape = append_keys(&step(1, 3, 0), 128, Dtype::Bf16).expect("a launch");
        assert_eq!(shape.grid, [24, 1, 1]);
    }

    #[test]
    fn more_windows_than_the_kernel_counts_are_refused() {
        let a = AttendArguments { rows: i32::MAX, ..step(1, 1, 3) };
        let error = attend(&a, 52, Dtype::Bf16, &Properties::h100(232_448)).expect_err("refused");
        assert_eq!(error.what, "rows times kv_heads");
        assert_eq!(error.found, i64::from(i32::MAX) * 32);
    }

    #[test]
    fn layouts_that_cannot_be_read_are_refused() {
        let error = attend(&step(1, 1, 0), 51, Dtype::Bf16, &Properties::h100(232_448)).expect_err("refused");
        assert_eq!(error.to_string(), "attend: head_dim is 51, expected an even number up to 256");
        let mut odd = step(1, 1, 0);
        odd.q.head = 51;
        assert_eq!(attend(&odd, 52, Dtype::Bf16, &Properties::h100(232_448)).expect_err("refused").what, "q");
        let mut odd = step(1, 1, 0);
        (odd.table, odd.table_positions) = (264, 1);
        assert_eq!(
            attend(&odd, 52, Dtype::Bf16, &Properties::h100(232_448)).expect_err("refused").what,
            "table"
        );
        let mut odd = step(1, 1, 0);
        odd.heads = 33;
        assert_eq!(
            attend(&odd, 52, Dtype::Bf16, &Properties::h100(232_448)).expect_err("refused").what,
            "heads"
        );
    }
}
