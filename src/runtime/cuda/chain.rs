//! Chains: neighbouring steps of few rows that one launch does together, with barriers between its blocks in the place of
//! ends and beginnings of launches. Owns which steps these are and the arguments of `chain.cu`; pure.

use super::arguments::LinearArguments;
use super::device::{DeviceError, MAP_BYTES, Matrix, Properties, Source, Unit};
use super::dispatch::Planned;
use super::launch::{Shape, linear, skinny_rows};
use super::launch_attention::attend;
use super::plan::{Call, Plan};
use crate::ir::dtype::Dtype;
use std::ops::{Range, RangeInclusive};

/// Widest head in a chain.
pub const MOST_CHAINED_HEAD_DIM: usize = 128;

/// Fewest steps that are worth it.
const LEAST_STEPS: usize = 4;
/// `CHAIN_LINEAR` and so on of `abi.cuh`.
const LINEAR: i32 = 0;
const NORM: i32 = 1;
const WINDOW: i32 = 2;
const CACHE: i32 = 3;
/// `CHAIN_STEPS` of `abi.cuh`.
const MOST_STEPS: usize = 128;
/// Rows of a norm at most: a block takes one at a time.
const MOST_NORM_ROWS: i32 = 64;
/// Rows of a product at most: `CHAIN_ROWS` of `chain.cu`.
pub const MOST_CHAINED_ROWS: usize = 8;
/// Columns of a product are a multiple of this.
const COLUMNS: i32 = 8;
/// First GPUs that copy tiles by themselves.
const LEAST_SM: u32 = 90;
/// `ChainStep` of `abi.cuh`.
const STEP_BYTES: usize = 48;
/// Arguments of a step, read as a whole whatever they are: `AttendArguments`.
const ARGUMENT_BYTES: usize = 336;
/// Rows and columns of weights that a warp multiplies at a time: `TILE_ROWS` and `UNIT_COLUMNS` of `chain.cu`.
const UNIT_ROWS: usize = 16;
const UNIT_COLUMNS: usize = 128;
const THREADS: u32 = 256;
const WARPS: usize = 8;
/// A slot of every warp's ring, and its phases.
const SLOT_BYTES: usize = WARPS * (UNIT_ROWS * UNIT_COLUMNS * 2 + 8);
/// Fewest slots that keep memory busy between two products, and most that are of use.
const SLOTS: RangeInclusive<usize> = 3..=8;
/// Partial sums on both sides, sums of squares, the table of products, the arguments of two steps, what aligns tiles.
const TABLE_BYTES: usize = 2 * WARPS * (MOST_CHAINED_ROWS * 20 + 16) * 4
    + WARPS * MOST_CHAINED_ROWS * 4
    + MOST_STEPS * STEP_BYTES
    + 2 * ARGUMENT_BYTES
    + 1024;
/// What the kernel declares beside that, at most.
const DECLARED_BYTES: usize = 12 << 10;

/// Steps of a plan that one launch does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Which steps.
    pub steps: Range<usize>,
    /// Their kinds: `CHAIN_*` of `abi.cuh`.
    kinds: Vec<i32>,
    /// Different ones.
    weights: usize,
    slots: usize,
    x_bytes: usize,
    /// The launch.
    pub planned: Planned,
}

/// A step that chains can have.
struct Link {
    kind: i32,
    x_bytes: usize,
    weight: Option<Matrix>,
    head_dim: Option<usize>,
}

impl Link {
    fn of(call: &Call, dtype: Dtype, most_rows: usize, properties: &Properties) -> Option<Link> {
        let few = |rows: i32| usize::try_from(rows).ok().filter(|rows| (1..=most_rows).contains(rows));
        let (kind, x_bytes, weight, head_dim) = match call {
            Call::Linear(a) => {
                skinny_rows(linear(a, dtype, properties).ok()?.name)?;
                let columns = usize::try_from(a.k).ok().filter(|_| a.k % COLUMNS == 0)?;
                let x_bytes = (2 * columns).next_multiple_of(2 * UNIT_COLUMNS) + 16;
                (LINEAR, few(a.rows)? * x_bytes, Some(weight_of(a)), None)
            }
            Call::Norm(a) => (NORM, (a.rows <= MOST_NORM_ROWS).then_some(0)?, None, None),
            Call::AttendWindow(a, width) | Call::AttendCache(a, width) => {
                let kind = match attend(a, *width, dtype, properties).ok()?.name {
                    "attend_window_4" | "attend_window_8" => WINDOW,
                    "attend_cache_1" | "attend_cache_4" => CACHE,
                    _ => return None,
                };
                few(a.rows)?;
                (kind, 0, None, (*width <= MOST_CHAINED_HEAD_DIM).then_some(Some(*width))?)
            }
            _ => return None,
        };
        Some(Link { kind, x_bytes, weight, head_dim })
    }
}

/// A chain that may go on.
#[derive(Default)]
struct Open {
    start: usize,
    x_bytes: usize,
    weights: Vec<Matrix>,
    kinds: Vec<i32>,
    head_dim: Option<usize>,
}

impl Open {
    fn takes(&self, link: &Link) -> bool {
        let same_heads = self.head_dim.is_none() || link.head_dim.is_none() || self.head_dim == link.head_dim;
        self.kinds.len() < MOST_STEPS && same_heads
    }

    fn push(&mut self, link: &Link) {
        self.kinds.push(link.kind);
        self.x_bytes = self.x_bytes.max(link.x_bytes);
        self.weights.extend(link.weight.filter(|weight| !self.weights.contains(weight)));
        self.head_dim = self.head_dim.or(link.head_dim);
    }

    fn close(self, dtype: Dtype, properties: &Properties) -> Option<Chain> {
        let products = self.kinds.iter().filter(|kind| **kind == LINEAR).count();
        if self.kinds.len() < LEAST_STEPS || products < 2 {
            return None;
        }
        let kept = self.x_bytes + TABLE_BYTES + DECLARED_BYTES;
        let slots = (properties.shared_bytes.checked_sub(kept)? / SLOT_BYTES).min(*SLOTS.end());
        if !SLOTS.contains(&slots) {
            return None;
        }
        let shared_bytes = slots * SLOT_BYTES + self.x_bytes + TABLE_BYTES;
        let shape = Shape {
            name: "chain_m8",
            grid: [u32::try_from(properties.multiprocessors).ok().filter(|grid| *grid > 0)?, 1, 1],
            threads: THREADS,
            shared_bytes: u32::try_from(shared_bytes).ok()?,
        };
        // Without attention any width does.
        let unit = Unit { source: Source::Chain, dtype, size: self.head_dim.unwrap_or(64) };
        let steps = self.start..self.start + self.kinds.len();
        Some(Chain {
            steps,
            kinds: self.kinds,
            weights: self.weights.len(),
            slots,
            x_bytes: self.x_bytes,
            planned: Planned { unit, shape },
        })
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
    /// Device memory that its table takes.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.weights * MAP_BYTES + self.kinds.len() * (STEP_BYTES + ARGUMENT_BYTES)
    }

    /// What lies at `address` of the device, from the calls of its steps: descriptions of weights, a `ChainStep` of `abi.cuh`
    /// for each step, their arguments. `map` describes a matrix: `Device::tile_map`.
    ///
    /// # Errors
    /// Those of `map`.
    pub fn table(
        &self,
        calls: &[Call],
        address: u64,
        map: &dyn Fn(Matrix) -> Result<[u8; MAP_BYTES], DeviceError>,
    ) -> Result<Vec<u8>, DeviceError> {
        let blocks = self.planned.shape.grid[0].max(1) as usize;
        let arguments_at = self.steps_at() + self.kinds.len() * STEP_BYTES;
        let (mut weights, mut maps) = (Vec::new(), Vec::new());
        let (mut steps, mut arguments, mut first) = (Vec::new(), Vec::new(), 0);
        for (call, kind) in calls.iter().zip(&self.kinds) {
            let own_arguments = address + (arguments_at + arguments.len()) as u64;
            let mut step = Step { arguments: own_arguments, kind: *kind, ..Step::default() };
            if let Call::Linear(a) = call {
                let weight = weight_of(a);
                let known = weights.iter().position(|known| *known == weight).unwrap_or(weights.len());
                if known == weights.len() {
                    weights.push(weight);
                    maps.extend(map(weight)?);
                }
                let parts = if a.mode == 1 { 2 } else { 1 };
                let map = address + (known * MAP_BYTES) as u64;
                step = Step { map, norm: a.norm, first, n: a.n, k: a.k, parts, ..step };
                // The next product begins where this one ends, so that no block has more to read than others.
                first = (first + size(a.n).div_ceil(UNIT_ROWS)) % blocks;
            }
            steps.extend(step.bytes());
            let end = arguments.len() + ARGUMENT_BYTES;
            arguments.extend(call.bytes());
            arguments.resize(end, 0);
        }
        maps.resize(self.steps_at(), 0);
        Ok([maps, steps, arguments].concat())
    }

    fn steps_at(&self) -> usize {
        self.weights * MAP_BYTES
    }

    /// The argument of the launch, its table at `address`: `ChainArguments` of `abi.cuh`.
    #[must_use]
    pub fn arguments(&self, address: u64, barrier: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((address + self.steps_at() as u64).to_le_bytes());
        bytes.extend(barrier.to_le_bytes());
        for number in [self.kinds.len(), self.slots, self.x_bytes, 0] {
            bytes.extend(i32::try_from(number).unwrap_or(0).to_le_bytes());
        }
        bytes
    }
}

/// `ChainStep` of `abi.cuh`.
#[derive(Default)]
struct Step {
    arguments: u64,
    map: u64,
    norm: u64,
    kind: i32,
    first: usize,
    n: i32,
    k: i32,
    parts: i32,
}

impl Step {
    fn bytes(&self) -> Vec<u8> {
        let addresses = [self.arguments, self.map, self.norm].map(u64::to_le_bytes).concat();
        let first = i32::try_from(self.first).unwrap_or(0);
        let numbers = [self.kind, first, self.n, self.k, self.parts, 0].map(i32::to_le_bytes).concat();
        [addresses, numbers].concat()
    }
}

fn weight_of(a: &LinearArguments) -> Matrix {
    let parts = if a.mode == 1 { 2 } else { 1 };
    Matrix { address: a.weight, rows: parts * size(a.n), columns: size(a.k) }
}

fn size(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}
