//! Generation through a backend's decoder: bursts in flight while earlier ones are handed out. Owns the choice of the
//! decoder's shape and the end of rows; the decoder owns everything on the device.

use super::batch::Batch;
use super::decoder::{Admission, Decoder, DecoderSetup};
use super::error::RuntimeError;
use super::generator::Generator;
use super::prompt::Prompt;
use super::request::{Burst, Cancel, Generation, Keep, Request, RunAhead};
use super::timing::{Phase, Timing};
use std::time::Instant;

/// Longest burst of a decoder, in meta-contexts: what is recorded once has a bounded size.
const MAX_RUN_AHEAD: usize = 64;

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
        if request.needs_host() || request.keep != Keep::default() || request.profile {
            return Ok(None);
        }
        let started = Instant::now();
        let run_ahead = match request.run_ahead {
            RunAhead::All => steps,
            RunAhead::MetaContexts(count) => count,
        };
        let run_ahead = run_ahead.clamp(1, steps.clamp(1, MAX_RUN_AHEAD));
        let bursts = steps.div_ceil(run_ahead);
        let program = self.program().clone();
        let longest =
            prompts.iter().map(|prompt| prompt.meta_contexts(program.meta_tokens)).max().unwrap_or(0);
        let setup = DecoderSetup {
            protocol: request.protocol,
            rows: prompts.len(),
            samples: request.samples,
            capacity: longest + bursts * run_ahead,
            run_ahead,
        };
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
        decoder.admit(&admissions)?;
        timing.add(Phase::Prefill, super::plan::ENCODE, started.elapsed());
        let mut batch = Batch::new(request, prompts);
        let mut flow = Flow { decoder: &mut *decoder, bursts, begun: Vec::new(), collected: 0 };
        while !cancel.is_cancelled() && flow.go_on(&batch)? {
            flow.collect(&mut batch, request, &mut |burst| {
                timing.first_token.get_or_insert(started.elapsed());
                on_burst(burst);
            })?;
        }
        timing.total = started.elapsed();
        Ok(Some(Generation {
            sequences: batch.finish(),
            states: Vec::new(),
            trajectory: None,
            host_sampled: false,
            timing,
        }))
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
