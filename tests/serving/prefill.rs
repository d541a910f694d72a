//! Prompts of requests that come together: equal ones are encoded once, and each request gets what it gets alone.

use crate::Served;
use crate::fixture::Spread;
use crate::fixture::model::PROTOCOLS;
use crate::mixture::sampling;
use crate::served::{RUN_AHEAD, alone};
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::decoder::{Decoder, DecoderSetup};
use photonc::runtime::request::Request;
use photonc::runtime::schedule::{Completion, Limits, Scheduler, Totals};

/// Requests of three prompts, of which one ends inside a meta-context, each with a seed of its own.
fn requests(served: &Served<'_>, protocol: Protocol) -> Vec<Request> {
    let sizes = served.sizes;
    let mut spread = Spread(3);
    let mut text =
        |length: usize| -> Vec<i64> { (0..length).map(|_| spread.below(sizes.vocab_size) as i64).collect() };
    let prompts = [text(3 * sizes.meta_tokens), text(2 * sizes.meta_tokens + 1), text(2 * sizes.meta_tokens)];
    let of = |number: usize| Request {
        sampling: sampling(1 + number % 2, number as u64),
        ..Request::greedy(protocol, prompts[number % prompts.len()].clone(), sizes.meta_tokens + 3)
    };
    (0..8).map(of).collect()
}

fn run(decoder: &mut dyn Decoder, limits: Limits, requests: &[Request]) -> (Vec<Completion>, Totals) {
    let mut scheduler = Scheduler::new(decoder, limits);
    for (number, request) in requests.iter().enumerate() {
        scheduler.submit(number, request.clone(), Box::new(|_| {})).expect("fits");
    }
    let mut finished = scheduler.run().expect("runs");
    finished.sort_by_key(|finished| finished.number);
    let results = finished.into_iter().map(|finished| finished.result.expect("a result"));
    (results.collect(), scheduler.totals())
}

/// Under every protocol, all in rows side by side.
pub fn check_equal_prompts(served: &Served<'_>) {
    let mut generator = (served.open)();
    let meta = served.sizes.meta_tokens;
    for protocol in PROTOCOLS {
        let requests = requests(served, protocol);
        let limits = Limits::of(generator.program());
        let capacity = limits.capacity(&requests, RUN_AHEAD).expect("fits");
        let count = requests.len();
        let setup = DecoderSetup { protocol, rows: count, sequences: count, capacity, run_ahead: RUN_AHEAD };
        let mut done = None;
        let mut work = |decoder: &mut dyn Decoder| {
            done = Some(run(decoder, limits, &requests));
            Ok(())
        };
        generator.with_decoder(setup, false, served.graphs, &mut work).expect("runs");
        let (together, totals) = done.expect("ran");
        // Three requests of the first prompt, three that begin a third meta-context, two of the last, which is another; then
        // what the three have drawn there, which differs.
        assert_eq!(totals.prefill.shared, (2 * 3 + 2 * 2 + 2) * meta, "{}", served.name);
        assert_eq!(totals.prefill.encoded, (3 + 2 + 2 + 3 * 3) * meta, "{}", served.name);
        for (request, found) in requests.iter().zip(&together) {
            let own = alone(&mut generator, request, 1, served.graphs);
            assert_eq!(found.sequences[0].tokens, own.sequences[0].tokens, "{} {protocol}", served.name);
        }
    }
}
