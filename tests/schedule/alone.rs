//! What a request gives that runs alone, from the definition of its protocol; and every result against it.

use super::fake::{APART, Admitted, Log, META_TOKENS, logprobs_at, token};
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::request::{Align, Burst, Cancel, Finish, Request, Sequence};
use photonc::runtime::schedule::{Completion, Finished};
use std::sync::Mutex;

/// A request's tokens as they stand: those kept of the prompt and those generated behind it, and how many are prompt.
pub fn text(request: &Request) -> (Vec<i64>, usize) {
    let length = request.prompt_length.unwrap_or(request.prompt.len());
    let dropped = if request.align == Align::DropLeft { length % META_TOKENS } else { 0 };
    (request.prompt[dropped..].to_vec(), length - dropped)
}

/// The tokens of sample `sample` of a request that runs alone to its end (PHOTON.md section 5).
pub fn alone(request: &Request, sample: usize) -> (Vec<i64>, Finish) {
    let (mut text, length) = text(request);
    let known = text.len();
    let mut stop = request.stop_condition.as_ref().map(|stop| stop.start());
    if stop.as_mut().is_some_and(|stop| text[length..].iter().any(|token| stop.ends_with(*token))) {
        return (Vec::new(), Finish::Stop);
    }
    let draws = (request.sampling.seed, request.first_sample + sample as u64);
    let ending = [&request.eos[..], &request.stop].concat();
    for at in 0..request.max_new_tokens {
        let position = known + at;
        let meta = position / META_TOKENS * META_TOKENS;
        // RecGen reads the prompt, and the meta-context that it begins once that is drawn.
        let encoded = match request.protocol {
            Protocol::Hiergen | Protocol::Windowed | Protocol::Chunkgen => meta,
            Protocol::Recgen => length.next_multiple_of(META_TOKENS).min(meta),
        };
        let may_end = position - length >= request.min_new_tokens;
        let barred = if may_end { &[] } else { &ending[..] };
        let id = match request.forced.get(at) {
            Some(forced) => *forced,
            None => token(&text[..encoded], &text[meta..], position, draws, barred),
        };
        if may_end && request.eos.contains(&id) {
            return (text.split_off(known), Finish::Eos);
        }
        if may_end && request.stop.contains(&id) {
            return (text.split_off(known), Finish::Stop);
        }
        text.push(id);
        if stop.as_mut().is_some_and(|stop| stop.ends_with(id)) {
            return (text.split_off(known), Finish::Stop);
        }
    }
    (text.split_off(known), Finish::Length)
}

/// A request and what its caller does.
#[derive(Clone, Debug)]
pub struct Asked {
    pub request: Request,
    /// Cancels before the request is given, or at its burst of this number.
    pub cancel_at: Option<usize>,
    /// Turns of the scheduler before the request comes.
    pub turns: usize,
}

/// What was told of a sequence.
type Told = (usize, Sequence, Option<Finish>);

/// Callers: what they were told, and their cancelling.
pub struct Callers {
    cancels: Vec<(Cancel, Option<usize>)>,
    told: Mutex<Vec<Vec<Told>>>,
}

impl Callers {
    /// Those of requests that are numbered by place.
    pub fn of(all: &[Asked]) -> Self {
        let cancels = all.iter().map(|asked| (asked.request.cancel.clone(), asked.cancel_at)).collect();
        let callers = Callers { cancels, told: Mutex::new(vec![Vec::new(); all.len()]) };
        callers.cancel_at(0);
        callers
    }

    fn cancel_at(&self, burst: usize) {
        let at = self.cancels.iter().filter(|(_, at)| *at == Some(burst));
        at.for_each(|(cancel, _)| cancel.cancel());
    }

    pub fn tell(&self, burst: &Burst<'_>) {
        assert!(!burst.tokens.is_empty() || burst.finish.is_some(), "there is something to tell");
        let told = &mut self.told.lock().unwrap()[burst.prompt];
        let sequence = Sequence {
            prompt: burst.prompt,
            sample: burst.sample,
            tokens: burst.tokens.to_vec(),
            logprobs: burst.logprobs.to_vec(),
            finish: Finish::Cancelled,
            dropped_left: 0,
            wasted_tokens: 0,
            logits: Vec::new(),
        };
        told.push((burst.sample, sequence, burst.finish));
        let (cancel, at) = &self.cancels[burst.prompt];
        if *at == Some(told.len()) {
            cancel.cancel();
        }
    }

    fn check(&self, sequence: &Sequence) {
        let told = self.told.lock().unwrap();
        let of = told[sequence.prompt].iter().filter(|(sample, ..)| *sample == sequence.sample);
        let told: Vec<&Told> = of.collect();
        let tokens: Vec<i64> = told.iter().flat_map(|(_, part, _)| part.tokens.clone()).collect();
        assert_eq!(tokens, sequence.tokens);
        let logprobs: Vec<_> = told.iter().flat_map(|(_, part, _)| part.logprobs.clone()).collect();
        assert_eq!(logprobs, sequence.logprobs);
        assert_eq!(told.iter().filter(|(.., finish)| finish.is_some()).count(), 1);
        assert_eq!(told.last().and_then(|(.., finish)| *finish), Some(sequence.finish));
    }
}

/// The requests with samples that tell whose they are.
pub fn numbered(mut all: Vec<Asked>) -> Vec<Asked> {
    for (number, asked) in all.iter_mut().enumerate() {
        asked.request.first_sample = APART * number as u64;
        // Cases are tried more than once, and a switch stays where it was put.
        asked.request.cancel = Cancel::default();
    }
    all
}

/// Every request against running alone; what its caller was told against what it got; its waste against what was drawn.
pub fn check(all: &[Asked], finished: &[Finished], callers: &Callers, log: &Log) {
    assert_eq!(finished.len(), all.len(), "each request ends once");
    for (number, asked) in all.iter().enumerate() {
        let found: Vec<&Finished> = finished.iter().filter(|finished| finished.number == number).collect();
        assert_eq!(found.len(), 1, "request {number} ends once");
        let completion = found[0].result.as_ref().expect("a result");
        let request = &asked.request;
        assert_eq!(completion.sequences.len(), request.samples);
        let own = |sample: usize| -> Vec<(usize, Admitted)> {
            let key = APART * number as u64 + sample as u64;
            let place = |one: &Admitted| key.checked_sub(one.first_sample).map(|place| place as usize);
            let of = log.admitted.iter().filter_map(|one| Some((place(one)?, *one)));
            of.filter(|(place, one)| *place < one.samples).collect()
        };
        for (sample, sequence) in completion.sequences.iter().enumerate() {
            assert_eq!((sequence.prompt, sequence.sample), (number, sample));
            check_sequence(asked, sequence, &own(sample));
            callers.check(sequence);
        }
        check_completion(request, completion, !own(0).is_empty());
        check_states(request, completion, &own);
    }
}

fn check_sequence(asked: &Asked, sequence: &Sequence, own: &[(usize, Admitted)]) {
    let request = &asked.request;
    let number = sequence.prompt;
    let (tokens, finish) = alone(request, sequence.sample);
    match sequence.finish {
        Finish::Cancelled => {
            assert!(asked.cancel_at.is_some());
            assert!(tokens.starts_with(&sequence.tokens), "request {number}");
        }
        other => assert_eq!((&sequence.tokens, other), (&tokens, finish), "request {number}"),
    }
    let (text, _) = text(request);
    assert_eq!(sequence.dropped_left, request.prompt.len() - text.len());
    let drawn: usize = own.iter().map(|(_, one)| one.drawn).sum();
    let known = |one: &Admitted| text.len().saturating_sub(one.encoded).min(one.drawn);
    let known: usize = own.iter().map(|(_, one)| known(one)).sum();
    // An id that ended it is neither a token of it nor waste.
    let ids = [&request.eos[..], &request.stop].concat();
    let cut = sequence.finish == Finish::Eos
        || (sequence.finish == Finish::Stop && !ended_by_condition(request, &sequence.tokens));
    assert!(!cut || !ids.is_empty());
    let accounted = sequence.tokens.len() + usize::from(cut) + sequence.wasted_tokens;
    assert_eq!(accounted, drawn - known, "request {number}: every new token is handed out or waste");
    let positions = |one: &Admitted| one.encoded..one.encoded + one.drawn;
    let computed: Vec<f64> = own.iter().flat_map(|(_, one)| positions(one)).map(|at| at as f64).collect();
    assert_eq!(sequence.logits, if request.keep.logits { computed } else { Vec::new() });
    let logprobs = sequence.tokens.iter().enumerate();
    let logprobs: Vec<_> = logprobs.map(|(at, token)| logprobs_at(*token, text.len() + at)).collect();
    assert_eq!(sequence.logprobs, if request.logprobs.is_some() { logprobs } else { Vec::new() });
}

fn ended_by_condition(request: &Request, tokens: &[i64]) -> bool {
    let (text, length) = text(request);
    let Some(stop) = &request.stop_condition else { return false };
    let mut stop = stop.start();
    text[length..].iter().chain(tokens).any(|token| stop.ends_with(*token))
}

fn check_completion(request: &Request, completion: &Completion, admitted: bool) {
    let (text, length) = text(request);
    let on_host = request.sampling.min_p > 0.0;
    assert!(
        completion.host_sampled == on_host || !admitted,
        "a request that got a row says how it was drawn"
    );
    match (&completion.prompt_logprobs, request.prompt_logprobs) {
        (Some(found), Some(count)) => {
            assert!(found.iter().map(|one| one.token).eq(text[..length].iter().copied()));
            assert!(found.iter().all(|one| one.rank == 1 && one.top.len() == count));
        }
        (None, Some(_)) => assert!(!admitted, "a prompt that got a row was scored"),
        (found, None) => assert_eq!(*found, None),
    }
}

/// States are those of each sample's meta-contexts, counted behind the whole ones of the prompt.
fn check_states(request: &Request, completion: &Completion, own: &dyn Fn(usize) -> Vec<(usize, Admitted)>) {
    let (_, length) = text(request);
    let whole = length / META_TOKENS;
    let mut expected = Vec::new();
    for sample in 0..if request.keep.states { request.samples } else { 0 } {
        for (_, one) in own(sample) {
            let (first, count) = (one.encoded / META_TOKENS, one.drawn / META_TOKENS);
            expected.extend((first..first + count).map(|meta| (sample, meta - whole, meta * META_TOKENS)));
        }
    }
    let states = completion.states.iter();
    let mut found: Vec<_> =
        states.map(|state| (state.sample, state.meta, state.values[0] as usize)).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}
