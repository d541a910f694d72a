//! Sequences that grow over meta-contexts: an encoder's units, and a decoder that has one sequence over all chunks in the
//! place of windows. Owns what a step adds to their caches, and the same over whole prompts.
//!
//! A decoder's stream is `[U_0 .. U_{R-1}, y_1 .. y_C]` for each chunk, one after the other; element `j` of a chunk is the
//! output at place `R - 2 + j` of its part, so that the output of `y_C` is read by nobody, and its key and value are.

use super::modules::level_scope;
use super::ops::{Builder, Built, batch, meta};
use super::stack::{KeyValue, Past, Stack};
use photonc_graph::graph::{BuildError, NodeId};
use photonc_graph::ir::attr::BinaryFn;
use photonc_graph::ir::dim::{Dim, Symbol};
use photonc_graph::ir::op::Op;

/// A stack over one growing sequence, some places of which are not in its caches yet.
pub(super) struct Running {
    stack: Stack,
    caches: Vec<KeyValue>,
    /// Places before this step, `[B]`.
    before: NodeId,
    /// Keys and values of this step's places so far.
    news: Vec<KeyValue>,
    count: usize,
}

impl Builder<'_> {
    /// A stack whose sequence grows by `places` places a meta-context; `lengths` meta-contexts came before.
    pub(super) fn running(
        &mut self,
        stack: Stack,
        places: usize,
        lengths: NodeId,
    ) -> Result<Running, BuildError> {
        let before = self.unit_index(lengths, places, &[0], &stack.scope)?;
        let before = self.reshape(before, &[batch(1)], &stack.scope)?;
        let capacity = Dim::from(places).times(&Symbol::Capacity.into());
        let caches = self.caches(&stack.scope, stack.spec, &capacity);
        Ok(Running { stack, caches, before, news: Vec::new(), count: 0 })
    }

    /// The decoder of level `l` as a stream; `None` where it has windows.
    pub(super) fn running_decoder(
        &mut self,
        l: usize,
        lengths: NodeId,
    ) -> Result<Option<Running>, BuildError> {
        match self.config.level(l).stream {
            Some(_) => self.running(self.decoder(l), self.stream_places(l), lengths).map(Some),
            None => Ok(None),
        }
    }

    /// Places of the stream of level `l` in a meta-context.
    fn stream_places(&self, l: usize) -> usize {
        let level = self.config.level(l);
        self.config.units(l) * (level.prefix + level.chunk_size)
    }

    /// Outputs of the next places, which read `x [B, k, W]`.
    pub(super) fn extend(&mut self, running: &mut Running, x: NodeId) -> Built {
        let scope = running.stack.scope.clone();
        let added = self.graph.ty(x).shape.0[1].as_const().unwrap_or(1);
        let first = self.reshape(running.before, &[batch(1), Dim::from(1)], &scope)?;
        let offset = self.positions(running.count, added, &scope)?;
        let positions = self.binary(BinaryFn::Add, first, offset, &scope)?;
        let past = Past::Recent {
            caches: &running.caches,
            lengths: running.before,
            news: &running.news,
            recent: running.count,
        };
        let (state, news) = self.stack(&running.stack, x, positions, past)?;
        running.news = news;
        running.count += added;
        Ok(state)
    }

    /// A step's keys and values go to the caches at its end.
    pub(super) fn append(&mut self, running: &Running) -> Result<(), BuildError> {
        for (layer, (cache, news)) in running.caches.iter().zip(&running.news).enumerate() {
            let scope = running.stack.scope.child(&format!("layer{layer}")).child("attn");
            for (cache, new) in [(cache.key, news.key), (cache.value, news.value)] {
                let next = self.graph.add(Op::CacheAppend, &[cache, new, running.before], &scope)?;
                self.graph.set_next(cache, next)?;
            }
        }
        Ok(())
    }

    /// The next chunk of a stream of level `l` from its prefix vectors `[B, R, W]` to its elements `[B, C, W]`. `feed` turns
    /// element `j` (from 0, `[B, 1, W]`) into the vector that the next place reads.
    pub(super) fn stream_chunk(
        &mut self,
        l: usize,
        running: &mut Running,
        prefix: NodeId,
        mut feed: impl FnMut(&mut Self, usize, NodeId) -> Built,
    ) -> Built {
        let level = self.config.level(l);
        let scope = running.stack.scope.clone();
        let hidden = self.extend(running, prefix)?;
        let mut element = self.slice(hidden, 1, level.prefix - 1, 1, &scope)?;
        let mut elements = Vec::with_capacity(level.chunk_size);
        for j in 0..level.chunk_size {
            elements.push(element);
            let next = feed(self, j, element)?;
            element = self.extend(running, next)?;
        }
        self.concat(&elements, 1, &scope)
    }

    /// The stream of level `l` over whole prompts: from conditions `[B, n_l*meta, D_l]` and the true units below
    /// `[B, n_{l-1}*meta, W_l]` to all elements, `[B, n_{l-1}*meta, W_l]`.
    pub(super) fn true_stream(
        &mut self,
        l: usize,
        conditions: NodeId,
        below: NodeId,
    ) -> Result<(NodeId, Vec<KeyValue>), BuildError> {
        let (level, units) = (self.config.level(l), self.config.units(l));
        let (prefix, chunk, width) = (level.prefix, level.chunk_size, Dim::from(level.decoder_dim));
        let stack = self.decoder(l);
        let scope = level_scope(l).child("decoder");
        let rows = self.window_rows(l, conditions)?;
        let made = self.converter(l, rows)?;
        let cells = |places: usize| [batch(1), meta(units), Dim::from(places), width.clone()];
        let made = self.reshape(made, &cells(prefix), &scope)?;
        let fed = self.reshape(below, &cells(chunk), &scope)?;
        let all = self.concat(&[made, fed], 2, &scope)?;
        let all = self.reshape(all, &[batch(1), meta(units * (prefix + chunk)), width.clone()], &scope)?;
        let positions = self.iota(all, 1, &scope)?;
        let (hidden, kv) = self.stack(&stack, all, positions, Past::None)?;
        let hidden = self.reshape(hidden, &cells(prefix + chunk), &scope)?;
        let elements = self.slice(hidden, 2, prefix - 1, chunk, &scope)?;
        Ok((self.reshape(elements, &[batch(1), meta(units * chunk), width], &scope)?, kv))
    }
}
