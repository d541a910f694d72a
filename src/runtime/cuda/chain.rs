//! Chains: neighbouring steps of few rows that one launch does together, with barriers between its blocks in the place of
//! ends and beginnings of launches. Owns which steps these are and the arguments of `chain.cu`; pure.

use super::arguments::LinearArguments;
use super::device::{Properties, Source, Unit};
use super::dispatch::Planned;
use super::launch::{Shape, linear, skinny_rows};
use super::launch_attention::attend;
use super::plan::{Call, Plan};
use crate::ir::dtype::Dtype;
use std::ops::Range;

/// Widest head in a chain.
pub const MOST_CHAINED_HEAD_DIM: usize = 128;

/// Fewest steps that are worth it.
const LEAST_STEPS: usize = 4;
/// `CHAIN_LINEAR` and so on of `abi.cuh`.
const LINEAR: i32 = 0;
const NORM: i32 = 1;
const WINDOW: i32 = 2;
const CACHE: i32 = 3;
/// `CHAIN_STEPS` and `CHAIN_BYTES` of `abi.cuh`.
const MOST_STEPS: usize = 128;
const MOST_BYTES: usize = 30_000;
/// Rows of a norm at most: a block takes one at a time.
const MOST_NORM_ROWS: i32 = 64;
/// Rows of a product at most: `CHAIN_ROWS` of `chain.cu`.
pub const MOST_CHAINED_ROWS: usize = 8;
/// Columns of a product are a multiple of this: `STEP` of `streamed.cuh`.
const COLUMNS: i32 = 32;
/// First GPUs with bulk copies.
const LEAST_SM: u32 = 90;
/// Rows of weights of a tile.
const TILE_ROWS: usize = 16;
const THREADS: u32 = 256;
const WARPS: usize = 8;
/// `STAGE_BYTES` of `chain.cu`, and the two phases of a stage.
const STAGE_BYTES: usize = TILE_ROWS * (512 * 2 + 64);
const PHASES_BYTES: usize = 2 * 8;
/// Fewest stages that keep memory busy between two products, and most that are of use.
const STAGES: std::ops::RangeInclusive<usize> = 6..=16;
/// Partial sums on both sides, sums of squares, the table of products, the arguments of two steps.
const TABLE_BYTES: usize = 2 * WARPS * (MOST_CHAINED_ROWS * 20 + 16) * 4
    + WARPS * MOST_CHAINED_ROWS * 4
    + MOST_STEPS * 32
    + 2 * 336;
/// What the kernel declares beside that, at most.
const DECLARED_BYTES: usize = 12 << 10;

/// Steps of a plan that one launch does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Which steps.
    pub steps: Range<usize>,
    /// Their kinds: `CHAIN_*` of `abi.cuh`.
    kinds: Vec<i32>,
    stages: usize,
    x_bytes: usize,
    /// The launch.
    pub planned: Planned,
}

/// A step that chains can have.
struct Link {
    kind: i32,
    x_bytes: usize,
    head_dim: Option<usize>,
    bytes: usize,
}

impl Link {
    fn of(call: &Call, dtype: Dtype, most_rows: usize, properties: &Properties) -> Option<Link> {
        let few = |rows: i32| usize::try_from(rows).ok().filter(|rows| (1..=most_rows).contains(rows));
        let (kind, x_bytes, head_dim) = match call {
            Call::Linear(a) => {
                skinny_rows(linear(a, dtype, properties).ok()?.name)?;
                let columns = usize::try_from(a.k).ok().filter(|_| a.k % COLUMNS == 0)?;
                (LINEAR, few(a.rows)? * ((2 * columns).next_multiple_of(128) + 64), None)
            }
            Call::Norm(a) => (NORM, (a.rows <= MOST_NORM_ROWS).then_some(0)?, None),
            Call::AttendWindow(a, width) | Call::AttendCache(a, width) => {
                let kind = match attend(a, *width, dtype, properties).ok()?.name {
                    "attend_window_4" | "attend_window_8" => WINDOW,
                    "attend_cache_1" | "attend_cache_4" => CACHE,
                    _ => return None,
                };
                few(a.rows)?;
                (kind, 0, (*width <= MOST_CHAINED_HEAD_DIM).then_some(Some(*width))?)
            }
            _ => return None,
        };
        Some(Link { kind, x_bytes, head_dim, bytes: call.bytes().len() })
    }
}

/// A chain that may go on.
#[derive(Default)]
struct Open {
    start: usize,
    bytes: usize,
    x_bytes: usize,
    kinds: Vec<i32>,
    head_dim: Option<usize>,
}

impl Open {
    fn takes(&self, link: &Link) -> bool {
        let same_heads = self.head_dim.is_none() || link.head_dim.is_none() || self.head_dim == link.head_dim;
        self.kinds.len() < MOST_STEPS && self.bytes + link.bytes <= MOST_BYTES && same_heads
    }

    fn push(&mut self, link: &Link) {
        self.kinds.push(link.kind);
        self.bytes += link.bytes;
        self.x_bytes = self.x_bytes.max(link.x_bytes);
        self.head_dim = self.head_dim.or(link.head_dim);
    }

    fn close(self, dtype: Dtype, properties: &Properties) -> Option<Chain> {
        let products = self.kinds.iter().filter(|kind| **kind == LINEAR).count();
        if self.kinds.len() < LEAST_STEPS || products < 2 {
            return None;
        }
        let kept = self.x_bytes + TABLE_BYTES + DECLARED_BYTES;
        let stages = properties.shared_bytes.checked_sub(kept)? / (STAGE_BYTES + PHASES_BYTES);
        let stages = stages.min(*STAGES.end());
        if !STAGES.contains(&stages) {
            return None;
        }
        let shared_bytes = stages * (STAGE_BYTES + PHASES_BYTES) + self.x_bytes + TABLE_BYTES;
        let shape = Shape {
            name: "chain_m8",
            grid: [u32::try_from(properties.multiprocessors).ok().filter(|grid| *grid > 0)?, 1, 1],
            threads: THREADS,
            shared_bytes: u32::try_from(shared_bytes).ok()?,
        };
        // Without attention any width does.
        let unit = Unit { source: Source::Chain, dtype, size: self.head_dim.unwrap_or(64) };
        let steps = self.start..self.start + self.kinds.len();
        Some(Chain { steps, kinds: self.kinds, stages, x_bytes: self.x_bytes, planned: Planned { unit, shape } })
    }
}

/// The chains of a plan, in order.
#[must_use]
pub fn chains(plan: &Plan, properties: &Properties) -> Vec<Chain> {
    let mut found = Vec::new();
    if plan.dtype == Dtype::F32 || properties.sm < LEAST_SM {
        return found;
    }
    let most_rows = plan.chained_rows.min(MOST_CHAINED_ROWS);
    let mut open = Open::default();
    for (at, step) in plan.steps.iter().enumerate() {
        let link = Link::of(&step.call, plan.dtype, most_rows, properties);
        if !link.as_ref().is_some_and(|link| open.takes(link)) {
            let full = std::mem::replace(&mut open, Open { start: at, ..Open::default() });
            found.extend(full.close(plan.dtype, properties));
        }
        match link {
            Some(link) => open.push(&link),
            None => open.start = at + 1,
        }
    }
    found.extend(open.close(plan.dtype, properties));
    found
}

impl Chain {
    /// The argument of the launch, from the calls of its steps: `ChainArguments` of `abi.cuh`, its `barrier` still 0.
    #[must_use]
    pub fn arguments(&self, calls: &[Call]) -> Vec<u8> {
        let blocks = self.planned.shape.grid[0].max(1) as usize;
        let mut table = Vec::with_capacity(MOST_STEPS * 16);
        let mut data = Vec::with_capacity(MOST_BYTES);
        let mut first = 0;
        for (call, kind) in calls.iter().zip(&self.kinds) {
            let at = i32::try_from(data.len()).unwrap_or(i32::MAX);
            for field in [*kind, at, i32::try_from(first).unwrap_or(0), 0] {
                table.extend(field.to_le_bytes());
            }
            if let Call::Linear(a) = call {
                // The next product begins where this one ends, so that no block has more to read than others.
                first = (first + tiles(a)) % blocks;
            }
            data.extend(call.bytes());
        }
        let mut bytes = vec![0; 8];
        for number in [self.kinds.len(), self.stages, self.x_bytes, 0] {
            bytes.extend(i32::try_from(number).unwrap_or(0).to_le_bytes());
        }
        table.resize(MOST_STEPS * 16, 0);
        data.resize(MOST_BYTES, 0);
        bytes.extend(table);
        bytes.extend(data);
        bytes
    }
}

fn tiles(a: &LinearArguments) -> usize {
    usize::try_from(a.n).unwrap_or(0).div_ceil(TILE_ROWS)
}
