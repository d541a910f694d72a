//! Mixtures of requests that have everything a request may have, the same in every run.

use crate::fixture::Spread;
use crate::fixture::model::PROTOCOLS;
use crate::fixture::stopping::SecondMultiple;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::penalties::Penalties;
use photonc::runtime::request::{Align, Cancel, Keep, Request, StopCondition};
use photonc::runtime::sampler::Sampling;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub meta_tokens: usize,
    /// Tokens of a chunk of level 1.
    pub chunk: usize,
    pub vocab_size: usize,
}

/// What ends a request that would go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    Nothing,
    /// Cancelled before it comes.
    CancelBefore,
    /// Cancelled while it waits for a row.
    CancelWaiting,
    /// Cancelled with its first burst.
    CancelRunning,
    /// Comes when its deadline has passed.
    Deadline,
}

/// A request and what happens to it.
#[derive(Clone, Debug)]
pub struct Case {
    pub request: Request,
    pub ended_by: EndedBy,
    /// Whether it goes on from the middle of what it gives alone.
    pub resumes: bool,
}

/// The ways to draw, by number.
pub fn sampling(kind: usize, seed: u64) -> Sampling {
    let of = |temperature, top_k, top_p, min_p| Sampling { temperature, top_k, top_p, min_p, seed };
    match kind {
        0 => Sampling::greedy(),
        1 => of(1.3, 8, 1.0, 0.0),
        2 => of(1.1, 20, 0.8, 0.0),
        3 => of(1.2, 0, 0.7, 0.0),
        4 => of(1.5, 0, 1.0, 0.05),
        _ => of(0.9, 0, 1.0, 0.0),
    }
}

/// How many there are.
pub const SAMPLINGS: usize = 6;

/// Prompt lengths: none, one token, one chunk, one short of a meta-context, whole ones and one more, long.
pub fn lengths(sizes: Sizes) -> [usize; 7] {
    let meta = sizes.meta_tokens;
    [0, 1, sizes.chunk, meta - 1, meta, meta + 1, 3 * meta + 2]
}

/// `count` requests: prompt lengths and ways to draw go by number, the rest is drawn from `seed`. Both protocols take turns
/// of a quarter each; the last three of the first quarter have the highest priority.
pub fn mixture(sizes: Sizes, seed: u64, count: usize) -> Vec<Case> {
    let mut spread = Spread(seed);
    let case = |number: usize| {
        let protocol = PROTOCOLS[number * 4 / count % 2];
        match ended_by(number, count) {
            EndedBy::Nothing => of_any_kind(sizes, &mut spread, protocol, number),
            ended_by => ended_early(sizes, &mut spread, protocol, ended_by),
        }
    };
    let mut cases: Vec<Case> = (0..count).map(case).collect();
    for (number, case) in cases.iter_mut().enumerate().filter(|(_, case)| case.ended_by == EndedBy::Nothing) {
        let highest = number < count / 4 && number + 3 >= count / 4;
        case.request.priority = i32::from(highest);
    }
    cases
}

/// Each kind comes in the first quarter; what is cancelled while it runs comes later too.
fn ended_by(number: usize, count: usize) -> EndedBy {
    match number {
        0 => EndedBy::CancelWaiting,
        1 => EndedBy::CancelBefore,
        2 => EndedBy::Deadline,
        _ if number == count / 4 || number == count - 2 => EndedBy::CancelRunning,
        _ => EndedBy::Nothing,
    }
}

/// A request of many tokens that nothing ends but its caller or its deadline.
fn ended_early(sizes: Sizes, spread: &mut Spread, protocol: Protocol, ended_by: EndedBy) -> Case {
    let meta = sizes.meta_tokens;
    let cancel = Cancel::default();
    if ended_by == EndedBy::CancelBefore {
        cancel.cancel();
    }
    let request = Request {
        sampling: sampling(1 + spread.below(SAMPLINGS - 1), spread.next()),
        samples: if ended_by == EndedBy::CancelRunning { 1 } else { 2 },
        // It waits until everything else that came with it has a row.
        priority: if ended_by == EndedBy::CancelWaiting { -1 } else { 0 },
        deadline: (ended_by == EndedBy::Deadline).then(Instant::now),
        cancel,
        ..Request::greedy(protocol, text(spread, sizes, 1 + meta), 4 * meta)
    };
    Case { request, ended_by, resumes: false }
}

fn text(spread: &mut Spread, sizes: Sizes, length: usize) -> Vec<i64> {
    (0..length).map(|_| spread.below(sizes.vocab_size) as i64).collect()
}

fn of_any_kind(sizes: Sizes, spread: &mut Spread, protocol: Protocol, number: usize) -> Case {
    let vocab = sizes.vocab_size;
    let all = lengths(sizes);
    let length = all[number % all.len()];
    let max_new_tokens = 1 + spread.below(2 * sizes.meta_tokens + 3);
    let resumes = spread.below(4) == 0 && max_new_tokens > 1;
    let prompt = text(spread, sizes, length);
    let mut one_in = |parts: usize| spread.below(parts) == 0;
    let [penalised, biased, told, scored] = [one_in(3), one_in(4), one_in(2), one_in(4)];
    let [least, eos, stop, ended, forced] = [one_in(4), one_in(4), one_in(4), one_in(4), one_in(3)];
    let [drops, keeps, several, late] = [one_in(3), one_in(2), one_in(2), one_in(4)];
    let mut ids = |wanted: bool, count: usize| match wanted {
        true => (0..count).map(|_| spread.below(vocab) as i64).collect(),
        false => Vec::new(),
    };
    let (eos, stop) = (ids(eos, 8), ids(stop, 8));
    let given = ids(forced, max_new_tokens / 2);
    let bias = [10.0, -10.0, f64::NEG_INFINITY, 3.5];
    let logit_bias = ids(biased, bias.len()).into_iter().zip(bias).collect();
    let penalties = Penalties { repetition: 1.3, presence: 0.4, frequency: 0.2 };
    let request = Request {
        align: if drops && length >= sizes.meta_tokens { Align::DropLeft } else { Align::Force },
        samples: if several && !resumes { 3 } else { 1 },
        first_sample: spread.below(5) as u64,
        min_new_tokens: if least { 1 + spread.below(sizes.meta_tokens) } else { 0 },
        sampling: sampling(number % SAMPLINGS, spread.next()),
        penalties: if penalised { penalties } else { Penalties::default() },
        logit_bias,
        logprobs: told.then(|| spread.below(21)),
        prompt_logprobs: scored.then(|| spread.below(21)),
        forced: given,
        stop,
        eos,
        stop_condition: ended.then(|| Arc::new(SecondMultiple(5)) as Arc<dyn StopCondition>),
        keep: Keep { logits: keeps, states: false, trajectory: false },
        deadline: late.then(|| Instant::now() + Duration::from_secs(100_000)),
        ..Request::greedy(protocol, prompt, max_new_tokens)
    };
    Case { request, ended_by: EndedBy::Nothing, resumes }
}

/// The same mixture of what recorded decoders draw.
pub fn recorded(mut cases: Vec<Case>) -> Vec<Case> {
    for (number, case) in cases.iter_mut().enumerate() {
        let request = &mut case.request;
        *request = Request {
            sampling: sampling(number % 3, request.sampling.seed),
            penalties: Penalties::default(),
            logit_bias: Vec::new(),
            min_new_tokens: 0,
            logprobs: None,
            prompt_logprobs: None,
            keep: Keep::default(),
            ..request.clone()
        };
        assert!(!request.needs_graphs());
    }
    cases
}

// What the others run has every kind of everything in it, for both protocols.
#[test]
fn the_mixture_has_every_kind() {
    let missing = missing(super::SEED);
    let other = || (0..100_000).find(|seed| self::missing(*seed).is_empty());
    assert!(missing.is_empty(), "no request with {missing:?}; all are there of seed {:?}", other());
}

/// What no request of the mixture of a seed has.
fn missing(seed: u64) -> Vec<String> {
    let sizes = Sizes { meta_tokens: 16, chunk: 4, vocab_size: 101 };
    let cases = mixture(sizes, seed, super::COUNT);
    let missing = std::cell::RefCell::new(Vec::new());
    let plain = |case: &&Case| case.ended_by == EndedBy::Nothing;
    for protocol in PROTOCOLS {
        let of: Vec<&Request> = cases.iter().filter(plain).map(|case| &case.request).collect();
        let of: Vec<&Request> = of.into_iter().filter(|request| request.protocol == protocol).collect();
        let any = |what: &str, has: &dyn Fn(&Request) -> bool| {
            if !of.iter().any(|request| has(request)) {
                missing.borrow_mut().push(format!("{what} under {protocol}"));
            }
        };
        for length in lengths(sizes) {
            any(&format!("{length} tokens"), &|request| request.prompt.len() == length);
        }
        for kind in 0..SAMPLINGS {
            let same = |a: Sampling, b: Sampling| Sampling { seed: 0, ..a } == Sampling { seed: 0, ..b };
            any(&format!("sampling {kind}"), &|request| same(request.sampling, sampling(kind, 0)));
        }
        for samples in [1, 3] {
            any(&format!("{samples} samples"), &|request| request.samples == samples);
        }
        any("penalties", &|request| !request.penalties.are_none());
        any("bias", &|request| !request.logit_bias.is_empty());
        any("log-probabilities", &|request| request.logprobs.is_some_and(|count| count > 0));
        any("those of the prompt", &|request| request.prompt_logprobs.is_some_and(|count| count > 0));
        any("a least length", &|request| request.min_new_tokens > 0 && !request.eos.is_empty());
        any("end-of-sequence ids", &|request| !request.eos.is_empty());
        any("stop ids", &|request| !request.stop.is_empty());
        any("a stop condition", &|request| request.stop_condition.is_some());
        any("forced tokens", &|request| !request.forced.is_empty());
        any("a deadline", &|request| request.deadline.is_some());
        any("dropped tokens", &|request| request.align == Align::DropLeft);
        any("logits kept", &|request| request.keep.logits && request.logprobs.is_some());
        let goes_on = |case: &Case| case.resumes && case.request.protocol == protocol;
        if !cases.iter().any(goes_on) {
            missing.borrow_mut().push(format!("a generation that goes on under {protocol}"));
        }
    }
    for ended_by in [EndedBy::CancelBefore, EndedBy::CancelWaiting, EndedBy::CancelRunning, EndedBy::Deadline]
    {
        assert!(cases.iter().any(|case| case.ended_by == ended_by), "{ended_by:?}");
    }
    assert!(cases.iter().any(|case| case.request.priority > 0));
    missing.into_inner()
}
