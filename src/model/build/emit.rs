//! One meta-context step of a model whose windows are conditioned on estimates of the very unit that they spell out, and
//! read summaries of finished units back. Where the summary is the reconstruction, no window waits for another's tokens
//! and a level's windows stand side by side; else the order is depth first, because an element of a level follows every
//! token below the element before it.

use super::Summary;
use super::modules::level_scope;
use super::ops::{Builder, Built, batch};
use super::stack::{KeyValue, Past, Stack};
use super::step::Sampling;
use crate::graph::{BuildError, Graph, NodeId, Scope};
use crate::ir::attr::BinaryFn;
use crate::ir::dim::{Dim, Symbol};
use crate::ir::dtype::Dtype;
use crate::ir::op::Op;

pub(super) fn build(mut b: Builder<'_>, summary: Summary) -> Result<Graph, BuildError> {
    let depth = b.config.depth();
    let scope = Scope::new("lengths");
    let lengths = b.delay("lengths", Dtype::I64, &[batch(1)], &scope);
    let one = b.ints(&[1], &[1], &scope)?;
    let longer = b.binary(BinaryFn::Add, lengths, one, &scope)?;
    b.graph.set_next(lengths, longer)?;
    let top_dims = [batch(1), Dim::from(1), Dim::from(b.config.dim(depth))];
    let top = b.delay("top_state", b.dtype, &top_dims, &level_scope(depth));

    let units = match summary {
        Summary::Reconstruction => side_by_side(&mut b, top)?,
        Summary::State | Summary::TiledState | Summary::Chunk => depth_first(&mut b, top, lengths, summary)?,
    };
    let folded = b.chunker(depth, units)?;
    let next_top = b.cached_encoder(depth, folded, lengths)?;
    b.graph.set_next(top, next_top)?;
    Ok(b.graph)
}

/// Every level's windows at once; the units of level `L - 1` are their reconstructions.
fn side_by_side(b: &mut Builder<'_>, top: NodeId) -> Built {
    let depth = b.config.depth();
    let mut latents = top;
    let mut units = None;
    for l in (2..=depth).rev() {
        let rows = b.window_rows(l, latents)?;
        let elements = b.latent_window(l, rows)?;
        latents = b.window_stream(l, elements, &batch(1))?;
        match units {
            Some(_) => b.graph.set_label(latents, &format!("condition.{}", l - 1)),
            None => {
                b.graph.set_label(latents, "reconstruction");
                units = Some(latents);
            }
        }
    }
    let rows = b.window_rows(1, latents)?;
    let conditions = b.converter(1, rows)?;
    let sampling = b.sampling()?;
    let drawn = b.draw_with_tokens(&sampling, conditions)?;
    b.graph.set_output("ids", drawn.ids);
    b.graph.set_output("logits", drawn.logits);
    b.graph.set_output("conditions", conditions);
    match units {
        Some(units) => Ok(units),
        // One level: what stands for a token is its embedding, whatever the protocol.
        None => b.encoder_embedding(drawn.ids),
    }
}

/// An encoder below the top, unit by unit.
struct Running {
    stack: Stack,
    caches: Vec<KeyValue>,
    /// Units before this step.
    before: NodeId,
    /// Keys and values of this step's units so far.
    news: Vec<KeyValue>,
    count: usize,
}

/// What is drawn and what runs along, in order of time.
struct Emission {
    sampling: Sampling,
    summary: Summary,
    ids: Vec<NodeId>,
    logits: Vec<NodeId>,
    /// Encoders of levels 1 to `L - 1`; none where units are not encoded.
    encoders: Vec<Running>,
}

fn depth_first(b: &mut Builder<'_>, top: NodeId, lengths: NodeId, summary: Summary) -> Built {
    let depth = b.config.depth();
    let mut encoders = Vec::new();
    if summary != Summary::Chunk {
        for l in 1..depth {
            encoders.push(b.running(l, lengths, summary)?);
        }
    }
    let sampling = b.sampling()?;
    let mut emission = Emission { sampling, summary, ids: Vec::new(), logits: Vec::new(), encoders };
    let latent = b.window_rows(depth, top)?;
    let units = b.emit(depth, latent, &mut emission)?;
    let scope = Scope::new("sampling");
    let ids = b.concat(&emission.ids, 1, &scope)?;
    let logits = b.concat(&emission.logits, 1, &scope)?;
    b.graph.set_output("ids", ids);
    b.graph.set_output("logits", logits);
    for running in emission.encoders {
        b.append(&running)?;
    }
    Ok(units)
}

impl Builder<'_> {
    /// Opens the window of one unit of level `l`, estimated as `latent [B, D_l]`, and spells it out: the summaries of its
    /// `C_l` elements, `[B, C_l, D_{l-1}]`.
    fn emit(&mut self, l: usize, latent: NodeId, emission: &mut Emission) -> Built {
        let prefix = self.converter(l, latent)?;
        let mut summaries = Vec::with_capacity(self.config.level(l).chunk_size);
        self.window(l, prefix, |b, _, element| {
            let summary = match l {
                1 => b.draw_one(element, emission)?,
                _ => b.spelled(l - 1, element, emission)?,
            };
            summaries.push(summary);
            Ok(summary)
        })?;
        self.concat(&summaries, 1, &level_scope(l))
    }

    /// The summary `[B, 1, D_l]` of a unit of level `l` after everything in it is drawn; `element` is its estimate.
    fn spelled(&mut self, l: usize, element: NodeId, emission: &mut Emission) -> Built {
        self.graph.set_label(element, &format!("condition.{l}.{}", emission.ids.len()));
        let latent = self.window_rows(l, element)?;
        let units = self.emit(l, latent, emission)?;
        let folded = self.chunker(l, units)?;
        match (emission.summary, emission.encoders.get_mut(l - 1)) {
            (Summary::State | Summary::TiledState, Some(running)) => self.encode_unit(running, folded),
            _ => Ok(folded),
        }
    }

    /// Draws the next token from an element `[B, 1, W_1]`, or takes the given one; its embedding `[B, 1, D_0]`.
    fn draw_one(&mut self, element: NodeId, emission: &mut Emission) -> Built {
        let scope = Scope::new("sampling");
        let place = emission.ids.len();
        let logits = self.head(element)?;
        let uniform = self.slice(emission.sampling.uniforms, 1, place, 1, &scope)?;
        let forced = self.slice(emission.sampling.forced, 1, place, 1, &scope)?;
        let id = self.sample(&emission.sampling, logits, [uniform, forced])?;
        emission.ids.push(id);
        emission.logits.push(logits);
        self.encoder_embedding(id)
    }

    fn running(&mut self, l: usize, lengths: NodeId, summary: Summary) -> Result<Running, BuildError> {
        let mut stack = self.encoder(l);
        stack.tile = if summary == Summary::TiledState { self.tile(l) } else { None };
        let units = self.config.units(l);
        let before = self.unit_index(lengths, units, &[0], &stack.scope)?;
        let before = self.reshape(before, &[batch(1)], &stack.scope)?;
        let capacity = Dim::from(units).times(&Symbol::Capacity.into());
        let caches = self.caches(&stack.scope, stack.spec, &capacity);
        Ok(Running { stack, caches, before, news: Vec::new(), count: 0 })
    }

    /// The state `[B, 1, D_l]` of the next unit of a level.
    fn encode_unit(&mut self, running: &mut Running, folded: NodeId) -> Built {
        let scope = running.stack.scope.clone();
        let first = self.reshape(running.before, &[batch(1), Dim::from(1)], &scope)?;
        let offset = self.positions(running.count, 1, &scope)?;
        let positions = self.binary(BinaryFn::Add, first, offset, &scope)?;
        let past = Past::Recent {
            caches: &running.caches,
            lengths: running.before,
            news: &running.news,
            recent: running.count,
        };
        let (state, news) = self.stack(&running.stack, folded, positions, past)?;
        running.news = news;
        running.count += 1;
        Ok(state)
    }

    /// A step's keys and values go to the caches at its end.
    fn append(&mut self, running: &Running) -> Result<(), BuildError> {
        for (layer, (cache, news)) in running.caches.iter().zip(&running.news).enumerate() {
            let scope = running.stack.scope.child(&format!("layer{layer}")).child("attn");
            for (cache, new) in [(cache.key, news.key), (cache.value, news.value)] {
                let next = self.graph.add(Op::CacheAppend, &[cache, new, running.before], &scope)?;
                self.graph.set_next(cache, next)?;
            }
        }
        Ok(())
    }
}
