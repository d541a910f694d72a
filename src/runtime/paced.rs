//! A decoder whose bursts are as long as the load asks for. Owns the rule: few requests get short bursts, which come soon;
//! many get long ones, which cost less. Tokens are the same.

use super::backend::BackendError;
use super::decoder::{Admission, Collected, Decoder, DecoderSetup, Kept};
use super::draws::Draws;
use super::schedule::Queue;
use super::timing::Timing;
use super::workers::Observer;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How long bursts are, in meta-contexts.
#[derive(Debug)]
pub(super) struct Pace {
    /// Fewest and most.
    pub run_ahead: (usize, usize),
    /// So many whatever the load; 0 leaves it to the load.
    pub held: AtomicUsize,
}

/// A decoder under a queue.
pub(super) struct Paced<'d, 'q> {
    pub decoder: &'d mut dyn Decoder,
    pub queue: &'q Queue<'static>,
    pub pace: &'q Pace,
    pub observer: &'q dyn Observer,
}

impl Pace {
    /// Meta-contexts of the next burst of a decoder with so many rows.
    fn chosen(&self, load: (usize, usize), rows: usize) -> usize {
        match self.held.load(Ordering::Relaxed) {
            0 => chosen(self.run_ahead, load, rows),
            held => held.min(self.run_ahead.1),
        }
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
        self.decoder.admit(admissions)
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

    #[test]
    fn bursts_grow_with_the_load() {
        let at = |waiting, running| chosen((1, 9), (waiting, running), 5);
        assert_eq!([at(0, 0), at(0, 1), at(0, 2), at(0, 3), at(0, 5)], [1, 1, 3, 5, 9]);
        assert_eq!(at(1, 1), 9);
        assert_eq!([chosen((2, 4), (0, 1), 1), chosen((2, 4), (1, 1), 1)], [2, 4]);
    }

    #[test]
    fn a_held_length_is_kept_under_any_load_and_bounded() {
        let pace = |held: usize| Pace { run_ahead: (1, 8), held: held.into() };
        assert_eq!(
            [pace(3).chosen((0, 1), 4), pace(3).chosen((9, 4), 4), pace(99).chosen((0, 1), 4)],
            [3, 3, 8]
        );
        assert_eq!(pace(0).chosen((9, 4), 4), 8);
    }
}
