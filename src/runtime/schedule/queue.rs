//! One queue of requests for several replicas of a model, a thread each. Owns the sharing out, the order of results and
//! the end of all when one fails.

use super::job::{Finished, Job, Limits};
use super::{Scheduler, Totals};
use crate::runtime::decoder::Decoder;
use crate::runtime::error::RuntimeError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a replica does with its decoder.
pub type Work<'w> = dyn FnMut(&mut dyn Decoder) -> Result<(), RuntimeError> + 'w;

/// Opens the replica of a number on the thread that calls, makes its decoder, empty, and gives it to the work.
pub type Open<'o> = dyn Fn(usize, &mut Work<'_>) -> Result<(), RuntimeError> + Sync + 'o;

/// What became of the requests of `serve`.
#[derive(Debug)]
pub struct Served {
    /// The requests in the order in which they were given.
    pub finished: Vec<Finished>,
    /// What each replica has done.
    pub totals: Vec<Totals>,
}

/// A replica failed, and with it the whole.
#[derive(Debug, thiserror::Error)]
#[error("replica {replica}: {source}")]
pub struct ServeError {
    /// Its number.
    pub replica: usize,
    /// Why.
    pub source: RuntimeError,
}

/// State shared by the replicas.
struct Shared<'j> {
    waiting: Mutex<VecDeque<(usize, Job<'j>)>>,
    finished: Mutex<Vec<Finished>>,
    totals: Mutex<Vec<Totals>>,
    failure: Mutex<Option<ServeError>>,
    stopped: AtomicBool,
}

/// Runs `jobs` on `replicas` replicas at once. A replica takes a request when it has a row for it. A request that can
/// never run ends with its refusal; the others go on.
///
/// # Errors
/// The first replica that failed; the others stop at their next burst.
pub fn serve<'j>(
    replicas: usize,
    limits: Limits,
    jobs: Vec<Job<'j>>,
    open: &Open<'_>,
) -> Result<Served, ServeError> {
    let shared = Shared {
        waiting: Mutex::new(jobs.into_iter().enumerate().collect()),
        finished: Mutex::default(),
        totals: Mutex::new(vec![Totals::default(); replicas]),
        failure: Mutex::default(),
        stopped: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for replica in 0..replicas {
            let shared = &shared;
            scope.spawn(move || {
                let served = open(replica, &mut |decoder| shared.work(replica, limits, decoder));
                if let Err(source) = served {
                    shared.stopped.store(true, Ordering::Relaxed);
                    lock(&shared.failure).get_or_insert(ServeError { replica, source });
                }
            });
        }
    });
    if let Some(failure) = inner(shared.failure) {
        return Err(failure);
    }
    let mut finished = inner(shared.finished);
    finished.sort_by_key(|finished| finished.number);
    Ok(Served { finished, totals: inner(shared.totals) })
}

impl Shared<'_> {
    fn work(&self, replica: usize, limits: Limits, decoder: &mut dyn Decoder) -> Result<(), RuntimeError> {
        let mut scheduler = Scheduler::new(decoder, limits);
        while !self.stopped.load(Ordering::Relaxed) {
            while scheduler.waiting() < scheduler.free_rows() {
                let Some((number, job)) = lock(&self.waiting).pop_front() else { break };
                if let Err(refusal) = scheduler.submit(number, job) {
                    lock(&self.finished).push(Finished { number, result: Err(refusal.into()) });
                }
            }
            let more = scheduler.turn()?;
            lock(&self.finished).extend(scheduler.take_finished());
            if !more && lock(&self.waiting).is_empty() {
                break;
            }
        }
        if let Some(totals) = lock(&self.totals).get_mut(replica) {
            *totals = scheduler.totals();
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
