//! The teacher-forced forward over whole sequences (PHOTON section 3.4): every window of every level at once, each
//! conditioned on the reconstruction of the chunk before it.

use super::modules::level_scope;
use super::ops::{Builder, Built, batch, batch_meta, meta};
use super::stack::KeyValue;
use crate::model::config::{Condition, Feedback, Slot};
use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::attr::CompareFn;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;

/// `with_states`: the encoder states `encoded.{l}` and their reconstructions `reconstructed.{l}` are outputs too.
pub(super) fn build(mut b: Builder<'_>, with_states: bool) -> Result<Graph, BuildError> {
    let depth = b.config.depth();
    let (ids, _) = b.prompt()?;
    let mut states = b.encoder_embedding(ids)?;
    // Of every level, the embeddings first.
    let mut streams = vec![states];
    for l in 1..=depth {
        (states, _) = b.encode_level(l, states)?;
        if with_states {
            b.graph.set_output(&format!("encoded.{l}"), states);
        }
        streams.push(states);
    }
    if matches!(b.config.wiring.condition, Condition::State | Condition::Predicted) {
        return b.conditioned_on_states(ids, &streams, with_states);
    }
    let mut latents = states;
    for l in (1..=depth).rev() {
        let shifts = l == depth || b.config.wiring.condition == Condition::Carried;
        let conditions = if shifts { b.shifted(l, latents)? } else { latents };
        latents = match b.config.level(l).feedback {
            Feedback::Summary => b.true_elements(l, conditions, streams[l - 1])?.0,
            Feedback::Token | Feedback::Latent => {
                let rows = b.window_rows(l, conditions)?;
                let elements = match b.config.level(l).feedback {
                    Feedback::Token => b.scored_window(rows, ids, b.config.level(1).chunk_size - 1)?,
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

    /// The forward of a model whose windows are all conditioned on encoder states: only level 1 makes logits.
    fn conditioned_on_states(
        mut self,
        ids: NodeId,
        streams: &[NodeId],
        with_states: bool,
    ) -> Result<Graph, BuildError> {
        let lowest = if with_states { self.config.depth() } else { 1 };
        for l in (2..=lowest).rev() {
            let conditions = self.shifted(l, streams[l])?;
            let elements = self.forward_elements(l, conditions, streams[l - 1])?;
            self.graph.set_label(elements, &format!("decoder.{}", l - 1));
            self.graph.set_output(&format!("reconstructed.{}", l - 1), elements);
        }
        let conditions = self.shifted(1, streams[1])?;
        let elements = match self.config.level(1).feedback {
            Feedback::Token => {
                let rows = self.window_rows(1, conditions)?;
                if self.config.wiring.shifted_labels {
                    self.shifted_labels(rows, ids)?
                } else {
                    let chunk = self.config.level(1).chunk_size;
                    let elements = self.scored_window(rows, ids, chunk - 1)?;
                    self.window_stream(1, elements, &batch(1))?
                }
            }
            Feedback::Summary | Feedback::Latent => self.forward_elements(1, conditions, streams[0])?,
        };
        self.graph.set_label(elements, "decoder.0");
        let logits = self.head(elements)?;
        self.graph.set_output("logits", logits);
        Ok(self.graph)
    }

    /// Elements of level `l` as the forward makes them: from the true units, or from zeros where a slot has them.
    fn forward_elements(&mut self, l: usize, conditions: NodeId, below: NodeId) -> Built {
        if self.config.level(l).slot != Slot::Zero {
            return Ok(self.true_elements(l, conditions, below)?.0);
        }
        let scope = level_scope(l).child("decoder");
        let rows = self.window_rows(l, conditions)?;
        let prefix = self.converter(l, rows)?;
        let level = self.config.level(l);
        let zeros = self.zero_vectors(prefix, &scope)?;
        let zeros = self.concat(&vec![zeros; level.chunk_size], 1, &scope)?;
        let elements = self.known_window(l, prefix, Some(zeros))?;
        self.window_stream(l, elements, &batch(1))
    }

    /// The output for each token where the token before it is read: over the border of windows that of the window before, and
    /// for the first token of all that of the first window's opening.
    fn shifted_labels(&mut self, rows: NodeId, ids: NodeId) -> Built {
        let scope = level_scope(1).child("decoder");
        let chunk = self.config.level(1).chunk_size;
        let after = self.scored_window(rows, ids, chunk)?;
        let after = self.window_stream(1, after, &batch(1))?;
        let conditions = self.graph.ty(rows).shape.0.clone();
        let units = self.config.units(1);
        let split = [batch(1), meta(units), conditions[1].clone()];
        let split = self.reshape(rows, &split, &scope)?;
        let first =
            self.graph.add(Op::Slice { axis: 1, start: 0, len: 1, from_end: false }, &[split], &scope)?;
        let first = self.window_rows(1, first)?;
        let opening = self.first_element(1, first)?;
        self.graph.add(Op::Shift, &[after, opening], &scope)
    }

    /// Level-1 windows `[N, D_1] -> [N, C_1, W_1]`: the first `fed` true tokens of the chunk are fed.
    fn scored_window(&mut self, rows: NodeId, ids: NodeId, fed: usize) -> Built {
        let level = self.config.level(1);
        let prefix = self.converter(1, rows)?;
        if fed == 0 {
            return self.known_window(1, prefix, None);
        }
        let scope = level_scope(1).child("decoder");
        let cells = [batch_meta(self.config.units(1)), Dim::from(level.chunk_size)];
        let chunks = self.reshape(ids, &cells, &scope)?;
        let fed = self.slice(chunks, 1, 0, fed, &scope)?;
        let known = self.decoder_embedding(fed)?;
        self.known_window(1, prefix, Some(known))
    }
}
