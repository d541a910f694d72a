//! One meta-context step of a model whose windows are conditioned on estimates of the very unit that they spell out, and
//! read summaries of finished units back. Where the summary is the reconstruction, no window waits for another's tokens
//! and a level's windows stand side by side; else the order is depth first, because an element of a level follows every
//! token below the element before it.

use super::Summary;
use super::modules::level_scope;
use super::ops::{Builder, Built, batch};
use super::step::Sampling;
use super::stream::Running;
use photonc_graph::graph::{BuildError, Graph, NodeId, Scope};
use photonc_graph::ir::dim::Dim;

pub(super) fn build(mut b: Builder<'_>, summary: Summary) -> Result<Graph, BuildError> {
    let depth = b.config.depth();
    let lengths = b.lengths()?;
    let top_dims = [batch(1), Dim::from(1), Dim::from(b.config.dim(depth))];
    let top = b.delay("top_state", b.dtype, &top_dims, &level_scope(depth));

    let units = match summary {
        Summary::Reconstruction => level_by_level(&mut b, top, lengths)?,
        Summary::State | Summary::TiledState | Summary::Chunk => depth_first(&mut b, top, lengths, summary)?,
    };
    let folded = b.chunker(depth, units)?;
    let next_top = b.cached_encoder(depth, folded, lengths)?;
    b.graph.set_next(top, next_top)?;
    Ok(b.graph)
}

/// Every level at once, its windows side by side or its stream chunk by chunk; the units of level `L - 1` are their
/// reconstructions.
fn level_by_level(b: &mut Builder<'_>, top: NodeId, lengths: NodeId) -> Built {
    let depth = b.config.depth();
    let mut latents = top;
    let mut units = None;
    for l in (2..=depth).rev() {
        latents = b.latent_elements(l, latents, lengths)?;
        match units {
            Some(_) => b.graph.set_label(latents, &format!("condition.{}", l - 1)),
            None => {
                b.graph.set_label(latents, "reconstruction");
                units = Some(latents);
            }
        }
    }
    let ids = match b.config.level(1).stream {
        Some(_) => draw_stream(b, latents, lengths)?,
        None => {
            let rows = b.window_rows(1, latents)?;
            let conditions = b.converter(1, rows)?;
            let sampling = b.sampling()?;
            let drawn = b.draw_with_tokens(&sampling, conditions)?;
            b.graph.set_output("ids", drawn.ids);
            b.graph.set_output("logits", drawn.logits);
            b.graph.set_output("conditions", conditions);
            drawn.ids
        }
    };
    match units {
        Some(units) => Ok(units),
        // One level: what stands for a token is its embedding, whatever the protocol.
        None => b.encoder_embedding(ids),
    }
}

/// The tokens of a meta-context one after the other, each read back by the stream of level 1.
fn draw_stream(b: &mut Builder<'_>, latents: NodeId, lengths: NodeId) -> Built {
    let sampling = b.sampling()?;
    let streams = vec![b.running_decoder(1, lengths)?];
    let mut emission = Emission::new(sampling, Summary::Reconstruction, Vec::new(), streams);
    let scope = level_scope(1).child("decoder");
    for unit in 0..b.config.units(1) {
        let latent = b.slice(latents, 1, unit, 1, &scope)?;
        let latent = b.window_rows(1, latent)?;
        b.emit(1, latent, &mut emission)?;
    }
    emission.hand_out(b)
}

impl Emission {
    /// Nothing drawn yet.
    pub(super) fn new(
        sampling: Sampling,
        summary: Summary,
        encoders: Vec<Running>,
        streams: Vec<Option<Running>>,
    ) -> Self {
        Emission { sampling, summary, ids: Vec::new(), logits: Vec::new(), encoders, streams }
    }

    /// What was drawn becomes outputs, and what runs along is appended to its caches; the ids.
    pub(super) fn hand_out(self, b: &mut Builder<'_>) -> Built {
        let scope = Scope::new("sampling");
        let ids = b.concat(&self.ids, 1, &scope)?;
        let logits = b.concat(&self.logits, 1, &scope)?;
        b.graph.set_output("ids", ids);
        b.graph.set_output("logits", logits);
        for running in self.encoders.iter().chain(self.streams.iter().flatten()) {
            b.append(running)?;
        }
        Ok(ids)
    }
}

/// What is drawn and what runs along, in order of time.
pub(super) struct Emission {
    sampling: Sampling,
    summary: Summary,
    ids: Vec<NodeId>,
    logits: Vec<NodeId>,
    /// Encoders of levels 1 to `L - 1`; none where units are not encoded.
    pub(super) encoders: Vec<Running>,
    /// Decoders of levels 1 to `L` that are streams.
    streams: Vec<Option<Running>>,
}

fn depth_first(b: &mut Builder<'_>, top: NodeId, lengths: NodeId, summary: Summary) -> Built {
    let depth = b.config.depth();
    let mut encoders = Vec::new();
    if summary != Summary::Chunk {
        for l in 1..depth {
            let mut stack = b.encoder(l);
            stack.tile = if summary == Summary::TiledState { b.tile(l) } else { None };
            encoders.push(b.running(stack, b.config.units(l), lengths)?);
        }
    }
    let streams = (1..=depth).map(|l| b.running_decoder(l, lengths)).collect::<Result<Vec<_>, _>>()?;
    let sampling = b.sampling()?;
    let mut emission = Emission::new(sampling, summary, encoders, streams);
    let latent = b.window_rows(depth, top)?;
    let units = b.emit(depth, latent, &mut emission)?;
    emission.hand_out(b)?;
    Ok(units)
}

impl Builder<'_> {
    /// Reconstructions `[B, k*C_l, D_{l-1}]` of the units in `latents [B, k, D_l]`, read back as they are made.
    fn latent_elements(&mut self, l: usize, latents: NodeId, lengths: NodeId) -> Built {
        let Some(mut running) = self.running_decoder(l, lengths)? else {
            let rows = self.window_rows(l, latents)?;
            let elements = self.latent_window(l, rows)?;
            return self.window_stream(l, elements, &batch(1));
        };
        let scope = level_scope(l).child("decoder");
        let mut chunks = Vec::new();
        for unit in 0..self.config.units(l) {
            let latent = self.slice(latents, 1, unit, 1, &scope)?;
            let latent = self.window_rows(l, latent)?;
            let prefix = self.converter(l, latent)?;
            chunks.push(self.stream_chunk(l, &mut running, prefix, |_, _, element| Ok(element))?);
        }
        self.append(&running)?;
        self.concat(&chunks, 1, &scope)
    }

    /// Opens the window of one unit of level `l`, estimated as `latent [B, D_l]`, and spells it out: the summaries of its
    /// `C_l` elements, `[B, C_l, D_{l-1}]`.
    pub(super) fn emit(&mut self, l: usize, latent: NodeId, emission: &mut Emission) -> Built {
        let prefix = self.converter(l, latent)?;
        let mut summaries = Vec::with_capacity(self.config.level(l).chunk_size);
        // What is spelled out below has its own stream: this one is out of its place meanwhile.
        let mut stream = emission.streams[l - 1].take();
        let feed = |b: &mut Self, _: usize, element: NodeId| {
            let summary = match l {
                1 => b.draw_one(element, emission)?,
                _ => b.spelled(l - 1, element, emission)?,
            };
            summaries.push(summary);
            Ok(summary)
        };
        match &mut stream {
            Some(running) => self.stream_chunk(l, running, prefix, feed)?,
            None => self.window(l, prefix, feed)?,
        };
        emission.streams[l - 1] = stream;
        self.concat(&summaries, 1, &level_scope(l))
    }

    /// The summary `[B, 1, D_l]` of a unit of level `l` after everything in it is drawn; `element` is its estimate.
    fn spelled(&mut self, l: usize, element: NodeId, emission: &mut Emission) -> Built {
        self.graph.set_label(element, &format!("condition.{l}.{}", emission.ids.len()));
        let latent = self.window_rows(l, element)?;
        let units = self.emit(l, latent, emission)?;
        let folded = self.chunker(l, units)?;
        match (emission.summary, emission.encoders.get_mut(l - 1)) {
            (Summary::State | Summary::TiledState, Some(running)) => self.extend(running, folded),
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
}
