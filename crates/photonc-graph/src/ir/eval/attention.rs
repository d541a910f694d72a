//! Attention over visible keys and the cache it reads.
//!
//! A query visits its visible keys in slot order and nothing else: what a masked slot holds, NaN included, cannot
//! matter, and `Past` over `Concat(past, new)` is bit-identical to `Cache` over `CacheAppend(past, new)`.

use super::super::attr::{Mask, Reach};
use super::super::tensor::{Data, Tensor};
use super::layout::{Run, assemble};
use super::nn::dot;
use super::{EvalError, Evaluated, floats, ints, value_error};
use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSliceMut};
use std::ops::Range;

/// Keys one query sees, in visiting order: slots of the past, then newer ones.
struct Visible {
    past: Range<usize>,
    new: Range<usize>,
}

pub(super) fn attention(operands: &[&Tensor], scale: f64, mask: Mask, reach: Reach) -> Evaluated {
    let [q, k, v] = [operands[0], operands[1], operands[2]];
    let [batch, heads, queries, width] = [q.shape[0], q.shape[1], q.shape[2], q.shape[3]];
    let (groups, keys, value_width) = (k.shape[1], k.shape[2], v.shape[3]);
    let (qs, ks, vs) = (floats(q, "queries")?, floats(k, "keys")?, floats(v, "values")?);
    let (lengths, sinks) = match mask {
        Mask::Causal => (None, operands.get(3)),
        Mask::Cache | Mask::Past => (operands.get(3).copied(), operands.get(4)),
    };
    let sinks = sinks.map(|sinks| floats(sinks, "sinks")).transpose()?;
    let visible = visible_keys(mask, reach, batch, [queries, keys], lengths)?;
    let shape = vec![batch, heads, queries, value_width];
    let mut values = vec![0.0; shape.iter().product()];
    if values.is_empty() {
        return Ok(Tensor { shape, data: Data::float(values) });
    }
    let shared = heads / groups;
    values.par_chunks_exact_mut(queries * value_width).enumerate().for_each(|(head, out)| {
        let row = head / heads;
        let group = row * groups + head % heads / shared;
        let at = |slot: usize, width: usize| (group * keys + slot) * width..(group * keys + slot + 1) * width;
        let sink = sinks.map(|sinks| sinks[head % heads]);
        for (query, out) in out.chunks_exact_mut(value_width).enumerate() {
            let start = (head * queries + query) * width;
            let seen = &visible[row * queries + query];
            let slots = seen.past.clone().chain(seen.new.clone());
            let entries = slots.map(|slot| (&ks[at(slot, width)], &vs[at(slot, value_width)]));
            attend(&qs[start..start + width], scale, entries, sink, out);
        }
    });
    Ok(Tensor { shape, data: Data::float(values) })
}

/// Softmax of scaled scores over `entries` (key, value) and the sink, then the weighted sum of the values, in their order.
fn attend<'t>(
    query: &[f64],
    scale: f64,
    entries: impl Iterator<Item = (&'t [f64], &'t [f64])> + Clone,
    sink: Option<f64>,
    out: &mut [f64],
) {
    let scores: Vec<f64> = entries.clone().map(|(key, _)| dot(query, key) * scale).collect();
    let largest = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let mut mass = sink.map_or(0.0, |sink| (sink - largest).exp());
    for (score, (_, value)) in scores.iter().zip(entries) {
        let share = (score - largest).exp();
        mass += share;
        for (out, value) in out.iter_mut().zip(value) {
            *out += share * value;
        }
    }
    for out in out {
        *out /= mass;
    }
}

/// What query `i` of row `b` sees, at index `b * queries + i`.
fn visible_keys(
    mask: Mask,
    reach: Reach,
    batch: usize,
    [queries, keys]: [usize; 2],
    lengths: Option<&Tensor>,
) -> Result<Vec<Visible>, EvalError> {
    let new = queries + reach.recent;
    if keys < new && batch > 0 {
        return Err(value_error(
            "number of keys",
            keys,
            Vec::new(),
            format!("{new} or more, one a query and the recent ones"),
        ));
    }
    let cached = keys.saturating_sub(new);
    let lengths = match lengths {
        Some(lengths) => row_lengths(lengths, cached)?,
        None => vec![cached; batch],
    };
    let mut visible = Vec::with_capacity(batch * queries);
    for length in lengths {
        visible.extend((0..queries).map(|query| {
            // Slot of the key at position `length`: positions and slots differ where new keys stand behind a cache.
            let start = match mask {
                Mask::Causal | Mask::Cache => length,
                Mask::Past => cached,
            };
            let own = query + reach.recent;
            let first = reach.first(length + own);
            let new = start + first.saturating_sub(length)..start + own + 1;
            Visible { past: first.min(length)..length, new }
        }));
    }
    Ok(visible)
}

pub(super) fn cache_append(cache: &Tensor, new: &Tensor, lengths: &Tensor) -> Evaluated {
    let [batch, groups, slots, width] = [cache.shape[0], cache.shape[1], cache.shape[2], cache.shape[3]];
    let added = new.shape[2];
    if added > slots && batch > 0 {
        return Err(value_error(
            "number of new entries",
            added,
            Vec::new(),
            format!("at most {slots} slots"),
        ));
    }
    let lengths = row_lengths(lengths, slots.saturating_sub(added))?;
    let mut runs = Vec::with_capacity(3 * batch * groups);
    for head in 0..batch * groups {
        let length = lengths[head / groups];
        let (start, rest) = (head * slots, length + added);
        runs.push(Run { source: 0, start: start * width, len: length * width });
        runs.push(Run { source: 1, start: head * added * width, len: added * width });
        runs.push(Run { source: 0, start: (start + rest) * width, len: (slots - rest) * width });
    }
    assemble(&[cache, new], &runs, &cache.shape)
}

/// Filled slots of every row, of which there can be `most` with room left for the new ones.
fn row_lengths(lengths: &Tensor, most: usize) -> Result<Vec<usize>, EvalError> {
    let read = |(row, length): (usize, &i64)| match usize::try_from(*length) {
        Ok(filled) if filled <= most => Ok(filled),
        _ => Err(value_error(
            "cache length",
            length,
            vec![row],
            format!("0 to {most}, which leaves room for the new entries"),
        )),
    };
    ints(lengths, "lengths")?.iter().enumerate().map(read).collect()
}
