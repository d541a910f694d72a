//! A decoder whose bursts are as long as the load asks for. Owns the rule: few requests get short bursts, which come soon;
//! many get long ones, which cost less, but none that is a large part of what requests ask for. Tokens are the same.

use super::backend::BackendError;
use super::decoder::{Admission, Collected, Decoder, DecoderSetup, Kept, PrefillTotals};
use super::draws::Draws;
use super::schedule::Queue;
use super::timing::Timing;
use super::workers::Observer;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bursts that a request is to have at least. Rows are given away between bursts only, so one that ends waits for the next: of
/// requests of two bursts a third of the rows would wait.
const BURSTS_OF_A_REQUEST: usize = 8;

/// Parts of a meta-context in which the mean of requests is kept.
const PARTS: usize = 16;

/// How long bursts are, in meta-contexts.
#[derive(Debug)]
pub(super) struct Pace {
    /// Fewest and most.
    pub run_ahead: (usize, usize),
    /// So many whatever the load; 0 leaves it to the load.
    pub held: AtomicUsize,
    /// What the last requests asked for, in [`PARTS`] of a meta-context; 0 before the first.
    asked: AtomicUsize,
}

/// A decoder under a queue.
pub(super) struct Paced<'d, 'q> {
    pub decoder: &'d mut dyn Decoder,
    pub queue: &'q Queue<'static>,
    pub pace: &'q Pace,
    pub observer: &'q dyn Observer,
}

impl Pace {
    /// Bursts of so few and so many.
    pub fn new(run_ahead: (usize, usize)) -> Self {
        Pace { run_ahead, held: AtomicUsize::new(0), asked: AtomicUsize::new(0) }
    }

    /// Meta-contexts of the next burst of a decoder with so many rows.
    fn chosen(&self, load: (usize, usize), rows: usize) -> usize {
        let (least, most) = self.run_ahead;
        match (self.held.load(Ordering::Relaxed), self.asked.load(Ordering::Relaxed)) {
            (0, 0) => chosen((least, most), load, rows),
            (0, asked) => {
                let share = asked.div_ceil(PARTS * BURSTS_OF_A_REQUEST);
                chosen((least, share.clamp(least, most)), load, rows)
            }
            (held, _) => held.min(most),
        }
    }

    /// A request of so many meta-contexts has a row: the mean of the last ones, of which each counts an eighth.
    fn admitted(&self, meta_contexts: usize) {
        let new = meta_contexts.saturating_mul(PARTS);
        let mean = |before: usize| if before == 0 { new } else { before - before / 8 + new / 8 };
        // Replicas may come between: a mean that lacks one of many requests is as good.
        self.asked.store(mean(self.asked.load(Ordering::Relaxed)).max(1), Ordering::Relaxed);
    }
}

/// Meta-contexts of a burst: the fewest for one request, the most where all of `rows` are taken or somebody waits, evenly
/// between.
fn chosen((least, most): (usize, usize), (waiting, running): (usize, usize), rows: usize) -> usize {
    if waiting > 0 || rows < 2 {
        return if waiting > 0 { most } else { least };
    }
    least + (most - least) * running.saturating_sub(1).min(rows - 1) / (rows - 1)
}

impl Decoder for Paced<'_, '_> {
    fn setup(&self) -> DecoderSetup {
        self.decoder.setup()
    }

    fn depth(&self) -> usize {
        self.decoder.depth()
    }

    fn draws_on_host(&self, draws: &Draws) -> Result<bool, BackendError> {
        self.decoder.draws_on_host(draws)
    }

    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        for admission in admissions.iter().filter(|admission| !admission.only_first) {
            self.pace.admitted(admission.meta_contexts);
        }
        self.decoder.admit(admissions)
    }

    fn prefilled(&self) -> PrefillTotals {
        self.decoder.prefilled()
    }

    fn retire(&mut self, row: usize) {
        self.decoder.retire(row);
    }

    fn start(&mut self) -> Result<usize, BackendError> {
        self.decoder.set_run_ahead(self.pace.chosen(self.queue.load(), self.setup().rows));
        let started = self.decoder.start()?;
        self.observer.burst(started);
        Ok(started)
    }

    fn pending(&self) -> usize {
        self.decoder.pending()
    }

    fn collect(&mut self) -> Result<Collected<'_>, BackendError> {
        let times = self.decoder.take_times();
        self.observer.times(&times);
        self.decoder.collect()
    }

    fn take_kept(&mut self, row: usize) -> Kept {
        self.decoder.take_kept(row)
    }

    fn score(&mut self, tokens: &[i64]) -> Result<Vec<f64>, BackendError> {
        self.decoder.score(tokens)
    }

    fn measure(&mut self) {
        self.decoder.measure();
    }

    fn take_times(&mut self) -> Timing {
        self.decoder.take_times()
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, chosen};
    use std::sync::atomic::Ordering;

    #[test]
    fn bursts_grow_with_the_load() {
        let at = |waiting, running| chosen((1, 9), (waiting, running), 5);
        assert_eq!([at(0, 0), at(0, 1), at(0, 2), at(0, 3), at(0, 5)], [1, 1, 3, 5, 9]);
        assert_eq!(at(1, 1), 9);
        assert_eq!([chosen((2, 4), (0, 1), 1), chosen((2, 4), (1, 1), 1)], [2, 4]);
    }

    #[test]
    fn a_held_length_is_kept_under_any_load_and_bounded() {
        let pace = |held: usize| {
            let pace = Pace::new((1, 8));
            pace.held.store(held, Ordering::Relaxed);
            pace
        };
        assert_eq!(
            [pace(3).chosen((0, 1), 4), pace(3).chosen((9, 4), 4), pace(99).chosen((0, 1), 4)],
            [3, 3, 8]
        );
        assert_eq!(pace(0).chosen((9, 4), 4), 8);
    }

    /// Requests of few meta-contexts get short bursts however many wait; long ones get the most again.
    #[test]
    fn bursts_are_a_small_part_of_requests() {
        let pace = Pace::new((1, 8));
        let after = |requests: &[usize]| {
            requests.iter().for_each(|meta_contexts| pace.admitted(*meta_contexts));
            pace.chosen((9, 4), 4)
        };
        assert_eq!([after(&[]), after(&[4]), after(&[16; 40]), after(&[1000; 40])], [8, 1, 2, 8]);
        assert_eq!(Pace::new((3, 8)).chosen((0, 1), 4), 3);
    }
}
