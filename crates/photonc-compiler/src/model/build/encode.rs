//! Prefill: encode a batch of right-padded prompts once and decode only the windows that end them. Work of the
//! decoders does not grow with the prompt; how many windows each level needs is worked out from the chunk sizes. A row
//! without a whole meta-context starts from the start latents at every level.

use super::KeptCaches;
use super::modules::level_scope;
use super::ops::{Builder, Built, batch, meta};
use super::stack::{KeyValue, Past};
use crate::model::config::Condition;
use photonc_graph::graph::{BuildError, Graph, NodeId, Scope};
use photonc_graph::ir::attr::{BinaryFn, Role};
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;

pub(super) fn build(mut b: Builder<'_>, kept: KeptCaches) -> Result<Graph, BuildError> {
    let depth = b.config.depth();
    let (ids, lengths) = b.prompt()?;
    let mut states = b.encoder_embedding(ids)?;
    let mut caches = Vec::new();
    // Of every level, the embeddings first.
    let mut streams = vec![states];
    for l in 1..=depth {
        let tiled = if kept == KeptCaches::Tiled { b.tiled_caches(l, states)? } else { None };
        let (next, kv) = b.encode_level(l, states)?;
        states = next;
        if l == depth || kept != KeptCaches::Top {
            caches.push((format!("level{l}.encoder"), tiled.unwrap_or(kv)));
        }
        streams.push(states);
    }
    if matches!(b.config.wiring.condition, Condition::State | Condition::Predicted) {
        return b.encoded_states(&streams, lengths, (kept, caches));
    }
    if b.config.wiring.condition == Condition::Estimate {
        let top = b.last_or_start(depth, states, lengths)?;
        b.graph.set_output("top_state", top);
        caches.extend(b.stream_caches(&streams)?);
        b.output_caches(caches);
        return Ok(b.graph);
    }
    let needs = needed_latents(&b.config.levels.iter().map(|level| level.chunk_size).collect::<Vec<_>>());
    let mut latents = b.last_units(depth, states, lengths, needs[depth - 1])?;
    let top = b.slice(latents, 1, needs[depth - 1] - 1, 1, &level_scope(depth))?;
    b.graph.set_output("top_state", top);
    let mut carries = Vec::new();
    for l in (2..=depth).rev() {
        latents = b.last_windows(l, latents, lengths, needs[l - 1] - 1, needs[l - 2])?;
        carries.push((l - 1, b.slice(latents, 1, needs[l - 2] - 1, 1, &level_scope(l - 1).child("carry"))?));
    }
    for (l, carry) in carries.into_iter().rev() {
        b.graph.set_output(&format!("carry.{l}"), carry);
    }
    b.output_caches(caches);
    Ok(b.graph)
}

/// Latents needed from the end of each level's stream, bottom first: level 1 needs its last; level `l` needs the
/// conditions of the `ceil(need / C_l)` windows that end level `l-1`, and its own last, which is its carry.
fn needed_latents(chunk_sizes: &[usize]) -> Vec<usize> {
    let mut needs: Vec<usize> = vec![1];
    for chunk in &chunk_sizes[1..] {
        let below = needs[needs.len() - 1];
        needs.push(below.div_ceil(*chunk) + 1);
    }
    needs
}

impl Builder<'_> {
    /// Inputs `ids [batch, n_0*meta]` and `lengths [batch]`; ids past a row's length are read as 0, so that padding
    /// may hold anything.
    pub(super) fn prompt(&mut self) -> Result<(NodeId, NodeId), BuildError> {
        let scope = Scope::new("prompt");
        let tokens = self.config.meta_tokens();
        let ids = self.input("ids", Dtype::I64, &[batch(1), meta(tokens)], Role::Argument, &scope)?;
        let lengths = self.input("lengths", Dtype::I64, &[batch(1)], Role::Argument, &scope)?;
        let end = self.unit_index(lengths, tokens, &[0], &scope)?;
        let place = self.iota(ids, 1, &scope)?;
        let inside = self.less(place, end, &scope)?;
        let zero = self.ints(&[1], &[0], &scope)?;
        let ids = self.select(inside, ids, zero, &scope)?;
        Ok((ids, lengths))
    }

    /// `E^l = F^l . C^l` over a whole stream: `[B, n_{l-1}*meta, D_{l-1}] -> [B, n_l*meta, D_l]`.
    pub(super) fn encode_level(
        &mut self,
        l: usize,
        below: NodeId,
    ) -> Result<(NodeId, Vec<KeyValue>), BuildError> {
        let folded = self.chunker(l, below)?;
        let stack = self.encoder(l);
        let positions = self.iota(folded, 1, &stack.scope)?;
        let (states, kv) = self.stack(&stack, folded, positions, Past::None)?;
        self.graph.set_label(states, &format!("encoder.{l}"));
        Ok((states, kv))
    }

    /// The last states of every level, and what predicts the next; with the caches of encoders that `kept` says.
    fn encoded_states(
        mut self,
        streams: &[NodeId],
        lengths: NodeId,
        (kept, mut caches): (KeptCaches, Vec<(String, Vec<KeyValue>)>),
    ) -> Result<Graph, BuildError> {
        let depth = self.config.depth();
        let predicts = self.config.predictor().is_some();
        for (l, stream) in streams.iter().enumerate().skip(1) {
            let last = self.last_or_start(l, *stream, lengths)?;
            let name = if l == depth && !predicts { "top_state".to_owned() } else { format!("carry.{l}") };
            self.graph.set_output(&name, last);
        }
        if predicts {
            // RecGen reads the predictor's history in the place of the top encoder's.
            if kept == KeptCaches::Top {
                caches.clear();
            }
            let (state, kv) = self.predicted_state(streams[depth], lengths)?;
            self.graph.set_output("top_state", state);
            caches.push(("predictor".to_owned(), kv));
        }
        self.output_caches(caches);
        Ok(self.graph)
    }

    /// The predictor's state after the top states of a prompt, and its history; where there are none, after the start latent,
    /// which stays no part of the history.
    fn predicted_state(
        &mut self,
        stream: NodeId,
        lengths: NodeId,
    ) -> Result<(NodeId, Vec<KeyValue>), BuildError> {
        let depth = self.config.depth();
        let stack = self.predictor();
        let positions = self.iota(stream, 1, &stack.scope)?;
        let (after, kv) = self.stack(&stack, stream, positions, Past::None)?;
        let (last, index) = self.last_entries(after, self.config.units(depth), lengths, 1, &stack.scope)?;
        let start = self.start(depth)?;
        let start = self.reshape(start, &[1, 1, self.config.dim(depth)].map(Dim::from), &stack.scope)?;
        let first = self.positions(0, 1, &stack.scope)?;
        let (fresh, _) = self.stack(&stack, start, first, Past::None)?;
        let is_empty = self.is_before(index, &stack.scope)?;
        Ok((self.select(is_empty, fresh, last, &stack.scope)?, kv))
    }

    /// Keys and values by the stack that they are of.
    fn output_caches(&mut self, caches: Vec<(String, Vec<KeyValue>)>) {
        for (stack, kv) in caches {
            for (layer, entry) in kv.into_iter().enumerate() {
                self.graph.set_output(&format!("{stack}.layer{layer}.key"), entry.key);
                self.graph.set_output(&format!("{stack}.layer{layer}.value"), entry.value);
            }
        }
    }

    /// Keys and values of the decoders that are streams, as the teacher-forced forward makes them: every level down to the
    /// lowest of them is decoded over the whole prompt.
    fn stream_caches(&mut self, streams: &[NodeId]) -> Result<Vec<(String, Vec<KeyValue>)>, BuildError> {
        let depth = self.config.depth();
        let mut caches = Vec::new();
        let Some(lowest) = (1..=depth).find(|l| self.config.level(*l).stream.is_some()) else {
            return Ok(caches);
        };
        let mut latents = self.shifted(depth, streams[depth])?;
        for l in (lowest..=depth).rev() {
            let kv;
            (latents, kv) = self.true_elements(l, latents, streams[l - 1])?;
            if self.config.level(l).stream.is_some() {
                caches.push((format!("level{l}.decoder"), kv));
            }
        }
        Ok(caches)
    }

    /// Keys and values of a level's stream as an encoder makes them that sees one tile alone; `None` where it does not.
    fn tiled_caches(&mut self, l: usize, below: NodeId) -> Result<Option<Vec<KeyValue>>, BuildError> {
        let mut stack = self.encoder(l);
        stack.tile = self.tile(l);
        if stack.tile.is_none() {
            return Ok(None);
        }
        let folded = self.chunker(l, below)?;
        let positions = self.iota(folded, 1, &stack.scope)?;
        let (_, kv) = self.stack(&stack, folded, positions, Past::None)?;
        Ok(Some(kv))
    }

    /// Units of a tile of level `l`: four units of the level above, below the top, where no window forgets already.
    pub(super) fn tile(&self, l: usize) -> Option<usize> {
        let forgets = l < self.config.depth() && self.config.level(l).encoder_window.is_none();
        forgets.then(|| 4 * self.config.level(l + 1).chunk_size)
    }

    /// The last unit of each row, the start latent where there is none.
    fn last_or_start(&mut self, l: usize, stream: NodeId, lengths: NodeId) -> Built {
        let last = self.last_units(l, stream, lengths, 1)?;
        let scope = level_scope(l).child("last");
        let index = self.unit_index(lengths, self.config.units(l), &[-1], &scope)?;
        self.or_start(l, last, index, &scope)
    }

    /// The last `count` units of each row of a level-`l` stream `[B, M, D] -> [B, count, D]`; units before the start
    /// of the stream are the start latent.
    fn last_units(&mut self, l: usize, stream: NodeId, lengths: NodeId, count: usize) -> Built {
        let scope = level_scope(l).child("last");
        let (rows, index) = self.last_entries(stream, self.config.units(l), lengths, count, &scope)?;
        self.or_start(l, rows, index, &scope)
    }

    /// The last `count` entries of each row of a stream of `units` entries a meta-context, `[B, M, D] -> [B, count, D]`, and
    /// their indices, which are negative before the start of the stream: any entry stands there.
    fn last_entries(
        &mut self,
        stream: NodeId,
        units: usize,
        lengths: NodeId,
        count: usize,
        scope: &Scope,
    ) -> Result<(NodeId, NodeId), BuildError> {
        let offsets: Vec<i64> = (0..count).map(|i| i as i64 - count as i64).collect();
        let index = self.unit_index(lengths, units, &offsets, scope)?;
        let zero = self.ints(&[1], &[0], scope)?;
        let clamped = self.binary(BinaryFn::Max, index, zero, scope)?;
        Ok((self.graph.add(Op::GatherRows, &[stream, clamped], scope)?, index))
    }

    /// The last `count` latents of level `l-1` from the conditions of its last `windows` windows.
    fn last_windows(
        &mut self,
        l: usize,
        latents: NodeId,
        lengths: NodeId,
        windows: usize,
        count: usize,
    ) -> Built {
        let scope = level_scope(l - 1).child("last");
        let conditions = self.slice(latents, 1, 0, windows, &scope)?;
        let rows = self.window_rows(l, conditions)?;
        let elements = self.latent_window(l, rows)?;
        let stream = self.window_stream(l, elements, &batch(1))?;
        let made = windows * self.config.level(l).chunk_size;
        let last = self.slice(stream, 1, made - count, count, &scope)?;
        let offsets: Vec<i64> = (0..count).map(|i| i as i64 - count as i64).collect();
        let index = self.unit_index(lengths, self.config.units(l - 1), &offsets, &scope)?;
        self.or_start(l - 1, last, index, &scope)
    }

    /// `rows [B, k, D]` where `index [B, k]` is not negative, else the start latent of level `l`.
    fn or_start(&mut self, l: usize, rows: NodeId, index: NodeId, scope: &Scope) -> Built {
        let before = self.is_before(index, scope)?;
        let start = self.start(l)?;
        self.select(before, start, rows, scope)
    }

    /// Whether an index `[B, k]` is negative, `[B, k, 1]`.
    fn is_before(&mut self, index: NodeId, scope: &Scope) -> Built {
        let dims = self.graph.ty(index).shape.0.clone();
        let index = self.reshape(index, &[dims[0].clone(), dims[1].clone(), Dim::from(1)], scope)?;
        let zero = self.ints(&[1], &[0], scope)?;
        self.less(index, zero, scope)
    }
}

#[cfg(test)]
mod tests {
    use super::needed_latents;

    // With chunks of size 1 every level reaches one unit further back than the level below.
    #[test]
    fn chunks_of_one_need_more_windows_at_every_level() {
        assert_eq!(needed_latents(&[4, 4]), [1, 2]);
        assert_eq!(needed_latents(&[3, 2, 4]), [1, 2, 2]);
        assert_eq!(needed_latents(&[2, 1, 1, 1]), [1, 2, 3, 4]);
    }
}
