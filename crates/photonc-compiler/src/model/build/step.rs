//! One meta-context step (PHOTON Defs. A.2 and A.3) with delays. Both protocols are wired; which source the top
//! chunker reads is a `protocol_switch` that a pass resolves.

use super::MAX_CANDIDATES;
use super::modules::level_scope;
use super::ops::{Builder, Built, batch};
use super::stack::{KeyValue, Past, Stack};
use crate::model::config::Feedback;
use photonc_graph::graph::{BuildError, Graph, NodeId, Scope};
use photonc_graph::ir::attr::{BinaryFn, Role};
use photonc_graph::ir::dim::{Dim, Symbol};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;

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
    let lengths = b.lengths()?;
    let top_dims = [batch(1), Dim::from(1), Dim::from(b.config.dim(depth))];
    let top = b.delay("top_state", b.dtype, &top_dims, &top_scope);

    let Descent { conditions, carries, reconstruction } = b.descend(top)?;
    for Carry { carry, last } in carries {
        b.graph.set_next(carry, last)?;
    }
    let drawn = b.draw(conditions)?;
    let source = reconstruction.unwrap_or(drawn.reconstruction);
    b.graph.set_label(source, "reconstruction");
    let next_top = b.ascend(drawn.ids, source, lengths)?;
    b.graph.set_next(top, next_top)?;
    b.graph.set_output("ids", drawn.ids);
    b.graph.set_output("logits", drawn.logits);
    b.graph.set_output("conditions", conditions);
    Ok(b.graph)
}

/// What is made of a top latent.
pub(super) struct Descent {
    /// What the level-1 windows begin with, `[B*n_1, R_1, W_1]`.
    pub conditions: NodeId,
    /// Levels `L - 1` to 1.
    pub carries: Vec<Carry>,
    /// `Xhat^{L-1}`, where a level above 1 makes it.
    pub reconstruction: Option<NodeId>,
}

/// What conditions the first window of a level, made in the step before.
pub(super) struct Carry {
    /// The delay, whose next value is not set yet.
    pub carry: NodeId,
    /// The last latent of its level.
    pub last: NodeId,
}

impl Builder<'_> {
    /// Meta-contexts so far, i64 `[B]`.
    pub(super) fn lengths(&mut self) -> Built {
        let scope = Scope::new("lengths");
        let lengths = self.delay("lengths", Dtype::I64, &[batch(1)], &scope);
        let one = self.ints(&[1], &[1], &scope)?;
        let longer = self.binary(BinaryFn::Add, lengths, one, &scope)?;
        self.graph.set_next(lengths, longer)?;
        Ok(lengths)
    }

    /// From a top latent down to the level-1 windows, each level conditioned on `[carry_l, new_l[0] .. new_l[n-2]]`.
    pub(super) fn descend(&mut self, top: NodeId) -> Result<Descent, BuildError> {
        let (mut conditions, mut carries, mut reconstruction) = (top, Vec::new(), None);
        for l in (2..=self.config.depth()).rev() {
            let rows = self.window_rows(l, conditions)?;
            let elements = self.latent_window(l, rows)?;
            let latents = self.window_stream(l, elements, &batch(1))?;
            reconstruction = reconstruction.or(Some(latents));
            let carry = self.latent_delay(&format!("carry.{}", l - 1), l - 1);
            let (scope, units) = (level_scope(l - 1).child("carry"), self.config.units(l - 1));
            carries.push(Carry { carry, last: self.slice(latents, 1, units - 1, 1, &scope)? });
            conditions = carry;
            if units > 1 {
                let earlier = self.slice(latents, 1, 0, units - 1, &scope)?;
                conditions = self.concat(&[carry, earlier], 1, &scope)?;
            }
        }
        let rows = self.window_rows(1, conditions)?;
        Ok(Descent { conditions: self.converter(1, rows)?, carries, reconstruction })
    }

    /// A latent of level `l` that lives on to the next step, `[B, 1, D_l]`.
    pub(super) fn latent_delay(&mut self, name: &str, l: usize) -> NodeId {
        let dims = [batch(1), Dim::from(1), Dim::from(self.config.dim(l))];
        self.delay(name, self.dtype, &dims, &level_scope(l).child("carry"))
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
        self.cached_stack(&self.encoder(l), self.config.units(l), x, lengths)
    }

    /// A stack over the `units` new entries that a step adds to its sequence, its caches as delays.
    pub(super) fn cached_stack(&mut self, stack: &Stack, units: usize, x: NodeId, lengths: NodeId) -> Built {
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
        let (states, kept) = self.stack(stack, x, positions, past)?;
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
