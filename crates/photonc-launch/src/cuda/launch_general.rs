//! Shapes of the launches of `general_attention.cu` and `experts.cu`.

use super::launch::{LaunchError, Shape, THREADS, across_x, positive, walk};
use crate::launch::arguments::{
    AppendArguments, ExpertsArguments, GeneralArguments, RopeArguments, RouteArguments,
};
use crate::launch::device::Properties;

/// `EXPERTS_THREADS` of `experts.cu`.
const EXPERTS_THREADS: u32 = 128;
/// Threads of `route`.
const ROUTE_THREADS: u32 = 32;
/// Shared memory that every launch may have.
const MOST_SHARED_BYTES: usize = 48 << 10;

fn shared(kernel: &'static str, what: &'static str, size: i32, bytes: usize) -> Result<u32, LaunchError> {
    let error = || LaunchError {
        kernel,
        what,
        found: i64::from(size),
        expected: format!("a size that takes at most {MOST_SHARED_BYTES} bytes, found {bytes}"),
    };
    u32::try_from(bytes).ok().filter(|_| bytes <= MOST_SHARED_BYTES).ok_or_else(error)
}

/// `rope`.
///
/// # Errors
/// A size that is not positive.
pub fn rope(a: &RopeArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let kernel = "rope";
    let half = positive(kernel, "width", a.width / 2)?;
    let entries = positive(kernel, "rows", a.rows)?.saturating_mul(positive(kernel, "count", a.count)?);
    walk(kernel, entries.saturating_mul(half), THREADS, properties)
}

/// `append`.
///
/// # Errors
/// A size that is not positive.
pub fn append(a: &AppendArguments, properties: &Properties) -> Result<Shape, LaunchError> {
    let kernel = "append";
    let mut items = 1usize;
    for (what, size) in [("rows", a.rows), ("heads", a.heads), ("count", a.count), ("width", a.width)] {
        items = items.saturating_mul(positive(kernel, what, size)?);
    }
    walk(kernel, items, THREADS, properties)
}

/// `attend_general`.
///
/// # Errors
/// A size that is not positive, or heads too wide.
pub fn attend_general(a: &GeneralArguments) -> Result<Shape, LaunchError> {
    let kernel = "attend_general";
    let (width, value_width) =
        (positive(kernel, "width", a.width)?, positive(kernel, "value_width", a.value_width)?);
    positive(kernel, "kv_heads", a.kv_heads)?;
    positive(kernel, "keys", a.keys)?;
    if a.heads % a.kv_heads != 0 {
        let expected = format!("a multiple of kv_heads ({})", a.kv_heads);
        return Err(LaunchError { kernel, what: "heads", found: i64::from(a.heads), expected });
    }
    let blocks = positive(kernel, "rows", a.rows)?
        .saturating_mul(positive(kernel, "heads", a.heads)?)
        .saturating_mul(positive(kernel, "queries", a.queries)?);
    let bytes = 4 * (width + THREADS as usize / 32 * value_width);
    Ok(Shape {
        name: kernel,
        grid: [across_x(kernel, "queries", blocks)?, 1, 1],
        threads: THREADS,
        shared_bytes: shared(kernel, "value_width", a.value_width, bytes)?,
    })
}

/// `route`.
///
/// # Errors
/// A size that is not positive, or too many experts.
pub fn route(a: &RouteArguments) -> Result<Shape, LaunchError> {
    let kernel = "route";
    let rows = positive(kernel, "rows", a.rows)?;
    let (experts, groups) = (positive(kernel, "experts", a.experts)?, positive(kernel, "groups", a.groups)?);
    positive(kernel, "top_k", a.top_k)?;
    if experts % groups != 0 {
        let expected = format!("a divisor of {experts} experts");
        return Err(LaunchError { kernel, what: "groups", found: i64::from(a.groups), expected });
    }
    Ok(Shape {
        name: kernel,
        grid: [across_x(kernel, "rows", rows)?, 1, 1],
        threads: ROUTE_THREADS,
        shared_bytes: shared(kernel, "experts", a.experts, 8 * (2 * experts + groups))?,
    })
}

/// `experts_up`.
///
/// # Errors
/// A size that is not positive.
pub fn experts_up(a: &ExpertsArguments) -> Result<Shape, LaunchError> {
    let kernel = "experts_up";
    let slots = positive(kernel, "rows", a.rows)?.saturating_mul(positive(kernel, "top_k", a.top_k)?);
    experts(kernel, a, slots, positive(kernel, "inner", a.inner)?)
}

/// `experts_down`.
///
/// # Errors
/// A size that is not positive.
pub fn experts_down(a: &ExpertsArguments) -> Result<Shape, LaunchError> {
    let kernel = "experts_down";
    let rows = positive(kernel, "rows", a.rows)?;
    experts(kernel, a, rows, positive(kernel, "width", a.width)?)
}

fn experts(
    kernel: &'static str,
    a: &ExpertsArguments,
    rows: usize,
    results: usize,
) -> Result<Shape, LaunchError> {
    for (what, size) in [("experts", a.experts), ("top_k", a.top_k), ("inner", a.inner), ("width", a.width)] {
        positive(kernel, what, size)?;
    }
    let blocks = rows.saturating_mul(results.div_ceil(EXPERTS_THREADS as usize));
    let grid = [across_x(kernel, "rows", blocks)?, 1, 1];
    Ok(Shape { name: kernel, grid, threads: EXPERTS_THREADS, shared_bytes: 0 })
}
