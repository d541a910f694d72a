//! Rotations and appends by themselves, and attention in its general form. As in `attend`, a query's result is computed in one order,
//! that of its keys, whatever queries, rows and threads are beside it.

use super::attend::{Keys, Values, head_at, mix, softmax};
use super::lanes::{Form, LANES, Lanes, Work, with};
use super::pool::Pool;
use super::rows::size;
use super::scalar::Scalar;
use super::scratch;
use crate::launch::arguments::{AppendArguments, GeneralArguments, RopeArguments};

/// Queries of a piece of work.
const QUERIES: usize = 16;
/// Nanoseconds that the sine and cosine of an angle take.
const ANGLE_NS: usize = 40;

/// `Rope`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn rope<T: Scalar>(pool: &Pool, a: &RopeArguments) {
    let (count, heads, half) = (size(a.count), size(a.heads), size(a.width) / 2);
    let rate = |t: usize| a.theta.powf(-2.0 * t as f64 / f64::from(a.width));
    let rates: Vec<f64> = (0..half).map(rate).collect();
    let pieces = size(a.rows) * count;
    pool.share(pieces, pieces * half * (ANGLE_NS + heads), &|piece| {
        let (row, entry) = (piece / count, piece % count);
        // SAFETY: that of the caller; the two halves of a head are read before they are written, and may be its own.
        unsafe {
            let at = row as i64 * a.position_row + entry as i64 * a.position_step;
            let position = (a.positions as *const i64).offset(at as isize).read_unaligned();
            for (t, rate) in rates.iter().enumerate() {
                let (sin, cos) = (position as f64 * rate).sin_cos();
                let (sin, cos) = (sin as f32, cos as f32);
                for head in 0..heads {
                    let from = head_at::<T>(&a.x, [row, entry, head]);
                    let to = head_at::<T>(&a.out, [row, entry, head]);
                    let low = from.add(t).read_unaligned().wide();
                    let high = from.add(t + half).read_unaligned().wide();
                    to.add(t).write_unaligned(T::narrow(low * cos - high * sin));
                    to.add(t + half).write_unaligned(T::narrow(high * cos + low * sin));
                }
            }
        }
    });
}

/// `AttendGeneral`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn attend<T: Scalar>(form: Form, pool: &Pool, a: &GeneralArguments) {
    let (rows, heads, queries) = (size(a.rows), size(a.heads), size(a.queries));
    let blocks = queries.div_ceil(QUERIES);
    let work_ns = rows * heads * (queries + size(a.keys)) * size(a.width) * 4;
    pool.share(rows * heads * blocks, work_ns, &|piece| {
        let (row, head, block) = (piece / blocks / heads, piece / blocks % heads, piece % blocks);
        let types = std::marker::PhantomData::<T>;
        with(form, Part { arguments: a, row, head, block, types });
    });
}

/// A block of the queries of one head of a row.
struct Part<'a, T> {
    arguments: &'a GeneralArguments,
    row: usize,
    head: usize,
    block: usize,
    types: std::marker::PhantomData<T>,
}

impl<T: Scalar> Work for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let a = self.arguments;
        let group = (size(a.heads) / size(a.kv_heads).max(1)).max(1);
        // SAFETY: that of the caller of `attend`.
        unsafe {
            let past = match a.lengths {
                0 => 0,
                lengths => (lengths as *const i64).add(self.row).read_unaligned(),
            };
            let past = usize::try_from(past).unwrap_or(0);
            self.queries::<L>(past, self.head / group);
        }
    }
}

impl<T: Scalar> Part<'_, T> {
    #[inline(always)]
    unsafe fn queries<L: Lanes>(&self, past: usize, key_head: usize) {
        let a = self.arguments;
        let (width, value_width, new) = (size(a.width), size(a.value_width), size(a.keys));
        let (first, last) = (self.block * QUERIES, size(a.queries).min((self.block + 1) * QUERIES));
        // The query's own key among the new ones.
        let own = |query: usize| new.saturating_sub(size(a.queries)) + query;
        let most = past + own(last.max(1) - 1) + 1;
        let seen = most - past;
        let padded = width.next_multiple_of(LANES);
        let mut held = scratch::take(seen * width + most.next_multiple_of(LANES) + padded);
        let (keys, held) = held.split_at_mut(seen * width);
        let (scores, query_lanes) = held.split_at_mut(most.next_multiple_of(LANES));
        // SAFETY: that of the caller.
        unsafe {
            for j in 0..seen {
                widen(head_at::<T>(&a.k, [self.row, j, key_head]), &mut keys[j * width..(j + 1) * width]);
            }
            let sink = match a.sinks {
                0 => f32::NEG_INFINITY,
                sinks => (sinks as *const T).add(self.head).read_unaligned().wide(),
            };
            for query in first..last {
                let position = past + own(query);
                let start = self.first_seen(position);
                let count = position + 1 - start;
                let (cached, skipped) = (past.saturating_sub(start), start.saturating_sub(past));
                query_lanes.fill(0.0);
                widen(head_at::<T>(&a.q, [self.row, query, self.head]), &mut query_lanes[..width]);
                let from = start.min(past);
                let keys = Keys {
                    cached,
                    cache: head_at::<T>(&a.cache_k, [self.row, from, key_head]),
                    cache_step: a.cache_k.position as isize,
                    new: keys.as_ptr().add(skipped * width),
                    new_step: width as isize,
                };
                let values = Values {
                    cached,
                    cache: head_at::<T>(&a.cache_v, [self.row, from, key_head]),
                    cache_step: a.cache_v.position as isize,
                    new: head_at::<T>(&a.v, [self.row, skipped, key_head]),
                    new_step: a.v.position as isize,
                };
                let scores = &mut scores[..count.next_multiple_of(LANES)];
                let sum = softmax::<T, L>(scores, count, query_lanes, width, &keys, (a.scale, sink));
                let out = head_at::<T>(&a.out, [self.row, query, self.head]);
                mix::<T, L>(scores, count, sum, &values, value_width, out);
            }
        }
    }

    /// The first position that a query at `position` reads.
    fn first_seen(&self, position: usize) -> usize {
        let a = self.arguments;
        let near = if a.window == 0 { 0 } else { (position + 1).saturating_sub(size(a.window)) };
        let tile = if a.tile == 0 { 0 } else { position / size(a.tile) * size(a.tile) };
        near.max(tile)
    }
}

/// `Append`.
///
/// # Safety
/// The addresses are valid, and the cache has room.
pub unsafe fn append<T: Scalar>(a: &AppendArguments) {
    let bytes = size(a.width) * size_of::<T>();
    for row in 0..size(a.rows) {
        // SAFETY: that of the caller.
        unsafe {
            let past = usize::try_from((a.lengths as *const i64).add(row).read_unaligned()).unwrap_or(0);
            for (entry, head) in (0..size(a.count)).flat_map(|i| (0..size(a.heads)).map(move |h| (i, h))) {
                let from = head_at::<T>(&a.x, [row, entry, head]).cast::<u8>();
                std::ptr::copy(from, head_at::<T>(&a.cache, [row, past + entry, head]).cast(), bytes);
            }
        }
    }
}

/// Elements as f32.
///
/// # Safety
/// `from` has as many elements as `to`.
unsafe fn widen<T: Scalar>(from: *const T, to: &mut [f32]) {
    for (at, to) in to.iter_mut().enumerate() {
        // SAFETY: that of the caller.
        *to = unsafe { from.add(at).read_unaligned() }.wide();
    }
}
