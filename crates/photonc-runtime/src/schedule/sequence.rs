//! A sequence that grows. Owns the rules that end it and the count of waste.

use crate::logprobs::TokenLogprobs;
use crate::request::{Burst, Finish, Request, Sequence, StopState};

/// A sequence and whether it has ended.
#[derive(Debug)]
pub(super) struct SequenceState {
    pub sequence: Sequence,
    pub done: bool,
    stop: Option<Box<dyn StopState>>,
}

/// What ends a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopRules<'r> {
    pub max_new_tokens: usize,
    pub stop: &'r [i64],
    pub eos: &'r [i64],
    /// New tokens, of this and earlier runs of the request, before which nothing ends it.
    pub min_new_tokens: usize,
    /// New tokens of earlier runs.
    pub given: usize,
}

impl SequenceState {
    /// A sequence without new tokens, behind `given` ones of earlier runs.
    pub fn new(number: usize, sample: usize, dropped_left: usize, request: &Request, given: &[i64]) -> Self {
        let sequence = Sequence {
            prompt: number,
            sample,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            // What a sequence cut off by the caller keeps.
            finish: Finish::Cancelled,
            dropped_left,
            wasted_tokens: 0,
            logits: Vec::new(),
        };
        let mut stop = request.stop_condition.as_ref().map(|stop| stop.start());
        let ended = stop.as_mut().is_some_and(|stop| given.iter().any(|token| stop.ends_with(*token)));
        let mut state = SequenceState { sequence, done: false, stop };
        if ended {
            state.end(Finish::Stop);
        }
        state
    }

    /// The tokens from `before` on, as its caller is told of them.
    pub fn burst(&self, before: usize) -> Burst<'_> {
        Burst {
            prompt: self.sequence.prompt,
            sample: self.sequence.sample,
            tokens: &self.sequence.tokens[before..],
            logprobs: self.sequence.logprobs.get(before..).unwrap_or(&[]),
            finish: self.done.then_some(self.sequence.finish),
        }
    }

    pub fn end(&mut self, finish: Finish) {
        self.sequence.finish = finish;
        self.done = true;
    }

    /// Takes drawn ids up to the end of the sequence; what comes after it is waste. `logprobs` are those of the ids or none.
    pub fn accept(&mut self, rules: &StopRules<'_>, drawn: &[i64], logprobs: &[TokenLogprobs]) {
        for (at, id) in drawn.iter().enumerate() {
            let sequence = &mut self.sequence;
            if self.done {
                sequence.wasted_tokens += 1;
                continue;
            }
            let may_end = sequence.tokens.len() + rules.given >= rules.min_new_tokens;
            if may_end && rules.eos.contains(id) {
                self.end(Finish::Eos);
            } else if may_end && rules.stop.contains(id) {
                self.end(Finish::Stop);
            } else {
                sequence.tokens.push(*id);
                sequence.logprobs.extend(logprobs.get(at).cloned());
                let length = sequence.tokens.len() == rules.max_new_tokens;
                let stopped = self.stop.as_mut().is_some_and(|stop| stop.ends_with(*id));
                if stopped {
                    self.end(Finish::Stop);
                } else if length {
                    self.end(Finish::Length);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SequenceState, StopRules};
    use crate::request::{Finish, Request};
    use photonc_compiler::passes::choose_protocol::Protocol;

    const RULES: StopRules<'_> =
        StopRules { max_new_tokens: 5, stop: &[7, 8], eos: &[9], min_new_tokens: 0, given: 0 };

    fn accepted(rules: &StopRules<'_>, bursts: &[&[i64]]) -> (Vec<i64>, Finish, usize) {
        let request = Request::greedy(Protocol::Recgen, vec![], 5);
        let mut state = SequenceState::new(0, 0, 0, &request, &[]);
        bursts.iter().for_each(|burst| state.accept(rules, burst, &[]));
        (state.sequence.tokens, state.sequence.finish, state.sequence.wasted_tokens)
    }

    // One stops, one ends, one runs to its length; the rest of each burst is waste.
    #[test]
    fn each_sequence_ends_by_its_own_rule_and_counts_its_waste() {
        assert_eq!(accepted(&RULES, &[&[1, 8, 3, 4]]), (vec![1], Finish::Stop, 2));
        assert_eq!(accepted(&RULES, &[&[9, 2, 3, 4]]), (vec![], Finish::Eos, 3));
        let whole = accepted(&RULES, &[&[1, 2, 3, 4], &[5, 6, 6, 6]]);
        assert_eq!(whole, (vec![1, 2, 3, 4, 5], Finish::Length, 3));
        assert_eq!(accepted(&RULES, &[&[1, 2]]), (vec![1, 2], Finish::Cancelled, 0));
    }

    #[test]
    fn nothing_ends_a_sequence_before_its_least_length() {
        let rules = StopRules { min_new_tokens: 3, given: 1, ..RULES };
        assert_eq!(accepted(&rules, &[&[9, 7, 9, 1]]), (vec![9, 7], Finish::Eos, 1));
    }
}
