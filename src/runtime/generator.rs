//! From prompts to tokens on any backend. Owns the order of a generation: checks, prefill, then steps by the plan of
//! the protocol. Knows graphs only by the plan and values only by signatures.

use super::backend::Backend;
use super::batch::Batch;
use super::draw::{Drawing, Route, Wanted, draw};
use super::error::RuntimeError;
use super::penalties::{Penalties, Seen};
use super::plan::{ENCODE, Program};
use super::prompt::{Prompt, pad_right};
use super::request::{Burst, Cancel, Generation, Request, StateRecord};
use super::sampler::{MAX_GRAPH_CANDIDATES, Sampling};
use super::session::{Results, Session, State};
use super::timing::Phase;
use super::trajectory::Trajectory;
use crate::bundle::Bundle;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::Plan;

/// Generates with one model on one backend.
pub struct Generator {
    pub(super) program: Program,
    pub(super) backend: Box<dyn Backend>,
}

/// A generation under way.
pub(super) struct Run<'r> {
    pub session: Session<'r>,
    pub request: &'r Request,
    pub cancel: &'r Cancel,
    pub on_burst: &'r mut dyn FnMut(&Burst<'_>),
    pub batch: Batch,
    pub prompts: &'r [Prompt],
    pub route: Route,
    /// Meta-contexts of each prompt.
    pub lengths: Vec<usize>,
    /// Meta-contexts to generate.
    pub steps: usize,
    /// Slots of the caches, in meta-contexts.
    pub capacity: usize,
    pub states: Vec<StateRecord>,
    pub trajectory: Option<Trajectory>,
}

impl Generator {
    /// A generator of graphs that `backend` holds.
    #[must_use]
    pub fn new(program: Program, backend: Box<dyn Backend>) -> Self {
        Generator { program, backend }
    }

    /// A generator of a bundle that `backend` has loaded.
    ///
    /// # Errors
    /// A signature that this version does not know.
    pub fn of_bundle(bundle: &Bundle, backend: Box<dyn Backend>) -> Result<Self, RuntimeError> {
        Ok(Generator::new(Program::from_bundle(bundle)?, backend))
    }

    /// What the generator knows of the model.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The backend.
    pub fn backend(&mut self) -> &mut dyn Backend {
        &mut *self.backend
    }

    /// Whether a request is drawn outside the graphs, which is slower.
    ///
    /// # Errors
    /// The bundle lacks the protocol, or nothing can draw so.
    pub fn draws_on_host(&self, request: &Request) -> Result<bool, RuntimeError> {
        let drawing = drawing(self.program.plan(request.protocol)?);
        let route = self.route(request.protocol, &drawing, &request.sampling, request.needs_host())?;
        Ok(route != Route::Graph)
    }

    /// Generates. `on_burst` is told new tokens as soon as they are known.
    ///
    /// # Errors
    /// A request that cannot be met, or a failure of the backend.
    pub fn generate(
        &mut self,
        request: &Request,
        on_burst: &mut dyn FnMut(&Burst<'_>),
        cancel: &Cancel,
    ) -> Result<Generation, RuntimeError> {
        let prompts = self.check(request)?;
        let plan = self.program.plan(request.protocol)?.clone();
        let meta_tokens = self.program.meta_tokens;
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.meta_contexts(meta_tokens)).collect();
        let steps = request.max_new_tokens.div_ceil(meta_tokens);
        if let Some(generation) = self.on_device(request, &prompts, steps, on_burst, cancel)? {
            return Ok(generation);
        }
        let route = self.route(request.protocol, &drawing(&plan), &request.sampling, request.needs_host())?;
        let session = Session::new(&mut *self.backend, &self.program, request.profile);
        let mut run = Run {
            session,
            request,
            cancel,
            on_burst,
            batch: Batch::new(request, &prompts),
            prompts: &prompts,
            route,
            steps,
            capacity: lengths.iter().max().copied().unwrap_or(0) + steps,
            lengths,
            states: Vec::new(),
            trajectory: None,
        };
        let prefill = run.prefill(&prompts)?;
        match &plan {
            Plan::Distributed { coarse, .. } => run.distributed(coarse, &drawing(&plan), prefill)?,
            Plan::Undistributed { reencode, .. } => {
                run.undistributed(&drawing(&plan), reencode.as_deref(), prefill)?;
            }
        }
        run.session.timing.total = run.session.started.elapsed();
        Ok(Generation {
            sequences: run.batch.finish(),
            states: run.states,
            trajectory: run.trajectory,
            host_sampled: route != Route::Graph,
            timing: run.session.timing,
        })
    }

    /// The tokens of meta-context `meta` (from 0 after the prompt) of `prompt` in a stored trajectory, drawn anew as
    /// sample number `sample` under `sampling`. With the request's own sampling these are the request's tokens.
    ///
    /// # Errors
    /// The place is not in the trajectory, or the backend fails.
    pub fn expand_again(
        &mut self,
        trajectory: &Trajectory,
        prompt: usize,
        meta: usize,
        sample: usize,
        sampling: &Sampling,
    ) -> Result<Vec<i64>, RuntimeError> {
        sampling.check()?;
        let plan = self.program.plan(Protocol::Recgen)?.clone();
        let drawing = drawing(&plan);
        let route = self.route(Protocol::Recgen, &drawing, sampling, false)?;
        let mut part = trajectory.part(&mut *self.backend, prompt, meta)?;
        let tokens = self.program.meta_tokens;
        let mut session = Session::new(&mut *self.backend, &self.program, false);
        let wanted = Wanted {
            sampling,
            samples: vec![sample],
            first_token: part.first * tokens,
            tokens: part.count * tokens,
            keep_logits: false,
            penalties: Penalties::default(),
            seen: Vec::new(),
            given: None,
        };
        let given = [("reconstruction", &part.reconstruction)];
        let mut drawn = draw(&mut session, route, &drawing, &mut part.state, &given, &wanted)?;
        Ok(drawn.ids.split_off((part.count - 1) * tokens))
    }

    fn route(
        &self,
        protocol: Protocol,
        drawing: &Drawing<'_>,
        sampling: &Sampling,
        host: bool,
    ) -> Result<Route, RuntimeError> {
        Route::choose(&self.program, drawing, sampling, host)?.ok_or_else(|| RuntimeError::GraphSamplerOnly {
            protocol: protocol.to_string(),
            max_top_k: MAX_GRAPH_CANDIDATES.min(self.program.vocab_size),
        })
    }

    fn check(&self, request: &Request) -> Result<Vec<Prompt>, RuntimeError> {
        let counts = [
            ("the number of prompts", request.prompts.len()),
            ("the number of samples", request.samples),
            ("the number of new tokens", request.max_new_tokens),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(RuntimeError::Empty { what });
        }
        request.sampling.check()?;
        request.penalties.check()?;
        self.check_given(request)?;
        let Program { meta_tokens, vocab_size, max_tokens, .. } = self.program;
        let new_tokens = request.max_new_tokens.div_ceil(meta_tokens).saturating_mul(meta_tokens);
        let mut prompts = Vec::with_capacity(request.prompts.len());
        for (row, tokens) in request.prompts.iter().enumerate() {
            let prompt = Prompt::align(row, tokens, meta_tokens, vocab_size)?;
            let prompt_tokens = prompt.tokens.len();
            if prompt_tokens.saturating_add(new_tokens) > max_tokens {
                return Err(RuntimeError::Capacity { row, prompt_tokens, new_tokens, max_tokens });
            }
            prompts.push(prompt);
        }
        Ok(prompts)
    }
}

impl Generator {
    /// Tokens to take must be there for every prompt and known to the model.
    fn check_given(&self, request: &Request) -> Result<(), RuntimeError> {
        let Some(given) = &request.given else { return Ok(()) };
        let vocab_size = self.program.vocab_size;
        let known = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < vocab_size);
        for row in 0..request.prompts.len() {
            let found = given.get(row).map_or(0, Vec::len);
            if found != request.max_new_tokens {
                return Err(RuntimeError::Given { row, found, expected: request.max_new_tokens });
            }
            if let Some(index) = given[row].iter().position(|id| !known(id)) {
                let id = given[row][index];
                return Err(super::prompt::PromptError::OutOfVocabulary { row, index, id, vocab_size }.into());
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// Encodes the prompts, one row each.
    fn prefill(&mut self, prompts: &[Prompt]) -> Result<Results, RuntimeError> {
        let rows: Vec<&[i64]> = prompts.iter().map(|prompt| &prompt.tokens[..]).collect();
        let (longest, ids) = pad_right(&rows);
        let ids = self.session.upload_ints(&[rows.len(), longest], ids)?;
        let state = State { lengths: self.lengths.clone(), ..State::default() };
        self.session.run(ENCODE, Phase::Prefill, &state, &[("ids", &ids)])
    }

    /// What to draw for `count` meta-contexts from the `first` after the prompt.
    pub(super) fn wanted(&self, first: usize, count: usize) -> Wanted<'_> {
        let meta_tokens = self.session.program.meta_tokens;
        Wanted {
            sampling: &self.request.sampling,
            samples: self.batch.samples(),
            first_token: first * meta_tokens,
            tokens: count * meta_tokens,
            keep_logits: self.request.keep.logits,
            penalties: self.request.penalties,
            seen: self.seen(),
            given: self.given(first * meta_tokens, count * meta_tokens),
        }
    }

    /// The tokens of each row on the device so far, where penalties count them.
    fn seen(&self) -> Vec<Seen> {
        if self.request.penalties.are_none() {
            return Vec::new();
        }
        let prompts = self.batch.prompts().into_iter();
        let of = |(prompt, new): (usize, &[i64])| Seen::new(&self.prompts[prompt].tokens, new);
        prompts.zip(self.batch.tokens()).map(of).collect()
    }

    /// The tokens that each row takes; past the end of the last, in its meta-context, whatever.
    fn given(&self, first: usize, tokens: usize) -> Option<Vec<i64>> {
        let given = self.request.given.as_ref()?;
        let row = |prompt: usize| {
            let rest = given.get(prompt).and_then(|given| given.get(first..)).unwrap_or_default();
            rest.iter().copied().chain(std::iter::repeat(0)).take(tokens).collect::<Vec<_>>()
        };
        Some(self.batch.prompts().into_iter().flat_map(row).collect())
    }

    /// Notes the states, caches left out, that condition meta-context `meta` of each row.
    pub(super) fn record(
        &mut self,
        state: &State,
        rows: &[(usize, usize)],
        meta: usize,
    ) -> Result<(), RuntimeError> {
        if !self.request.keep.states {
            return Ok(());
        }
        for (name, buffer) in state.buffers.iter().filter(|(name, _)| !state.caches.contains_key(*name)) {
            let values = self.session.download_floats(buffer)?;
            self.note(name, &values, rows, meta);
        }
        Ok(())
    }

    /// Notes `values`, one part per row.
    pub(super) fn note(&mut self, name: &str, values: &[f64], rows: &[(usize, usize)], meta: usize) {
        for (part, (prompt, sample)) in values.chunks_exact(values.len() / rows.len().max(1)).zip(rows) {
            self.states.push(StateRecord {
                prompt: *prompt,
                sample: *sample,
                meta,
                name: name.to_owned(),
                values: part.to_vec(),
            });
        }
    }

    /// Hands the drawn tokens out and returns the device rows that go on.
    pub(super) fn deliver(&mut self, ids: &[i64], logits: Option<&[f64]>) -> Vec<usize> {
        let going_on = self.batch.deliver(self.request, ids, logits, self.on_burst);
        let elapsed = self.session.started.elapsed();
        self.session.timing.first_token.get_or_insert(elapsed);
        going_on
    }
}

/// The graphs of a plan that yield tokens.
pub(super) fn drawing(plan: &Plan) -> Drawing<'_> {
    match plan {
        Plan::Distributed { expand, logits, prepare, .. } => {
            Drawing { graph: expand, logits, prepare: Some(prepare), phase: Phase::Expand }
        }
        Plan::Undistributed { decode, logits, prepare, .. } => {
            Drawing { graph: decode, logits, prepare: prepare.as_deref(), phase: Phase::Decode }
        }
    }
}
