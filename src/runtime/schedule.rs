//! Continuous batching over a decoder: a queue of requests, rows that take the next one as soon as they are free, bursts
//! in flight while earlier ones are handed out. Owns which request has which row and when; knows no device.
//!
//! Invariant: a row that was retired while bursts were in flight is not given away before the last of them is collected.
//! Invariant: requests are admitted in the order in which they came, and none is accepted that can never fit.

mod job;
mod queue;
mod row;

use super::decoder::{Admission, Decoder, DecoderSetup};
use super::error::RuntimeError;
use super::request::{Cancel, Finish};
pub use job::{Finished, Job, Limits, Refusal};
pub use queue::{Open, ServeError, Served, Work, serve};
use row::{Row, Running};
use std::collections::VecDeque;

/// Bursts that are started before the oldest is collected.
const IN_FLIGHT: usize = 2;

/// What a scheduler has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bursts collected.
    pub bursts: usize,
    /// Requests that got a row.
    pub admitted: usize,
    /// Tokens handed out.
    pub tokens: usize,
    /// Tokens computed past the end of a sequence and thrown away.
    pub wasted_tokens: usize,
    /// Rows that took part in bursts, one count per burst.
    pub busy_rows: usize,
}

/// Requests on the rows of a decoder.
pub struct Scheduler<'d, 'j> {
    decoder: &'d mut dyn Decoder,
    limits: Limits,
    waiting: VecDeque<Running<'j>>,
    rows: Vec<Row<'j>>,
    /// Rows that took part in each burst in flight, oldest first.
    in_flight: VecDeque<Vec<usize>>,
    started: usize,
    collected: usize,
    finished: Vec<Finished>,
    totals: Totals,
}

impl<'d, 'j> Scheduler<'d, 'j> {
    /// A scheduler on a decoder whose rows are all empty.
    pub fn new(decoder: &'d mut dyn Decoder, limits: Limits) -> Self {
        let rows = (0..decoder.setup().rows).map(|_| Row::Free).collect();
        Scheduler {
            decoder,
            limits,
            waiting: VecDeque::new(),
            rows,
            in_flight: VecDeque::new(),
            started: 0,
            collected: 0,
            finished: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Puts a request at the end of the queue. `number` names it in bursts and results.
    ///
    /// # Errors
    /// Why it can never run here; nothing was queued.
    pub fn submit(&mut self, number: usize, job: Job<'j>) -> Result<(), Refusal> {
        let running = Running::new(number, job, self.limits, self.decoder.setup())?;
        self.waiting.push_back(running);
        Ok(())
    }

    /// Requests that wait for a row.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Rows that a request could have now.
    #[must_use]
    pub fn free_rows(&self) -> usize {
        self.rows.iter().filter(|row| row.is_free()).count()
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
        self.drop_cancelled();
        self.settle();
        self.admit()?;
        while self.in_flight.len() < IN_FLIGHT && self.rows.iter().any(Row::is_taken) {
            self.start()?;
        }
        if self.in_flight.is_empty() {
            return Ok(!self.waiting.is_empty());
        }
        self.collect()?;
        self.settle();
        Ok(true)
    }

    /// Turns until every request has ended.
    ///
    /// # Errors
    /// As `turn`.
    pub fn run(&mut self) -> Result<Vec<Finished>, RuntimeError> {
        while self.turn()? {}
        Ok(self.take_finished())
    }

    fn drop_cancelled(&mut self) {
        let cancelled = |cancel: &Cancel| cancel.is_cancelled();
        let waiting = std::mem::take(&mut self.waiting);
        for mut running in waiting {
            if cancelled(&running.job.cancel) {
                running.end(Finish::Cancelled);
                self.finished.push(running.finished());
            } else {
                self.waiting.push_back(running);
            }
        }
        for row in 0..self.rows.len() {
            let Row::Taken(running) = &mut self.rows[row] else { continue };
            if cancelled(&running.job.cancel) {
                running.end(Finish::Cancelled);
                self.retire(row);
            }
        }
    }

    /// Takes a row out of the bursts to come. Its request ends when the bursts in flight are over.
    fn retire(&mut self, row: usize) {
        self.rows[row] = match std::mem::replace(&mut self.rows[row], Row::Free) {
            Row::Taken(running) => {
                self.decoder.retire(row);
                Row::Draining { running, until: self.started }
            }
            other => other,
        };
    }

    /// Ends the requests whose last burst has been collected.
    fn settle(&mut self) {
        for row in &mut self.rows {
            if !matches!(row, Row::Draining { until, .. } if *until <= self.collected) {
                continue;
            }
            if let Row::Draining { running, .. } = std::mem::replace(row, Row::Free) {
                let finished = running.finished();
                self.totals.wasted_tokens += finished.wasted_tokens();
                self.finished.push(finished);
            }
        }
    }

    fn admit(&mut self) -> Result<(), RuntimeError> {
        let mut admitted = Vec::new();
        for (row, place) in self.rows.iter_mut().enumerate() {
            if !place.is_free() {
                continue;
            }
            let Some(running) = self.waiting.pop_front() else { break };
            *place = Row::Taken(running);
            admitted.push(row);
        }
        if admitted.is_empty() {
            return Ok(());
        }
        let admissions: Vec<Admission<'_>> = admitted
            .iter()
            .filter_map(|row| match &self.rows[*row] {
                Row::Taken(running) => Some(running.admission(*row)),
                Row::Free | Row::Draining { .. } => None,
            })
            .collect();
        self.decoder.admit(&admissions)?;
        self.totals.admitted += admissions.len();
        Ok(())
    }

    fn start(&mut self) -> Result<(), RuntimeError> {
        self.decoder.start()?;
        self.started += 1;
        let mut part = Vec::new();
        for row in 0..self.rows.len() {
            let Row::Taken(running) = &mut self.rows[row] else { continue };
            part.push(row);
            running.bursts_left -= 1;
            // The row's length is reached with this burst, whatever is drawn: it goes no further.
            if running.bursts_left == 0 {
                self.retire(row);
            }
        }
        self.totals.busy_rows += part.len();
        self.in_flight.push_back(part);
        Ok(())
    }

    fn collect(&mut self) -> Result<(), RuntimeError> {
        let Some(part) = self.in_flight.pop_front() else { return Ok(()) };
        let DecoderSetup { rows, .. } = self.decoder.setup();
        let ids = self.decoder.collect()?;
        let per_row = ids.len() / rows.max(1);
        self.collected += 1;
        self.totals.bursts += 1;
        let mut over = Vec::new();
        for row in part {
            let (Row::Taken(running) | Row::Draining { running, .. }) = &mut self.rows[row] else { continue };
            self.totals.tokens += running.deliver(&ids[row * per_row..(row + 1) * per_row]);
            if running.is_done() {
                over.push(row);
            }
        }
        for row in over {
            self.retire(row);
        }
        Ok(())
    }
}
