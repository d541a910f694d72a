//! What a request gave among others, against itself alone and against what was asked for.

use crate::fixture::assert_close;
use crate::mixture::{Case, EndedBy, Sizes};
use crate::served::Outcome;
use photonc::runtime::generator::Generator;
use photonc::runtime::logprobs::TokenLogprobs;
use photonc::runtime::request::{Align, Finish, Request, Sequence};
use photonc::runtime::schedule::Completion;

/// The prompt as it is taken, what was generated behind it, and where the logits that are kept begin.
struct Given<'r> {
    prompt: &'r [i64],
    generated: &'r [i64],
    logits_from: usize,
}

fn given(request: &Request, meta_tokens: usize) -> Given<'_> {
    let length = request.prompt_length.unwrap_or(request.prompt.len());
    let dropped = if request.align == Align::DropLeft { length % meta_tokens } else { 0 };
    let (prompt, generated) = (&request.prompt[dropped..length], &request.prompt[length..]);
    let encoded = prompt.len().next_multiple_of(meta_tokens);
    // The meta-context that the prompt begins is read as a whole once it is there.
    let left = prompt.len() + generated.len() >= encoded;
    let logits_from = if left { encoded } else { prompt.len() / meta_tokens * meta_tokens };
    Given { prompt, generated, logits_from }
}

/// What callers were told is what the request gave, and each sequence was told its end once.
pub fn check_heard(outcome: &Outcome) {
    let sequences = &outcome.completion().sequences;
    assert_eq!(sequences.len(), outcome.heard.len(), "a sequence for every sample");
    for (sample, (sequence, heard)) in sequences.iter().zip(&outcome.heard).enumerate() {
        assert_eq!((sequence.prompt, sequence.sample), (outcome.ends[0].number, sample));
        assert_eq!(heard.tokens, sequence.tokens, "told");
        assert_eq!(heard.logprobs, sequence.logprobs, "told");
        assert_eq!(heard.ends, [sequence.finish], "its end, once");
    }
}

/// Ended by its caller or its deadline before it had a row.
pub fn check_ended(case: &Case, found: &Completion) {
    let finish = if case.ended_by == EndedBy::Deadline { Finish::Deadline } else { Finish::Cancelled };
    for found in &found.sequences {
        assert_eq!((&found.tokens[..], found.finish), (&[][..], finish));
    }
}

/// The tokens of running alone, up to where its caller ended it; log-probabilities and logits within `tolerance`, where 0
/// is to the bit.
pub fn check_alone(case: &Case, found: &Completion, alone: &Completion, tolerance: f64) {
    assert_eq!(found.sequences.len(), alone.sequences.len());
    for (found, alone) in found.sequences.iter().zip(&alone.sequences) {
        if case.ended_by == EndedBy::CancelRunning {
            assert!(alone.tokens.starts_with(&found.tokens) && !found.tokens.is_empty());
            assert!(found.tokens.len() < alone.tokens.len(), "it was cut off");
            assert_eq!(found.finish, Finish::Cancelled);
            continue;
        }
        assert_eq!((&found.tokens, found.finish), (&alone.tokens, alone.finish), "tokens");
        assert_eq!(found.logprobs.len(), alone.logprobs.len());
        close(found.logprobs.iter().zip(&alone.logprobs), tolerance);
        assert_eq!(found.dropped_left, alone.dropped_left);
        // A sequence that ends early has as many logits behind its end as its bursts were long.
        let common = found.logits.len().min(alone.logits.len());
        assert_close("logits", &found.logits[..common], &alone.logits[..common], tolerance);
    }
    assert_eq!(found.host_sampled, alone.host_sampled);
    let [found, alone] = [found, alone].map(|one| one.prompt_logprobs.as_deref());
    assert_eq!(found.map(<[_]>::len), alone.map(<[_]>::len), "log-probabilities of the prompt");
    close(found.into_iter().flatten().zip(alone.into_iter().flatten()), tolerance);
}

/// Whether a backend that rounds otherwise drew the same; log-probabilities of what both drew are within `tolerance`.
pub fn agrees(found: &Completion, reference: &Completion, tolerance: f64) -> bool {
    let mut same = true;
    for (found, reference) in found.sequences.iter().zip(&reference.sequences) {
        let pairs = found.tokens.iter().zip(&reference.tokens);
        let common = pairs.take_while(|(a, b)| a == b).count();
        same &= common == found.tokens.len() && found.tokens.len() == reference.tokens.len();
        close(found.logprobs.iter().zip(&reference.logprobs).take(common), tolerance);
    }
    let prompts = (&found.prompt_logprobs, &reference.prompt_logprobs);
    if let (Some(found), Some(reference)) = prompts {
        assert_eq!(found.len(), reference.len());
        close(found.iter().zip(reference), tolerance);
    }
    same
}

fn close<'t>(pairs: impl Iterator<Item = (&'t TokenLogprobs, &'t TokenLogprobs)>, tolerance: f64) {
    for (found, reference) in pairs {
        assert_eq!(found.token, reference.token);
        assert_close("log-probability", &[found.logprob], &[reference.logprob], tolerance);
        let values = |one: &TokenLogprobs| one.top.iter().map(|(_, logprob)| *logprob).collect::<Vec<_>>();
        assert_close("log-probabilities", &values(found), &values(reference), tolerance);
    }
}

/// Every wish of a request against what it gave, from its own logits where they are kept.
pub fn check_wishes(request: &Request, found: &Completion, sizes: Sizes) {
    let given = given(request, sizes.meta_tokens);
    for sequence in &found.sequences {
        check_end(request, sequence, &given);
        let forced = request.forced.len().min(sequence.tokens.len());
        assert_eq!(sequence.tokens[..forced], request.forced[..forced], "forced tokens");
        let drawn = &sequence.tokens[forced..];
        for (id, _) in request.logit_bias.iter().filter(|(_, bias)| *bias == f64::NEG_INFINITY) {
            assert!(!drawn.contains(id), "{id} is ruled out");
        }
        let logprobs = if request.logprobs.is_some() { sequence.tokens.len() } else { 0 };
        assert_eq!(sequence.logprobs.len(), logprobs, "one for every token");
        for (one, token) in sequence.logprobs.iter().zip(&sequence.tokens) {
            assert_eq!(one.token, *token);
            assert_eq!(Some(one.top.len()), request.logprobs.map(|count| count.min(sizes.vocab_size)));
        }
        if !request.keep.logits {
            assert!(sequence.logits.is_empty());
            continue;
        }
        let first = given.prompt.len() + given.generated.len() - given.logits_from;
        let logits: Vec<&[f64]> = sequence.logits.chunks_exact(sizes.vocab_size).collect();
        assert_eq!(logits.len() % sizes.meta_tokens, 0, "whole meta-contexts");
        for (at, token) in sequence.tokens.iter().enumerate() {
            let logits = logits[first + at];
            if let Some(told) = sequence.logprobs.get(at) {
                check_logprobs(told, logits, 1e-9);
            }
            let changed = !request.penalties.are_none() || !request.logit_bias.is_empty();
            if request.sampling.is_greedy() && !changed && request.min_new_tokens == 0 && at >= forced {
                let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                assert_eq!(logits[*token as usize], best, "the largest logit");
            }
        }
    }
    let count = request.prompt_logprobs.map(|_| given.prompt.len());
    let found = found.prompt_logprobs.as_ref();
    assert_eq!(found.map(Vec::len), count, "a log-probability for every token of the prompt");
    let tokens = found.into_iter().flatten().map(|one| one.token);
    assert!(found.is_none() || tokens.eq(given.prompt.iter().copied()));
}

/// Log-probabilities of a prompt are those that scoring it gives.
pub fn check_scores(generator: &mut Generator, request: &Request, found: &Completion, sizes: Sizes) {
    let Some(told) = found.prompt_logprobs.as_ref().filter(|told| !told.is_empty()) else { return };
    let prompt = given(request, sizes.meta_tokens).prompt.to_vec();
    let (scored, _) = generator.score(&[prompt]).expect("scores");
    let logits = scored[0].logits.chunks_exact(sizes.vocab_size);
    assert_eq!(logits.len(), told.len());
    told.iter().zip(logits).for_each(|(told, logits)| check_logprobs(told, logits, 1e-9));
}

/// By hand: the logarithm of a softmax, sorted.
fn check_logprobs(told: &TokenLogprobs, logits: &[f64], tolerance: f64) {
    let mass: f64 = logits.iter().map(|logit| logit.exp()).sum();
    let own = logits[told.token as usize];
    assert_close("log-probability", &[told.logprob], &[own - mass.ln()], tolerance);
    assert_eq!(told.rank, 1 + logits.iter().filter(|logit| **logit > own).count());
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    for ((id, logprob), expected) in told.top.iter().zip(order) {
        assert_eq!(*id, expected as i64);
        assert_close("log-probability", &[*logprob], &[logits[expected] - mass.ln()], tolerance);
    }
}

/// It ended where its rules say and nowhere before.
fn check_end(request: &Request, sequence: &Sequence, given: &Given<'_>) {
    let tokens = &sequence.tokens;
    assert!(tokens.len() <= request.max_new_tokens);
    if sequence.finish == Finish::Length {
        assert_eq!(tokens.len(), request.max_new_tokens);
    }
    let ending = |id: &i64| request.eos.contains(id) || request.stop.contains(id);
    let before = request.min_new_tokens.saturating_sub(given.generated.len());
    assert!(!tokens.iter().skip(before).any(ending), "an id that ends it is no token");
    let early = request.forced.len().min(before)..before.min(tokens.len());
    assert!(!tokens.get(early).unwrap_or(&[]).iter().any(ending), "none is drawn so early");
    let by_id = sequence.finish == Finish::Eos
        || (sequence.finish == Finish::Stop && request.stop_condition.is_none());
    assert!(!by_id || tokens.len() >= before, "no id ends it so early");
    let mut stop = request.stop_condition.as_ref().map(|stop| stop.start());
    let all = [given.generated, tokens].concat();
    let stopped = stop.as_mut().and_then(|stop| all.iter().position(|token| stop.ends_with(*token)));
    assert!(stopped.is_none_or(|at| at + 1 == all.len() && sequence.finish == Finish::Stop));
}
