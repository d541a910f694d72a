//! Requests through the one scheduler: alone, and together through an open queue whose callers come from two threads.

use crate::mixture::{Case, EndedBy};
use photonc::runtime::decoder::DecoderSetup;
use photonc::runtime::generator::Generator;
use photonc::runtime::logprobs::TokenLogprobs;
use photonc::runtime::request::{Batch, Burst, Cancel, Finish, Request, RunAhead};
use photonc::runtime::schedule::{Completion, Finished, Limits, Queue, QueueLimits, Scheduler};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

/// Meta-contexts of a burst of requests that run together.
pub const RUN_AHEAD: usize = 2;

/// How long a burst may take at most.
const PATIENCE: Duration = Duration::from_secs(300);

/// Makes a generator on the backend under test.
pub type Open<'o> = dyn Fn() -> Generator + Sync + 'o;

/// What a caller was told of a sequence.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub tokens: Vec<i64>,
    pub logprobs: Vec<TokenLogprobs>,
    pub ends: Vec<Finish>,
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By sample.
    pub heard: Vec<Heard>,
    /// Number of the first burst of the whole that was its own.
    pub first_heard: Option<usize>,
    /// Its number in bursts.
    pub named: Option<usize>,
    pub ends: Vec<Finished>,
}

impl Outcome {
    pub fn completion(&self) -> &Completion {
        assert_eq!(self.ends.len(), 1, "a request ends once");
        assert!(self.named.is_none_or(|named| named == self.ends[0].number), "bursts have its number");
        self.ends[0].result.as_ref().expect("a result")
    }

    fn hear(&mut self, burst: &Burst<'_>, at: usize) {
        assert!(!burst.tokens.is_empty() || burst.finish.is_some(), "there is something to tell");
        assert!(self.named.is_none_or(|named| named == burst.prompt));
        self.named = Some(burst.prompt);
        self.first_heard.get_or_insert(at);
        let heard = &mut self.heard[burst.sample];
        assert!(heard.ends.is_empty(), "nothing comes behind the end");
        heard.tokens.extend_from_slice(burst.tokens);
        heard.logprobs.extend_from_slice(burst.logprobs);
        heard.ends.extend(burst.finish);
    }
}

/// A request by itself. `graphs`: it runs graph by graph even where the backend has a decoder of its own.
pub fn alone(generator: &mut Generator, request: &Request, run_ahead: usize, graphs: bool) -> Completion {
    let request = Request { cancel: Cancel::default(), deadline: None, ..request.clone() };
    let run_ahead = RunAhead::MetaContexts(run_ahead);
    let setup = generator.setup(&Batch { run_ahead, ..Batch::new(vec![request.clone()]) }).expect("fits");
    let limits = Limits::of(generator.program());
    let run = |decoder: &mut dyn photonc::runtime::decoder::Decoder| {
        let mut scheduler = Scheduler::new(decoder, limits);
        scheduler.submit(0, request.clone(), Box::new(|_| {}))?;
        let mut finished = scheduler.run()?;
        assert_eq!(finished.len(), 1);
        finished.remove(0).result
    };
    let mut run = run;
    generator.with_decoder(setup, false, graphs, &mut run).expect("runs")
}

/// Closes the queue whatever happens: a replica waits for that.
struct Closing<'q, 'r>(&'q Queue<'r>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// All of them through one open queue. The first half is there before a replica is; the second comes from another thread,
/// one request with every burst that is heard. Replicas differ in their rows.
pub fn together(open: &Open<'_>, cases: &[Case], shapes: &[[usize; 2]], graphs: bool) -> Vec<Outcome> {
    let model = Limits::of(open().program());
    let requests: Vec<Request> = cases.iter().map(|case| case.request.clone()).collect();
    let capacity = model.capacity(&requests, RUN_AHEAD).expect("every request fits");
    let outcome = |request: &Request| {
        let heard = vec![Heard::default(); request.samples];
        Mutex::new(Outcome { heard, ..Outcome::default() })
    };
    let outcomes: Vec<Mutex<Outcome>> = requests.iter().map(outcome).collect();
    let (bursts, heard_any) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (tell, told) = mpsc::channel::<()>();
    let hear = |number: usize, burst: &Burst<'_>| {
        if !burst.tokens.is_empty() && !heard_any.swap(true, Ordering::Relaxed) {
            let waiting = cases.iter().filter(|case| case.ended_by == EndedBy::CancelWaiting);
            waiting.for_each(|case| case.request.cancel.cancel());
        }
        outcomes[number].lock().expect("nobody panicked").hear(burst, bursts.fetch_add(1, Ordering::Relaxed));
        if cases[number].ended_by == EndedBy::CancelRunning {
            requests[number].cancel.cancel();
        }
        // Nobody listens once all have come.
        let _ = tell.send(());
    };
    let end = |number: usize, one| outcomes[number].lock().expect("nobody panicked").ends.push(one);
    let waiting = cases.len();
    // A few prompts a turn, or one that has more.
    let prefill_tokens = 5 * model.meta_tokens;
    let limits = QueueLimits { model, capacity, run_ahead: RUN_AHEAD, waiting, prefill_tokens };
    let queue = Queue::new(limits, shapes.len());
    let (hear, end) = (&hear, &end);
    let submit = |number: usize| {
        let sink = Box::new(move |burst: &Burst<'_>| hear(number, burst));
        let done = Box::new(move |one: Finished| end(number, one));
        let ticket = queue.submit(requests[number].clone(), sink, done).expect("is taken");
        assert_eq!(ticket.number, number);
    };
    let half = cases.len() / 2;
    (0..half).for_each(submit);
    std::thread::scope(|scope| {
        for (replica, [rows, sequences]) in shapes.iter().copied().enumerate() {
            let queue = &queue;
            scope.spawn(move || {
                let opened = queue.run_replica(replica, &|_, protocol, work| {
                    let setup = DecoderSetup { protocol, rows, sequences, capacity, run_ahead: RUN_AHEAD };
                    open().with_decoder(setup, false, graphs, work)
                });
                opened.expect("serves");
            });
        }
        let (queue, submit) = (&queue, &submit);
        scope.spawn(move || {
            let _closing = Closing(queue);
            for number in half..cases.len() {
                told.recv_timeout(PATIENCE).expect("a burst is heard");
                submit(number);
            }
        });
    });
    assert_eq!(queue.load(), (0, 0));
    let tokens: usize = queue.totals().iter().map(|totals| totals.tokens).sum();
    drop(queue);
    let outcomes: Vec<Outcome> =
        outcomes.into_iter().map(|outcome| outcome.into_inner().expect("nobody panicked")).collect();
    let heard = outcomes.iter().flat_map(|outcome| &outcome.heard);
    assert_eq!(heard.map(|heard| heard.tokens.len()).sum::<usize>(), tokens, "tokens told and counted");
    outcomes
}
