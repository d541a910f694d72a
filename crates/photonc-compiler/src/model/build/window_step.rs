//! One position of a level-1 window for samplers outside the graph: the window's K and V are delays, so that the
//! passes which lower the step program lower this one too.

use super::modules::level_scope;
use super::ops::{Builder, batch};
use super::stack::Past;
use crate::model::config::Feedback;
use photonc_graph::graph::{BuildError, Graph};
use photonc_graph::ir::attr::Role;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;

pub(super) fn build(mut b: Builder<'_>) -> Result<Graph, BuildError> {
    let level = b.config.level(1);
    let stack = b.decoder(1);
    let scope = level_scope(1).child("window");
    let width = Dim::from(level.decoder_dim);
    let vector = b.input("vector", b.dtype, &[batch(1), width.clone()], Role::PerStep, &scope)?;
    let position = b.input("position", Dtype::I64, &[batch(1)], Role::PerStep, &scope)?;
    let column = b.reshape(position, &[batch(1), Dim::from(1)], &scope)?;
    let x = match level.feedback {
        Feedback::Latent => vector,
        Feedback::Token | Feedback::Summary => {
            let ids = b.input("ids", Dtype::I64, &[batch(1)], Role::PerStep, &scope)?;
            let embedded = b.token_feedback(ids)?;
            let prefix = b.ints(&[1], &[b.config.opening(1) as i64], &scope)?;
            let early = b.less(column, prefix, &scope)?;
            b.select(early, vector, embedded, &scope)?
        }
    };
    let x = b.reshape(x, &[batch(1), Dim::from(1), width.clone()], &scope)?;
    let slots = Dim::from(b.config.opening(1) + level.chunk_size - 1);
    let caches = b.caches(&stack.scope, stack.spec, &slots);
    let (hidden, kept) = b.stack(&stack, x, column, Past::Cache { caches: &caches, lengths: position })?;
    for (cache, next) in caches.iter().zip(kept) {
        b.graph.set_next(cache.key, next.key)?;
        b.graph.set_next(cache.value, next.value)?;
    }
    let reconstruction = b.reshape(hidden, &[batch(1), width], &scope)?;
    let logits = b.head(reconstruction)?;
    b.graph.set_output("logits", logits);
    b.graph.set_output("reconstruction", reconstruction);
    Ok(b.graph)
}
