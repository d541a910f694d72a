//! Tokens that are given: forced ones, prompts that fill no whole meta-context, generations that go on where they were
//! cut off. On the device from prompt to tokens they are what they are graph by graph.

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

/// What the decoder draws for the samples of each request, one after the other.
fn drawn(generator: &mut Generator, batch: &Batch) -> Vec<Vec<i64>> {
    assert!(!batch.requests.iter().any(Request::needs_graphs));
    let generation = run(generator, batch);
    let requests = batch.requests.iter().enumerate();
    let asked = requests.flat_map(|(row, request)| (0..request.samples).map(move |sample| (row, sample)));
    let found = generation.sequences.iter().map(|sequence| (sequence.prompt, sequence.sample));
    assert!(found.eq(asked), "a sequence is missing");
    for sequence in &generation.sequences {
        let request = &batch.requests[sequence.prompt];
        assert_eq!((sequence.tokens.len(), sequence.dropped_left), (request.max_new_tokens, 0));
        assert_eq!(sequence.finish, Finish::Length);
        assert!(sequence.tokens.starts_with(&request.forced), "prompt {}", sequence.prompt);
    }
    tokens(&generation)
}

/// The same, drawn graph by graph.
fn by_graph(generator: &mut Generator, batch: &Batch) -> Vec<Vec<i64>> {
    let mut batch = batch.clone();
    batch.requests.iter_mut().for_each(|request| request.keep = Keep { logits: true, ..Keep::default() });
    assert!(batch.requests.iter().all(Request::needs_graphs));
    tokens(&run(generator, &batch))
}

fn with_run_ahead(requests: &[Request], meta_contexts: usize) -> Batch {
    Batch { run_ahead: RunAhead::MetaContexts(meta_contexts), ..Batch::new(requests.to_vec()) }
}

// Up to and past a burst, forced and free rows side by side; what is forced stands there, the rest is drawn behind it.
#[test]
fn forced_tokens_stand_where_they_were_put() {
    let model = Model::of("paper");
    let meta = model.meta_tokens;
    let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(3), Dtype::F32)));
    for protocol in PROTOCOLS {
        let lengths = [0, meta - 1, meta + 3, 2 * meta].into_iter().enumerate();
        let request = |(row, length)| Request {
            forced: text(&model, length, 5),
            sampling: if row % 2 == 0 { SAMPLED } else { Sampling::greedy() },
            ..Request::greedy(protocol, text(&model, meta * (1 + row % 2), row), 2 * meta + 2)
        };
        let requests: Vec<Request> = lengths.map(request).collect();
        let expected = by_graph(&mut generator, &with_run_ahead(&requests, 2));
        for run_ahead in [1, 2] {
            let found = drawn(&mut generator, &with_run_ahead(&requests, run_ahead));
            assert_eq!(found, expected, "{protocol} {run_ahead}");
        }
    }
}

// A row leaves none of its forced tokens to the next request in it: those of every other request fill bursts only in
// part, and there are fewer rows than requests.
#[test]
fn forced_tokens_end_with_their_request() {
    let model = Model::of("paper");
    let meta = model.meta_tokens;
    let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(5), Dtype::F32)));
    for protocol in PROTOCOLS {
        let request = |number: usize| {
            let new_tokens = 1 + number * 13 % (2 * meta);
            let forced = if number.is_multiple_of(2) { text(&model, new_tokens, number) } else { Vec::new() };
            Request { forced, ..Request::greedy(protocol, text(&model, meta, number), new_tokens) }
        };
        let requests: Vec<Request> = (0..6).map(request).collect();
        let shared = Batch { rows: Some(2), ..with_run_ahead(&requests, 2) };
        let expected = by_graph(&mut generator, &with_run_ahead(&requests, 2));
        assert_eq!(drawn(&mut generator, &shared), expected, "{protocol}");
    }
}

// No prompt, less than a meta-context, and remainders behind whole ones, with ends inside the meta-context that the
// prompt begins and behind it; rows enough for all, and two for all of them.
#[test]
fn prompts_with_a_remainder_keep_every_token() {
    for name in ["paper", "lopsided"] {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(13), Dtype::F32)));
        for protocol in PROTOCOLS {
            let requests = remainders(&model, protocol);
            let expected = by_graph(&mut generator, &with_run_ahead(&requests, 2));
            let found = drawn(&mut generator, &with_run_ahead(&requests, 3));
            assert_eq!(found, expected, "{name} {protocol}");
            let few = Batch { rows: Some(2), ..with_run_ahead(&requests, 1) };
            assert_eq!(drawn(&mut generator, &few), expected, "{name} {protocol}, two rows");
        }
    }
}

/// Requests whose prompts fill no whole meta-context, and one that does; some of several samples, some forced to go on.
fn remainders(model: &Model, protocol: Protocol) -> Vec<Request> {
    let meta = model.meta_tokens;
    let shapes = [(0, meta + 1), (1, meta), (meta - 1, 1), (meta, 2), (meta + 2, 2 * meta)];
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
        let whole = |length: &usize| Request {
            sampling: SAMPLED,
            ..Request::greedy(protocol, text(&model, *length, *length), 2 * meta + 2)
        };
        let lengths = [0, 3, meta + 5];
        let requests: Vec<Request> = lengths.iter().map(whole).collect();
        let undisturbed = drawn(&mut generator, &with_run_ahead(&requests, 2));
        let (mut cut_off, mut rest) = (Vec::new(), Vec::new());
        for (request, tokens) in requests.iter().zip(&undisturbed) {
            let length = request.prompt.len();
            for cut in [1, meta - length % meta, meta + 3] {
                cut_off.push(Request {
                    prompt: [&request.prompt, &tokens[..cut]].concat(),
                    prompt_length: Some(length),
                    max_new_tokens: request.max_new_tokens - cut,
                    ..request.clone()
                });
                rest.push(tokens[cut..].to_vec());
            }
        }
        assert_eq!(drawn(&mut generator, &with_run_ahead(&cut_off, 1)), rest, "{protocol}");
        assert_eq!(by_graph(&mut generator, &with_run_ahead(&cut_off, 2)), rest, "{protocol}");
    }
}
