//! Drawing the tokens of a batch of meta-contexts, by the graphs' sampler or the host's. Owns what both are given: uniform
//! numbers, forced tokens, parameters.

use super::route::Route;
use super::window;
use crate::backend::Buffer;
use crate::draws::SequenceDraws;
use crate::error::RuntimeError;
use crate::sampler::MAX_GRAPH_CANDIDATES;
use crate::session::{Results, Session, State};
use crate::timing::Phase;
use photonc_compiler::passes::compile::Plan;
use photonc_graph::ir::bytes::narrow;
use std::time::Instant;

/// Graphs that turn conditions into tokens, in three forms of the same equations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawing<'p> {
    /// With the sampler inside.
    pub graph: &'p str,
    /// The same, with logits.
    pub logits: &'p str,
    /// Down to the level-1 windows.
    pub prepare: Option<&'p str>,
    pub phase: Phase,
}

/// What to draw for the rows of a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'r> {
    /// The sequence of each row.
    pub sequences: &'r [&'r SequenceDraws],
    /// Tokens per row.
    pub tokens: usize,
    /// Whether their logits are wanted too.
    pub logits: bool,
}

/// Tokens drawn.
pub(crate) struct Drawn {
    /// `[rows, tokens]`, row-major; negative where logits are no distribution.
    pub ids: Vec<i64>,
    /// The same on the device, 0 for the negative ones.
    pub buffer: Buffer,
    /// `[rows, tokens, V]`, if they are wanted.
    pub logits: Option<Vec<f64>>,
}

impl<'p> Drawing<'p> {
    /// Those of a plan.
    pub fn of(plan: &'p Plan) -> Self {
        match plan {
            Plan::Distributed { expand, logits, prepare, .. } => {
                Drawing { graph: expand, logits, prepare: prepare.as_deref(), phase: Phase::Expand }
            }
            Plan::Undistributed { decode, logits, prepare, .. } => {
                Drawing { graph: decode, logits, prepare: prepare.as_deref(), phase: Phase::Decode }
            }
        }
    }
}

/// Draws tokens and takes over the next state that the graph returns.
pub(crate) fn draw(
    session: &mut Session<'_>,
    route: Route,
    drawing: &Drawing<'_>,
    state: &mut State,
    given: &[(&str, &Buffer)],
    wanted: &Wanted<'_>,
) -> Result<Drawn, RuntimeError> {
    match (route, drawing.prepare) {
        (Route::Graph, _) => in_graph(session, drawing, state, given, wanted),
        (Route::Window, Some(prepare)) => {
            let mut results = session.run(prepare, drawing.phase, state, given)?;
            let conditions = results.take("conditions")?;
            session.advance(&mut results, state)?;
            window::draw(session, conditions, wanted)
        }
        (Route::Logits | Route::Window, _) => {
            let mut results = run_sampler(session, drawing.logits, drawing.phase, state, given, wanted)?;
            session.advance(&mut results, state)?;
            let start = Instant::now();
            let logits = results.take("logits")?;
            let logits = session.download_floats(&logits)?;
            let ids = on_host(wanted, &logits, session.program.vocab_size);
            session.timing.add(Phase::HostSampling, "host sampler", start.elapsed());
            let buffer = upload(session, wanted, &ids)?;
            Ok(Drawn { ids, buffer, logits: wanted.logits.then_some(logits) })
        }
    }
}

/// Drawn ids on the device.
pub(super) fn upload(
    session: &mut Session<'_>,
    wanted: &Wanted<'_>,
    ids: &[i64],
) -> Result<Buffer, RuntimeError> {
    let ids = ids.iter().map(|id| (*id).max(0)).collect();
    session.upload_ints(&[wanted.sequences.len(), wanted.tokens], ids)
}

fn in_graph(
    session: &mut Session<'_>,
    drawing: &Drawing<'_>,
    state: &mut State,
    given: &[(&str, &Buffer)],
    wanted: &Wanted<'_>,
) -> Result<Drawn, RuntimeError> {
    let graph = if wanted.logits { drawing.logits } else { drawing.graph };
    let mut results = run_sampler(session, graph, drawing.phase, state, given, wanted)?;
    session.advance(&mut results, state)?;
    let buffer = results.take("ids")?;
    let ids = session.download_ints(&buffer)?;
    // A sequence without a distribution ends; what the graphs read of it until then must be an id.
    let buffer = if ids.iter().any(|id| *id < 0) { upload(session, wanted, &ids)? } else { buffer };
    let logits = match wanted.logits {
        true => {
            let logits = results.take("logits")?;
            Some(session.download_floats(&logits)?)
        }
        false => None,
    };
    Ok(Drawn { ids, buffer, logits })
}

/// Runs a graph that ends in a sampler, with uniforms, forced tokens and parameters for it.
fn run_sampler(
    session: &mut Session<'_>,
    graph: &str,
    phase: Phase,
    state: &State,
    given: &[(&str, &Buffer)],
    wanted: &Wanted<'_>,
) -> Result<Results, RuntimeError> {
    let (rows, tokens) = (wanted.sequences.len(), wanted.tokens);
    let places = || wanted.sequences.iter().flat_map(|row| (0..tokens).map(move |at| (row, at)));
    let uniforms = places().map(|(row, at)| f64::from(row.uniform(at))).collect();
    let uniforms = session.upload_floats(&[rows, tokens], uniforms)?;
    let forced = places().map(|(row, at)| row.forced(at).unwrap_or(-1)).collect();
    let forced = session.upload_ints(&[rows, tokens], forced)?;
    let sampling = || wanted.sequences.iter().map(|row| row.draws.sampling);
    let candidates = MAX_GRAPH_CANDIDATES.min(session.program.vocab_size);
    // Out of range only where the graph's own draw is not used.
    let top_k = sampling().map(|sampling| sampling.top_k.clamp(1, candidates) as i64).collect();
    let temperature = sampling().map(|sampling| f64::from(narrow(sampling.temperature))).collect();
    let temperature = session.upload_floats(&[rows], temperature)?;
    let top_k = session.upload_ints(&[rows], top_k)?;
    let top_p = session.upload_floats(&[rows], sampling().map(|sampling| sampling.top_p).collect())?;
    let mut all: Vec<(&str, &Buffer)> = vec![
        ("uniforms", &uniforms),
        ("forced", &forced),
        ("temperature", &temperature),
        ("top_k", &top_k),
        ("top_p", &top_p),
    ];
    all.extend_from_slice(given);
    session.run(graph, phase, state, &all)
}

/// Draws every token on the host from logits `[rows, tokens, V]`.
fn on_host(wanted: &Wanted<'_>, logits: &[f64], vocab_size: usize) -> Vec<i64> {
    let mut ids: Vec<i64> = Vec::with_capacity(wanted.sequences.len() * wanted.tokens);
    for (row, logits) in wanted.sequences.iter().zip(logits.chunks_exact(vocab_size * wanted.tokens)) {
        let start = ids.len();
        for (at, logits) in logits.chunks_exact(vocab_size).enumerate() {
            let drawn = row.draw(&row.seen, &ids[start..], at, logits);
            ids.push(drawn.unwrap_or(-1));
        }
    }
    ids
}
