//! Drawing the tokens of a batch of meta-contexts. Owns the choice between the graphs' sampler and the host's, and the
//! uniform numbers both draw with.

use super::backend::Buffer;
use super::error::RuntimeError;
use super::penalties::{Penalties, Seen};
use super::plan::{Program, WINDOW};
use super::random;
use super::sampler::{MAX_GRAPH_CANDIDATES, Sampling};
use super::session::{Results, Session, State};
use super::timing::Phase;
use super::window;
use std::time::Instant;

/// Graphs that turn conditions into tokens, in three forms of the same equations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawing<'p> {
    /// With the sampler inside.
    pub graph: &'p str,
    /// The same, with logits.
    pub logits: &'p str,
    /// Down to the level-1 windows.
    pub prepare: Option<&'p str>,
    pub phase: Phase,
}

/// Where tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By the graphs' sampler.
    Graph,
    /// On the host from logits that no token feeds: one run.
    Logits,
    /// On the host, position by position, each token fed back.
    Window,
}

/// What to draw for the rows of a state.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'r> {
    pub sampling: &'r Sampling,
    /// Number of the sample of each row: the key of its uniforms.
    pub samples: Vec<usize>,
    /// Place of the first token among the generated ones.
    pub first_token: usize,
    /// Tokens per row.
    pub tokens: usize,
    pub keep_logits: bool,
    /// What tokens that have occurred lose.
    pub penalties: Penalties,
    /// Tokens before these, per row; read where there are penalties.
    pub seen: Vec<Seen>,
    /// Tokens `[rows, tokens]` to take in place of drawn ones.
    pub given: Option<Vec<i64>>,
}

/// Tokens drawn.
pub(super) struct Drawn {
    /// `[rows, tokens]`, row-major.
    pub ids: Vec<i64>,
    /// The same on the device.
    pub buffer: Buffer,
    /// `[rows, tokens, V]`, if they were to be kept.
    pub logits: Option<Vec<f64>>,
}

impl Route {
    /// How `sampling` can be followed by the graphs of `drawing`; `None` where it cannot.
    ///
    /// `host`: whether something besides `sampling` is done outside the graphs.
    pub(super) fn choose(
        program: &Program,
        drawing: &Drawing<'_>,
        sampling: &Sampling,
        host: bool,
    ) -> Result<Option<Self>, RuntimeError> {
        if !host && sampling.fits_graph(program.vocab_size) {
            return Ok(Some(Route::Graph));
        }
        // A window that reads no ids computes logits that no token changes.
        if !program.signature(WINDOW)?.inputs.contains_key("ids") {
            return Ok(Some(Route::Logits));
        }
        Ok(drawing.prepare.map(|_| Route::Window))
    }
}

impl Wanted<'_> {
    pub(super) fn rows(&self) -> usize {
        self.samples.len()
    }

    /// The uniform number of token `token` of row `row`, both from 0.
    pub(super) fn uniform(&self, row: usize, token: usize) -> f64 {
        let place = (self.first_token + token) as u64;
        f64::from(random::uniform(self.sampling.seed, self.samples[row] as u64, place))
    }
}

/// Draws tokens and takes over the next state that the graph returns.
pub(super) fn draw(
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
            let ids = host(wanted, &logits, session.program.vocab_size)?;
            session.timing.add(Phase::HostSampling, "host sampler", start.elapsed());
            let buffer = session.upload_ints(&[wanted.rows(), wanted.tokens], ids.clone())?;
            Ok(Drawn { ids, buffer, logits: wanted.keep_logits.then_some(logits) })
        }
    }
}

fn in_graph(
    session: &mut Session<'_>,
    drawing: &Drawing<'_>,
    state: &mut State,
    given: &[(&str, &Buffer)],
    wanted: &Wanted<'_>,
) -> Result<Drawn, RuntimeError> {
    let graph = if wanted.keep_logits { drawing.logits } else { drawing.graph };
    let mut results = run_sampler(session, graph, drawing.phase, state, given, wanted)?;
    session.advance(&mut results, state)?;
    let buffer = results.take("ids")?;
    let ids = session.download_ints(&buffer)?;
    let logits = match wanted.keep_logits {
        true => {
            let logits = results.take("logits")?;
            Some(session.download_floats(&logits)?)
        }
        false => None,
    };
    Ok(Drawn { ids, buffer, logits })
}

/// Runs a graph that ends in a sampler, with uniforms and parameters for it.
fn run_sampler(
    session: &mut Session<'_>,
    graph: &str,
    phase: Phase,
    state: &State,
    given: &[(&str, &Buffer)],
    wanted: &Wanted<'_>,
) -> Result<Results, RuntimeError> {
    let (rows, sampling) = (wanted.rows(), wanted.sampling);
    let uniforms =
        (0..rows * wanted.tokens).map(|at| wanted.uniform(at / wanted.tokens, at % wanted.tokens)).collect();
    let uniforms = session.upload_floats(&[rows, wanted.tokens], uniforms)?;
    let candidates = MAX_GRAPH_CANDIDATES.min(session.program.vocab_size);
    // Out of range only where the graph's own draw is not used.
    let top_k = i64::try_from(sampling.top_k.clamp(1, candidates)).unwrap_or(1);
    let temperature = session.upload_floats(&[rows], vec![sampling.temperature; rows])?;
    let top_k = session.upload_ints(&[rows], vec![top_k; rows])?;
    let top_p = session.upload_floats(&[rows], vec![sampling.top_p; rows])?;
    let mut all: Vec<(&str, &Buffer)> =
        vec![("uniforms", &uniforms), ("temperature", &temperature), ("top_k", &top_k), ("top_p", &top_p)];
    all.extend_from_slice(given);
    session.run(graph, phase, state, &all)
}

/// Draws every token on the host from logits `[rows, tokens, V]`.
fn host(wanted: &Wanted<'_>, logits: &[f64], vocab_size: usize) -> Result<Vec<i64>, RuntimeError> {
    let mut ids = Vec::with_capacity(wanted.rows() * wanted.tokens);
    for (at, logits) in logits.chunks_exact(vocab_size).enumerate() {
        let (row, token) = (at / wanted.tokens, at % wanted.tokens);
        let near = &ids[row * wanted.tokens..];
        ids.push(host_token(wanted, wanted.seen.get(row), near, (row, token), logits)?);
    }
    Ok(ids)
}

/// Draws token `token` of row `row` on the host. Penalties count the tokens `seen` and `near`.
pub(super) fn host_token(
    wanted: &Wanted<'_>,
    seen: Option<&Seen>,
    near: &[i64],
    (row, token): (usize, usize),
    logits: &[f64],
) -> Result<i64, RuntimeError> {
    if let Some(given) = wanted.given.as_ref().and_then(|given| given.get(row * wanted.tokens + token)) {
        return Ok(*given);
    }
    let uniform = wanted.uniform(row, token);
    let drawn = match seen.filter(|_| !wanted.penalties.are_none()) {
        Some(seen) => {
            let mut penalised = logits.to_vec();
            wanted.penalties.apply(&mut penalised, seen, near);
            wanted.sampling.draw(&penalised, uniform)
        }
        None => wanted.sampling.draw(logits, uniform),
    };
    let error = RuntimeError::NotADistribution { row, token: wanted.first_token + token };
    drawn.and_then(|id| i64::try_from(id).ok()).ok_or(error)
}
