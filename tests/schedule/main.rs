//! Continuous batching over a decoder that only hashes: whatever the mix of requests, each gets the tokens of running
//! alone, and no row is given away too early.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

mod alone;
mod fake;
mod queue;
#[path = "../fixture/stopping.rs"]
mod stopping;

use alone::{Asked, Callers, alone, check, numbered};
use fake::{Admitted, Fake, LIMITS, META_TOKENS, VOCAB, setup};
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::decoder::DecoderSetup;
use photonc::runtime::error::RuntimeError;
use photonc::runtime::penalties::Penalties;
use photonc::runtime::request::{Align, Cancel, Finish, Keep, Request, StopCondition};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::schedule::{Completion, Finished, Refusal, Scheduler};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stopping::SecondMultiple;

/// Prompts of any length, of which some are a generation that was cut off.
fn prompts() -> impl Strategy<Value = Request> {
    let tokens = proptest::collection::vec(0..VOCAB as i64, 0..30);
    (tokens, proptest::option::weighted(0.3, 0usize..30), any::<bool>()).prop_map(
        |(prompt, length, drops)| {
            let prompt_length = length.map(|length| length.min(prompt.len()));
            let length = prompt_length.unwrap_or(prompt.len());
            let align = if drops && length >= META_TOKENS { Align::DropLeft } else { Align::Force };
            Request { prompt_length, align, ..Request::greedy(Protocol::Recgen, prompt, 1) }
        },
    )
}

/// What ends sequences.
fn ends() -> impl Strategy<Value = Request> {
    let ids = || proptest::collection::vec(0..VOCAB as i64, 0..2);
    let multiple = proptest::option::weighted(0.3, 2i64..8);
    (1usize..40, 0usize..8, ids(), ids(), multiple).prop_map(|(max, min, stop, eos, multiple)| Request {
        min_new_tokens: min,
        stop,
        eos,
        stop_condition: multiple.map(|of| Arc::new(SecondMultiple(of)) as Arc<dyn StopCondition>),
        ..Request::greedy(Protocol::Recgen, Vec::new(), max)
    })
}

/// What is drawn, and what is wanted of it.
fn wishes() -> impl Strategy<Value = Request> {
    let forced = proptest::collection::vec(0..VOCAB as i64, 0..9);
    let counts = || proptest::option::weighted(0.3, 0usize..4);
    (0u64..4, any::<bool>(), 1usize..5, forced, counts(), counts(), any::<[bool; 2]>()).prop_map(
        |(seed, on_host, samples, forced, logprobs, prompt_logprobs, [logits, states])| Request {
            sampling: Sampling { seed, min_p: if on_host { 0.5 } else { 0.0 }, ..Sampling::greedy() },
            samples,
            forced,
            logprobs,
            prompt_logprobs,
            keep: Keep { logits, states, trajectory: false },
            ..Request::greedy(Protocol::Recgen, Vec::new(), 1)
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let protocol = proptest::sample::select(&[Protocol::Recgen, Protocol::Hiergen][..]);
    let calls = (proptest::option::weighted(0.2, 0usize..4), 0usize..3, -1i32..2);
    (prompts(), ends(), wishes(), protocol, calls).prop_map(
        |(prompt, ends, wishes, protocol, (cancel_at, turns, priority))| {
            let mut forced = wishes.forced.clone();
            forced.truncate(ends.max_new_tokens);
            let request = Request {
                protocol,
                prompt: prompt.prompt,
                prompt_length: prompt.prompt_length,
                align: prompt.align,
                max_new_tokens: ends.max_new_tokens,
                min_new_tokens: ends.min_new_tokens,
                stop: ends.stop,
                eos: ends.eos,
                stop_condition: ends.stop_condition,
                forced,
                priority,
                ..wishes
            };
            Asked { request, cancel_at, turns }
        },
    )
}

/// A shape, how many bursts may be in flight, and whether they are always whole.
fn shapes() -> impl Strategy<Value = (DecoderSetup, usize, bool)> {
    let protocol = proptest::sample::select(&[Protocol::Recgen, Protocol::Hiergen][..]);
    let sizes = (1usize..6, 0usize..10, 1usize..5);
    (protocol, sizes, any::<bool>(), 1usize..4, any::<bool>()).prop_map(
        |(protocol, (rows, more, run_ahead), shares, depth, recorded)| {
            let sequences = if shares { rows + more } else { rows };
            (DecoderSetup { protocol, ..setup(rows, sequences, run_ahead, 0) }, depth, recorded)
        },
    )
}

/// A shape with room for these requests and no more.
fn roomy(setup: DecoderSetup, all: &[Asked]) -> DecoderSetup {
    let requests: Vec<Request> = all.iter().map(|asked| asked.request.clone()).collect();
    DecoderSetup { capacity: LIMITS.capacity(&requests, setup.run_ahead).unwrap(), ..setup }
}

proptest! {
    // Requests come while others run; each ends as if alone, in rows that are reused only when they are free.
    #[test]
    fn every_request_gets_the_tokens_of_running_alone(
        all in proptest::collection::vec(asked(), 1..24), (setup, depth, recorded) in shapes(),
        prefill_tokens in 1usize..80,
    ) {
        let mut all = numbered(all);
        all.iter_mut().for_each(|asked| asked.request.protocol = setup.protocol);
        let setup = roomy(setup, &all);
        let mut fake = Fake::new(setup, depth, recorded);
        let log = Arc::clone(&fake.log);
        let callers = Callers::of(&all);
        let mut scheduler = Scheduler::new(&mut fake, LIMITS).with_prefill_tokens(prefill_tokens);
        let mut finished = Vec::new();
        for (number, asked) in all.iter().enumerate() {
            for _ in 0..asked.turns {
                scheduler.turn().unwrap();
            }
            finished.extend(scheduler.take_finished());
            scheduler.submit(number, asked.request.clone(), Box::new(|burst| callers.tell(burst))).unwrap();
        }
        finished.extend(scheduler.run().unwrap());
        prop_assert!(scheduler.is_idle() && !scheduler.turn().unwrap(), "idle");
        prop_assert_eq!((scheduler.waiting(), scheduler.free_rows()), (0, setup.rows));
        let totals = scheduler.totals();
        let log = log.lock().unwrap();
        check(&all, &finished, &callers, &log);
        let sequences = || finished.iter().flat_map(|finished| &finished.result.as_ref().unwrap().sequences);
        prop_assert_eq!(totals.tokens, sequences().map(|sequence| sequence.tokens.len()).sum::<usize>());
        let wasted: usize = sequences().map(|sequence| sequence.wasted_tokens).sum();
        prop_assert_eq!(totals.wasted_tokens, wasted);
        prop_assert_eq!(totals.admitted, log.admitted.len());
        prop_assert!(totals.busy_rows <= totals.bursts * setup.rows);
        let scored = all.iter().filter(|asked| asked.request.prompt_logprobs.is_some()).count();
        prop_assert!(log.scored <= scored, "a prompt is scored once");
        // Of one priority: first come, first served.
        for priority in -1..2 {
            let of = all.iter().enumerate().filter(|(_, asked)| asked.request.priority == priority);
            let first = |number: usize| {
                let whose = |one: &Admitted| one.first_sample / fake::APART == number as u64;
                log.admitted.iter().position(whose)
            };
            let admitted: Vec<usize> = of.filter_map(|(number, _)| first(number)).collect();
            prop_assert!(admitted.is_sorted(), "{:?}", admitted);
        }
    }
}

/// Runs requests together on a decoder of that shape.
fn together(requests: Vec<Request>, setup: DecoderSetup) -> Vec<Completion> {
    let mut fake = Fake::new(setup, 2, true);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    for (number, request) in requests.into_iter().enumerate() {
        scheduler.submit(number, request, Box::new(|_| {})).unwrap();
    }
    by_request(scheduler.run().unwrap())
}

/// Results in the order of their requests.
fn by_request(mut finished: Vec<Finished>) -> Vec<Completion> {
    finished.sort_by_key(|finished| finished.number);
    finished.into_iter().map(|finished| finished.result.unwrap()).collect()
}

// A generation that was cut off anywhere gives the rest of the undisturbed one: tokens, forced ones, and its end.
#[test]
fn a_generation_goes_on_from_any_place() {
    let mut longer = 0;
    for protocol in [Protocol::Recgen, Protocol::Hiergen] {
        for (length, align) in (0..10).map(|length| (length, Align::Force)).chain([(9, Align::DropLeft)]) {
            let setup = DecoderSetup { protocol, ..setup(3, 3, 2, 20) };
            let whole = Request {
                align,
                forced: vec![5, 6, 7, 8, 9, 10, 11],
                min_new_tokens: 6,
                eos: vec![5],
                stop_condition: Some(Arc::new(SecondMultiple(23))),
                sampling: Sampling { seed: 3, ..Sampling::greedy() },
                ..Request::greedy(protocol, (0..length).collect(), 30)
            };
            let undisturbed = together(vec![whole.clone()], setup).remove(0).sequences.remove(0);
            assert_eq!((undisturbed.tokens.clone(), undisturbed.finish), alone(&whole, 0));
            longer += usize::from(undisturbed.tokens.len() > whole.forced.len());
            let cut = |at: usize| Request {
                prompt: [&whole.prompt[..], &undisturbed.tokens[..at]].concat(),
                prompt_length: Some(whole.prompt.len()),
                forced: whole.forced.get(at..).unwrap_or(&[]).to_vec(),
                max_new_tokens: whole.max_new_tokens - at,
                ..whole.clone()
            };
            let resumed = together((0..undisturbed.tokens.len()).map(cut).collect(), setup);
            for (at, completion) in resumed.iter().enumerate() {
                let sequence = &completion.sequences[0];
                assert_eq!(
                    (&sequence.tokens[..], sequence.finish, sequence.dropped_left),
                    (&undisturbed.tokens[at..], undisturbed.finish, undisturbed.dropped_left),
                    "{protocol} {length} {align:?} cut at {at}"
                );
            }
        }
    }
    assert!(longer > 11, "most of the 22 are longer than what is forced: {longer}");
}

// Samples share a row, as many as there are sequences for, until the meta-context that their prompt begins parts them.
#[test]
fn samples_share_rows_until_their_prompts_differ() {
    let admitted = |prompt: usize, samples: usize| -> Vec<(u64, usize, usize)> {
        let mut fake = Fake::new(setup(2, 5, 1, 20), 2, true);
        let log = Arc::clone(&fake.log);
        let mut scheduler = Scheduler::new(&mut fake, LIMITS);
        let request =
            Request { samples, ..Request::greedy(Protocol::Recgen, (0..prompt as i64).collect(), 10) };
        scheduler.submit(0, request, Box::new(|_| {})).unwrap();
        scheduler.run().unwrap();
        let log = log.lock().unwrap();
        log.admitted.iter().map(|one| (one.first_sample, one.samples, one.encoded)).collect()
    };
    assert_eq!(admitted(8, 3), [(0, 3, 8)]);
    assert_eq!(admitted(8, 7), [(0, 5, 8), (5, 2, 8)]);
    assert_eq!(admitted(9, 3), [(0, 3, 8), (0, 1, 12), (1, 1, 12), (2, 1, 12)]);
    assert_eq!(admitted(2, 3), [(0, 3, 0), (0, 1, 4), (1, 1, 4), (2, 1, 4)]);
    assert_eq!(admitted(0, 3), [(0, 3, 0)]);
}

// Of what waits, a higher priority goes first, then what came first; the second part of a request came with it.
#[test]
fn priorities_order_what_waits() {
    let mut fake = Fake::of_rows(1);
    let log = Arc::clone(&fake.log);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    let submit = |scheduler: &mut Scheduler<'_, '_>, number: usize, priority| {
        let first_sample = number as u64;
        let request = Request { priority, first_sample, ..Request::greedy(Protocol::Recgen, vec![1; 5], 20) };
        scheduler.submit(number, request, Box::new(|_| {})).unwrap();
    };
    submit(&mut scheduler, 0, 0);
    scheduler.turn().unwrap();
    for (number, priority) in [(1, 0), (2, 7), (3, -1), (4, 7), (5, i32::MIN), (6, i32::MAX)] {
        submit(&mut scheduler, number, priority);
    }
    scheduler.run().unwrap();
    let order: Vec<u64> = log.lock().unwrap().admitted.iter().map(|one| one.first_sample).collect();
    assert_eq!(order, [0, 6, 6, 2, 2, 4, 4, 0, 1, 1, 3, 3, 5, 5]);
}

// Between the prompts of others, sequences that run go on. Equal prompts count once; a longer one than a turn may encode goes
// alone, and nothing overtakes it.
#[test]
fn a_turn_encodes_no_more_than_it_may() {
    let mut fake = Fake::of_rows(9);
    let log = Arc::clone(&fake.log);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS).with_prefill_tokens(16);
    for (number, (id, prompt)) in
        [(1, 8), (2, 8), (1, 8), (2, 8), (3, 4), (4, 40), (4, 40), (5, 4), (6, 16)].into_iter().enumerate()
    {
        let request = Request::greedy(Protocol::Recgen, vec![id; prompt], 40);
        scheduler.submit(number, request, Box::new(|_| {})).unwrap();
    }
    assert_eq!(scheduler.run().unwrap().len(), 9);
    let turns = log.lock().unwrap().turns.clone();
    // A burst is collected in every turn, and another started in its place.
    assert_eq!(turns, [(4, 0), (1, 2), (2, 3), (1, 4), (1, 5)]);
}

// A deadline ends a request that waits and one that runs, which keeps what it has.
#[test]
fn deadlines_end_requests_wherever_they_are() {
    let mut fake = Fake::of_rows(1);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    let soon = Instant::now() + Duration::from_secs(1);
    let request = Request::greedy(Protocol::Recgen, vec![1; 8], 300);
    let late = Request { deadline: Some(Instant::now()), ..request.clone() };
    let running = Request { deadline: Some(soon), ..request.clone() };
    let after = Request::greedy(Protocol::Recgen, vec![1; 8], 3);
    for (number, request) in [running, late, after].into_iter().enumerate() {
        scheduler.submit(number, request, Box::new(|_| {})).unwrap();
    }
    scheduler.turn().unwrap();
    let finished = scheduler.take_finished();
    assert_eq!(finished.iter().map(|finished| finished.number).collect::<Vec<_>>(), [1]);
    std::thread::sleep(soon.saturating_duration_since(Instant::now()));
    let all = by_request(finished.into_iter().chain(scheduler.run().unwrap()).collect());
    let ends: Vec<_> = all.iter().map(|completion| &completion.sequences[0]).collect();
    assert_eq!([0, 1, 2].map(|at| ends[at].finish), [Finish::Deadline, Finish::Deadline, Finish::Length]);
    let (tokens, _) = alone(&request, 0);
    assert!(!ends[0].tokens.is_empty() && tokens.starts_with(&ends[0].tokens));
    assert!(ends[1].tokens.is_empty());
}

// Cancelled before it has a row, a request never gets one; `cancel` ends all that there are.
#[test]
fn what_is_cancelled_while_it_waits_gets_no_row() {
    let mut fake = Fake::of_rows(1);
    let log = Arc::clone(&fake.log);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    let cancel = Cancel::default();
    let request = |number: u64| Request {
        first_sample: number,
        cancel: if number == 10 { cancel.clone() } else { Cancel::default() },
        samples: 2,
        ..Request::greedy(Protocol::Recgen, vec![1; 9], 100)
    };
    for number in 0..4 {
        scheduler.submit(number as usize, request(10 * number), Box::new(|_| {})).unwrap();
    }
    scheduler.turn().unwrap();
    cancel.cancel();
    scheduler.turn().unwrap();
    scheduler.cancel();
    let finished = scheduler.run().unwrap();
    assert_eq!(finished.len(), 4);
    for Finished { result, .. } in finished {
        let sequences = result.unwrap().sequences;
        assert!(sequences.iter().all(|sequence| sequence.finish == Finish::Cancelled));
    }
    assert!(log.lock().unwrap().admitted.iter().all(|one| one.first_sample < 10));
}

// What can never run is refused with the reason, before anything is queued.
#[test]
fn requests_that_can_never_fit_are_refused() {
    let mut fake = Fake::new(setup(2, 2, 4, 20), 2, true);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    let greedy = |prompt: usize, new_tokens| Request::greedy(Protocol::Recgen, vec![1; prompt], new_tokens);
    let mut refused = |request: Request| {
        scheduler.submit(7, request, Box::new(|_| panic!("it is told nothing"))).expect_err("refused")
    };
    let mut said = |request: Request| refused(request).to_string();
    assert_eq!(said(greedy(8, 0)), "request 7: the number of new tokens is 0, expected at least 1");
    assert_eq!(
        said(Request { samples: 0, ..greedy(8, 1) }),
        "request 7: the number of samples is 0, expected at least 1"
    );
    assert_eq!(
        said(Request { align: Align::DropLeft, ..greedy(3, 8) }),
        "prompt 7: has 3 tokens, expected at least one meta-context of 4 where the oldest are dropped; use a longer prompt, or align it by force"
    );
    assert_eq!(
        said(Request { prompt_length: Some(9), ..greedy(8, 1) }),
        "prompt 7: 9 tokens are said to be prompt, and there are 8"
    );
    assert_eq!(
        said(greedy(396, 8)),
        "request 7: 396 tokens and 8 new ones exceed the bundle's 400; ask for fewer or export with a larger --max-tokens"
    );
    // 17 meta-contexts of prompt and one burst of 4 are one too many, though only one meta-context is wanted.
    let no_room = "request 7: needs 21 meta-contexts, whole bursts counted, and a row has room for 20; ask for fewer tokens or give rows more capacity";
    assert_eq!(said(greedy(68, 1)), no_room);
    // So are they behind the meta-context that the prompt begins, once one token more is wanted than that has.
    assert_eq!(said(greedy(67, 2)), no_room);
    assert_eq!(
        said(Request { forced: vec![1; 3], ..greedy(8, 2) }),
        "request 7: 3 tokens are forced, expected at most its 2 new tokens"
    );
    assert_eq!(
        said(Request { prompt_logprobs: Some(21), ..greedy(8, 2) }),
        "request 7: asks for 21 log-probabilities a token, expected at most 20"
    );
    assert_eq!(
        said(Request { protocol: Protocol::Hiergen, ..greedy(8, 2) }),
        "request 7: asks for protocol `hiergen`, and these rows run `recgen`"
    );
    let penalties = Penalties { presence: 1.0, ..Penalties::default() };
    assert_eq!(
        said(Request { penalties, ..greedy(8, 2) }),
        "request 7: decoder of 2 rows and 2 sequences: no penalties here"
    );
    assert_eq!(
        said(Request { forced: vec![1, 24], ..greedy(8, 2) }),
        "prompt 7: token 1 is 24, expected 0..24; the prompt was made for another vocabulary"
    );
    let sampling = Sampling { top_p: 2.0, ..Sampling::greedy() };
    assert!(matches!(refused(Request { sampling, ..greedy(8, 1) }), Refusal::Sampling(_)));
    assert!(scheduler.is_idle() && scheduler.waiting() == 0);
    assert!(scheduler.submit(8, greedy(64, 1), Box::new(|_| {})).is_ok(), "16 and 4 fit exactly");
    assert!(scheduler.submit(9, greedy(67, 1), Box::new(|_| {})).is_ok(), "and so do they here");
    assert_eq!(scheduler.run().unwrap().len(), 2);
}

// Logits that are no distribution end the request that has them; its neighbours go on. Behind the end of a sequence, which
// a shorter burst had not drawn, they do not matter.
#[test]
fn a_broken_row_fails_alone() {
    for (from, fails) in [(8, Some(0)), (19, Some(11)), (27, Some(19)), (28, None)] {
        for run_ahead in 1..6 {
            let shape = setup(2, 2, run_ahead, 20);
            let mut fake = Fake::new(shape, 2, true).broken_from(23, from);
            let mut scheduler = Scheduler::new(&mut fake, LIMITS);
            for (number, id) in [(0, 1), (1, 23), (2, 2)] {
                let request = Request::greedy(Protocol::Recgen, vec![id; 8], 20);
                scheduler.submit(number, request, Box::new(|_| {})).unwrap();
            }
            let finished = scheduler.run().unwrap();
            for Finished { number, result } in &finished {
                match (number, fails) {
                    (1, Some(expected)) => assert!(
                        matches!(result, Err(RuntimeError::NotADistribution { row: 1, token }) if *token == expected),
                        "{result:?}"
                    ),
                    _ => assert_eq!(result.as_ref().unwrap().sequences[0].tokens.len(), 20),
                }
            }
            assert_eq!(finished.len(), 3);
        }
    }
}

// Samples without a distribution end their request once, though each has a row of its own.
#[test]
fn a_broken_sample_ends_its_request() {
    let mut fake = Fake::new(setup(2, 4, 1, 20), 2, true).broken_from(23, 13);
    let mut scheduler = Scheduler::new(&mut fake, LIMITS);
    for (number, id) in [(0, 23), (1, 1)] {
        let request = Request { samples: 3, ..Request::greedy(Protocol::Recgen, vec![id; 9], 20) };
        scheduler.submit(number, request, Box::new(|_| {})).unwrap();
    }
    let mut finished = scheduler.run().unwrap();
    finished.sort_by_key(|finished| finished.number);
    assert!(matches!(finished[0].result, Err(RuntimeError::NotADistribution { row: 0, token: 4 })));
    assert_eq!(finished[1].result.as_ref().unwrap().sequences.len(), 3);
}
