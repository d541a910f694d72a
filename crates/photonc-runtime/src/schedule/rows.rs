//! Rows and sequences of a decoder, and who has them.

use super::active::Part;
use crate::decoder::DecoderSetup;

/// What becomes of a row.
#[derive(Debug)]
pub(super) enum Row {
    /// Nobody has it.
    Free,
    /// Its part takes part in every burst that is started.
    Taken(Part),
    /// Retired; bursts that it took part in may be in flight until burst number `until` is collected.
    Draining {
        /// Whose it was.
        part: Part,
        /// Bursts started before it was retired.
        until: usize,
    },
}

/// All of them.
#[derive(Debug)]
pub(super) struct Rows {
    rows: Vec<Row>,
    /// Whether each sequence is free; none where a sequence is its row's.
    sequences: Option<Vec<bool>>,
}

impl Rows {
    pub fn new(setup: DecoderSetup) -> Self {
        Rows {
            rows: (0..setup.rows).map(|_| Row::Free).collect(),
            sequences: setup.shares_rows().then(|| vec![true; setup.sequences]),
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn free_rows(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row, Row::Free)).count()
    }

    /// Free sequences; `None` where a sequence is its row's.
    pub fn free_sequences(&self) -> Option<usize> {
        self.sequences.as_ref().map(|free| free.iter().filter(|free| **free).count())
    }

    /// A free row and as many free sequences for it.
    pub fn room(&self, samples: usize) -> Option<(usize, Vec<usize>)> {
        let row = self.rows.iter().position(|row| matches!(row, Row::Free))?;
        let sequences: Vec<usize> = match &self.sequences {
            None => vec![row],
            Some(free) => {
                let places = free.iter().enumerate().filter(|(_, free)| **free);
                places.map(|(place, _)| place).take(samples).collect()
            }
        };
        (sequences.len() == samples).then_some((row, sequences))
    }

    /// Gives a free row to a part, with the sequences that it names.
    pub fn take(&mut self, row: usize, part: Part) {
        if let Some(free) = &mut self.sequences {
            part.sequences.iter().for_each(|sequence| free[*sequence] = false);
        }
        self.rows[row] = Row::Taken(part);
    }

    pub fn taken(&self, row: usize) -> Option<&Part> {
        match &self.rows[row] {
            Row::Taken(part) => Some(part),
            Row::Free | Row::Draining { .. } => None,
        }
    }

    pub fn taken_mut(&mut self, row: usize) -> Option<&mut Part> {
        match &mut self.rows[row] {
            Row::Taken(part) => Some(part),
            Row::Free | Row::Draining { .. } => None,
        }
    }

    /// The part that took part in bursts in flight, retired or not.
    pub fn held_mut(&mut self, row: usize) -> Option<&mut Part> {
        match &mut self.rows[row] {
            Row::Taken(part) | Row::Draining { part, .. } => Some(part),
            Row::Free => None,
        }
    }

    pub fn any_taken(&self) -> bool {
        self.rows.iter().any(|row| matches!(row, Row::Taken(_)))
    }

    pub fn all_taken(&self) -> Vec<usize> {
        (0..self.rows.len()).filter(|row| matches!(self.rows[*row], Row::Taken(_))).collect()
    }

    /// Takes a row out of the bursts after number `until`; whether it was in them.
    pub fn drain(&mut self, row: usize, until: usize) -> bool {
        match std::mem::replace(&mut self.rows[row], Row::Free) {
            Row::Taken(part) => {
                self.rows[row] = Row::Draining { part, until };
                true
            }
            other => {
                self.rows[row] = other;
                false
            }
        }
    }

    /// Frees the rows whose bursts, of which `collected` are, are over; whose they were.
    pub fn take_settled(&mut self, collected: usize) -> Vec<(usize, Part)> {
        let mut settled = Vec::new();
        for (number, row) in self.rows.iter_mut().enumerate() {
            if !matches!(row, Row::Draining { until, .. } if *until <= collected) {
                continue;
            }
            if let Row::Draining { part, .. } = std::mem::replace(row, Row::Free) {
                for sequence in &part.sequences {
                    if let Some(free) = &mut self.sequences {
                        free[*sequence] = true;
                    }
                }
                settled.push((number, part));
            }
        }
        settled
    }
}
