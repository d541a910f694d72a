//! The Transformer stack (LLaMA block), once for whole streams, for steps with a KV cache and for window positions.

use super::ops::{Builder, Built};
use crate::graph::{BuildError, NodeId, Scope};
use crate::ir::attr::{BinaryFn, Mask};
use crate::ir::dim::Dim;
use crate::ir::op::Op;
use crate::model::config::StackConfig;

/// Keys and values of one layer, `[B, kv_heads, m, head_dim]`, keys after rotation.
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
}

/// One stack of the model and its place.
pub(super) struct Stack {
    pub spec: StackConfig,
    pub width: usize,
    /// Canonical prefix of its tensors, `levels.0.encoder`.
    pub tensors: String,
    pub scope: Scope,
}

impl Builder<'_> {
    /// Encoder `F^l`.
    pub fn encoder(&self, l: usize) -> Stack {
        let level = self.config.level(l);
        let scope = super::modules::level_scope(l).child("encoder");
        Stack { spec: level.encoder, width: level.dim, tensors: format!("levels.{}.encoder", l - 1), scope }
    }

    /// Decoder `G^l`.
    pub fn decoder(&self, l: usize) -> Stack {
        let level = self.config.level(l);
        let scope = super::modules::level_scope(l).child("decoder");
        Stack {
            spec: level.decoder,
            width: level.decoder_dim,
            tensors: format!("levels.{}.decoder", l - 1),
            scope,
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
        for layer in 0..stack.spec.layers {
            let scope = stack.scope.child(&format!("layer{layer}"));
            let name = |part: &str| format!("{}.layers.{layer}.{part}.weight", stack.tensors);
            let attn = scope.child("attn");
            let normed = self.rms_norm(hidden, &name("input_layernorm"), stack.width, &attn)?;
            let (mixed, kv) = self.attention(stack, layer, normed, positions, past, &attn)?;
            kept.push(kv);
            hidden = self.binary(BinaryFn::Add, hidden, mixed, &attn)?;
            let mlp = scope.child("mlp");
            let normed = self.rms_norm(hidden, &name("post_attention_layernorm"), stack.width, &mlp)?;
            let wide = [stack.spec.ffn, stack.width];
            let gate_w = self.weight(&name("mlp.gate_proj"), &wide, &mlp)?;
            let up_w = self.weight(&name("mlp.up_proj"), &wide, &mlp)?;
            let gate = self.linear(normed, gate_w, None, &mlp)?;
            let up = self.linear(normed, up_w, None, &mlp)?;
            let product = self.graph.add(Op::SwiGlu, &[gate, up], &mlp)?;
            let down_w = self.weight(&name("mlp.down_proj"), &[stack.width, stack.spec.ffn], &mlp)?;
            let down = self.linear(product, down_w, None, &mlp)?;
            hidden = self.binary(BinaryFn::Add, hidden, down, &mlp)?;
        }
        let norm = format!("{}.norm.weight", stack.tensors);
        let out = self.rms_norm(hidden, &norm, stack.width, &stack.scope.child("norm"))?;
        Ok((out, kept))
    }

    fn attention(
        &mut self,
        stack: &Stack,
        layer: usize,
        x: NodeId,
        positions: NodeId,
        past: Past<'_>,
        scope: &Scope,
    ) -> Result<(NodeId, KeyValue), BuildError> {
        let spec = stack.spec;
        let name = |part: &str| format!("{}.layers.{layer}.self_attn.{part}_proj.weight", stack.tensors);
        let dims = self.graph.ty(x).shape.0.clone();
        let q = self.heads(x, &name("q"), spec.heads, spec.head_dim, scope)?;
        let k = self.heads(x, &name("k"), spec.kv_heads, spec.head_dim, scope)?;
        let v = self.heads(x, &name("v"), spec.kv_heads, spec.head_dim, scope)?;
        let rope = Op::Rope { theta: self.config.rope_theta.into() };
        let q = self.graph.add(rope.clone(), &[q, positions], scope)?;
        let k = self.graph.add(rope, &[k, positions], scope)?;
        let (mask, kv, lengths) = self.with_past(layer, KeyValue { key: k, value: v }, past, scope)?;
        let scale = (1.0 / (spec.head_dim as f64).sqrt()).into();
        let operands: Vec<NodeId> = [q, kv.key, kv.value].into_iter().chain(lengths).collect();
        let mixed = self.graph.add(Op::Attention { scale, mask }, &operands, scope)?;
        let turned = self.transpose(mixed, &[0, 2, 1, 3], scope)?;
        let inner = spec.heads * spec.head_dim;
        let flat = self.reshape(turned, &[dims[0].clone(), dims[1].clone(), Dim::from(inner)], scope)?;
        let w = self.weight(&name("o"), &[stack.width, inner], scope)?;
        Ok((self.linear(flat, w, None, scope)?, kv))
    }

    /// `[B, n, W] -> [B, heads, n, head_dim]`.
    fn heads(&mut self, x: NodeId, weight: &str, heads: usize, head_dim: usize, scope: &Scope) -> Built {
        let dims = self.graph.ty(x).shape.0.clone();
        let width = dims[2].as_const().unwrap_or_default();
        let w = self.weight(weight, &[heads * head_dim, width], scope)?;
        let flat = self.linear(x, w, None, scope)?;
        let split = [dims[0].clone(), dims[1].clone(), Dim::from(heads), Dim::from(head_dim)];
        let split = self.reshape(flat, &split, scope)?;
        self.transpose(split, &[0, 2, 1, 3], scope)
    }

    fn with_past(
        &mut self,
        layer: usize,
        new: KeyValue,
        past: Past<'_>,
        scope: &Scope,
    ) -> Result<(Mask, KeyValue, Option<NodeId>), BuildError> {
        match past {
            Past::None => Ok((Mask::Causal, new, None)),
            Past::Window(before) => {
                let key = self.concat(&[before[layer].key, new.key], 2, scope)?;
                let value = self.concat(&[before[layer].value, new.value], 2, scope)?;
                Ok((Mask::Causal, KeyValue { key, value }, None))
            }
            Past::Cache { caches, lengths } => {
                let key = self.graph.add(Op::CacheAppend, &[caches[layer].key, new.key, lengths], scope)?;
                let value =
                    self.graph.add(Op::CacheAppend, &[caches[layer].value, new.value, lengths], scope)?;
                Ok((Mask::Cache, KeyValue { key, value }, Some(lengths)))
            }
        }
    }
}
