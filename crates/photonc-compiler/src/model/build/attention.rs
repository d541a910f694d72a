//! Attention of one layer: how queries, keys and values are made (grouped heads or a latent), rotated and gated, and what
//! they meet of the past.

use super::ops::{Builder, Built};
use super::stack::{KeyValue, Past, Stack};
use crate::model::config::LatentAttention;
use photonc_graph::graph::{BuildError, NodeId, Scope};
use photonc_graph::ir::attr::{BinaryFn, Mask, Reach, UnaryFn};
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;
use std::num::NonZeroUsize;

/// Queries, keys and values of new positions, by head.
struct Made {
    query: NodeId,
    new: KeyValue,
}

impl Builder<'_> {
    pub(super) fn attention(
        &mut self,
        stack: &Stack,
        layer: usize,
        x: NodeId,
        positions: NodeId,
        past: Past<'_>,
        scope: &Scope,
    ) -> Result<(NodeId, KeyValue), BuildError> {
        let spec = stack.spec;
        let dims = self.graph.ty(x).shape.0.clone();
        let Made { query, new } = match spec.options.latent {
            Some(latent) => self.of_latent(stack, layer, &latent, x, positions, scope)?,
            None => self.projected(stack, layer, x, positions, scope)?,
        };
        let (mask, kv, lengths, recent) = self.with_past(layer, new, past, scope)?;
        let scale =
            spec.options.softmax_scale.unwrap_or_else(|| (1.0 / (spec.head_dim as f64).sqrt()).into());
        let reach = Reach {
            tile: stack.tile.and_then(NonZeroUsize::new),
            recent,
            ..Reach::window(spec.window_of(layer))
        };
        let sinks = match spec.options.sinks {
            true => Some(self.weight(&stack.tensor(layer, "self_attn.sinks"), &[spec.heads], scope)?),
            false => None,
        };
        let operands: Vec<NodeId> =
            [query, kv.read.key, kv.read.value].into_iter().chain(lengths).chain(sinks).collect();
        let mixed = self.graph.add(Op::Attention { scale, mask, reach }, &operands, scope)?;
        let mixed = if spec.options.output_gate { self.gated(stack, layer, x, mixed, scope)? } else { mixed };
        let turned = self.transpose(mixed, &[0, 2, 1, 3], scope)?;
        let inner = spec.heads * spec.value_dim();
        let flat = self.reshape(turned, &[dims[0].clone(), dims[1].clone(), Dim::from(inner)], scope)?;
        let w = self.weight(&stack.tensor(layer, "self_attn.o_proj.weight"), &[stack.width, inner], scope)?;
        Ok((self.linear(flat, w, None, scope)?, kv.kept))
    }

    fn projected(
        &mut self,
        stack: &Stack,
        layer: usize,
        x: NodeId,
        positions: NodeId,
        scope: &Scope,
    ) -> Result<Made, BuildError> {
        let spec = stack.spec;
        let name = |part: &str| stack.tensor(layer, &format!("self_attn.{part}_proj.weight"));
        let q = self.heads(x, &name("q"), spec.heads, spec.head_dim, scope)?;
        let k = self.heads(x, &name("k"), spec.kv_heads, spec.head_dim, scope)?;
        let value = self.heads(x, &name("v"), spec.kv_heads, spec.head_dim, scope)?;
        let [q, k] = self.normed_heads(stack, layer, [q, k], scope)?;
        let range = (0, spec.rotated());
        let query = self.rotated(stack, q, range, positions, scope)?;
        let key = self.rotated(stack, k, range, positions, scope)?;
        Ok(Made { query, new: KeyValue { key, value } })
    }

    /// Keys and values of all heads from one latent a position; the rotated part of keys is shared by the heads.
    fn of_latent(
        &mut self,
        stack: &Stack,
        layer: usize,
        latent: &LatentAttention,
        x: NodeId,
        positions: NodeId,
        scope: &Scope,
    ) -> Result<Made, BuildError> {
        let spec = stack.spec;
        let name = |part: &str| stack.tensor(layer, &format!("self_attn.{part}.weight"));
        let LatentAttention { nope, rope, value: value_dim, kv_rank, .. } = *latent;
        let (from, map) = match latent.query_rank {
            None => (x, name("q_proj")),
            Some(rank) => {
                let w = self.weight(&name("q_a_proj"), &[rank, stack.width], scope)?;
                let low = self.linear(x, w, None, scope)?;
                (self.rms_norm(low, &name("q_a_norm"), rank, scope)?, name("q_b_proj"))
            }
        };
        let q = self.heads(from, &map, spec.heads, spec.head_dim, scope)?;
        let w = self.weight(&name("kv_a_proj"), &[kv_rank + rope, stack.width], scope)?;
        let both = self.linear(x, w, None, scope)?;
        let low = self.slice(both, 2, 0, kv_rank, scope)?;
        let low = self.rms_norm(low, &name("kv_a_norm"), kv_rank, scope)?;
        let shared = self.slice(both, 2, kv_rank, rope, scope)?;
        let made = self.heads(low, &name("kv_b_proj"), spec.heads, nope + value_dim, scope)?;
        let own = self.slice(made, 3, 0, nope, scope)?;
        let value = self.slice(made, 3, nope, value_dim, scope)?;
        let dims = self.graph.ty(own).shape.0.clone();
        let shared =
            self.reshape(shared, &[dims[0].clone(), Dim::from(1), dims[2].clone(), Dim::from(rope)], scope)?;
        let shared = self.concat(&vec![shared; spec.heads], 1, scope)?;
        let k = self.concat(&[own, shared], 3, scope)?;
        let [q, k] = self.normed_heads(stack, layer, [q, k], scope)?;
        let range = (nope, spec.rotated());
        let query = self.rotated(stack, q, range, positions, scope)?;
        let key = self.rotated(stack, k, range, positions, scope)?;
        Ok(Made { query, new: KeyValue { key, value } })
    }

    /// `[B, n, W]` to `[B, heads, n, width]`.
    fn heads(&mut self, x: NodeId, weight: &str, heads: usize, head_dim: usize, scope: &Scope) -> Built {
        let dims = self.graph.ty(x).shape.0.clone();
        let width = dims[2].as_const().unwrap_or_default();
        let w = self.weight(weight, &[heads * head_dim, width], scope)?;
        let flat = self.linear(x, w, None, scope)?;
        let split = [dims[0].clone(), dims[1].clone(), Dim::from(heads), Dim::from(head_dim)];
        let split = self.reshape(flat, &split, scope)?;
        self.transpose(split, &[0, 2, 1, 3], scope)
    }

    /// Queries and keys through the norms of heads, if the stack has them.
    fn normed_heads(
        &mut self,
        stack: &Stack,
        layer: usize,
        [q, k]: [NodeId; 2],
        scope: &Scope,
    ) -> Result<[NodeId; 2], BuildError> {
        if !stack.spec.options.qk_norm {
            return Ok([q, k]);
        }
        let name = |part: &str| stack.tensor(layer, &format!("self_attn.{part}_norm.weight"));
        let width = stack.spec.head_dim;
        Ok([self.rms_norm(q, &name("q"), width, scope)?, self.rms_norm(k, &name("k"), width, scope)?])
    }

    /// Heads whose `count` channels from `first` on are rotated; the others pass.
    fn rotated(
        &mut self,
        stack: &Stack,
        x: NodeId,
        (first, count): (usize, usize),
        positions: NodeId,
        scope: &Scope,
    ) -> Built {
        if count == 0 {
            return Ok(x);
        }
        let width = stack.spec.head_dim;
        let theta = stack.spec.options.theta.unwrap_or(self.config.rope_theta.into());
        let part = self.slice(x, 3, first, count, scope)?;
        let turned = self.graph.add(Op::Rope { theta }, &[part, positions], scope)?;
        let mut parts = Vec::new();
        if first > 0 {
            parts.push(self.slice(x, 3, 0, first, scope)?);
        }
        parts.push(turned);
        if first + count < width {
            parts.push(self.slice(x, 3, first + count, width - first - count, scope)?);
        }
        self.concat(&parts, 3, scope)
    }

    /// Each head's output times `2 * sigmoid` of a map of the layer's normed input.
    fn gated(&mut self, stack: &Stack, layer: usize, x: NodeId, mixed: NodeId, scope: &Scope) -> Built {
        let heads = stack.spec.heads;
        let dims = self.graph.ty(x).shape.0.clone();
        let w = self.weight(&stack.tensor(layer, "self_attn.gate.weight"), &[heads, stack.width], scope)?;
        let gate = self.linear(x, w, None, scope)?;
        let gate = self.unary(UnaryFn::Sigmoid, gate, scope)?;
        let two = self.number(2.0, scope)?;
        let gate = self.binary(BinaryFn::Mul, gate, two, scope)?;
        let column = [dims[0].clone(), dims[1].clone(), Dim::from(heads), Dim::from(1)];
        let gate = self.reshape(gate, &column, scope)?;
        let gate = self.transpose(gate, &[0, 2, 1, 3], scope)?;
        self.binary(BinaryFn::Mul, mixed, gate, scope)
    }

    fn with_past(
        &mut self,
        layer: usize,
        new: KeyValue,
        past: Past<'_>,
        scope: &Scope,
    ) -> Result<(Mask, Met, Option<NodeId>, usize), BuildError> {
        match past {
            Past::None => Ok((Mask::Causal, Met::all(new), None, 0)),
            Past::Window(before) => {
                let key = self.concat(&[before[layer].key, new.key], 2, scope)?;
                let value = self.concat(&[before[layer].value, new.value], 2, scope)?;
                Ok((Mask::Causal, Met::all(KeyValue { key, value }), None, 0))
            }
            Past::Cache { caches, lengths } => {
                let key = self.graph.add(Op::CacheAppend, &[caches[layer].key, new.key, lengths], scope)?;
                let value =
                    self.graph.add(Op::CacheAppend, &[caches[layer].value, new.value, lengths], scope)?;
                Ok((Mask::Cache, Met::all(KeyValue { key, value }), Some(lengths), 0))
            }
            Past::Recent { caches, lengths, news, recent } => {
                let kept = match news.get(layer) {
                    None => new,
                    Some(before) => KeyValue {
                        key: self.concat(&[before.key, new.key], 2, scope)?,
                        value: self.concat(&[before.value, new.value], 2, scope)?,
                    },
                };
                let key = self.concat(&[caches[layer].key, kept.key], 2, scope)?;
                let value = self.concat(&[caches[layer].value, kept.value], 2, scope)?;
                let read = KeyValue { key, value };
                Ok((Mask::Past, Met { read, kept }, Some(lengths), recent))
            }
        }
    }
}

/// Keys and values that attention reads, and those that a later call wants.
struct Met {
    read: KeyValue,
    kept: KeyValue,
}

impl Met {
    fn all(both: KeyValue) -> Self {
        Met { read: both, kept: both }
    }
}
