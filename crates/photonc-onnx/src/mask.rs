//! Which keys a query sees, as boolean tensors that all layers share. Owns the alignment of queries and keys.
//!
//! Slots of a cache past a row's length may hold anything, NaN included, and `0 * NaN` is NaN: so a mask comes in two
//! forms, one for the scores of each query and one that blanks the values no query sees.

use super::ExportError;
use super::emit::{Emitter, Shared};
use super::proto;
use photonc_graph::ir::attr::{Attribute, Mask, Reach};
use photonc_graph::ir::dim::Dim;
use std::num::NonZeroUsize;

/// Sizes that a mask depends on.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// Queries of a head.
    pub(super) queries: Dim,
    /// Keys.
    pub(super) keys: Dim,
    /// How often the queries are repeated along the rows of the scores: row `r` is query `r % queries`.
    pub(super) repeats: usize,
}

/// Boolean tensors: true where seen.
#[derive(Clone, Debug)]
pub(super) struct Visible {
    /// `[rows, keys]` or `[B, 1, rows or 1, keys]`.
    pub(super) scores: String,
    /// `[B, 1, keys, 1]`, where some keys may hold anything.
    pub(super) values: Option<String>,
}

impl Emitter<'_> {
    /// The mask of scores and values; `None` if every query sees every key.
    pub(super) fn visible(
        &mut self,
        (mask, reach): (Mask, Reach),
        extent: &Extent,
        lengths: Option<&str>,
    ) -> Result<Option<Visible>, ExportError> {
        let Extent { queries, keys, repeats } = extent;
        // As long as the keys of a sequence from its start, a window or a tile hides none of them.
        let whole = |size: &NonZeroUsize| {
            mask == Mask::Causal && keys.as_const().is_some_and(|keys| size.get() >= keys)
        };
        let reach = Reach {
            window: reach.window.filter(|size| !whole(size)),
            tile: reach.tile.filter(|size| !whole(size)),
            recent: reach.recent,
        };
        let sees_all = queries.as_const() == Some(1) && !reach.hides();
        let far = reach.print();
        let key = format!("{} {} {queries} {keys} {repeats} {far}", mask.name(), lengths.unwrap_or(""));
        let part = |part: &str| Shared::Mask(format!("{key} {part}"));
        match (mask, lengths) {
            (Mask::Causal, _) if sees_all => Ok(None),
            (Mask::Past, Some(lengths)) => {
                let scores =
                    self.shared(part("scores"), |emitter| emitter.past_scores(extent, lengths, reach))?;
                let values = self.shared(part("values"), |emitter| {
                    let seen = emitter.past_seen(extent, lengths, reach.recent)?;
                    Ok(emitter.unsqueeze(&seen, &[1, 3]))
                })?;
                Ok(Some(Visible { scores, values: Some(values) }))
            }
            (Mask::Cache, Some(lengths)) => {
                let scores =
                    self.shared(part("scores"), |emitter| emitter.cache_scores(extent, lengths, reach))?;
                let values = self.shared(part("values"), |emitter| emitter.cache_values(extent, lengths))?;
                Ok(Some(Visible { scores, values: Some(values) }))
            }
            (Mask::Causal | Mask::Past | Mask::Cache, _) => {
                let scores = self.shared(part("scores"), |emitter| emitter.causal(extent, reach))?;
                Ok(Some(Visible { scores, values: None }))
            }
        }
    }

    /// `[rows, keys]`: key `j <= i + keys - queries` in reach.
    fn causal(&mut self, extent: &Extent, reach: Reach) -> Result<String, ExportError> {
        if let (Some(queries), Some(keys)) = (extent.queries.as_const(), extent.keys.as_const()) {
            let rows = queries * extent.repeats;
            let seen = move |row: usize, key: usize| {
                let own = (row % queries + keys).checked_sub(queries);
                own.is_some_and(|own| (reach.first(own)..=own).contains(&key))
            };
            let seen = (0..rows).flat_map(|row| (0..keys).map(move |key| seen(row, key)));
            return Ok(self.bool_tensor(&[rows, keys], &seen.collect::<Vec<_>>()));
        }
        let (column, row) = (self.query_column(extent)?, self.range(&extent.keys)?);
        let last = if extent.queries == extent.keys {
            column
        } else {
            let before = self.before_queries(extent)?;
            self.node("Add", &[&column, &before], vec![])
        };
        Ok(self.up_to(&row, &last, reach))
    }

    /// Keys at positions up to `last`, the query's own, in reach.
    fn up_to(&mut self, positions: &str, last: &str, reach: Reach) -> String {
        let seen = self.node("LessOrEqual", &[positions, last], vec![]);
        self.within(seen, positions, last, reach)
    }

    /// Those of `seen` in reach of a query at position `last`.
    fn within(&mut self, mut seen: String, positions: &str, last: &str, reach: Reach) -> String {
        let size = |size: NonZeroUsize| proto::to_i64(size.get());
        if let Some(window) = reach.window {
            let window = self.ints(&[size(window)]);
            let before = self.node("Sub", &[last, &window], vec![]);
            let near = self.node("Greater", &[positions, &before], vec![]);
            seen = self.node("And", &[&seen, &near], vec![]);
        }
        if let Some(tile) = reach.tile {
            let tile = self.ints(&[size(tile)]);
            let first = self.node("Div", &[last, &tile], vec![]);
            let first = self.node("Mul", &[&first, &tile], vec![]);
            let inside = self.node("GreaterOrEqual", &[positions, &first], vec![]);
            seen = self.node("And", &[&seen, &inside], vec![]);
        }
        seen
    }

    /// `[B, 1, rows or 1, keys]`: past slots `j < lengths[b]`, new keys causally.
    fn past_scores(&mut self, extent: &Extent, lengths: &str, reach: Reach) -> Result<String, ExportError> {
        if extent.queries.as_const() == Some(1) && !reach.hides() {
            let seen = self.past_seen(extent, lengths, reach.recent)?;
            return Ok(self.unsqueeze(&seen, &[1, 2]));
        }
        let before = self.before_new(extent, reach.recent)?;
        let (row, column) = (self.range(&extent.keys)?, self.query_column(extent)?);
        let is_new = self.node("GreaterOrEqual", &[&row, &before], vec![]);
        let own = self.after_recent(&column, reach.recent);
        let last = self.node("Add", &[&own, &before], vec![]);
        let is_causal = self.node("LessOrEqual", &[&row, &last], vec![]);
        let mut new = self.node("And", &[&is_new, &is_causal], vec![]);
        let past = self.past_slots(extent, lengths)?;
        let mut past = self.unsqueeze(&past, &[1, 2]);
        if reach.hides() {
            // Slots of the past are positions; new keys stand at the row's length and after.
            let lengths = self.unsqueeze(lengths, &[1, 2, 3]);
            let own = self.node("Add", &[&lengths, &own], vec![]);
            past = self.within(past, &row, &own, reach);
            let moved = self.node("Sub", &[&lengths, &before], vec![]);
            let positions = self.node("Add", &[&row, &moved], vec![]);
            new = self.within(new, &positions, &own, reach);
        }
        Ok(self.node("Or", &[&past, &new], vec![]))
    }

    /// Queries behind `recent` new keys.
    fn after_recent(&mut self, column: &str, recent: usize) -> String {
        if recent == 0 {
            return column.to_owned();
        }
        let recent = self.ints(&[proto::to_i64(recent)]);
        self.node("Add", &[column, &recent], vec![])
    }

    /// `i64 [1]`: keys before the first new one.
    fn before_new(&mut self, extent: &Extent, recent: usize) -> Result<String, ExportError> {
        let before = self.before_queries(extent)?;
        if recent == 0 {
            return Ok(before);
        }
        self.shared(Shared::Mask(format!("{} - {} - {recent}", extent.keys, extent.queries)), |emitter| {
            let recent = emitter.ints(&[proto::to_i64(recent)]);
            Ok(emitter.node("Sub", &[&before, &recent], vec![]))
        })
    }

    /// `[B, keys]`: what any query sees: past slots `j < lengths[b]` and all new keys.
    fn past_seen(&mut self, extent: &Extent, lengths: &str, recent: usize) -> Result<String, ExportError> {
        let Extent { queries, keys, .. } = extent;
        let key = Shared::Mask(format!("past {lengths} {queries} {keys} {recent} seen"));
        self.shared(key, |emitter| {
            let (row, before) = (emitter.range(keys)?, emitter.before_new(extent, recent)?);
            let is_new = emitter.node("GreaterOrEqual", &[&row, &before], vec![]);
            let past = emitter.past_slots(extent, lengths)?;
            Ok(emitter.node("Or", &[&past, &is_new], vec![]))
        })
    }

    /// `[B, keys]`: key `j < lengths[b]`.
    fn past_slots(&mut self, extent: &Extent, lengths: &str) -> Result<String, ExportError> {
        let key = Shared::Mask(format!("past {lengths} {} slots", extent.keys));
        self.shared(key, |emitter| {
            let row = emitter.range(&extent.keys)?;
            let lengths = emitter.unsqueeze(lengths, &[1]);
            Ok(emitter.node("Less", &[&row, &lengths], vec![]))
        })
    }

    /// `[B, 1, rows, keys]`: slot `j <= lengths[b] + i`.
    fn cache_scores(&mut self, extent: &Extent, lengths: &str, reach: Reach) -> Result<String, ExportError> {
        let (row, column) = (self.range(&extent.keys)?, self.query_column(extent)?);
        let lengths = self.unsqueeze(lengths, &[1, 2, 3]);
        let last = self.node("Add", &[&lengths, &column], vec![]);
        Ok(self.up_to(&row, &last, reach))
    }

    /// `[B, 1, keys, 1]`: slot `j < lengths[b] + queries`.
    fn cache_values(&mut self, extent: &Extent, lengths: &str) -> Result<String, ExportError> {
        let (row, queries) = (self.range(&extent.keys)?, self.size(&extent.queries)?);
        let lengths = self.unsqueeze(lengths, &[1]);
        let end = self.node("Add", &[&lengths, &queries], vec![]);
        let seen = self.node("Less", &[&row, &end], vec![]);
        Ok(self.unsqueeze(&seen, &[1, 3]))
    }

    /// `i64 [rows, 1]`: the query of every row of the scores.
    fn query_column(&mut self, extent: &Extent) -> Result<String, ExportError> {
        if let Some(queries) = extent.queries.as_const() {
            let rows = queries * extent.repeats;
            let values: Vec<i64> = (0..rows).map(|row| proto::to_i64(row % queries)).collect();
            return Ok(self.int_tensor(&[rows, 1], &values));
        }
        let range = self.range(&extent.queries)?;
        self.shared(Shared::Mask(format!("{} column", extent.queries)), |emitter| {
            // Entry i of 0, 1, .. is i: a gather that hides from tract 0.23 that the mask is a function of positions,
            // which it would split into regions as if a causal mask had only one axis.
            let opaque = emitter.node("Gather", &[&range, &range], vec![]);
            Ok(emitter.unsqueeze(&opaque, &[1]))
        })
    }

    /// `i64 [1]`: keys before the first query's own.
    fn before_queries(&mut self, extent: &Extent) -> Result<String, ExportError> {
        let Extent { queries, keys, .. } = extent;
        if let (Some(queries), Some(keys)) = (queries.as_const(), keys.as_const()) {
            return Ok(self.ints(&[proto::to_i64(keys.saturating_sub(queries))]));
        }
        self.shared(Shared::Mask(format!("{keys} - {queries}")), |emitter| {
            let (keys, queries) = (emitter.size(keys)?, emitter.size(queries)?);
            Ok(emitter.node("Sub", &[&keys, &queries], vec![]))
        })
    }
}
