//! Which keys a query sees, as boolean tensors that all layers share. Owns the alignment of queries and keys.
//!
//! Slots of a cache past a row's length may hold anything, NaN included, and `0 * NaN` is NaN: so a mask comes in two
//! forms, one for the scores of each query and one that blanks the values no query sees.

use super::ExportError;
use super::emit::{Emitter, Shared};
use super::proto;
use crate::ir::attr::Mask;
use crate::ir::dim::Dim;

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
        mask: Mask,
        extent: &Extent,
        lengths: Option<&str>,
    ) -> Result<Option<Visible>, ExportError> {
        let sees_all = extent.queries.as_const() == Some(1);
        let Extent { queries, keys, repeats } = extent;
        let key = format!("{} {} {queries} {keys} {repeats}", mask.name(), lengths.unwrap_or(""));
        let part = |part: &str| Shared::Mask(format!("{key} {part}"));
        match (mask, lengths) {
            (Mask::Causal, _) if sees_all => Ok(None),
            (Mask::Past, Some(lengths)) => {
                let scores = self.shared(part("scores"), |emitter| emitter.past_scores(extent, lengths))?;
                let values = self.shared(part("values"), |emitter| {
                    let seen = emitter.past_seen(extent, lengths)?;
                    Ok(emitter.unsqueeze(&seen, &[1, 3]))
                })?;
                Ok(Some(Visible { scores, values: Some(values) }))
            }
            (Mask::Cache, Some(lengths)) => {
                let scores = self.shared(part("scores"), |emitter| emitter.cache_scores(extent, lengths))?;
                let values = self.shared(part("values"), |emitter| emitter.cache_values(extent, lengths))?;
                Ok(Some(Visible { scores, values: Some(values) }))
            }
            (Mask::Causal | Mask::Past | Mask::Cache, _) => {
                let scores = self.shared(part("scores"), |emitter| emitter.causal(extent))?;
                Ok(Some(Visible { scores, values: None }))
            }
        }
    }

    /// `[rows, keys]`: key `j <= i + keys - queries`.
    fn causal(&mut self, extent: &Extent) -> Result<String, ExportError> {
        if let (Some(queries), Some(keys)) = (extent.queries.as_const(), extent.keys.as_const()) {
            let rows = queries * extent.repeats;
            let seen =
                (0..rows).flat_map(|row| (0..keys).map(move |key| key + queries <= row % queries + keys));
            return Ok(self.bool_tensor(&[rows, keys], &seen.collect::<Vec<_>>()));
        }
        let (column, row) = (self.query_column(extent)?, self.range(&extent.keys)?);
        let last = if extent.queries == extent.keys {
            column
        } else {
            let before = self.before_queries(extent)?;
            self.node("Add", &[&column, &before], vec![])
        };
        Ok(self.node("LessOrEqual", &[&row, &last], vec![]))
    }

    /// `[B, 1, rows or 1, keys]`: past slots `j < lengths[b]`, new keys causally.
    fn past_scores(&mut self, extent: &Extent, lengths: &str) -> Result<String, ExportError> {
        if extent.queries.as_const() == Some(1) {
            let seen = self.past_seen(extent, lengths)?;
            return Ok(self.unsqueeze(&seen, &[1, 2]));
        }
        let before = self.before_queries(extent)?;
        let (row, column) = (self.range(&extent.keys)?, self.query_column(extent)?);
        let is_new = self.node("GreaterOrEqual", &[&row, &before], vec![]);
        let last = self.node("Add", &[&column, &before], vec![]);
        let is_causal = self.node("LessOrEqual", &[&row, &last], vec![]);
        let new = self.node("And", &[&is_new, &is_causal], vec![]);
        let past = self.past_slots(extent, lengths)?;
        let past = self.unsqueeze(&past, &[1, 2]);
        Ok(self.node("Or", &[&past, &new], vec![]))
    }

    /// `[B, keys]`: what any query sees: past slots `j < lengths[b]` and all new keys.
    fn past_seen(&mut self, extent: &Extent, lengths: &str) -> Result<String, ExportError> {
        let Extent { queries, keys, .. } = extent;
        let key = Shared::Mask(format!("past {lengths} {queries} {keys} seen"));
        self.shared(key, |emitter| {
            let (row, before) = (emitter.range(keys)?, emitter.before_queries(extent)?);
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
    fn cache_scores(&mut self, extent: &Extent, lengths: &str) -> Result<String, ExportError> {
        let (row, column) = (self.range(&extent.keys)?, self.query_column(extent)?);
        let lengths = self.unsqueeze(lengths, &[1, 2, 3]);
        let last = self.node("Add", &[&lengths, &column], vec![]);
        Ok(self.node("LessOrEqual", &[&row, &last], vec![]))
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
