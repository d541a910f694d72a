//! An open queue of requests for one or several replicas of a model, a thread each: requests are submitted and cancelled from
//! other threads while others run. Owns the bound of the queue, its order, the sharing out and the end of all requests of a
//! replica that fails.
//!
//! Invariant: every request that was taken is told its end exactly once.

use super::active::{Finished, Sink};
use super::fit::{Limits, Refusal};
use super::{Scheduler, Totals};
use crate::decoder::Decoder;
use crate::error::RuntimeError;
use crate::request::{Burst, Cancel, Finish, Request};
use photonc_compiler::passes::choose_protocol::Protocol;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a replica with nothing to do looks for requests that are late or cancelled.
const IDLE_LOOK: Duration = Duration::from_millis(50);

/// What a replica does with its decoder.
pub type Work<'w> = dyn FnMut(&mut dyn Decoder) -> Result<(), RuntimeError> + 'w;

/// Opens the replica of a number on the thread that calls, makes its decoder for the protocol, empty, and gives it to the work.
pub type Open<'o> = dyn Fn(usize, Protocol, &mut Work<'_>) -> Result<(), RuntimeError> + Sync + 'o;

/// What a decoder is made for: requests of another kind wait until what runs has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderKind {
    /// How states advance.
    pub protocol: Protocol,
    /// Whether graphs run one by one, for requests that ask for what recorded decoders do not give.
    pub graphs: bool,
}

/// Told the end of a request.
pub type Done<'r> = Box<dyn FnOnce(Finished) + Send + 'r>;

/// What a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// What the model allows.
    pub model: Limits,
    /// Meta-contexts that a row of every replica has room for.
    pub capacity: usize,
    /// Meta-contexts of a burst.
    pub run_ahead: usize,
    /// Requests that wait at most; those that run are not counted.
    pub waiting: usize,
    /// Tokens of prompts that are encoded from one burst to the next; a longer prompt goes alone.
    pub prefill_tokens: usize,
}

/// A request that was taken.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Its number, as bursts and results have it.
    pub number: usize,
    /// Ends it early.
    pub cancel: Cancel,
}

struct Submission<'r> {
    number: usize,
    request: Request,
    sink: Sink<'r>,
    done: Done<'r>,
}

#[derive(Default)]
struct State<'r> {
    /// By priority, highest first, then in the order in which they came.
    waiting: BTreeMap<(i64, usize), Submission<'r>>,
    came: usize,
    running: usize,
    closed: bool,
    /// Replicas that are there or may come.
    replicas: usize,
    failure: Option<ServeError>,
    totals: Vec<Totals>,
}

/// The queue. Its requests may borrow for `'r`.
pub struct Queue<'r> {
    limits: QueueLimits,
    state: Mutex<State<'r>>,
    changed: Condvar,
}

/// Who is told of bursts and of the ends of requests, on the threads of replicas.
pub type Told<'t> = (&'t (dyn Fn(&Burst<'_>) + Sync), &'t (dyn Fn(Finished) + Sync));

/// A replica failed, and with it the whole.
#[derive(Debug, thiserror::Error)]
#[error("replica {replica}: {source}")]
pub struct ServeError {
    /// Its number.
    pub replica: usize,
    /// Why.
    pub source: RuntimeError,
}

impl<'r> Queue<'r> {
    /// An empty queue for `replicas` replicas.
    #[must_use]
    pub fn new(limits: QueueLimits, replicas: usize) -> Self {
        let totals = vec![Totals::default(); replicas];
        Queue {
            limits,
            state: Mutex::new(State { replicas, totals, ..State::default() }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'r>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request. `sink` is told its tokens, `done` its end, both on the thread of a replica.
    ///
    /// # Errors
    /// It can never run, too many wait, or the queue is closed; nothing was taken, and neither is called.
    pub fn submit(&self, request: Request, sink: Sink<'r>, done: Done<'r>) -> Result<Ticket, Refusal> {
        let mut state = self.lock();
        if state.closed || state.replicas == 0 {
            return Err(Refusal::Closed);
        }
        if state.waiting.len() >= self.limits.waiting {
            return Err(Refusal::QueueFull { waiting: state.waiting.len(), limit: self.limits.waiting });
        }
        let number = state.came;
        let QueueLimits { model, capacity, run_ahead, .. } = self.limits;
        let meta_contexts = model.meta_contexts(number, &request, run_ahead)?;
        if meta_contexts > capacity {
            return Err(Refusal::NoRoom { number, meta_contexts, capacity });
        }
        state.came += 1;
        let ticket = Ticket { number, cancel: request.cancel.clone() };
        let key = (-i64::from(request.priority), number);
        state.waiting.insert(key, Submission { number, request, sink, done });
        drop(state);
        self.changed.notify_one();
        Ok(ticket)
    }

    /// Takes nothing more; replicas end when all that was taken has ended.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Requests that wait, and those that run.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting.len(), state.running)
    }

    /// What each replica has done so far.
    #[must_use]
    pub fn totals(&self) -> Vec<Totals> {
        self.lock().totals.clone()
    }

    /// Runs requests on the replica of a number until the queue is closed and empty. A decoder runs one protocol: where the
    /// next request has another, what runs is brought to its end and another decoder is opened.
    ///
    /// # Errors
    /// The replica failed; its requests have been told, and where it was the last, those that wait too.
    pub fn run_replica(&self, replica: usize, open: &Open<'_>) -> Result<(), RuntimeError> {
        let kind = |request: &Request| DecoderKind { protocol: request.protocol, graphs: false };
        self.run_kinds(replica, &kind, &mut |kind, work| open(replica, kind.protocol, work))
    }

    /// The same where `kind_of` says which decoder a request needs.
    ///
    /// # Errors
    /// As [`Queue::run_replica`].
    pub fn run_kinds(
        &self,
        replica: usize,
        kind_of: &dyn Fn(&Request) -> DecoderKind,
        make: &mut dyn FnMut(DecoderKind, &mut Work<'_>) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        while let Some(kind) = self.next_kind(kind_of) {
            let fits = |request: &Request| kind_of(request) == kind;
            if let Err(error) = make(kind, &mut |decoder| self.work(replica, &fits, decoder)) {
                self.lose(&error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// The kind of the next request, once there is one; `None` once the queue is closed and empty.
    fn next_kind(&self, kind_of: &dyn Fn(&Request) -> DecoderKind) -> Option<DecoderKind> {
        let mut state = self.lock();
        loop {
            state = self.drop_ended(state);
            if let Some(next) = state.waiting.values().next() {
                return Some(kind_of(&next.request));
            }
            if state.closed {
                return None;
            }
            state = self.wait(state);
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<'r>>) -> MutexGuard<'s, State<'r>> {
        self.changed.wait_timeout(state, IDLE_LOOK).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells the end to waiting requests that are cancelled or late.
    fn drop_ended<'s>(&'s self, mut state: MutexGuard<'s, State<'r>>) -> MutexGuard<'s, State<'r>> {
        let now = Instant::now();
        let end = |request: &Request| match request.deadline {
            _ if request.cancel.is_cancelled() => Some(Finish::Cancelled),
            Some(deadline) if deadline <= now => Some(Finish::Deadline),
            _ => None,
        };
        let ended = state.waiting.iter().filter_map(|(key, one)| Some((*key, end(&one.request)?)));
        let ended: Vec<((i64, usize), Finish)> = ended.collect();
        if ended.is_empty() {
            return state;
        }
        let ended: Vec<(Submission<'r>, Finish)> =
            ended.into_iter().filter_map(|(key, end)| Some((state.waiting.remove(&key)?, end))).collect();
        drop(state);
        for (submission, finish) in ended {
            let Submission { number, request, mut sink, done } = submission;
            let finished = Scheduler::ended(number, request, self.limits.model, finish, &mut sink);
            done(finished);
        }
        self.lock()
    }

    fn work(
        &self,
        replica: usize,
        fits: &dyn Fn(&Request) -> bool,
        decoder: &mut dyn Decoder,
    ) -> Result<(), RuntimeError> {
        let scheduler: Scheduler<'_, 'r> = Scheduler::new(decoder, self.limits.model);
        let mut scheduler = scheduler.with_prefill_tokens(self.limits.prefill_tokens);
        let before = self.lock().totals[replica];
        let mut running: HashMap<usize, Done<'r>> = HashMap::new();
        loop {
            let leaves = self.feed(&mut scheduler, fits, &mut running);
            if leaves && scheduler.is_idle() {
                return Ok(());
            }
            let lost = self.lock().failure.as_ref().map(|failure| failure.source.to_string());
            let (turned, finished) = match lost {
                Some(message) => {
                    let finished = scheduler.fail(&message);
                    (Err(RuntimeError::Lost { message }), finished)
                }
                None => match scheduler.turn() {
                    Ok(_) => (Ok(()), scheduler.take_finished()),
                    Err(error) => {
                        let finished = scheduler.fail(&error.to_string());
                        (Err(error), finished)
                    }
                },
            };
            {
                let mut state = self.lock();
                state.running -= finished.len();
                state.totals[replica] = before + scheduler.totals();
            }
            for finished in finished {
                if let Some(done) = running.remove(&finished.number) {
                    done(finished);
                }
            }
            turned?;
        }
    }

    /// Gives the scheduler what it has rows for; waits where neither has anything. Whether the replica is to leave once
    /// it is idle.
    fn feed(
        &self,
        scheduler: &mut Scheduler<'_, 'r>,
        fits: &dyn Fn(&Request) -> bool,
        running: &mut HashMap<usize, Done<'r>>,
    ) -> bool {
        loop {
            let Submission { number, request, sink, done } = match self.take_next(scheduler, fits) {
                Ok(submission) => submission,
                Err(leaves) => return leaves,
            };
            match scheduler.submit(number, request, sink) {
                Ok(()) => {
                    running.insert(number, done);
                }
                Err(refusal) => {
                    self.lock().running -= 1;
                    done(Finished { number, result: Err(refusal.into()) });
                }
            }
        }
    }

    /// The next request, if the scheduler has room for it; else whether the replica is to leave once it is idle.
    fn take_next(
        &self,
        scheduler: &Scheduler<'_, 'r>,
        fits: &dyn Fn(&Request) -> bool,
    ) -> Result<Submission<'r>, bool> {
        let mut state = self.lock();
        loop {
            state = self.drop_ended(state);
            if let Some(Submission { request, .. }) = state.waiting.values().next() {
                if !fits(request) {
                    return Err(true);
                }
                if scheduler.has_room(request.samples)
                    && let Some((_, next)) = state.waiting.pop_first()
                {
                    state.running += 1;
                    return Ok(next);
                }
            }
            let ends = state.closed && state.waiting.is_empty();
            if ends || !scheduler.is_idle() {
                return Err(ends);
            }
            state = self.wait(state);
        }
    }

    /// The whole ends with a replica: requests that wait are lost, those that run at the next burst.
    pub fn fail(&self, failure: ServeError) {
        let message = failure.source.to_string();
        let mut state = self.lock();
        state.failure.get_or_insert(failure);
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        Self::tell_lost(waiting, &message);
    }

    fn tell_lost(waiting: BTreeMap<(i64, usize), Submission<'r>>, message: &str) {
        for Submission { number, done, .. } in waiting.into_values() {
            done(Finished { number, result: Err(RuntimeError::Lost { message: message.to_owned() }) });
        }
    }

    /// A replica is gone; where it was the last, so are the requests that wait.
    fn lose(&self, message: &str) {
        let mut state = self.lock();
        state.replicas -= 1;
        let waiting = if state.replicas == 0 { std::mem::take(&mut state.waiting) } else { BTreeMap::new() };
        drop(state);
        self.changed.notify_all();
        Self::tell_lost(waiting, message);
    }
}

/// Runs `requests` on `replicas` replicas at once, numbered by place. A replica takes a request when it has a row for it. A
/// request that can never run ends with its refusal; the others go on. What each replica has done.
///
/// # Errors
/// The first replica that failed; the others stop at their next burst, and every request has been told.
pub fn serve(
    replicas: usize,
    limits: QueueLimits,
    requests: Vec<Request>,
    (on_burst, on_finished): Told<'_>,
    open: &Open<'_>,
) -> Result<Vec<Totals>, ServeError> {
    let queue = Queue::new(QueueLimits { waiting: usize::MAX, ..limits }, replicas);
    for (number, request) in requests.into_iter().enumerate() {
        if let Err(refusal) = queue.submit(request, Box::new(on_burst), Box::new(on_finished)) {
            // The numbers of those behind it are their places all the same.
            queue.lock().came = number + 1;
            on_finished(Finished { number, result: Err(refusal.into()) });
        }
    }
    queue.close();
    std::thread::scope(|scope| {
        for replica in 0..replicas {
            let queue = &queue;
            scope.spawn(move || {
                if let Err(source) = queue.run_replica(replica, open) {
                    queue.fail(ServeError { replica, source });
                }
            });
        }
    });
    let mut state = queue.lock();
    match state.failure.take() {
        Some(failure) => Err(failure),
        None => Ok(std::mem::take(&mut state.totals)),
    }
}
