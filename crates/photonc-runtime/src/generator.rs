//! From prompts to tokens on any backend: batches of requests on one decoder, and stored trajectories expanded again. Owns the
//! backend; the scheduler owns the order of a generation.

use super::backend::Backend;
use super::decoder::{Decoder, DecoderSetup};
use super::draws::{Draws, SequenceDraws};
use super::error::RuntimeError;
use super::graphs::{self, Drawing, GraphDecoder, Route, Wanted};
use super::plan::Program;
use super::request::{Batch, Burst, Cancel, Generation, Request};
use super::sampler::Sampling;
use super::schedule::{Completion, Finished, Limits, Scheduler};
use super::session::Session;
use super::timing::{Phase, Timing};
use super::trajectory::Trajectory;
use photonc_bundle::bundle::Bundle;
use photonc_compiler::passes::choose_protocol::Protocol;
use photonc_compiler::passes::compile::Plan;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Generates with one model on one backend.
pub struct Generator {
    pub(super) program: Program,
    pub(super) backend: Box<dyn Backend>,
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

    /// The shape of a decoder for these requests.
    ///
    /// # Errors
    /// As [`setup_of`].
    pub fn setup(&self, batch: &Batch) -> Result<DecoderSetup, RuntimeError> {
        setup_of(&self.program, batch)
    }

    /// Gives an empty decoder of that shape to `work`: the backend's own, or one that runs its graphs.
    ///
    /// # Errors
    /// The decoder cannot be made, or what `work` says.
    pub fn with_decoder<T>(
        &mut self,
        setup: DecoderSetup,
        profile: bool,
        needs_graphs: bool,
        work: &mut dyn FnMut(&mut dyn Decoder) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let Generator { program, backend } = self;
        if !needs_graphs && let Some(decoder) = backend.decoder(program, setup) {
            let mut decoder = decoder?;
            if profile {
                decoder.measure();
            }
            return work(&mut *decoder);
        }
        work(&mut GraphDecoder::new(&mut **backend, program, setup, profile)?)
    }

    /// Whether a request of these is drawn outside the graphs, which is slower.
    ///
    /// # Errors
    /// One can never run, or nothing can draw so.
    pub fn draws_on_host(&mut self, batch: &Batch) -> Result<bool, RuntimeError> {
        let setup = self.setup(batch)?;
        let plan = self.program.plan(setup.protocol)?;
        let needs_graphs = batch.requests.iter().any(Request::needs_graphs);
        let by_device = !needs_graphs && self.backend.decodes(&self.program, setup);
        let limits = Limits::of(&self.program);
        let mut on_host = false;
        for request in &batch.requests {
            on_host |=
                !by_device && Route::choose(&self.program, plan, &limits.draws(request)?)? != Route::Graph;
        }
        Ok(on_host)
    }

    /// Generates. `on_burst` is told new tokens as soon as they are known.
    ///
    /// # Errors
    /// A request that cannot be met, or a failure of the backend.
    pub fn generate(
        &mut self,
        batch: &Batch,
        on_burst: &mut (dyn FnMut(&Burst<'_>) + Send),
        cancel: &Cancel,
    ) -> Result<Generation, RuntimeError> {
        let mut finished: Vec<Finished> = Vec::new();
        let timing = self.run(batch, on_burst, &mut |one| finished.push(one), cancel)?;
        Generation::of(finished, batch.requests.len(), timing)
    }

    /// Generates, and tells the end of each request as it comes.
    ///
    /// # Errors
    /// A request that cannot be met, before anything is done, or a failure of the backend.
    pub fn run(
        &mut self,
        batch: &Batch,
        on_burst: &mut (dyn FnMut(&Burst<'_>) + Send),
        on_finished: &mut dyn FnMut(Finished),
        cancel: &Cancel,
    ) -> Result<Timing, RuntimeError> {
        let started = Instant::now();
        let setup = self.setup(batch)?;
        let limits = Limits::of(&self.program);
        let needs_graphs = batch.requests.iter().any(Request::needs_graphs);
        let plan = self.program.plan(setup.protocol)?.clone();
        let heard = Mutex::new((None, on_burst));
        let lock = || heard.lock().unwrap_or_else(PoisonError::into_inner);
        self.with_decoder(setup, batch.profile, needs_graphs, &mut |decoder| {
            let mut scheduler = Scheduler::new(decoder, limits);
            for (number, request) in batch.requests.iter().enumerate() {
                let tell = |burst: &Burst<'_>| {
                    let (first, on_burst) = &mut *lock();
                    first.get_or_insert_with(|| started.elapsed());
                    on_burst(burst);
                };
                scheduler.submit(number, request.clone(), Box::new(tell))?;
            }
            while !scheduler.is_idle() {
                if cancel.is_cancelled() {
                    scheduler.cancel();
                }
                scheduler.turn()?;
                scheduler.take_finished().into_iter().for_each(&mut *on_finished);
            }
            drop(scheduler);
            let timing = Timing { first_token: lock().0, total: started.elapsed(), ..decoder.take_times() };
            Ok(timing.in_phases(|graph| phase_of(setup.protocol, &plan, graph)))
        })
    }

    /// The tokens of meta-context `meta` (from 0 after the encoded part of the prompt) of a stored trajectory, drawn anew as
    /// sample number `sample` under `sampling`. With the request's own sampling these are the request's tokens.
    ///
    /// # Errors
    /// The place is not in the trajectory, or the backend fails.
    pub fn expand_again(
        &mut self,
        trajectory: &Trajectory,
        meta: usize,
        sample: u64,
        sampling: &Sampling,
    ) -> Result<Vec<i64>, RuntimeError> {
        let draws = Arc::new(Draws::of(*sampling));
        draws.check()?;
        let plan = self.program.plan(Protocol::Recgen)?.clone();
        let route = Route::choose(&self.program, &plan, &draws)?;
        let mut part = trajectory.part(&mut *self.backend, meta)?;
        let tokens = self.program.meta_tokens;
        let mut session = Session::new(&mut *self.backend, &self.program, false);
        let sequence = SequenceDraws::at(&draws, sample, trajectory.encoded + part.first * tokens);
        let wanted = Wanted { sequences: &[&sequence], tokens: part.count * tokens, logits: false };
        let given = [(trajectory.cut.as_str(), &part.reconstruction)];
        let drawing = Drawing::of(&plan);
        let mut drawn = graphs::draw(&mut session, route, &drawing, &mut part.state, &given, &wanted)?;
        Ok(drawn.ids.split_off((part.count - 1) * tokens))
    }
}

/// The shape of a decoder for these requests, of one protocol.
///
/// # Errors
/// The first request that can never run, or there is none.
pub fn setup_of(program: &Program, batch: &Batch) -> Result<DecoderSetup, RuntimeError> {
    let limits = Limits::of(program);
    let first = batch.requests.first().ok_or(RuntimeError::Empty { what: "the number of prompts" })?;
    let run_ahead = limits.run_ahead(&batch.requests, batch.run_ahead);
    let capacity = limits.capacity(&batch.requests, run_ahead)?;
    let rows = batch.rows.unwrap_or(batch.requests.len()).clamp(1, batch.requests.len());
    let widest = batch.requests.iter().map(|request| request.samples).fold(1, usize::max);
    Ok(DecoderSetup { protocol: first.protocol, rows, sequences: rows * widest, capacity, run_ahead })
}

impl Generation {
    /// The results of a batch of so many requests, which have ended in some order, each once.
    ///
    /// # Errors
    /// The first request that failed.
    pub fn of(mut finished: Vec<Finished>, requests: usize, timing: Timing) -> Result<Self, RuntimeError> {
        assert!(
            finished.len() <= requests,
            "invariant: a request ends once; {} ends of {requests} requests",
            finished.len()
        );
        finished.sort_by_key(|finished| finished.number);
        let mut generation = Generation {
            sequences: Vec::new(),
            prompt_logprobs: Vec::new(),
            states: Vec::new(),
            trajectories: Vec::new(),
            host_sampled: false,
            timing,
        };
        let mut finished = finished.into_iter();
        for number in 0..requests {
            let ended = finished.next().filter(|finished| finished.number == number);
            generation.add(ended.expect("invariant: every request of a batch ends").result?);
        }
        Ok(generation)
    }

    /// Takes what the next request gave.
    fn add(&mut self, completion: Completion) {
        self.sequences.extend(completion.sequences);
        self.prompt_logprobs.push(completion.prompt_logprobs);
        self.states.extend(completion.states);
        self.trajectories.push(completion.trajectory);
        self.host_sampled |= completion.host_sampled;
    }
}

/// What a decoder's graph is for.
fn phase_of(protocol: Protocol, plan: &Plan, graph: &str) -> Phase {
    match plan {
        _ if graph == protocol.encode() => Phase::Prefill,
        Plan::Distributed { coarse, .. } if graph == coarse => Phase::Coarse,
        Plan::Distributed { .. } => Phase::Expand,
        Plan::Undistributed { .. } => Phase::Decode,
    }
}
