//! The rows of a request and what became of them. Owns stop rules and the count of waste; refuses device work.

use super::prompt::Prompt;
use super::request::{Burst, Finish, Request, Sequence, Watch, Watcher};

/// Sequences of a request; those still growing make up the device's batch, in order.
#[derive(Debug)]
pub(super) struct Batch {
    sequences: Vec<Growing>,
    active: Vec<usize>,
}

/// A sequence and whether it has ended.
#[derive(Debug)]
pub(super) struct Growing {
    pub sequence: Sequence,
    pub done: bool,
    watcher: Option<Box<dyn Watcher>>,
}

/// What ends a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'r> {
    pub max_new_tokens: usize,
    pub stop: &'r [i64],
    pub eos: &'r [i64],
}

impl<'r> Ends<'r> {
    fn of(request: &'r Request) -> Self {
        Ends { max_new_tokens: request.max_new_tokens, stop: &request.stop, eos: &request.eos }
    }
}

impl Batch {
    pub(super) fn new(request: &Request, prompts: &[Prompt]) -> Self {
        let mut sequences = Vec::with_capacity(prompts.len() * request.samples);
        for (prompt, aligned) in prompts.iter().enumerate() {
            for sample in 0..request.samples {
                sequences.push(Growing::new(prompt, sample, aligned.dropped_left, request.watch.as_deref()));
            }
        }
        let active = (0..sequences.len()).collect();
        Batch { sequences, active }
    }

    pub(super) fn is_done(&self) -> bool {
        self.active.is_empty()
    }

    /// Prompt of each row on the device.
    pub(super) fn prompts(&self) -> Vec<usize> {
        self.active.iter().map(|row| self.sequences[*row].sequence.prompt).collect()
    }

    /// Number of the sample of each row on the device.
    pub(super) fn samples(&self) -> Vec<usize> {
        self.active.iter().map(|row| self.sequences[*row].sequence.sample).collect()
    }

    /// New tokens so far of each row on the device.
    pub(super) fn tokens(&self) -> impl Iterator<Item = &[i64]> {
        self.active.iter().map(|row| &self.sequences[*row].sequence.tokens[..])
    }

    /// Place of a device row among all sequences.
    pub(super) fn place(&self, row: usize) -> usize {
        self.active[row]
    }

    /// Hands out the ids `[rows, tokens]` drawn for the device's rows, and keeps their logits `[rows, tokens, V]` if
    /// given. Returns the device rows that go on.
    pub(super) fn deliver(
        &mut self,
        request: &Request,
        ids: &[i64],
        logits: Option<&[f64]>,
        on_burst: &mut dyn FnMut(&Burst<'_>),
    ) -> Vec<usize> {
        let rows = self.active.len();
        let per_row = ids.len() / rows.max(1);
        let mut going_on = Vec::with_capacity(rows);
        for (row, drawn) in ids.chunks_exact(per_row.max(1)).enumerate().take(rows) {
            let growing = &mut self.sequences[self.active[row]];
            if let Some(logits) = logits {
                let each = logits.len() / rows;
                growing.sequence.logits.extend_from_slice(&logits[row * each..(row + 1) * each]);
            }
            let before = growing.sequence.tokens.len();
            growing.accept(&Ends::of(request), drawn);
            on_burst(&growing.burst(before));
            if !growing.done {
                going_on.push(row);
            }
        }
        self.active = going_on.iter().map(|row| self.active[*row]).collect();
        going_on
    }

    /// The sequences that still grow, as places among all.
    pub(super) fn growing(&self) -> Vec<usize> {
        self.active.clone()
    }

    /// Hands out the ids drawn for one sequence, by its place among all. What comes after its end is waste.
    pub(super) fn deliver_one(
        &mut self,
        request: &Request,
        place: usize,
        drawn: &[i64],
        on_burst: &mut dyn FnMut(&Burst<'_>),
    ) {
        let growing = &mut self.sequences[place];
        let (before, was_done) = (growing.sequence.tokens.len(), growing.done);
        growing.accept(&Ends::of(request), drawn);
        if was_done {
            return;
        }
        on_burst(&growing.burst(before));
        if growing.done {
            self.active.retain(|active| *active != place);
        }
    }

    pub(super) fn finish(self) -> Vec<Sequence> {
        self.sequences.into_iter().map(|growing| growing.sequence).collect()
    }
}

impl Growing {
    /// A sequence without tokens.
    pub(super) fn new(prompt: usize, sample: usize, dropped_left: usize, watch: Option<&dyn Watch>) -> Self {
        let sequence = Sequence {
            prompt,
            sample,
            tokens: Vec::new(),
            // What a sequence cut off by the caller keeps.
            finish: Finish::Cancelled,
            dropped_left,
            wasted_tokens: 0,
            logits: Vec::new(),
        };
        Growing { sequence, done: false, watcher: watch.map(Watch::watcher) }
    }

    /// The tokens from `before` on, as its caller is told of them.
    pub(super) fn burst(&self, before: usize) -> Burst<'_> {
        Burst {
            prompt: self.sequence.prompt,
            sample: self.sequence.sample,
            tokens: &self.sequence.tokens[before..],
            finish: self.done.then_some(self.sequence.finish),
        }
    }

    /// Takes drawn ids up to the end of the sequence; what comes after it is waste.
    pub(super) fn accept(&mut self, ends: &Ends<'_>, drawn: &[i64]) {
        let sequence = &mut self.sequence;
        for id in drawn {
            if self.done {
                sequence.wasted_tokens += 1;
                continue;
            }
            let end = if ends.eos.contains(id) {
                Some(Finish::Eos)
            } else if ends.stop.contains(id) {
                Some(Finish::Stop)
            } else {
                sequence.tokens.push(*id);
                let watched = self.watcher.as_mut().is_some_and(|watcher| watcher.ends_with(*id));
                let length = (sequence.tokens.len() == ends.max_new_tokens).then_some(Finish::Length);
                if watched { Some(Finish::Stop) } else { length }
            };
            if let Some(end) = end {
                sequence.finish = end;
                self.done = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Batch;
    use crate::passes::choose_protocol::Protocol;
    use crate::runtime::prompt::Prompt;
    use crate::runtime::request::{Finish, Request};

    // Three rows: one stops, one ends, one runs to its length; the rest of each burst is waste.
    #[test]
    fn each_row_ends_by_its_own_rule_and_counts_its_waste() {
        let prompt = Prompt { tokens: vec![1, 2], dropped_left: 1 };
        let request = Request {
            stop: vec![7, 8],
            eos: vec![9],
            ..Request::greedy(Protocol::Recgen, vec![vec![0; 3]; 3], 5)
        };
        let mut batch = Batch::new(&request, &[prompt.clone(), prompt.clone(), prompt]);
        let mut bursts = Vec::new();
        let mut on_burst = |burst: &super::Burst<'_>| bursts.push((burst.prompt, burst.tokens.to_vec()));
        let ids = [1, 8, 3, 4, 9, 2, 3, 4, 1, 2, 3, 4];
        let rest = batch.deliver(&request, &ids, None, &mut on_burst);
        assert_eq!(rest, [2]);
        assert_eq!(batch.prompts(), [2]);
        let rest = batch.deliver(&request, &[5, 6, 6, 6], None, &mut on_burst);
        assert!(rest.is_empty() && batch.is_done());
        let found: Vec<_> = batch
            .finish()
            .into_iter()
            .map(|s| (s.tokens, s.finish, s.wasted_tokens, s.dropped_left))
            .collect();
        let expected = [
            (vec![1], Finish::Stop, 2, 1),
            (vec![], Finish::Eos, 3, 1),
            (vec![1, 2, 3, 4, 5], Finish::Length, 3, 1),
        ];
        assert_eq!(found, expected);
        assert_eq!(bursts.last(), Some(&(2, vec![5])));
    }
}
