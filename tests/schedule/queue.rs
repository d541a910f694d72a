//! The open queue: replicas share it, requests come and are cancelled while others run, and each is told its end once.

use super::alone::{Asked, Callers, alone, check, numbered};
use super::asked;
use super::fake::{APART, Fake, LIMITS, Log, setup};
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::decoder::DecoderSetup;
use photonc::runtime::error::RuntimeError;
use photonc::runtime::request::{Burst, Finish, Request};
use photonc::runtime::schedule::{Finished, Queue, QueueLimits, Refusal, Work, serve};
use proptest::prelude::*;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

fn limits(capacity: usize, run_ahead: usize) -> QueueLimits {
    QueueLimits { model: LIMITS, capacity, run_ahead, waiting: usize::MAX, prefill_tokens: usize::MAX }
}

/// Limits that these requests fit exactly.
fn roomy(all: &[Asked], run_ahead: usize) -> QueueLimits {
    let requests: Vec<Request> = all.iter().map(|asked| asked.request.clone()).collect();
    limits(LIMITS.capacity(&requests, run_ahead).unwrap(), run_ahead)
}

fn greedy(prompt: usize, new_tokens: usize) -> Request {
    Request::greedy(Protocol::Recgen, vec![1; prompt], new_tokens)
}

/// A replica of one row, which writes into this log.
fn one_row<'l>(
    log: &'l Arc<Mutex<Log>>,
) -> impl Fn(usize, Protocol, &mut Work<'_>) -> Result<(), RuntimeError> + Sync + 'l {
    move |_, protocol, work| {
        let setup = DecoderSetup { protocol, ..setup(1, 1, 1, 100) };
        work(&mut Fake::new(setup, 2, true).logging(log))
    }
}

proptest! {
    // Replicas share one queue, of both protocols: nothing lost, nothing twice.
    #[test]
    fn replicas_share_the_requests(
        all in proptest::collection::vec(asked(), 1..24),
        replicas in 1usize..4, rows in 1usize..4, more in 0usize..6, depth in 1usize..3,
    ) {
        let all = numbered(all);
        let log = Arc::new(Mutex::new(Log::default()));
        let callers = Callers::of(&all);
        let limits = roomy(&all, 2);
        let finished = Mutex::new(Vec::new());
        let requests = all.iter().map(|asked| asked.request.clone()).collect();
        let on_burst = |burst: &Burst<'_>| callers.tell(burst);
        let on_finished = |one: Finished| finished.lock().unwrap().push(one);
        let totals = serve(replicas, limits, requests, (&on_burst, &on_finished), &|_, protocol, work| {
            let setup = DecoderSetup { protocol, ..setup(rows, rows + more, 2, limits.capacity) };
            work(&mut Fake::new(setup, depth, true).logging(&log))
        }).unwrap();
        prop_assert_eq!(totals.len(), replicas);
        let log = log.lock().unwrap();
        prop_assert_eq!(totals.iter().map(|totals| totals.admitted).sum::<usize>(), log.admitted.len());
        check(&all, &finished.lock().unwrap(), &callers, &log);
    }

    // Requests come one after the other while replicas run those that came before.
    #[test]
    fn an_open_queue_takes_requests_while_others_run(
        all in proptest::collection::vec(asked(), 1..24), replicas in 1usize..3, rows in 1usize..4,
    ) {
        let all = numbered(all);
        let log = Arc::new(Mutex::new(Log::default()));
        let callers = Callers::of(&all);
        let limits = roomy(&all, 1);
        let finished = Mutex::new(Vec::new());
        let queue = Queue::new(limits, replicas);
        std::thread::scope(|scope| {
            for replica in 0..replicas {
                let (queue, log) = (&queue, &log);
                scope.spawn(move || queue.run_replica(replica, &|_, protocol, work| {
                    let setup = DecoderSetup { protocol, ..setup(rows, rows + 3, 1, limits.capacity) };
                    work(&mut Fake::new(setup, 2, false).logging(log))
                }).unwrap());
            }
            for (number, asked) in all.iter().enumerate() {
                let (callers, finished) = (&callers, &finished);
                let sink = Box::new(move |burst: &Burst<'_>| callers.tell(burst));
                let done = Box::new(move |one| finished.lock().unwrap().push(one));
                let ticket = queue.submit(asked.request.clone(), sink, done).unwrap();
                assert_eq!(ticket.number, number);
            }
            queue.close();
        });
        assert_eq!(queue.load(), (0, 0));
        check(&all, &finished.lock().unwrap(), &callers, &log.lock().unwrap());
    }
}

/// What came of a request, as a test looks at it.
type End = (usize, Result<(Vec<i64>, Finish), String>);

fn end(finished: Finished) -> End {
    let first = |sequences: &[photonc::runtime::request::Sequence]| {
        (sequences[0].tokens.clone(), sequences[0].finish)
    };
    let result = finished.result.map(|completion| first(&completion.sequences));
    (finished.number, result.map_err(|error| error.to_string()))
}

// The queue has a bound, of which what runs is no part; what it does not take, it tells nothing.
#[test]
fn a_full_queue_refuses() {
    let (tell, told) = mpsc::channel::<End>();
    let queue = Queue::new(QueueLimits { waiting: 2, ..limits(100, 1) }, 1);
    let submit = |request: Request| {
        let tell = tell.clone();
        queue.submit(request, Box::new(|_| {}), Box::new(move |one| tell.send(end(one)).unwrap()))
    };
    let first = submit(greedy(8, 5)).unwrap();
    let second = submit(greedy(9, 5)).unwrap();
    assert_eq!((first.number, second.number, queue.load()), (0, 1, (2, 0)));
    let full = submit(greedy(8, 5)).expect_err("full");
    assert_eq!(full, Refusal::QueueFull { waiting: 2, limit: 2 });
    assert_eq!(full.to_string(), "2 requests wait already, of 2 that may; try again later");
    first.cancel.cancel();
    let log = Arc::default();
    std::thread::scope(|scope| {
        let replica = scope.spawn(|| queue.run_replica(0, &one_row(&log)));
        let ends = [told.recv().unwrap(), told.recv().unwrap()];
        assert_eq!(ends, [(0, Ok((vec![], Finish::Cancelled))), (1, Ok(alone(&greedy(9, 5), 0)))]);
        assert_eq!(queue.load(), (0, 0));
        assert!(matches!(submit(greedy(8, 0)), Err(Refusal::Empty { number: 2, .. })));
        assert!(matches!(submit(greedy(8 * 50, 1)), Err(Refusal::TooLong { .. })));
        assert!(submit(greedy(4 * 98, 5)).is_ok(), "98 and 2 fit");
        queue.close();
        assert_eq!(submit(greedy(8, 5)).expect_err("closed"), Refusal::Closed);
        replica.join().unwrap().unwrap();
    });
    assert_eq!(told.recv().unwrap().0, 2);
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty), "each is told once");
}

/// A queue that its own requests may use.
fn own(limits: QueueLimits) -> &'static Queue<'static> {
    Box::leak(Box::new(Queue::new(limits, 1)))
}

// Whoever hears of a burst or an end may ask the queue, and give it more.
#[test]
fn sinks_may_use_the_queue() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::default();
    let queue = own(limits(100, 1));
    let sink = || {
        let seen = Arc::clone(&seen);
        Box::new(move |_: &Burst<'_>| seen.lock().unwrap().push(queue.load()))
    };
    let (first, second) = (sink(), sink());
    let done = Box::new(move |_| {
        let ticket = queue.submit(greedy(4, 4), second, Box::new(|_| queue.close()));
        assert_eq!(ticket.unwrap().number, 1);
    });
    queue.submit(greedy(8, 8), first, done).unwrap();
    queue.run_replica(0, &one_row(&log)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [(0, 1); 3]);
    assert_eq!(queue.totals()[0].tokens, 12);
}

// Higher priorities leave the queue first; late and cancelled requests leave it without a row, while others run.
#[test]
fn what_waits_is_ordered_and_may_end_there() {
    let log = Arc::new(Mutex::new(Log::default()));
    let ends = Mutex::new(Vec::new());
    let queue = Queue::new(limits(100, 1), 1);
    let submit = |priority, deadline| {
        let number = queue.load().0 as u64;
        let first_sample = APART * number;
        let request = Request { priority, deadline, first_sample, ..greedy(8, 20) };
        let done = Box::new(|one| ends.lock().unwrap().push(end(one)));
        queue.submit(request, Box::new(|_| {}), done).unwrap()
    };
    submit(0, None);
    submit(3, None);
    submit(3, Some(Instant::now()));
    submit(-3, None);
    submit(5, None);
    let cancelled = submit(-4, None);
    let last = submit(-5, None);
    cancelled.cancel.cancel();
    queue.close();
    queue.run_replica(0, &one_row(&log)).unwrap();
    assert!(!last.cancel.is_cancelled());
    let order = log.lock().unwrap().admitted.iter().map(|one| one.first_sample / APART).collect::<Vec<_>>();
    assert_eq!(order, [4, 1, 0, 3, 6]);
    let ends: Vec<End> = ends.lock().unwrap().clone();
    let finish = |number: usize| ends.iter().find(|end| end.0 == number).unwrap().1.clone().unwrap().1;
    assert_eq!([2, 5].map(finish), [Finish::Deadline, Finish::Cancelled]);
    assert_eq!([0, 1, 3, 4, 6].map(finish), [Finish::Length; 5]);
}

// A request that is late is told so while the only row is another's.
#[test]
fn what_waits_for_a_busy_replica_ends_in_time() {
    let log = Arc::default();
    let (tell, told) = mpsc::channel();
    let queue = own(limits(100, 1));
    let done = || {
        let tell = tell.clone();
        Box::new(move |one| tell.send(end(one)).unwrap())
    };
    let waits = Request { deadline: Some(Instant::now()), ..greedy(8, 300) };
    let mut comes = Some((waits, done()));
    let sink = Box::new(move |_: &Burst<'_>| {
        if let Some((waits, done)) = comes.take() {
            queue.submit(waits, Box::new(|_| {}), done).unwrap();
            queue.close();
        }
    });
    queue.submit(greedy(8, 300), sink, done()).unwrap();
    queue.run_replica(0, &one_row(&log)).unwrap();
    assert_eq!(told.try_recv(), Ok((1, Ok((vec![], Finish::Deadline)))));
    assert_eq!(told.try_recv(), Ok((0, Ok(alone(&greedy(8, 300), 0)))));
}

// A decoder runs one protocol: where the next request has another, another decoder is opened once the first is idle.
#[test]
fn a_replica_changes_its_decoder_with_the_protocol() {
    let log = Arc::default();
    let opened = Mutex::new(Vec::new());
    let ends: Mutex<Vec<End>> = Mutex::new(Vec::new());
    let queue = Queue::new(limits(100, 1), 1);
    let protocols = [Protocol::Recgen, Protocol::Recgen, Protocol::Hiergen, Protocol::Recgen];
    for protocol in protocols {
        let request = Request { protocol, ..greedy(9, 30) };
        let done = Box::new(|one| ends.lock().unwrap().push(end(one)));
        queue.submit(request, Box::new(|_| {}), done).unwrap();
    }
    queue.close();
    let open = one_row(&log);
    let counted = |replica, protocol, work: &mut Work<'_>| {
        opened.lock().unwrap().push(protocol);
        open(replica, protocol, work)
    };
    queue.run_replica(0, &counted).unwrap();
    assert_eq!(opened.into_inner().unwrap(), [Protocol::Recgen, Protocol::Hiergen, Protocol::Recgen]);
    for ((number, end), protocol) in ends.lock().unwrap().iter().zip(protocols) {
        assert_eq!(*end, Ok(alone(&Request { protocol, ..greedy(9, 30) }, 0)), "request {number}");
    }
}

// A replica that fails takes its requests with it; the others go on. With the last one all is lost, and nothing is taken.
#[test]
fn requests_outlive_replicas_that_others_stand_in_for() {
    let (tell, told) = mpsc::channel();
    let queue = Queue::new(limits(100, 1), 2);
    let submit = |new_tokens| {
        let tell = tell.clone();
        let done = Box::new(move |one| tell.send(end(one)).unwrap());
        queue.submit(greedy(8, new_tokens), Box::new(|_| {}), done)
    };
    for _ in 0..3 {
        submit(40).unwrap();
    }
    let breaking = |burst| {
        move |_: usize, _: Protocol, work: &mut Work<'_>| work(&mut Fake::of_rows(1).breaking_at(burst))
    };
    let lost = Err("the replica that ran the request failed: broken".to_owned());
    assert_eq!(queue.run_replica(0, &breaking(3)).expect_err("breaks").to_string(), "broken");
    assert_eq!(told.try_recv(), Ok((0, lost.clone())));
    assert!(told.try_recv().is_err(), "the others wait still");
    // The second runs one request to its end, and loses the next with what waits behind it.
    submit(8).unwrap();
    assert_eq!(queue.load(), (3, 0));
    queue.run_replica(1, &breaking(15)).expect_err("breaks");
    let rest: Vec<End> = told.try_iter().collect();
    assert_eq!(rest, [(1, Ok(alone(&greedy(8, 40), 0))), (2, lost.clone()), (3, lost)]);
    assert_eq!(submit(8).expect_err("nobody is left"), Refusal::Closed);
    assert_eq!(queue.load(), (0, 0));
}

// A device that fails is an error of the whole, with the replica that had it; no thread hangs, and every request is told.
#[test]
fn a_broken_replica_ends_all() {
    let requests = (0..20).map(|_| greedy(8, 40)).collect();
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let ends = Mutex::new(Vec::new());
    let on_finished = |one: Finished| ends.lock().unwrap().push(end(one));
    let failed = serve(2, limits(20, 1), requests, (&|_| {}, &on_finished), &|replica, _, work| {
        let breaks = replica == 1;
        if !breaks {
            // Replica 1 breaks first, so that it certainly has requests.
            told.lock().unwrap().recv().unwrap();
        }
        let fake = Fake::of_rows(1);
        let done = work(&mut if breaks { fake.breaking_at(3) } else { fake });
        if breaks {
            tell.send(()).unwrap();
        }
        done
    });
    let failed = failed.expect_err("replica 1 breaks");
    assert_eq!(failed.replica, 1);
    assert!(failed.to_string().ends_with("broken"), "{failed}");
    let ends: Vec<End> = ends.into_inner().unwrap();
    let mut numbers: Vec<usize> = ends.iter().map(|end| end.0).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..20), "each is told its end once");
}

// The others of a batch stop at their next burst, in the middle of their requests.
#[test]
fn a_broken_replica_stops_the_others() {
    let ends = Mutex::new(Vec::new());
    let on_finished = |one: Finished| ends.lock().unwrap().push(end(one));
    let (first, running) = mpsc::channel();
    let running = Mutex::new(running);
    // Replica 0 stays in its first burst until the other has broken: then request 2, which waits, is lost.
    let on_burst = |burst: &Burst<'_>| {
        let lost = || ends.lock().unwrap().iter().any(|end| end.0 == 2);
        let began = Instant::now();
        while burst.prompt == 0 && !lost() && began.elapsed() < Duration::from_secs(60) {
            first.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let requests = vec![greedy(8, 300), greedy(12, 300), greedy(8, 300)];
    let failed = serve(2, limits(100, 1), requests, (&on_burst, &on_finished), &|replica, _, work| {
        if replica == 0 {
            return work(&mut Fake::of_rows(1));
        }
        running.lock().unwrap().recv().unwrap();
        work(&mut Fake::of_rows(1).breaking_at(3))
    });
    assert_eq!(failed.expect_err("replica 1 breaks").replica, 1);
    let mut ends: Vec<End> = ends.into_inner().unwrap();
    ends.sort_unstable_by_key(|end| end.0);
    let lost = Err("the replica that ran the request failed: broken".to_owned());
    assert_eq!(ends, [(0, lost.clone()), (1, lost.clone()), (2, lost)]);
}
