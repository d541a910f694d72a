//! Continuous batching over a decoder that only counts: whatever the mix of requests, each gets the tokens of running
//! alone, and no row is given away too early.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::backend::BackendError;
use photonc::runtime::decoder::{Admission, Decoder, DecoderSetup};
use photonc::runtime::error::RuntimeError;
use photonc::runtime::request::{Burst, Cancel, Finish};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::schedule::{Finished, Job, Limits, Refusal, Scheduler, serve};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const META_TOKENS: usize = 4;
const VOCAB: i64 = 24;
const LIMITS: Limits = Limits { meta_tokens: META_TOKENS, vocab_size: VOCAB as usize, max_tokens: 400 };

/// The token at `at` of a sample: a hash of all that it may depend on.
fn token(prompt: &[i64], seed: u64, sample: u64, at: usize) -> i64 {
    let mut hash = seed ^ (sample << 20) ^ ((at as u64) << 32);
    for word in prompt.iter().map(|id| *id as u64).chain([1, 2]) {
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    (hash % VOCAB as u64) as i64
}

struct Taken {
    prompt: Vec<i64>,
    seed: u64,
    first_sample: u64,
    drawn: usize,
    length: usize,
}

/// What the decoder saw, for the test to look at.
#[derive(Default)]
struct Log {
    /// First sample of each admission, in order: the requests' numbers.
    admitted: Vec<u64>,
    /// Tokens drawn for each admission.
    drawn: Vec<usize>,
}

struct Fake {
    setup: DecoderSetup,
    rows: Vec<Option<(usize, Taken)>>,
    /// Tokens and rows of bursts in flight.
    pending: VecDeque<(Vec<i64>, Vec<usize>)>,
    collected: Vec<i64>,
    log: Arc<Mutex<Log>>,
    /// Breaks at this burst.
    breaks_at: Option<usize>,
    started: usize,
    /// A prompt whose logits are no distribution.
    broken: Option<i64>,
}

impl Fake {
    fn new(rows: usize, samples: usize, run_ahead: usize, capacity: usize) -> Self {
        Fake {
            setup: DecoderSetup { protocol: Protocol::Recgen, rows, samples, capacity, run_ahead },
            rows: (0..rows).map(|_| None).collect(),
            pending: VecDeque::new(),
            collected: Vec::new(),
            log: Arc::default(),
            breaks_at: None,
            started: 0,
            broken: None,
        }
    }
}

fn broke(message: &str) -> BackendError {
    BackendError::Binding { graph: "fake".to_owned(), message: message.to_owned() }
}

impl Decoder for Fake {
    fn setup(&self) -> DecoderSetup {
        self.setup
    }

    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        for admission in admissions {
            let row = admission.row;
            assert!(self.rows[row].is_none(), "row {row} is taken");
            assert!(
                self.pending.iter().all(|(_, rows)| !rows.contains(&row)),
                "row {row} was given away while a burst that it took part in is in flight"
            );
            assert_eq!(admission.tokens.len() % META_TOKENS, 0);
            let mut log = self.log.lock().unwrap();
            log.admitted.push(admission.first_sample);
            log.drawn.push(0);
            let taken = Taken {
                prompt: admission.tokens.to_vec(),
                seed: admission.sampling.seed,
                first_sample: admission.first_sample,
                drawn: 0,
                length: admission.tokens.len() / META_TOKENS,
            };
            self.rows[row] = Some((log.admitted.len() - 1, taken));
        }
        Ok(())
    }

    fn retire(&mut self, row: usize) {
        assert!(self.rows[row].take().is_some(), "row {row} was empty");
    }

    fn start(&mut self) -> Result<(), BackendError> {
        assert!(self.pending.len() < 2, "two bursts in flight at most");
        if self.breaks_at == Some(self.started) {
            return Err(broke("broken"));
        }
        self.started += 1;
        let each = self.setup.run_ahead * META_TOKENS;
        let mut ids = Vec::new();
        let mut part = Vec::new();
        for (row, taken) in self.rows.iter_mut().enumerate() {
            let Some((admission, taken)) = taken else {
                // Nobody may look at these.
                ids.extend(std::iter::repeat_n(-1, each * self.setup.samples));
                continue;
            };
            part.push(row);
            taken.length += self.setup.run_ahead;
            assert!(taken.length <= self.setup.capacity, "row {row} is longer than its capacity");
            for sample in 0..self.setup.samples as u64 {
                let draw = |at| match self.broken {
                    Some(broken) if taken.prompt.contains(&broken) => -1,
                    _ => token(&taken.prompt, taken.seed, taken.first_sample + sample, taken.drawn + at),
                };
                ids.extend((0..each).map(draw));
            }
            taken.drawn += each;
            self.log.lock().unwrap().drawn[*admission] += each;
        }
        assert!(!part.is_empty(), "a burst for nobody");
        self.pending.push_back((ids, part));
        Ok(())
    }

    fn pending(&self) -> usize {
        self.pending.len()
    }

    fn collect(&mut self) -> Result<&[i64], BackendError> {
        let (ids, _) = self.pending.pop_front().ok_or_else(|| broke("nothing is pending"))?;
        self.collected = ids;
        Ok(&self.collected)
    }
}

/// A request and when it is cancelled: never, before it is given, or at its burst of this number.
#[derive(Clone, Debug)]
struct Asked {
    prompt: Vec<i64>,
    new_tokens: usize,
    seed: u64,
    stop: Vec<i64>,
    eos: Vec<i64>,
    cancel_at: Option<usize>,
    /// Turns of the scheduler before the request comes.
    turns: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let ids = || proptest::collection::vec(0..VOCAB, 0..2);
    let prompt = proptest::collection::vec(0..VOCAB, META_TOKENS..40);
    (prompt, 1usize..60, 0u64..4, ids(), ids(), proptest::option::weighted(0.2, 0usize..4), 0usize..3)
        .prop_map(|(prompt, new_tokens, seed, stop, eos, cancel_at, turns)| Asked {
            prompt,
            new_tokens,
            seed,
            stop,
            eos,
            cancel_at,
            turns,
        })
}

/// The tokens of a request that runs alone to its end.
fn alone(asked: &Asked, sample: u64) -> (Vec<i64>, Finish) {
    let prompt = &asked.prompt[asked.prompt.len() % META_TOKENS..];
    let mut tokens = Vec::new();
    for at in 0..asked.new_tokens {
        let id = token(prompt, asked.seed, sample, at);
        if asked.eos.contains(&id) {
            return (tokens, Finish::Eos);
        }
        if asked.stop.contains(&id) {
            return (tokens, Finish::Stop);
        }
        tokens.push(id);
    }
    (tokens, Finish::Length)
}

type Streams = Arc<Mutex<Vec<Vec<(usize, Vec<i64>, Option<Finish>)>>>>;

/// The job of request `number`, whose samples are numbered from 100 * number.
fn job(number: usize, asked: &Asked, streams: &Streams) -> Job<'static> {
    let cancel = Cancel::default();
    if asked.cancel_at == Some(0) {
        cancel.cancel();
    }
    let (switch, streams, at) = (cancel.clone(), Arc::clone(streams), asked.cancel_at);
    let mut bursts = 0;
    Job {
        prompt: asked.prompt.clone(),
        max_new_tokens: asked.new_tokens,
        sampling: Sampling { seed: asked.seed, ..Sampling::greedy() },
        first_sample: 100 * number as u64,
        stop: asked.stop.clone(),
        eos: asked.eos.clone(),
        watch: None,
        cancel,
        on_burst: Box::new(move |burst: &Burst<'_>| {
            bursts += 1;
            if at == Some(bursts) {
                switch.cancel();
            }
            streams.lock().unwrap()[burst.prompt].push((burst.sample, burst.tokens.to_vec(), burst.finish));
        }),
    }
}

/// Every request against running alone; what it was told against what it got; its waste against what was drawn.
fn check(all: &[Asked], finished: &[Finished], samples: usize, streams: &Streams, log: &Log) {
    assert_eq!(finished.len(), all.len(), "each request ends once");
    for (number, asked) in all.iter().enumerate() {
        let found: Vec<&Finished> = finished.iter().filter(|finished| finished.number == number).collect();
        assert_eq!(found.len(), 1, "request {number} ends once");
        let sequences = found[0].result.as_ref().expect("a result");
        assert_eq!(sequences.len(), samples);
        let admission = log.admitted.iter().position(|first| *first == 100 * number as u64);
        let drawn = admission.map_or(0, |at| log.drawn[at]);
        for (sample, sequence) in sequences.iter().enumerate() {
            let (tokens, finish) = alone(asked, (100 * number + sample) as u64);
            match sequence.finish {
                Finish::Cancelled => {
                    assert!(asked.cancel_at.is_some());
                    assert!(tokens.starts_with(&sequence.tokens), "request {number}");
                }
                other => assert_eq!((&sequence.tokens, other), (&tokens, finish), "request {number}"),
            }
            let end = usize::from(matches!(sequence.finish, Finish::Eos | Finish::Stop));
            assert_eq!(sequence.tokens.len() + end + sequence.wasted_tokens, drawn, "request {number}");
            let streams = streams.lock().unwrap();
            let told: Vec<_> = streams[number].iter().filter(|(of, ..)| *of == sample).collect();
            let streamed: Vec<i64> = told.iter().flat_map(|(_, tokens, _)| tokens.clone()).collect();
            assert_eq!(streamed, sequence.tokens);
            assert_eq!(told.iter().filter(|(.., finish)| finish.is_some()).count(), 1);
            assert_eq!(told.last().and_then(|(.., finish)| *finish), Some(sequence.finish));
        }
    }
}

proptest! {
    // Requests come while others run; each ends as if alone, in rows that are reused only when they are free.
    #[test]
    fn every_request_gets_the_tokens_of_running_alone(
        all in proptest::collection::vec(asked(), 1..24),
        rows in 1usize..6,
        samples in 1usize..4,
        run_ahead in 1usize..5,
    ) {
        let mut fake = Fake::new(rows, samples, run_ahead, 10 + 15 + run_ahead);
        let log = Arc::clone(&fake.log);
        let streams: Streams = Arc::new(Mutex::new(vec![Vec::new(); all.len()]));
        let mut scheduler = Scheduler::new(&mut fake, LIMITS);
        for (number, asked) in all.iter().enumerate() {
            for _ in 0..asked.turns {
                scheduler.turn().unwrap();
            }
            scheduler.submit(number, job(number, asked, &streams)).unwrap();
        }
        let finished = scheduler.run().unwrap();
        prop_assert!(!scheduler.turn().unwrap(), "idle");
        prop_assert_eq!(scheduler.free_rows(), rows);
        let totals = scheduler.totals();
        let log = log.lock().unwrap();
        check(&all, &finished, samples, &streams, &log);
        // First come, first served.
        prop_assert!(log.admitted.is_sorted());
        let sequences = || finished.iter().flat_map(|finished| finished.result.as_ref().unwrap());
        prop_assert_eq!(totals.tokens, sequences().map(|sequence| sequence.tokens.len()).sum::<usize>());
        prop_assert_eq!(totals.wasted_tokens, sequences().map(|sequence| sequence.wasted_tokens).sum::<usize>());
    }

    // Replicas share one queue: nothing lost, nothing twice, results in the order of the requests.
    #[test]
    fn replicas_share_the_requests(all in proptest::collection::vec(asked(), 1..24), replicas in 1usize..4, rows in 1usize..4) {
        let log = Arc::new(Mutex::new(Log::default()));
        let streams: Streams = Arc::new(Mutex::new(vec![Vec::new(); all.len()]));
        let jobs = all.iter().enumerate().map(|(number, asked)| job(number, asked, &streams)).collect();
        let served = serve(replicas, LIMITS, jobs, &|_, work| {
            work(&mut Fake { log: Arc::clone(&log), ..Fake::new(rows, 2, 2, 40) })
        }).unwrap();
        prop_assert!(served.finished.iter().map(|finished| finished.number).eq(0..all.len()));
        prop_assert_eq!(served.totals.len(), replicas);
        check(&all, &served.finished, 2, &streams, &log.lock().unwrap());
    }
}

// What can never run is refused with the reason, before anything is queued.
#[test]
fn requests_that_can_never_fit_are_refused() {
    let mut fake = Fake::new(2, 1, 4, 20);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    let mut refused = |prompt: usize, new_tokens: usize| {
        let job = Job::greedy(vec![1; prompt], new_tokens);
        scheduler.submit(7, job).expect_err("refused").to_string()
    };
    assert_eq!(refused(8, 0), "request 7: asks for 0 new tokens, expected at least 1");
    assert_eq!(
        refused(3, 8),
        "prompt 7: has 3 tokens, expected at least one meta-context of 4; use a longer prompt"
    );
    assert_eq!(
        refused(396, 8),
        "request 7: 396 tokens and 8 new ones exceed the model's 400; ask for fewer or export with a larger --max-tokens"
    );
    // 17 meta-contexts of prompt and one burst of 4 are one too many, though only one meta-context is wanted.
    assert_eq!(
        refused(68, 1),
        "request 7: needs 21 meta-contexts, whole bursts counted, and a row has room for 20; ask for fewer tokens or give rows more capacity"
    );
    assert!(matches!(
        scheduler.submit(
            7,
            Job { sampling: Sampling { top_p: 2.0, ..Sampling::greedy() }, ..Job::greedy(vec![1; 8], 1) }
        ),
        Err(Refusal::Sampling(_))
    ));
    assert_eq!(scheduler.waiting(), 0);
    assert!(scheduler.submit(8, Job::greedy(vec![1; 64], 1)).is_ok(), "16 and 4 fit exactly");
    assert_eq!(scheduler.run().unwrap().len(), 1);
}

// Logits that are no distribution end the request that has them; its neighbours go on.
#[test]
fn a_broken_row_fails_alone() {
    let mut fake = Fake { broken: Some(23), ..Fake::new(2, 1, 1, 20) };
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    for (number, id) in [(0, 1), (1, 23), (2, 2)] {
        scheduler.submit(number, Job::greedy(vec![id; 8], 20)).unwrap();
    }
    let finished = scheduler.run().unwrap();
    for Finished { number, result } in &finished {
        match number {
            1 => assert!(matches!(result, Err(RuntimeError::NotADistribution { row: 1, token: 0 }))),
            _ => assert_eq!(result.as_ref().unwrap()[0].tokens.len(), 20),
        }
    }
    assert_eq!(finished.len(), 3);
}

// A device that fails is an error of the whole, with the replica that had it; no thread hangs.
#[test]
fn a_broken_replica_ends_all() {
    let jobs = (0..20).map(|_| Job::greedy(vec![1; 8], 40)).collect();
    let (tell, told) = std::sync::mpsc::channel();
    let told = Mutex::new(told);
    let failed = serve(2, LIMITS, jobs, &|replica, work| {
        let breaks = replica == 1;
        if !breaks {
            // Replica 1 breaks first, so that it certainly has requests.
            told.lock().unwrap().recv().unwrap();
        }
        let done = work(&mut Fake { breaks_at: breaks.then_some(3), ..Fake::new(1, 1, 1, 20) });
        if breaks {
            tell.send(()).unwrap();
        }
        done
    });
    let failed = failed.expect_err("replica 1 breaks");
    assert_eq!(failed.replica, 1);
    assert!(failed.to_string().ends_with("broken"), "{failed}");
}
