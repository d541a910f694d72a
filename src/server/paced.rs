//! A decoder whose bursts are as long as the load asks for. Owns the rule: few requests get short bursts, which come soon;
//! many get long ones, which cost less. Tokens are the same.

use super::metrics::DecoderMetrics;
use crate::runtime::backend::BackendError;
use crate::runtime::decoder::{Admission, Collected, Decoder, DecoderSetup, Kept};
use crate::runtime::draws::Draws;
use crate::runtime::schedule::Queue;
use crate::runtime::timing::Timing;

/// A decoder under a queue.
pub struct Paced<'d, 'q> {
    decoder: &'d mut dyn Decoder,
    queue: &'q Queue<'static>,
    run_ahead: (usize, usize),
    metrics: DecoderMetrics,
}

impl<'d, 'q> Paced<'d, 'q> {
    /// The decoder of a queue, with bursts of so few and so many meta-contexts.
    pub fn new(
        decoder: &'d mut dyn Decoder,
        queue: &'q Queue<'static>,
        run_ahead: (usize, usize),
        metrics: DecoderMetrics,
    ) -> Self {
        Paced { decoder, queue, run_ahead, metrics }
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
        self.decoder.set_run_ahead(chosen(self.run_ahead, self.queue.load(), self.setup().rows));
        let started = self.decoder.start()?;
        self.metrics.burst(started);
        Ok(started)
    }

    fn pending(&self) -> usize {
        self.decoder.pending()
    }

    fn collect(&mut self) -> Result<Collected<'_>, BackendError> {
        let times = self.decoder.take_times();
        self.metrics.times(&times);
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
    use super::chosen;

    #[test]
    fn bursts_grow_with_the_load() {
        let at = |waiting, running| chosen((1, 9), (waiting, running), 5);
        assert_eq!([at(0, 0), at(0, 1), at(0, 2), at(0, 3), at(0, 5)], [1, 1, 3, 5, 9]);
        assert_eq!(at(1, 1), 9);
        assert_eq!([chosen((2, 4), (0, 1), 1), chosen((2, 4), (1, 1), 1)], [2, 4]);
    }
}
