//! One meta-context step of models that are conditioned on encoder states below the top too. Owns two wirings: chunks of
//! tokens that each wait for the state of the one before (`Condition::State`), and meta-contexts spelled out by a latent window
//! whose successor is predicted (`Condition::Predicted`). Under RecGen the first is a step of carried reconstructions.

use super::Summary;
use super::emit::Emission;
use super::modules::level_scope;
use super::ops::{Builder, Built};
use super::stack::Stack;
use super::step::{Carry, Descent};
use crate::model::config::Condition;
use photonc_graph::graph::{BuildError, Graph, NodeId, Scope};

pub(super) fn build(mut b: Builder<'_>, summary: Summary) -> Result<Graph, BuildError> {
    let lengths = b.lengths()?;
    match (b.config.wiring.condition, summary) {
        (Condition::Predicted, _) => predicted(&mut b, lengths, summary)?,
        (_, Summary::Reconstruction) => reconstructed(&mut b, lengths)?,
        _ => chunk_by_chunk(&mut b, lengths)?,
    }
    Ok(b.graph)
}

/// Level-1 windows one after the other: the state of a chunk is encoded before the next begins. What is above level 1 is read
/// by nobody, and so not made.
fn chunk_by_chunk(b: &mut Builder<'_>, lengths: NodeId) -> Result<(), BuildError> {
    let units = b.config.units(1);
    let name = if b.config.depth() == 1 { "top_state" } else { "carry.1" };
    let first = b.latent_delay(name, 1);
    let sampling = b.sampling()?;
    let encoder = b.running(b.encoder(1), units, lengths)?;
    let mut emission = Emission::new(sampling, Summary::State, vec![encoder], vec![None]);
    let mut state = first;
    for unit in 0..units {
        b.graph.set_label(state, &format!("condition.1.{unit}"));
        let latent = b.window_rows(1, state)?;
        let tokens = b.emit(1, latent, &mut emission)?;
        let folded = b.chunker(1, tokens)?;
        state = b.extend(&mut emission.encoders[0], folded)?;
    }
    b.graph.set_next(first, state)?;
    emission.hand_out(b)?;
    Ok(())
}

/// RecGen of a model that is conditioned on states: reconstructions stand for them, and the top encoder reads those.
fn reconstructed(b: &mut Builder<'_>, lengths: NodeId) -> Result<(), BuildError> {
    let depth = b.config.depth();
    let top = b.latent_delay("top_state", depth);
    let Descent { conditions, carries, reconstruction } = b.descend(top)?;
    for Carry { carry, last } in carries {
        b.graph.set_next(carry, last)?;
    }
    b.draw_windows(conditions)?;
    let source = reconstruction.expect("invariant: RecGen of such a model has two levels");
    b.graph.set_label(source, "reconstruction");
    let folded = b.chunker(depth, source)?;
    let next = b.cached_encoder(depth, folded, lengths)?;
    b.graph.set_next(top, next)
}

/// A latent window for the meta-context, its token windows side by side, and what conditions the next: encoder states of what
/// was drawn, or a prediction and its first units.
fn predicted(b: &mut Builder<'_>, lengths: NodeId, summary: Summary) -> Result<(), BuildError> {
    let depth = b.config.depth();
    let top = b.latent_delay(&format!("carry.{depth}"), depth);
    let Descent { conditions, carries, .. } = b.descend(top)?;
    let ids = b.draw_windows(conditions)?;
    if summary == Summary::State {
        let mut states = b.encoder_embedding(ids)?;
        for l in 1..=depth {
            let folded = b.chunker(l, states)?;
            states = b.cached_encoder(l, folded, lengths)?;
            let carry = if l == depth { top } else { carries[depth - 1 - l].carry };
            let last = b.slice(states, 1, b.config.units(l) - 1, 1, &level_scope(l).child("carry"))?;
            b.graph.set_next(carry, last)?;
        }
        return Ok(());
    }
    // What was predicted last is the next unit; what follows it is predicted from it now, so that no step waits for its own.
    let stack = b.predictor();
    let history = b.latent_delay("top_state", depth);
    let mut latent = b.prediction(history)?;
    b.graph.set_label(latent, "prediction");
    let after = b.cached_stack(&stack, 1, latent, lengths)?;
    b.graph.set_next(history, after)?;
    b.graph.set_next(top, latent)?;
    for (index, Carry { carry, .. }) in carries.into_iter().enumerate() {
        let rows = b.window_rows(depth - index, latent)?;
        latent = b.first_element(depth - index, rows)?;
        b.graph.set_next(carry, latent)?;
    }
    Ok(())
}

impl Builder<'_> {
    /// Level-1 windows side by side; their ids, which are an output like their logits and what they begin with.
    fn draw_windows(&mut self, conditions: NodeId) -> Built {
        let sampling = self.sampling()?;
        let drawn = self.draw_with_tokens(&sampling, conditions)?;
        self.graph.set_output("ids", drawn.ids);
        self.graph.set_output("logits", drawn.logits);
        self.graph.set_output("conditions", conditions);
        Ok(drawn.ids)
    }

    /// The stack that predicts top states from those before.
    pub(super) fn predictor(&self) -> Stack {
        let depth = self.config.depth();
        let spec = self.config.predictor().expect("invariant: a model of predicted states has a predictor");
        let tensors = "predictor".to_owned();
        Stack { spec, width: self.config.dim(depth), tensors, scope: Scope::new("predictor"), tile: None }
    }

    /// The top latent that a state of the predictor stands for, `[B, k, D_L]` each.
    fn prediction(&mut self, state: NodeId) -> Built {
        let dim = self.config.dim(self.config.depth());
        let scope = Scope::new("predictor").child("proj");
        let w = self.weight("predictor.proj.weight", &[dim, dim], &scope)?;
        self.linear(state, w, None, &scope)
    }
}
