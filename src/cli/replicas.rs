//! Requests on what the user chose to run them: one backend, or a replica of the model on each GPU, whose rows take the next
//! request as soon as they are free.

use super::backends::{BackendArgs, load_graphs};
use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::runtime::generator::{Generator, setup_of};
use crate::runtime::launch::replicas::{RowCount, serve_on};
use crate::runtime::plan::Program;
use crate::runtime::request::{Batch, Burst, Cancel, Request};
use crate::runtime::schedule::Finished;
use crate::runtime::timing::Timing;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What runs requests.
pub struct Runner<'a> {
    pub backend: &'a BackendArgs,
    pub bundle: &'a Bundle,
    /// The rows of a replica, of which it can use no more than the argument.
    pub rows: &'a (dyn Fn(usize) -> RowCount + Sync),
    pub reporter: &'a Reporter,
}

/// Who is told of what happens.
pub struct Listeners<'a> {
    /// New tokens, as soon as they are known.
    pub on_burst: &'a (dyn Fn(&Burst<'_>) + Sync),
    /// The end of a request.
    pub on_finished: &'a (dyn Fn(Finished) + Sync),
}

impl Runner<'_> {
    /// Runs the requests of a batch to their ends.
    pub fn run(&self, batch: &Batch, listeners: &Listeners<'_>, cancel: &Cancel) -> Result<Timing, Failure> {
        if self.backend.shares_out(&batch.requests) {
            return self.on_replicas(batch, listeners, cancel);
        }
        let started = Instant::now();
        let mut generator = self.backend.generator(self.bundle, self.reporter)?;
        let on_host = load_graphs(&mut generator, batch)?;
        self.reporter.detail(&format!("graphs loaded in {:.1?}", started.elapsed()));
        if on_host {
            self.reporter.note("these sampling parameters are drawn outside the graphs, which is slower; --top-k up to 64 without --min-p and penalties stays inside");
        }
        self.on_one(&mut generator, batch, listeners, cancel)
    }

    fn on_one(
        &self,
        generator: &mut Generator,
        batch: &Batch,
        listeners: &Listeners<'_>,
        cancel: &Cancel,
    ) -> Result<Timing, Failure> {
        let mut on_burst = |burst: &Burst<'_>| (listeners.on_burst)(burst);
        let mut on_finished = |finished| (listeners.on_finished)(finished);
        Ok(generator.run(batch, &mut on_burst, &mut on_finished, cancel)?)
    }

    fn on_replicas(
        &self,
        batch: &Batch,
        listeners: &Listeners<'_>,
        cancel: &Cancel,
    ) -> Result<Timing, Failure> {
        let program = Program::from_bundle(self.bundle)?;
        let devices = self.backend.gpus()?;
        let rows = (self.rows)(batch.requests.len().div_ceil(devices.len()));
        let setup = setup_of(&program, &Batch { rows: Some(1), ..batch.clone() })?;
        let started = Instant::now();
        let first = Mutex::new(None);
        let on_burst = |burst: &Burst<'_>| {
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| started.elapsed());
            (listeners.on_burst)(burst);
        };
        let load = |device| self.backend.load(self.bundle, device);
        let with = |request: &Request| Request { cancel: cancel.clone(), ..request.clone() };
        let requests = batch.requests.iter().map(with).collect();
        let listeners = (&on_burst as _, listeners.on_finished);
        let replicas = serve_on(&devices, &load, &program, setup, rows, requests, listeners);
        let replicas = replicas.map_err(|error| {
            // One replica is the whole; of several, the number tells which GPU it was.
            if devices.len() > 1 {
                self.reporter.note(&format!("GPU {} of --devices failed first", error.replica));
            }
            Failure::from(error.source)
        })?;
        let wasted: usize = replicas.totals.iter().map(|totals| totals.wasted_tokens).sum();
        self.reporter
            .detail(&format!("rows of the replicas: {:?}; {wasted} tokens past an end", replicas.rows));
        let first_token = first.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Timing { first_token, total: started.elapsed(), ..Timing::default() })
    }
}
