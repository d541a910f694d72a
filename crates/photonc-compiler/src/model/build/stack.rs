//! The Transformer stack, once for whole streams, for steps with a KV cache and for window positions. What attention does
//! within a layer is in `attention`.

use super::ops::{Builder, Built};
use crate::model::config::{ExpertConfig, StackConfig};
use photonc_graph::graph::{BuildError, NodeId, Scope};
use photonc_graph::ir::attr::{BinaryFn, Real};
use photonc_graph::ir::op::Op;

/// Keys and values of one layer, `[B, kv_heads, m, width]`, keys after rotation.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyValue {
    pub key: NodeId,
    pub value: NodeId,
}

/// What positions before the given ones a stack attends to, one entry per layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Past<'a> {
    /// Nothing: the operand is the whole stream or window so far.
    None,
    /// Every earlier position of a window.
    Window(&'a [KeyValue]),
    /// A cache whose slots below `lengths` are filled; the new slice is appended there.
    Cache { caches: &'a [KeyValue], lengths: NodeId },
    /// A cache whose slots below `lengths` are filled, and units that came after it, `recent` of them, not appended yet:
    /// none where there is no entry.
    Recent { caches: &'a [KeyValue], lengths: NodeId, news: &'a [KeyValue], recent: usize },
}

/// One stack of the model and its place.
pub(super) struct Stack {
    pub spec: StackConfig,
    pub width: usize,
    /// Canonical prefix of its tensors, `levels.0.encoder`.
    pub tensors: String,
    pub scope: Scope,
    /// Whether attention forgets what is before a tile of so many positions.
    pub tile: Option<usize>,
}

impl Stack {
    /// Name of a tensor of a layer.
    pub fn tensor(&self, layer: usize, part: &str) -> String {
        format!("{}.layers.{layer}.{part}", self.tensors)
    }

    /// Epsilon of the norms around layers.
    pub fn norm_eps(&self, model: f64) -> Real {
        self.spec.options.norm_eps.unwrap_or(model.into())
    }
}

impl Builder<'_> {
    /// Encoder `F^l`.
    pub fn encoder(&self, l: usize) -> Stack {
        let level = self.config.level(l);
        let scope = super::modules::level_scope(l).child("encoder");
        let mut spec = level.encoder;
        if let Some(size) = level.encoder_window.filter(|_| l < self.config.depth()) {
            spec.options.window = Some(size);
            spec.options.full_every = 0;
        }
        let tensors = format!("levels.{}.encoder", self.config.tensors_of(l));
        Stack { spec, width: level.dim, tensors, scope, tile: None }
    }

    /// Decoder `G^l`.
    pub fn decoder(&self, l: usize) -> Stack {
        let level = self.config.level(l);
        let scope = super::modules::level_scope(l).child("decoder");
        let mut spec = level.decoder;
        if level.stream.is_some() {
            spec.options.window = level.stream;
            spec.options.full_every = 0;
        }
        Stack {
            spec,
            width: level.decoder_dim,
            tensors: format!("levels.{}.decoder", self.config.tensors_of(l)),
            scope,
            tile: None,
        }
    }

    /// `x [B, n, W]` at `positions` ([n] or [B, n]) to hidden states `[B, n, W]` after the final norm, and the keys
    /// and values that a later call reads (with a cache: the whole appended cache).
    pub fn stack(
        &mut self,
        stack: &Stack,
        x: NodeId,
        positions: NodeId,
        past: Past<'_>,
    ) -> Result<(NodeId, Vec<KeyValue>), BuildError> {
        let mut hidden = x;
        let mut kept = Vec::with_capacity(stack.spec.layers);
        let eps = stack.norm_eps(self.config.rms_norm_eps);
        for layer in 0..stack.spec.layers {
            let scope = stack.scope.child(&format!("layer{layer}"));
            let name = |part: &str| stack.tensor(layer, &format!("{part}.weight"));
            let attn = scope.child("attn");
            let normed = self.rms_norm_of(hidden, &name("input_layernorm"), stack.width, eps, &attn)?;
            let (mixed, kv) = self.attention(stack, layer, normed, positions, past, &attn)?;
            kept.push(kv);
            hidden = self.onto(stack, layer, "attn", [hidden, mixed], &attn)?;
            let mlp = scope.child("mlp");
            let normed =
                self.rms_norm_of(hidden, &name("post_attention_layernorm"), stack.width, eps, &mlp)?;
            let made = match stack.spec.experts_of(layer) {
                Some(experts) => self.expert_layer(stack, layer, &experts, normed, &mlp)?,
                None => self.mlp(stack, stack.tensor(layer, "mlp"), stack.spec.ffn, normed, &mlp)?,
            };
            hidden = self.onto(stack, layer, "mlp", [hidden, made], &mlp)?;
        }
        let norm = format!("{}.norm.weight", stack.tensors);
        let out = self.rms_norm_of(hidden, &norm, stack.width, eps, &stack.scope.child("norm"))?;
        Ok((out, kept))
    }

    /// The residual and what is added to it, each times its learned factors if the stack has them.
    fn onto(&mut self, stack: &Stack, layer: usize, part: &str, terms: [NodeId; 2], scope: &Scope) -> Built {
        let [mut hidden, mut added] = terms;
        if stack.spec.options.residual_scales {
            for (term, name) in [(&mut hidden, "keep"), (&mut added, "add")] {
                let name = stack.tensor(layer, &format!("residual.{part}_{name}"));
                let factors = self.weight(&name, &[stack.width], scope)?;
                *term = self.binary(BinaryFn::Mul, *term, factors, scope)?;
            }
        }
        self.binary(BinaryFn::Add, hidden, added, scope)
    }

    /// `down(silu(gate x) * up x)`; `tensors` is the prefix of the names of its maps.
    pub(super) fn mlp(
        &mut self,
        stack: &Stack,
        tensors: String,
        inner: usize,
        x: NodeId,
        scope: &Scope,
    ) -> Built {
        let name = |part: &str| format!("{tensors}.{part}_proj.weight");
        let wide = [inner, stack.width];
        let gate_w = self.weight(&name("gate"), &wide, scope)?;
        let up_w = self.weight(&name("up"), &wide, scope)?;
        let gate = self.linear(x, gate_w, None, scope)?;
        let up = self.linear(x, up_w, None, scope)?;
        let product = self.graph.add(Op::SwiGlu, &[gate, up], scope)?;
        let down_w = self.weight(&name("down"), &[stack.width, inner], scope)?;
        self.linear(product, down_w, None, scope)
    }

    /// Experts chosen by a router, and the one that every position has.
    fn expert_layer(
        &mut self,
        stack: &Stack,
        layer: usize,
        experts: &ExpertConfig,
        x: NodeId,
        scope: &Scope,
    ) -> Built {
        let name = |part: &str| stack.tensor(layer, &format!("mlp.{part}"));
        let ExpertConfig { count, top_k, inner, groups, kept_groups, .. } = *experts;
        let router = scope.child("router");
        let w = self.weight(&name("router.weight"), &[count, stack.width], &router)?;
        let mut operands = vec![self.linear(x, w, None, &router)?];
        if experts.bias {
            operands.push(self.weight(&name("router.bias"), &[count], &router)?);
        }
        let (scores, normalize, factor) = (experts.scores, experts.normalize && top_k > 1, experts.factor);
        let route = Op::Route { scores, top_k, groups, kept_groups, normalize, factor };
        let gates = self.graph.add(route, &operands, &router)?;
        let routed = scope.child("experts");
        let up = self.weight(&name("experts.gate_up"), &[count, stack.width, 2 * inner], &routed)?;
        let down = self.weight(&name("experts.down"), &[count, inner, stack.width], &routed)?;
        let chosen = self.graph.add(Op::Experts { top_k }, &[x, gates, up, down], &routed)?;
        if experts.shared == 0 {
            return Ok(chosen);
        }
        let shared = self.mlp(stack, name("shared"), experts.shared, x, &scope.child("shared"))?;
        self.binary(BinaryFn::Add, chosen, shared, scope)
    }
}
