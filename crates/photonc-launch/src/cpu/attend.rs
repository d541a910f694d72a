//! Attention over windows, caches and streams, and the storing of new keys. A query's result is computed in one order,
//! that of its keys, whatever queries, rows and threads are beside it.

use super::lanes::{Form, LANES, Lanes, Work, exp, with};
use super::pool::Pool;
use super::rows::size;
use super::scalar::{Scalar, load_part, store_part};
use super::scratch;
use crate::launch::arguments::{AttendArguments, Heads};

/// Widest head.
const MAX_WIDTH: usize = 256;
/// Queries of a piece of work.
const QUERIES: usize = 16;
/// Vectors of a result that are summed at once.
const SUMMED: usize = 4;

/// Attention, or only the storing of new keys.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Sizes and addresses.
    pub arguments: &'a AttendArguments,
    /// Elements of a head.
    pub width: usize,
    /// Whether there are queries.
    pub attends: bool,
}

/// `AttendWindow`, `AttendCache`, `AttendStream` and `AppendKeys`.
///
/// # Safety
/// The addresses are valid; what is stored overlaps no key that is read as one of the cache.
pub unsafe fn attend<T: Scalar>(form: Form, pool: &Pool, attention: Attention<'_>) {
    let a = attention.arguments;
    let (rows, heads, queries) = (size(a.rows), size(a.kv_heads), size(a.queries));
    let blocks = if attention.attends { queries.div_ceil(QUERIES).max(1) } else { 1 };
    // Keys are not known here where they are counted on the device; four positions of a head a nanosecond.
    let work_ns = rows * size(a.heads) * (queries + size(a.keys)) * attention.width * 4;
    pool.share(rows * heads * blocks, work_ns, &|piece| {
        let (row, head, block) = (piece / blocks / heads, piece / blocks % heads, piece % blocks);
        with(form, Part::<T> { attention, row, head, block, types: std::marker::PhantomData });
    });
}

/// A block of the queries of one key head of a row.
struct Part<'a, T> {
    attention: Attention<'a>,
    row: usize,
    head: usize,
    block: usize,
    types: std::marker::PhantomData<T>,
}

/// # Safety
/// The heads have the entry.
#[inline(always)]
pub(super) unsafe fn head_at<T>(heads: &Heads, [row, position, head]: [usize; 3]) -> *mut T {
    let elements = row as i64 * heads.row + position as i64 * heads.position + head as i64 * heads.head;
    // SAFETY: that of the caller.
    unsafe { (heads.base as *mut T).offset(elements as isize) }
}

impl<T: Scalar> Part<'_, T> {
    /// A head at `from`, turned to `position` and rounded to T.
    unsafe fn turned(&self, from: *const T, position: i64, to: &mut [T]) {
        let (a, half) = (self.attention.arguments, self.attention.width / 2);
        // SAFETY: that of the caller; the table has `table_positions` positions of `half` angles.
        unsafe {
            let at = |i: usize| from.add(i).read_unaligned();
            if a.table == 0 {
                (0..2 * half).for_each(|i| to[i] = at(i));
                return;
            }
            let known = position.clamp(0, i64::from(a.table_positions - 1)) as usize;
            let angles = (a.table as *const f32).add(known * 2 * half);
            for t in 0..half {
                let (cos, sin) = (angles.add(2 * t).read_unaligned(), angles.add(2 * t + 1).read_unaligned());
                let (low, high) = (at(t).wide(), at(t + half).wide());
                to[t] = T::narrow(low * cos - high * sin);
                to[t + half] = T::narrow(high * cos + low * sin);
            }
        }
    }

    /// Keys of the cache, and those that the row's queries see at most.
    unsafe fn counts(&self) -> (i64, i64) {
        let a = self.attention.arguments;
        // SAFETY: that of the caller.
        unsafe {
            let length = match a.lengths {
                0 => 0,
                lengths => {
                    let entry = self.row / size(a.rows_per_length).max(1);
                    (lengths as *const i64).add(entry).read_unaligned() * i64::from(a.past_scale)
                }
            };
            let past = length + i64::from(a.past_base);
            let keys = past + i64::from(a.keys);
            let visible = match a.visible {
                0 => keys,
                visible => {
                    let units = (visible as *const i64).add(self.row).read_unaligned();
                    keys.min(units * i64::from(a.visible_scale))
                }
            };
            (past, visible)
        }
    }

    unsafe fn store_keys(&self, past: i64) {
        let (a, width) = (self.attention.arguments, self.attention.width);
        let mut key = [T::ZERO; MAX_WIDTH];
        for j in 0..size(a.keys) {
            let at = j + if a.store_at_past == 0 { 0 } else { usize::try_from(past).unwrap_or(0) };
            // SAFETY: that of the caller.
            unsafe {
                let (k, v) = (
                    head_at::<T>(&a.k, [self.row, j, self.head]),
                    head_at::<T>(&a.v, [self.row, j, self.head]),
                );
                self.turned(k, past + j as i64, &mut key[..width]);
                let to = head_at::<T>(&a.store_k, [self.row, at, self.head]);
                std::ptr::copy_nonoverlapping(key.as_ptr().cast::<u8>(), to.cast(), width * size_of::<T>());
                let to = head_at::<T>(&a.store_v, [self.row, at, self.head]);
                std::ptr::copy(v.cast::<u8>(), to.cast(), width * size_of::<T>());
            }
        }
    }
}

impl<T: Scalar> Work for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Attention { arguments: a, width, attends } = self.attention;
        // SAFETY: that of the caller of `attend`.
        unsafe {
            let (past, visible) = self.counts();
            if attends {
                self.queries::<L>(past, visible);
            }
            // The first block stores; nobody reads new keys there.
            if a.store_k.base != 0 && self.block == 0 && width <= MAX_WIDTH {
                self.store_keys(past);
            }
        }
    }
}

impl<T: Scalar> Part<'_, T> {
    #[inline(always)]
    unsafe fn queries<L: Lanes>(&self, past: i64, visible: i64) {
        let Attention { arguments: a, width, .. } = self.attention;
        let group = size(a.heads) / size(a.kv_heads).max(1);
        let first = self.block * QUERIES;
        let last = size(a.queries).min(first + QUERIES);
        let seen = |query: usize| {
            let position = past + i64::from(a.first_query) + query as i64;
            let seen = if a.causal == 0 { visible } else { visible.min(position + 1) };
            (position, usize::try_from(seen).unwrap_or(0))
        };
        let cached = usize::try_from(past).unwrap_or(0);
        let most = (first..last).map(|query| seen(query).1).max().unwrap_or(0);
        let new = most.saturating_sub(cached).min(size(a.keys));
        let padded = width.next_multiple_of(LANES);
        let mut held = scratch::take(new * width + most.next_multiple_of(LANES) + padded);
        let (turned, held) = held.split_at_mut(new * width);
        let (scores, query_lanes) = held.split_at_mut(most.next_multiple_of(LANES));
        let mut rounded = [T::ZERO; MAX_WIDTH];
        // SAFETY: that of the caller.
        unsafe {
            for j in 0..new {
                let key = head_at::<T>(&a.k, [self.row, j, self.head]);
                self.turned(key, past + j as i64, &mut rounded[..width]);
                for (to, value) in turned[j * width..].iter_mut().zip(&rounded[..width]) {
                    *to = value.wide();
                }
            }
            let keys = Keys {
                cached,
                cache: head_at::<T>(&a.cache_k, [self.row, 0, self.head]),
                cache_step: a.cache_k.position as isize,
                new: turned.as_ptr(),
                new_step: width as isize,
            };
            let values = Values {
                cached,
                cache: head_at::<T>(&a.cache_v, [self.row, 0, self.head]),
                cache_step: a.cache_v.position as isize,
                new: head_at::<T>(&a.v, [self.row, 0, self.head]),
                new_step: a.v.position as isize,
            };
            for query in first..last {
                let (position, count) = seen(query);
                for member in 0..group {
                    let head = self.head * group + member;
                    let from = head_at::<T>(&a.q, [self.row, query, head]);
                    self.turned(from, position, &mut rounded[..width]);
                    query_lanes.fill(0.0);
                    for (to, value) in query_lanes.iter_mut().zip(&rounded[..width]) {
                        *to = value.wide();
                    }
                    let out = head_at::<T>(&a.out, [self.row, query, head]);
                    let scores = &mut scores[..count.next_multiple_of(LANES)];
                    let sum = softmax::<T, L>(
                        scores,
                        count,
                        query_lanes,
                        width,
                        &keys,
                        (a.scale, f32::NEG_INFINITY),
                    );
                    mix::<T, L>(scores, count, sum, &values, width, out);
                }
            }
        }
    }
}

/// Where the keys of a head lie: those of the cache, and new ones as f32.
pub(super) struct Keys<T> {
    pub(super) cached: usize,
    pub(super) cache: *const T,
    pub(super) cache_step: isize,
    pub(super) new: *const f32,
    pub(super) new_step: isize,
}

/// The same of the values.
pub(super) struct Values<T> {
    pub(super) cached: usize,
    pub(super) cache: *const T,
    pub(super) cache_step: isize,
    pub(super) new: *const T,
    pub(super) new_step: isize,
}

/// Weights of the first `count` keys, and the sum of those and of the sink's, a logit that is not scaled and has no value; none
/// where it is minus infinity.
#[inline(always)]
pub(super) unsafe fn softmax<T: Scalar, L: Lanes>(
    scores: &mut [f32],
    count: usize,
    query: &[f32],
    width: usize,
    keys: &Keys<T>,
    (scale, sink): (f32, f32),
) -> f32 {
    let mut largest = sink;
    // SAFETY: that of the caller: there are `count` keys of `width` elements, and the scores are whole vectors.
    unsafe {
        for (j, score) in scores.iter_mut().enumerate().take(count) {
            let product = match j.checked_sub(keys.cached) {
                None => dot::<T, L>(query, keys.cache.offset(j as isize * keys.cache_step), width),
                Some(at) => dot::<f32, L>(query, keys.new.offset(at as isize * keys.new_step), width),
            };
            *score = product * scale;
            largest = largest.max(*score);
        }
        // Fills the last vector up with keys that weigh nothing.
        scores[count..].fill(f32::NEG_INFINITY);
        let mut sum = L::splat(0.0);
        for part in scores.chunks_exact_mut(LANES) {
            let weight = exp(L::load(part.as_ptr()).sub(L::splat(largest)));
            weight.store(part.as_mut_ptr());
            sum = sum.add(weight);
        }
        if sink == f32::NEG_INFINITY {
            return sum.sum();
        }
        // Sixteen equal lanes add up to sixteen times one of them, exactly.
        sum.sum() + exp(L::splat(sink - largest)).sum() / LANES as f32
    }
}

#[inline(always)]
unsafe fn dot<T: Scalar, L: Lanes>(query: &[f32], key: *const T, width: usize) -> f32 {
    // SAFETY: that of the caller; the query is whole vectors.
    unsafe {
        let mut sum = L::splat(0.0);
        for at in (0..width).step_by(LANES) {
            let key = load_part::<T, L>(key.add(at), LANES.min(width - at));
            sum = L::load(query.as_ptr().add(at)).fma(key, sum);
        }
        sum.sum()
    }
}

/// The values by their weights.
#[inline(always)]
pub(super) unsafe fn mix<T: Scalar, L: Lanes>(
    weights: &[f32],
    count: usize,
    sum: f32,
    values: &Values<T>,
    width: usize,
    out: *mut T,
) {
    // SAFETY: that of the caller: there are `count` values of `width` elements.
    unsafe {
        let mut start = 0;
        while start < width {
            let mut sums = [L::splat(0.0); SUMMED];
            let last = width.min(start + SUMMED * LANES);
            for (j, weight) in weights.iter().enumerate().take(count) {
                let value = match j.checked_sub(values.cached) {
                    None => values.cache.offset(j as isize * values.cache_step),
                    Some(at) => values.new.offset(at as isize * values.new_step),
                };
                let weight = L::splat(*weight);
                for (part, at) in sums.iter_mut().zip((start..last).step_by(LANES)) {
                    let value = load_part::<T, L>(value.add(at), LANES.min(width - at));
                    *part = weight.fma(value, *part);
                }
            }
            for (part, at) in sums.iter().zip((start..last).step_by(LANES)) {
                let result = if sum > 0.0 { part.div(L::splat(sum)) } else { L::splat(0.0) };
                store_part::<T, L>(out.add(at), result, LANES.min(width - at));
            }
            start = last;
        }
    }
}
