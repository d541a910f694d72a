//! Continuous batching over a decoder: requests wait, get rows as soon as they are free, and hear of their tokens burst by
//! burst. Owns which request has which row and when; knows no device. Every generation goes through here.
//!
//! Invariant: a row that was retired while bursts were in flight is not given away before the last of them is collected.
//! Invariant: of requests of one priority, those that came first are admitted first, and none is accepted that can never fit.

mod active;
mod fit;
mod queue;
mod rows;
mod sequence;

use super::decoder::{Admission, Decoder, DecoderSetup, PrefillTotals};
use super::error::RuntimeError;
use super::logprobs::TokenLogprobs;
use super::request::{Finish, Request};
use active::{Active, Part};
pub use active::{Completion, Finished, Sink};
pub use fit::{Limits, Refusal};
pub use queue::{DecoderKind, Done, Open, Queue, QueueLimits, ServeError, Ticket, Told, Work, serve};
use rows::Rows;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// What a scheduler has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bursts collected.
    pub bursts: usize,
    /// Prompts that got a row: one a request, and more where the samples of a request part.
    pub admitted: usize,
    /// Tokens of the prompts' whole meta-contexts.
    pub prefill: PrefillTotals,
    /// Tokens handed out.
    pub tokens: usize,
    /// Tokens computed past the end of a sequence and thrown away.
    pub wasted_tokens: usize,
    /// Rows that took part in bursts, one count per burst.
    pub busy_rows: usize,
}

impl std::ops::Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        Totals {
            bursts: self.bursts + other.bursts,
            admitted: self.admitted + other.admitted,
            prefill: self.prefill + other.prefill,
            tokens: self.tokens + other.tokens,
            wasted_tokens: self.wasted_tokens + other.wasted_tokens,
            busy_rows: self.busy_rows + other.busy_rows,
        }
    }
}

/// Requests on the rows of a decoder.
pub struct Scheduler<'d, 'r> {
    decoder: &'d mut dyn Decoder,
    limits: Limits,
    /// Tokens of prompts that one turn encodes; a longer prompt goes alone.
    prefill_tokens: usize,
    /// Requests that have not ended, by the order in which they came.
    active: BTreeMap<u64, Active<'r>>,
    came: u64,
    /// Parts that wait for a row: of higher priority first, then of requests that came first.
    waiting: VecDeque<Part>,
    rows: Rows,
    /// Rows that took part in each burst in flight, oldest first.
    in_flight: VecDeque<Vec<usize>>,
    started: usize,
    collected: usize,
    finished: Vec<Finished>,
    totals: Totals,
}

impl<'d, 'r> Scheduler<'d, 'r> {
    /// A scheduler on a decoder whose rows are all empty.
    pub fn new(decoder: &'d mut dyn Decoder, limits: Limits) -> Self {
        let rows = Rows::new(decoder.setup());
        Scheduler {
            decoder,
            limits,
            prefill_tokens: usize::MAX,
            active: BTreeMap::new(),
            came: 0,
            waiting: VecDeque::new(),
            rows,
            in_flight: VecDeque::new(),
            started: 0,
            collected: 0,
            finished: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Encodes no more tokens of prompts from one burst to the next, so that sequences that run go on between the prompts of
    /// others. A prompt that has more goes alone; one that is equal to another of its turn has none of its own.
    #[must_use]
    pub fn with_prefill_tokens(self, tokens: usize) -> Self {
        Scheduler { prefill_tokens: tokens, ..self }
    }

    /// Puts a request into the queue. `number` names it in bursts and results.
    ///
    /// # Errors
    /// Why it can never run here; nothing was queued.
    pub fn submit(&mut self, number: usize, request: Request, sink: Sink<'r>) -> Result<(), Refusal> {
        let setup = self.decoder.setup();
        let fit = self.limits.fit_in(number, &request, setup)?;
        let mut active = Active::new(number, request, fit, sink);
        active.choose(self.decoder.draws_on_host(&active.draws))?;
        let key = self.came;
        self.came += 1;
        active.tell_ended();
        for part in active.begin(key, setup, self.limits.meta_tokens) {
            self.wait(part);
        }
        self.active.insert(key, active);
        Ok(())
    }

    fn wait(&mut self, part: Part) {
        let before = |other: &Part| {
            (-i64::from(other.priority), other.key, other.samples.start)
                <= (-i64::from(part.priority), part.key, part.samples.start)
        };
        let at = self.waiting.partition_point(before);
        self.waiting.insert(at, part);
    }

    /// Prompts that wait for a row.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Rows that nobody has.
    #[must_use]
    pub fn free_rows(&self) -> usize {
        self.rows.free_rows()
    }

    /// Whether a request of so many samples could have a row now, beside what waits.
    #[must_use]
    pub fn has_room(&self, samples: usize) -> bool {
        let before: usize = self.waiting.iter().map(|part| part.samples.len()).sum();
        let wanted = before + samples.min(self.decoder.setup().sequences);
        self.waiting.len() < self.rows.free_rows()
            && self.rows.free_sequences().is_none_or(|free| wanted <= free)
    }

    /// Whether every request has ended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    /// What has been done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The requests that ended since the last call, in the order in which they ended.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// Fills free rows, starts what can be started and hands out the oldest burst. False once there is nothing left to do.
    ///
    /// # Errors
    /// The device failed; what was under way is lost.
    pub fn turn(&mut self) -> Result<bool, RuntimeError> {
        self.end_early();
        self.settle();
        self.admit()?;
        while self.in_flight.len() < self.decoder.depth() && self.rows.any_taken() {
            self.start()?;
        }
        if self.in_flight.is_empty() {
            return Ok(!self.waiting.is_empty());
        }
        self.collect()?;
        self.settle();
        Ok(true)
    }

    /// Ends every request with what it has.
    pub fn cancel(&mut self) {
        self.active.values_mut().for_each(|active| active.end(Finish::Cancelled));
    }

    /// The end of a request that never got a row.
    pub(super) fn ended(
        number: usize,
        request: Request,
        limits: Limits,
        finish: Finish,
        sink: &mut Sink<'_>,
    ) -> Finished {
        match limits.fit(number, &request) {
            Err(refusal) => Finished { number, result: Err(refusal.into()) },
            Ok(fit) => {
                let mut active = Active::new(number, request, fit, Box::new(|burst| sink(burst)));
                active.tell_ended();
                active.end(finish);
                active.finished()
            }
        }
    }

    /// Ends everything because the device failed.
    pub(super) fn fail(&mut self, message: &str) -> Vec<Finished> {
        self.waiting.clear();
        for active in std::mem::take(&mut self.active).into_values() {
            let result = Err(RuntimeError::Lost { message: message.to_owned() });
            self.finished.push(Finished { number: active.number, result });
        }
        self.take_finished()
    }

    /// Turns until every request has ended.
    ///
    /// # Errors
    /// As `turn`.
    pub fn run(&mut self) -> Result<Vec<Finished>, RuntimeError> {
        while self.turn()? {}
        Ok(self.take_finished())
    }

    /// Ends what was cancelled or is late.
    fn end_early(&mut self) {
        let mut now = None;
        for active in self.active.values_mut() {
            let late = |deadline: Instant| *now.get_or_insert_with(Instant::now) >= deadline;
            if active.request.cancel.is_cancelled() {
                active.end(Finish::Cancelled);
            } else if active.request.deadline.is_some_and(late) {
                active.end(Finish::Deadline);
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        for part in waiting {
            match self.active.get(&part.key) {
                Some(active) if !active.is_done(&part.samples) => self.waiting.push_back(part),
                _ => self.end_part(part, None),
            }
        }
        for row in 0..self.rows.len() {
            self.retire_if_done(row);
        }
    }

    /// Takes a row whose samples are done out of the bursts to come.
    fn retire_if_done(&mut self, row: usize) {
        let Some(part) = self.rows.taken(row) else { return };
        if self.active.get(&part.key).is_none_or(|active| active.is_done(&part.samples)) {
            self.retire(row);
        }
    }

    /// Takes a row out of the bursts to come. Its part ends when the bursts in flight are over.
    fn retire(&mut self, row: usize) {
        if self.rows.drain(row, self.started) {
            self.decoder.retire(row);
        }
    }

    /// Ends the parts whose last burst has been collected.
    fn settle(&mut self) {
        for (row, part) in self.rows.take_settled(self.collected) {
            self.end_part(part, Some(row));
        }
    }

    fn end_part(&mut self, part: Part, row: Option<usize>) {
        let key = part.key;
        let kept = row.map(|row| self.decoder.take_kept(row)).unwrap_or_default();
        let Some(active) = self.active.get_mut(&key) else { return };
        let next = active.end_part(part, kept);
        let over = active.parts == 0;
        for part in next {
            self.wait(part);
        }
        if over && let Some(active) = self.active.remove(&key) {
            let finished = active.finished();
            self.totals.wasted_tokens += finished.wasted_tokens();
            self.finished.push(finished);
        }
    }

    fn admit(&mut self) -> Result<(), RuntimeError> {
        let admitted = self.fill_rows();
        if admitted.is_empty() {
            return Ok(());
        }
        for row in &admitted {
            self.score_prompt(*row)?;
        }
        let admission = |row: &usize| {
            let part = self.rows.taken(*row)?;
            Some(part.admission(*row, self.active.get(&part.key)?))
        };
        let admissions: Vec<Admission<'_>> = admitted.iter().filter_map(admission).collect();
        self.decoder.admit(&admissions)?;
        self.totals.admitted += admissions.len();
        self.totals.prefill = self.decoder.prefilled();
        Ok(())
    }

    /// Gives free rows to the parts that wait, in order, as far as this turn may encode their prompts; which rows.
    fn fill_rows(&mut self) -> Vec<usize> {
        let (mut admitted, mut tokens) = (Vec::new(), 0usize);
        while let Some(next) = self.waiting.front() {
            let Some((row, sequences)) = self.rows.room(next.samples.len()) else { break };
            let taken = |row: &usize| self.rows.taken(*row).is_some_and(|part| part.encodes_as(next));
            if !admitted.iter().any(taken) {
                tokens = tokens.saturating_add(next.tokens_to_encode());
                if tokens > self.prefill_tokens && !admitted.is_empty() {
                    break;
                }
            }
            let Some(mut part) = self.waiting.pop_front() else { break };
            part.sequences = sequences;
            self.rows.take(row, part);
            admitted.push(row);
        }
        admitted
    }

    /// Log-probabilities of the prompt that got a row, if they are wanted and not there yet.
    fn score_prompt(&mut self, row: usize) -> Result<(), RuntimeError> {
        let Limits { meta_tokens, vocab_size, .. } = self.limits;
        let Some(part) = self.rows.taken(row) else { return Ok(()) };
        let Some(active) = self.active.get_mut(&part.key) else { return Ok(()) };
        let (Some(count), None) = (active.request.prompt_logprobs, &active.prompt_logprobs) else {
            return Ok(());
        };
        let prompt = &active.fit.prompt;
        let tokens = &prompt.tokens[..prompt.length];
        // Nothing reads to its right, so padding changes nothing before it.
        let mut padded = tokens.to_vec();
        padded.resize(tokens.len().next_multiple_of(meta_tokens), 0);
        let logits = if padded.is_empty() { Vec::new() } else { self.decoder.score(&padded)? };
        let places = tokens.iter().zip(logits.chunks_exact(vocab_size));
        let scored = places.map(|(token, logits)| TokenLogprobs::of(logits, *token, count));
        active.prompt_logprobs = Some(scored.collect());
        Ok(())
    }

    fn start(&mut self) -> Result<(), RuntimeError> {
        let meta_contexts = self.decoder.start()?;
        self.started += 1;
        let part = self.rows.all_taken();
        for row in &part {
            let Some(part) = self.rows.taken_mut(*row) else { continue };
            part.left = part.left.saturating_sub(meta_contexts);
            // The row's length is reached with this burst, whatever is drawn: it goes no further.
            if part.left == 0 || part.only_first {
                self.retire(*row);
            }
        }
        self.totals.busy_rows += part.len();
        self.in_flight.push_back(part);
        Ok(())
    }

    fn collect(&mut self) -> Result<(), RuntimeError> {
        let Some(taking_part) = self.in_flight.pop_front() else { return Ok(()) };
        let DecoderSetup { sequences, .. } = self.decoder.setup();
        let mut collected = self.decoder.collect()?;
        let each = collected.ids.len() / sequences;
        self.collected += 1;
        self.totals.bursts += 1;
        for row in &taking_part {
            let Some(part) = self.rows.held_mut(*row) else { continue };
            let Some(active) = self.active.get_mut(&part.key) else { continue };
            let tokens = active.deliver(part, &mut collected, each, self.limits.meta_tokens);
            self.totals.tokens += tokens;
        }
        for row in taking_part {
            self.retire_if_done(row);
        }
        Ok(())
    }
}
