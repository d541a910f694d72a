//! One meta-context step (PHOTON Defs. A.2 and A.3) with delays. Both protocols are wired; which source the top
//! chunker reads is a `protocol_switch` that a pass resolves.

use super::MAX_CANDIDATES;
use super::modules::level_scope;
use super::ops::{Builder, Built, batch};
use super::stack::{KeyValue, Past};
use crate::graph::{BuildError, Graph, NodeId, Scope};
use crate::ir::attr::{BinaryFn, Role};
use crate::ir::dim::{Dim, Symbol};
use crate::ir::dtype::Dtype;
use crate::ir::op::Op;
use crate::model::config::Feedback;

pub(super) struct Sampling {
    pub uniforms: NodeId,
    /// Tokens to take in place of drawn ones; negative where one is drawn.
    pub forced: NodeId,
    temperature: NodeId,
    top_k: NodeId,
    top_p: NodeId,
}

pub(super) struct Drawn {
    pub ids: NodeId,
    pub logits: NodeId,
    reconstruction: NodeId,
}

pub(super) fn build(mut b: Builder<'_>) -> Result<Graph, BuildError> {
    let depth = b.config.depth();
    let top_scope = level_scope(depth);
    let lengths = b.delay("lengths", Dtype::I64, &[batch(1)], &Scope::new("lengths"));
    let one = b.ints(&[1], &[1], &Scope::new("lengths"))?;
    let longer = b.binary(BinaryFn::Add, lengths, one, &Scope::new("lengths"))?;
    b.graph.set_next(lengths, longer)?;
    let top_dims = [batch(1), Dim::from(1), Dim::from(b.config.dim(depth))];
    let top = b.delay("top_state", b.dtype, &top_dims, &top_scope);

    let (conditions, below) = b.descend(top)?;
    let drawn = b.draw(conditions)?;
    let source = below.unwrap_or(drawn.reconstruction);
    b.graph.set_label(source, "reconstruction");
    let next_top = b.ascend(drawn.ids, source, lengths)?;
    b.graph.set_next(top, next_top)?;
    b.graph.set_output("ids", drawn.ids);
    b.graph.set_output("logits", drawn.logits);
    b.graph.set_output("conditions", conditions);
    Ok(b.graph)
}

impl Builder<'_> {
    /// From the top state down to the prefix vectors of level 1, `[B*n_1, R_1, W_1]`; beside it `Xhat^{L-1}` where
    /// a level above 1 makes it.
    fn descend(&mut self, top: NodeId) -> Result<(NodeId, Option<NodeId>), BuildError> {
        let depth = self.config.depth();
        let mut latents = top;
        let mut reconstruction = None;
        for l in (1..=depth).rev() {
            let conditions = if l == depth { latents } else { self.carried(l, latents)? };
            let rows = self.window_rows(l, conditions)?;
            if l == 1 {
                return Ok((self.converter(1, rows)?, reconstruction));
            }
            let elements = self.latent_window(l, rows)?;
            latents = self.window_stream(l, elements, &batch(1))?;
            reconstruction = reconstruction.or(Some(latents));
        }
        Ok((latents, reconstruction))
    }

    /// `[carry_l, new_l[0] .. new_l[n-2]]`, and `carry_l` becomes `new_l[n-1]`.
    fn carried(&mut self, l: usize, new: NodeId) -> Built {
        let scope = level_scope(l).child("carry");
        let units = self.config.units(l);
        let dims = [batch(1), Dim::from(1), Dim::from(self.config.dim(l))];
        let carry = self.delay(&format!("carry.{l}"), self.dtype, &dims, &scope);
        let last = self.slice(new, 1, units - 1, 1, &scope)?;
        self.graph.set_next(carry, last)?;
        if units == 1 {
            return Ok(carry);
        }
        let earlier = self.slice(new, 1, 0, units - 1, &scope)?;
        self.concat(&[carry, earlier], 1, &scope)
    }

    pub(super) fn sampling(&mut self) -> Result<Sampling, BuildError> {
        let scope = Scope::new("sampling");
        let tokens = [batch(1), Dim::from(self.config.meta_tokens())];
        Ok(Sampling {
            uniforms: self.input("uniforms", Dtype::F32, &tokens, Role::PerStep, &scope)?,
            forced: self.input("forced", Dtype::I64, &tokens, Role::PerStep, &scope)?,
            temperature: self.input("temperature", Dtype::F32, &[batch(1)], Role::Invariant, &scope)?,
            top_k: self.input("top_k", Dtype::I64, &[batch(1)], Role::Invariant, &scope)?,
            top_p: self.input("top_p", Dtype::F32, &[batch(1)], Role::Invariant, &scope)?,
        })
    }

    /// The token of each place: the forced one where there is one, otherwise drawn.
    pub(super) fn sample(
        &mut self,
        sampling: &Sampling,
        logits: NodeId,
        [uniforms, forced]: [NodeId; 2],
    ) -> Built {
        let scope = Scope::new("sampling");
        let candidates = self.config.vocab_size.min(MAX_CANDIDATES);
        let operands = [logits, uniforms, sampling.temperature, sampling.top_k, sampling.top_p];
        let drawn = self.graph.add(Op::Sample { candidates }, &operands, &scope)?;
        // Of a shape that no other constant has: a shared one would stand in this scope in graphs that draw nothing.
        let zero = self.ints(&[1, 1], &[0], &scope)?;
        let is_drawn = self.less(forced, zero, &scope)?;
        self.select(is_drawn, drawn, forced, &scope)
    }

    /// The level-1 windows, their logits and draws.
    fn draw(&mut self, prefix: NodeId) -> Result<Drawn, BuildError> {
        let sampling = self.sampling()?;
        match self.config.level(1).feedback {
            Feedback::Latent => self.draw_from_latents(&sampling, prefix),
            Feedback::Token | Feedback::Summary => self.draw_with_tokens(&sampling, prefix),
        }
    }

    fn draw_from_latents(&mut self, sampling: &Sampling, prefix: NodeId) -> Result<Drawn, BuildError> {
        let elements = self.window(1, prefix, |_, _, element| Ok(element))?;
        let reconstruction = self.window_stream(1, elements, &batch(1))?;
        let logits = self.head(reconstruction)?;
        let ids = self.sample(sampling, logits, [sampling.uniforms, sampling.forced])?;
        Ok(Drawn { ids, logits, reconstruction })
    }

    /// Level-1 windows side by side, each of which reads its own tokens back.
    pub(super) fn draw_with_tokens(
        &mut self,
        sampling: &Sampling,
        prefix: NodeId,
    ) -> Result<Drawn, BuildError> {
        let scope = Scope::new("sampling");
        let (units, chunk) = (self.config.units(1), self.config.level(1).chunk_size);
        let (vocab, width) = (self.config.vocab_size, self.config.level(1).decoder_dim);
        let cells = [batch(1), Dim::from(units), Dim::from(chunk)];
        let places = [
            self.reshape(sampling.uniforms, &cells, &scope)?,
            self.reshape(sampling.forced, &cells, &scope)?,
        ];
        let (mut ids, mut logits) = (Vec::new(), Vec::new());
        let elements = self.window(1, prefix, |b, j, element| {
            let scores = b.head(element)?;
            let scores = b.reshape(scores, &[batch(1), Dim::from(units), Dim::from(vocab)], &scope)?;
            let mut place = places;
            for value in &mut place {
                let column = b.slice(*value, 2, j, 1, &scope)?;
                *value = b.reshape(column, &[batch(1), Dim::from(units)], &scope)?;
            }
            let drawn = b.sample(sampling, scores, place)?;
            let column = [batch(1), Dim::from(units), Dim::from(1)];
            ids.push(b.reshape(drawn, &column, &scope)?);
            let column = [batch(1), Dim::from(units), Dim::from(1), Dim::from(vocab)];
            logits.push(b.reshape(scores, &column, &scope)?);
            if j + 1 == chunk {
                return Ok(element);
            }
            let embedded = b.token_feedback(drawn)?;
            b.reshape(embedded, &[batch(units), Dim::from(1), Dim::from(width)], &scope)
        })?;
        let tokens = Dim::from(units * chunk);
        let ids = self.concat(&ids, 2, &scope)?;
        let ids = self.reshape(ids, &[batch(1), tokens.clone()], &scope)?;
        let logits = self.concat(&logits, 2, &scope)?;
        let logits = self.reshape(logits, &[batch(1), tokens, Dim::from(vocab)], &scope)?;
        let reconstruction = self.window_stream(1, elements, &batch(1))?;
        Ok(Drawn { ids, logits, reconstruction })
    }

    /// Re-encoding bottom-up to the next top state `[B, 1, D_L]`. The top chunker reads the lower states (HierGen)
    /// or, where the widths agree, the reconstruction (RecGen).
    fn ascend(&mut self, ids: NodeId, reconstruction: NodeId, lengths: NodeId) -> Built {
        let depth = self.config.depth();
        let mut states = self.encoder_embedding(ids)?;
        for l in 1..=depth {
            if l == depth {
                let sources = match self.config.recgen_defined() {
                    true => vec![states, reconstruction],
                    false => vec![states],
                };
                states = self.graph.add(Op::ProtocolSwitch, &sources, &level_scope(l).child("chunker"))?;
            }
            let folded = self.chunker(l, states)?;
            states = self.cached_encoder(l, folded, lengths)?;
        }
        Ok(states)
    }

    /// Encoder `F^l` over the `n_l` new units of a step, its caches as delays.
    pub(super) fn cached_encoder(&mut self, l: usize, x: NodeId, lengths: NodeId) -> Built {
        let stack = self.encoder(l);
        let units = self.config.units(l);
        let scope = stack.scope.clone();
        let first = self.reshape(lengths, &[batch(1), Dim::from(1)], &scope)?;
        let scale = self.ints(&[1], &[units as i64], &scope)?;
        let first = self.binary(BinaryFn::Mul, first, scale, &scope)?;
        let slots = self.reshape(first, &[batch(1)], &scope)?;
        let offsets = self.positions(0, units, &scope)?;
        let positions = self.binary(BinaryFn::Add, first, offsets, &scope)?;
        let capacity = Dim::from(units).times(&Symbol::Capacity.into());
        let caches = self.caches(&stack.scope, stack.spec, &capacity);
        let past = Past::Cache { caches: &caches, lengths: slots };
        let (states, kept) = self.stack(&stack, x, positions, past)?;
        for (cache, next) in caches.iter().zip(kept) {
            self.graph.set_next(cache.key, next.key)?;
            self.graph.set_next(cache.value, next.value)?;
        }
        Ok(states)
    }

    /// One delay for K and one for V per layer: packed caches would tie independent layers together.
    pub(super) fn caches(
        &mut self,
        scope: &Scope,
        spec: crate::model::config::StackConfig,
        capacity: &Dim,
    ) -> Vec<KeyValue> {
        let dims = |width: usize| [batch(1), Dim::from(spec.kv_heads), capacity.clone(), Dim::from(width)];
        let (keys, values) = (dims(spec.head_dim), dims(spec.value_dim()));
        (0..spec.layers)
            .map(|layer| {
                let scope = scope.child(&format!("layer{layer}"));
                let attn = scope.child("attn");
                KeyValue {
                    key: self.delay(&format!("{scope}.key"), self.dtype, &keys, &attn),
                    value: self.delay(&format!("{scope}.value"), self.dtype, &values, &attn),
                }
            })
            .collect()
    }
}
