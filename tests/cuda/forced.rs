//! Tokens that are given: forced ones, prompts that fill no whole meta-context, generations that go on where they were cut
//! off. On the device from prompt to tokens they are what they are graph by graph.

use crate::backend;
use crate::emulated::Order;
use crate::fixture::model::{Model, PROTOCOLS, run, tokens};
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::generator::Generator;
use photonc::runtime::request::{Batch, Finish, Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;

/// So few candidates that the graphs' sampler draws, graph by graph too.
const SAMPLED: Sampling = Sampling { temperature: 1.3, top_k: 8, top_p: 0.95, min_p: 0.0, seed: 23 };

/// A text of so many tokens.
fn text(model: &Model, length: usize, salt: usize) -> Vec<i64> {
    (0..length).map(|at| ((at * 11 + salt * 7 + at * at % 5) % model.vocab_size) as i64).collect()
}

/// What the decoder draws, and that graph by graph the same is drawn; samples of a request one after the other.
fn drawn(generator: &mut Generator, batch: &Batch, what: &str) -> Vec<Vec<i64>> {
    let found = tokens(&run(generator, batch));
    let mut by_graph = batch.clone();
    by_graph.requests.iter_mut().for_each(|request| request.keep = Keep { logits: true, ..Keep::default() });
    assert!(!batch.requests.iter().any(Request::needs_graphs) && by_graph.requests[0].needs_graphs());
    assert_eq!(found, tokens(&run(generator, &by_graph)), "{what}");
    found
}

fn with_run_ahead(requests: &[Request], run_ahead: RunAhead) -> Batch {
    Batch { run_ahead, ..Batch::new(requests.to_vec()) }
}

// Every length up to and past a burst, forced and free rows side by side; what is forced stands there, the rest is drawn
// behind it.
#[test]
fn forced_tokens_stand_where_they_were_put() {
    for name in ["paper", "lopsided"] {
        let model = Model::of(name);
        let meta = model.meta_tokens;
        let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(3), Dtype::F32)));
        for protocol in PROTOCOLS {
            let lengths = [0, 1, meta - 1, meta, meta + 3, 3 * meta, 4 * meta + 1];
            let requests: Vec<Request> = lengths
                .into_iter()
                .enumerate()
                .map(|(row, length)| Request {
                    forced: text(&model, length, 5),
                    sampling: if row % 2 == 0 { SAMPLED } else { Sampling::greedy() },
                    ..Request::greedy(protocol, text(&model, meta * (1 + row % 2), row), 4 * meta + 2)
                })
                .collect();
            let mut before = None;
            for run_ahead in [RunAhead::MetaContexts(1), RunAhead::MetaContexts(3)] {
                let what = format!("{name} {protocol} {run_ahead:?}");
                let found = drawn(&mut generator, &with_run_ahead(&requests, run_ahead), &what);
                for (request, found) in requests.iter().zip(&found) {
                    assert_eq!(found.len(), request.max_new_tokens, "{what}");
                    assert!(found.starts_with(&request.forced), "{what}");
                }
                assert_eq!(before.get_or_insert_with(|| found.clone()), &found, "{what}");
            }
        }
    }
}

// A row that had forced tokens leaves none of them to the next request in it: three rows, requests that end within the
// burst of their last forced token and others right behind them.
#[test]
fn forced_tokens_end_with_their_request() {
    let model = Model::of("paper");
    let meta = model.meta_tokens;
    let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(5), Dtype::F32)));
    for protocol in PROTOCOLS {
        let request = |number: usize| {
            let prompt = text(&model, meta * (1 + number % 3), number);
            let new_tokens = 1 + number * 13 % (3 * meta);
            let forced = if number.is_multiple_of(2) { text(&model, new_tokens, number) } else { Vec::new() };
            Request { forced, ..Request::greedy(protocol, prompt, new_tokens) }
        };
        let requests: Vec<Request> = (0..9).map(request).collect();
        let shared = Batch { rows: Some(3), ..with_run_ahead(&requests, RunAhead::MetaContexts(2)) };
        let found = drawn(&mut generator, &shared, &format!("{protocol}"));
        for (number, found) in found.iter().enumerate() {
            let request = request(number);
            match request.forced.is_empty() {
                true => {
                    let alone = with_run_ahead(&[request], RunAhead::MetaContexts(2));
                    assert_eq!(found, &tokens(&run(&mut generator, &alone))[0], "{protocol} {number}");
                }
                false => assert_eq!(found, &request.forced, "{protocol} {number}"),
            }
        }
    }
}

// No prompt, less than a meta-context, and every kind of remainder behind whole ones, with ends inside the meta-context that
// the prompt begins and behind it.
#[test]
fn prompts_with_a_remainder_keep_every_token() {
    for name in ["paper", "lopsided"] {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(13), Dtype::F32)));
        for protocol in PROTOCOLS {
            let requests = remainders(&model, protocol);
            let mut before = None;
            for run_ahead in [RunAhead::MetaContexts(1), RunAhead::MetaContexts(3), RunAhead::All] {
                let what = format!("{name} {protocol} {run_ahead:?}");
                let batch = with_run_ahead(&requests, run_ahead);
                let generation = run(&mut generator, &batch);
                for sequence in &generation.sequences {
                    let request = &requests[sequence.prompt];
                    assert_eq!((sequence.tokens.len(), sequence.dropped_left), (request.max_new_tokens, 0));
                    assert_eq!(sequence.finish, Finish::Length, "{what}");
                    assert!(sequence.tokens.starts_with(&request.forced), "{what}");
                }
                let found = drawn(&mut generator, &batch, &what);
                assert_eq!(found, tokens(&generation), "{what}: twice the same");
                assert_eq!(before.get_or_insert_with(|| found.clone()), &found, "{what}");
            }
            // Two rows for all of them.
            let few = Batch { rows: Some(2), ..with_run_ahead(&requests, RunAhead::MetaContexts(2)) };
            assert_eq!(Some(tokens(&run(&mut generator, &few))), before, "{name} {protocol} in two rows");
        }
    }
}

/// Requests whose prompts fill no whole meta-context, and one that does; some of several samples, some forced to go on.
fn remainders(model: &Model, protocol: Protocol) -> Vec<Request> {
    let meta = model.meta_tokens;
    let shapes =
        [(0, 2 * meta), (1, meta), (meta - 1, 1), (meta, meta + 1), (meta + 2, 3 * meta), (2 * meta + 3, 2)];
    let request = |(row, (length, new_tokens)): (usize, (usize, usize))| Request {
        samples: if row % 3 == 1 { 3 } else { 1 },
        first_sample: row as u64,
        forced: if row % 2 == 0 { Vec::new() } else { text(model, new_tokens.min(2), row) },
        sampling: if row % 3 == 2 { Sampling::greedy() } else { SAMPLED },
        ..Request::greedy(protocol, text(model, length, row), new_tokens)
    };
    shapes.into_iter().enumerate().map(request).collect()
}

// Cut off in the meta-context that its prompt begins, at its end, and behind it.
#[test]
fn a_generation_that_goes_on_gives_the_tokens_of_an_undisturbed_run() {
    let model = Model::of("paper");
    let meta = model.meta_tokens;
    let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(19), Dtype::F32)));
    for protocol in PROTOCOLS {
        for length in [0, 3, meta, meta + 5] {
            let prompt = text(&model, length, length);
            let whole = Request { sampling: SAMPLED, ..Request::greedy(protocol, prompt, 3 * meta + 1) };
            let run_ahead = RunAhead::MetaContexts(2);
            let undisturbed =
                drawn(&mut generator, &with_run_ahead(&[whole.clone()], run_ahead), "whole").remove(0);
            let goes_on = |cut: &usize| Request {
                prompt: [&whole.prompt, &undisturbed[..*cut]].concat(),
                prompt_length: Some(length),
                max_new_tokens: whole.max_new_tokens - cut,
                ..whole.clone()
            };
            let cuts = [1, meta - length % meta, meta, 2 * meta + 3];
            let requests: Vec<Request> = cuts.iter().map(goes_on).collect();
            let what = format!("{protocol} {length}");
            let found = drawn(&mut generator, &with_run_ahead(&requests, run_ahead), &what);
            for (cut, found) in cuts.into_iter().zip(found) {
                assert_eq!(found, undisturbed[cut..], "{what} cut at {cut}");
            }
        }
    }
}
