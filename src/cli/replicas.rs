//! Many prompts on GPUs: every prompt a request, a replica of the model on each GPU, rows that take the next request as
//! soon as they are free. Owns the way from a request of many prompts to a queue and back.

use super::backends::BackendArgs;
use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::runtime::cuda::replicas::{RowCount, serve_on};
use crate::runtime::error::RuntimeError;
use crate::runtime::plan::Program;
use crate::runtime::request::{Cancel, Generation, Request};
use crate::runtime::schedule::{Job, Limits};
use crate::runtime::timing::Timing;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Generates every prompt of `request`. `rows` gives the rows of a replica, of which it can use no more than its argument.
pub fn generate(
    backend: &BackendArgs,
    bundle: &Bundle,
    request: &Request,
    rows: &dyn Fn(usize) -> RowCount,
    reporter: &Reporter,
) -> Result<Generation, Failure> {
    let program = Program::from_bundle(bundle)?;
    let devices = backend.gpus()?;
    let rows = rows(request.prompts.len().div_ceil(devices.len().max(1)));
    let setup = request.decoder_setup(&program, 1);
    let started = Instant::now();
    let first: Mutex<Option<Duration>> = Mutex::new(None);
    let jobs: Vec<Job<'_>> =
        request.prompts.iter().map(|prompt| job(request, prompt, started, &first)).collect();
    for (number, job) in jobs.iter().enumerate() {
        Limits::of(&program).check(number, job, setup).map_err(RuntimeError::from)?;
    }
    let load = |device| backend.load_cuda(bundle, device);
    let replicas = serve_on(&devices, &load, &program, setup, rows, jobs).map_err(|error| {
        // One replica is the whole; of several, the number tells which GPU it was.
        if devices.len() > 1 {
            reporter.note(&format!("GPU {} of --devices failed first", error.replica));
        }
        Failure::from(error.source)
    })?;
    let wasted: usize = replicas.served.totals.iter().map(|totals| totals.wasted_tokens).sum();
    reporter.detail(&format!("rows of the replicas: {:?}; {wasted} tokens past an end", replicas.rows));
    let mut sequences = Vec::new();
    for finished in replicas.served.finished {
        sequences.extend(finished.result?);
    }
    let first_token = first.into_inner().unwrap_or_else(PoisonError::into_inner);
    let timing = Timing { first_token, total: started.elapsed(), ..Timing::default() };
    Ok(Generation { sequences, states: Vec::new(), trajectory: None, host_sampled: false, timing })
}

fn job<'j>(
    request: &'j Request,
    prompt: &[i64],
    started: Instant,
    first: &'j Mutex<Option<Duration>>,
) -> Job<'j> {
    Job {
        prompt: prompt.to_vec(),
        max_new_tokens: request.max_new_tokens,
        sampling: request.sampling,
        first_sample: 0,
        stop: request.stop.clone(),
        eos: request.eos.clone(),
        watch: request.watch.clone(),
        cancel: Cancel::default(),
        on_burst: Box::new(move |_| {
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| started.elapsed());
        }),
    }
}
