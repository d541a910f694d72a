//! Generation through a backend's decoder: bursts in flight while earlier ones are handed out. Owns the choice of the
//! decoder's shape and the end of rows; the decoder owns everything on the device.

use super::batch::Batch;
use super::decoder::{Admission, Decoder, DecoderSetup};
use super::error::RuntimeError;
use super::generator::Generator;
use super::plan::{ENCODE, Program};
use super::prompt::Prompt;
use super::request::{Burst, Cancel, Generation, Keep, Request, RunAhead};
use super::timing::{Phase, Timing};
use crate::passes::compile::Plan;
use std::time::Instant;

/// Longest burst of a decoder, in meta-contexts: what is recorded once has a bounded size.
const MAX_RUN_AHEAD: usize = 64;

impl Request {
    /// The shape of a decoder of `rows` rows, each with room for any prompt of the request.
    #[must_use]
    pub fn decoder_setup(&self, program: &Program, rows: usize) -> DecoderSetup {
        let meta_tokens = program.meta_tokens.max(1);
        let steps = self.max_new_tokens.div_ceil(meta_tokens);
        let run_ahead = match self.run_ahead {
            RunAhead::All => steps,
            RunAhead::MetaContexts(count) => count,
        };
        let run_ahead = run_ahead.clamp(1, steps.clamp(1, MAX_RUN_AHEAD));
        let longest = self.prompts.iter().map(|prompt| prompt.len() / meta_tokens).max().unwrap_or(0);
        DecoderSetup {
            protocol: self.protocol,
            rows,
            samples: self.samples,
            capacity: longest + steps.div_ceil(run_ahead) * run_ahead,
            run_ahead,
        }
    }
}

impl Generator {
    /// The generation by a decoder; `None` where the backend has none, or the request wants what stays on the device.
    pub(super) fn on_device(
        &mut self,
        request: &Request,
        prompts: &[Prompt],
        steps: usize,
        on_burst: &mut dyn FnMut(&Burst<'_>),
        cancel: &Cancel,
    ) -> Result<Option<Generation>, RuntimeError> {
        if request.needs_host() || request.keep != Keep::default() {
            return Ok(None);
        }
        let started = Instant::now();
        let program = self.program().clone();
        let setup = request.decoder_setup(&program, prompts.len());
        let bursts = steps.div_ceil(setup.run_ahead);
        let Some(decoder) = self.backend().decoder(&program, setup) else { return Ok(None) };
        let mut decoder = decoder?;
        let admissions: Vec<Admission<'_>> = prompts
            .iter()
            .enumerate()
            .map(|(row, prompt)| Admission {
                row,
                tokens: &prompt.tokens,
                sampling: &request.sampling,
                first_sample: 0,
            })
            .collect();
        let mut timing = Timing::default();
        if request.profile {
            decoder.measure();
        }
        decoder.admit(&admissions)?;
        let mut batch = Batch::new(request, prompts);
        let mut flow = Flow { decoder: &mut *decoder, bursts, begun: Vec::new(), collected: 0 };
        while !cancel.is_cancelled() && flow.go_on(&batch)? {
            flow.collect(&mut batch, request, &mut |burst| {
                timing.first_token.get_or_insert(started.elapsed());
                on_burst(burst);
            })?;
        }
        timing.total = started.elapsed();
        timing.graphs = flow.decoder.take_times();
        let plan = program.plan(request.protocol)?;
        for (graph, time) in &timing.graphs {
            *timing.phases.entry(phase_of(plan, graph)).or_default() += time.total;
        }
        Ok(Some(Generation {
            sequences: batch.finish(),
            states: Vec::new(),
            trajectory: None,
            host_sampled: false,
            timing,
        }))
    }
}

/// What a decoder's graph is for.
fn phase_of(plan: &Plan, graph: &str) -> Phase {
    match plan {
        _ if graph == ENCODE => Phase::Prefill,
        Plan::Distributed { coarse, .. } if graph == coarse => Phase::Coarse,
        Plan::Distributed { .. } => Phase::Expand,
        Plan::Undistributed { .. } => Phase::Decode,
    }
}

/// Bursts of one request.
struct Flow<'d> {
    decoder: &'d mut dyn Decoder,
    /// Bursts that the longest sequence takes.
    bursts: usize,
    /// Sequences that grew when each burst was started.
    begun: Vec<Vec<usize>>,
    collected: usize,
}

impl Flow<'_> {
    /// Starts what can be started; whether a burst is left to collect.
    fn go_on(&mut self, batch: &Batch) -> Result<bool, RuntimeError> {
        while self.decoder.pending() < 2 && self.begun.len() < self.bursts && !batch.is_done() {
            self.decoder.start()?;
            self.begun.push(batch.growing());
        }
        Ok(self.decoder.pending() > 0)
    }

    fn collect(
        &mut self,
        batch: &mut Batch,
        request: &Request,
        on_burst: &mut dyn FnMut(&Burst<'_>),
    ) -> Result<(), RuntimeError> {
        let sequences = self.begun.get_mut(self.collected).map(std::mem::take).unwrap_or_default();
        self.collected += 1;
        let DecoderSetup { rows, samples, .. } = self.decoder.setup();
        let ids = self.decoder.collect()?;
        let per_sequence = ids.len() / (rows * samples).max(1);
        for place in &sequences {
            let drawn = &ids[place * per_sequence..(place + 1) * per_sequence];
            if let Some(token) = drawn.iter().position(|id| *id < 0) {
                return Err(RuntimeError::NotADistribution { row: *place, token });
            }
            batch.deliver_one(request, *place, drawn, on_burst);
        }
        let growing = batch.growing();
        for row in 0..rows {
            if growing.iter().all(|place| place / samples != row) {
                self.decoder.retire(row);
            }
        }
        Ok(())
    }
}
