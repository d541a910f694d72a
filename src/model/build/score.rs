//! The teacher-forced forward over whole sequences (PHOTON section 3.4): every window of every level at once, each
//! conditioned on the reconstruction of the chunk before it.

use super::modules::level_scope;
use super::ops::{Builder, Built, batch, batch_meta, meta};
use super::stack::KeyValue;
use crate::graph::{BuildError, Graph, NodeId};
use crate::ir::attr::CompareFn;
use crate::ir::dim::Dim;
use crate::ir::op::Op;
use crate::model::config::{Condition, Feedback};

/// `with_states`: the encoder states `encoded.{l}` and their reconstructions `reconstructed.{l}` are outputs too.
pub(super) fn build(mut b: Builder<'_>, with_states: bool) -> Result<Graph, BuildError> {
    let depth = b.config.depth();
    let (ids, _) = b.prompt()?;
    let mut states = b.encoder_embedding(ids)?;
    let mut below = Vec::with_capacity(depth);
    for l in 1..=depth {
        below.push(states);
        (states, _) = b.encode_level(l, states)?;
        if with_states {
            b.graph.set_output(&format!("encoded.{l}"), states);
        }
    }
    let mut latents = states;
    for l in (1..=depth).rev() {
        let shifts = l == depth || b.config.wiring.condition == Condition::Carried;
        let conditions = if shifts { b.shifted(l, latents)? } else { latents };
        latents = match b.config.level(l).feedback {
            Feedback::Summary => b.true_elements(l, conditions, below[l - 1])?.0,
            Feedback::Token | Feedback::Latent => {
                let rows = b.window_rows(l, conditions)?;
                let elements = match b.config.level(l).feedback {
                    Feedback::Token => b.scored_window(rows, ids)?,
                    _ => b.latent_window(l, rows)?,
                };
                b.window_stream(l, elements, &batch(1))?
            }
        };
        b.graph.set_label(latents, &format!("decoder.{}", l - 1));
        if with_states && l > 1 {
            b.graph.set_output(&format!("reconstructed.{}", l - 1), latents);
        }
    }
    let logits = b.head(latents)?;
    b.graph.set_output("logits", logits);
    Ok(b.graph)
}

impl Builder<'_> {
    /// `[start, x_0 .. x_{M-2}]`: what chunk `g` is conditioned on is the latent before its own.
    pub(super) fn shifted(&mut self, l: usize, x: NodeId) -> Built {
        let scope = level_scope(l).child("shift");
        let any = self.graph.add(Op::Slice { axis: 1, start: 0, len: 1, from_end: false }, &[x], &scope)?;
        let later = self.graph.add(Op::Shift, &[x, any], &scope)?;
        let place = self.iota(x, 1, &scope)?;
        let column = self.reshape(place, &[meta(self.config.units(l)), Dim::from(1)], &scope)?;
        let zero = self.ints(&[1], &[0], &scope)?;
        let first = self.graph.add(Op::Compare { function: CompareFn::Equal }, &[column, zero], &scope)?;
        let start = self.start(l)?;
        self.select(first, start, later, &scope)
    }

    /// Elements of level `l` that read the true units below, `[B, n_{l-1}*meta, D_{l-1}]`, by windows or as a stream; beside
    /// them the keys and values of a stream.
    pub(super) fn true_elements(
        &mut self,
        l: usize,
        conditions: NodeId,
        below: NodeId,
    ) -> Result<(NodeId, Vec<KeyValue>), BuildError> {
        if self.config.level(l).stream.is_some() {
            return self.true_stream(l, conditions, below);
        }
        let rows = self.window_rows(l, conditions)?;
        let elements = self.true_window(l, rows, below)?;
        Ok((self.window_stream(l, elements, &batch(1))?, Vec::new()))
    }

    /// Windows of level `l` that read the true units below, `[B, n_{l-1}*meta, D_{l-1}]`.
    fn true_window(&mut self, l: usize, rows: NodeId, below: NodeId) -> Built {
        let prefix = self.converter(l, rows)?;
        let (chunk, width) = (self.config.level(l).chunk_size, self.config.dim(l - 1));
        if chunk == 1 {
            return self.known_window(l, prefix, None);
        }
        let scope = level_scope(l).child("decoder");
        let cells = [batch_meta(self.config.units(l)), Dim::from(chunk), Dim::from(width)];
        let chunks = self.reshape(below, &cells, &scope)?;
        let known = self.slice(chunks, 1, 0, chunk - 1, &scope)?;
        self.known_window(l, prefix, Some(known))
    }

    /// Level-1 windows `[N, D_1] -> [N, C_1, W_1]`: the true tokens of the chunk are fed.
    fn scored_window(&mut self, rows: NodeId, ids: NodeId) -> Built {
        let level = self.config.level(1);
        let prefix = self.converter(1, rows)?;
        if level.chunk_size == 1 {
            return self.known_window(1, prefix, None);
        }
        let scope = level_scope(1).child("decoder");
        let cells = [batch_meta(self.config.units(1)), Dim::from(level.chunk_size)];
        let chunks = self.reshape(ids, &cells, &scope)?;
        let fed = self.slice(chunks, 1, 0, level.chunk_size - 1, &scope)?;
        let known = self.decoder_embedding(fed)?;
        self.known_window(1, prefix, Some(known))
    }
}
