//! Requests made from their numbers alone, and their tokens in a decoder that has nothing else to do.

use crate::fixture::Spread;
use crate::fixture::model::greedy;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::decoder::DecoderSetup;
use photonc::runtime::launch::decode::RecordedDecoder;
use photonc::runtime::plan::Program;
use photonc::runtime::request::{Cancel, Request};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::schedule::{Limits, Scheduler, Sink};
use std::collections::BTreeMap;

pub struct Asked {
    pub prompt: Vec<i64>,
    pub new_tokens: usize,
    pub sampling: Sampling,
    /// Bursts until it cancels itself.
    pub cancel_after: Option<usize>,
}

impl Asked {
    /// The request of this number, for rows of this shape.
    pub fn of(number: usize, program: &Program, setup: DecoderSetup) -> Self {
        let mut spread = Spread(0xa5 ^ (number as u64) << 8);
        let meta = program.meta_tokens;
        let most = setup.capacity - setup.run_ahead;
        let prompt_meta = 1 + spread.below(most - 1);
        let room = (setup.capacity - prompt_meta) / setup.run_ahead * setup.run_ahead;
        let new_tokens = 1 + spread.below(room * meta);
        let extra = spread.below(meta);
        let prompt =
            (0..prompt_meta * meta + extra).map(|_| spread.below(program.vocab_size) as i64).collect();
        let sampling = match spread.below(3) {
            0 => Sampling::greedy(),
            1 => Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, min_p: 0.0, seed: number as u64 },
            _ => Sampling { temperature: 1.2, top_k: 0, top_p: 1.0, min_p: 0.02, seed: number as u64 },
        };
        let cancel_after = (spread.below(4) == 0).then(|| spread.below(2));
        Asked { prompt, new_tokens, sampling, cancel_after }
    }

    pub fn is_greedy(&self) -> bool {
        self.sampling == Sampling::greedy()
    }

    /// The request, and what cancels it when it hears of its bursts.
    pub fn request(&self, protocol: Protocol) -> (Request, Sink<'static>) {
        let cancel = Cancel::default();
        let own = cancel.clone();
        let mut bursts = 0;
        let after = self.cancel_after;
        let request = Request {
            prompt: self.prompt.clone(),
            sampling: self.sampling,
            cancel,
            ..greedy(protocol, self.new_tokens)
        };
        let sink: Sink<'static> = Box::new(move |_| {
            bursts += 1;
            if after.is_some_and(|after| bursts > after) {
                own.cancel();
            }
        });
        (request, sink)
    }
}

/// Tokens of requests one after the other in an empty decoder, to their full length.
pub fn alone(
    decoder: &mut RecordedDecoder<'_>,
    program: &Program,
    setup: DecoderSetup,
    numbers: &[usize],
) -> BTreeMap<usize, Vec<i64>> {
    let mut scheduler = Scheduler::new(decoder, Limits::of(program));
    let mut found = BTreeMap::new();
    for number in numbers {
        let asked = Asked { cancel_after: None, ..Asked::of(*number, program, setup) };
        let (request, sink) = asked.request(setup.protocol);
        scheduler.submit(*number, request, sink).expect("fits");
        for finished in scheduler.run().expect("runs") {
            found.insert(finished.number, finished.result.expect("ends").sequences.remove(0).tokens);
        }
    }
    found
}
