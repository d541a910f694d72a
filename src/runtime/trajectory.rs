//! A stored coarse trajectory. Owns what is needed to expand any of its meta-contexts again: for each run-ahead the
//! reconstructions and the carries that entered it.

use super::backend::{Backend, Buffer};
use super::error::RuntimeError;
use super::session::{Session, State};
use std::collections::BTreeMap;

/// What the coarse graph yielded for a request, on the device.
#[derive(Debug, Default)]
pub struct Trajectory {
    segments: Vec<Segment>,
}

/// One run-ahead.
#[derive(Debug)]
pub(super) struct Segment {
    /// First meta-context, from 0 after the prompt.
    pub first: usize,
    /// Number of meta-contexts.
    pub count: usize,
    /// Prompt of each row.
    pub prompts: Vec<usize>,
    /// `[rows, C_L * count, W_L]`.
    pub reconstruction: Buffer,
    /// Carries that enter the first meta-context, by name.
    pub carries: BTreeMap<String, Buffer>,
}

/// The part of a trajectory that expanding one meta-context takes.
pub(super) struct Part {
    /// First meta-context of the part.
    pub first: usize,
    /// Number of meta-contexts; the wanted one is the last.
    pub count: usize,
    pub reconstruction: Buffer,
    pub state: State,
}

impl Trajectory {
    /// Meta-contexts stored for the longest row.
    #[must_use]
    pub fn meta_contexts(&self) -> usize {
        self.segments.last().map_or(0, |segment| segment.first + segment.count)
    }

    /// Stores a run-ahead; `carries` have one row per row of `reconstruction`.
    pub(super) fn push(
        &mut self,
        session: &mut Session<'_>,
        segment: (usize, usize, &[usize]),
        reconstruction: &Buffer,
        state: &State,
        rows: &[usize],
    ) -> Result<(), RuntimeError> {
        let (first, count, prompts) = segment;
        let all: Vec<usize> = (0..prompts.len()).collect();
        let mut carries = BTreeMap::new();
        for (name, buffer) in &state.buffers {
            carries.insert(name.clone(), session.backend.gather(buffer, rows)?);
        }
        let reconstruction = session.backend.gather(reconstruction, &all)?;
        self.segments.push(Segment { first, count, prompts: prompts.to_vec(), reconstruction, carries });
        Ok(())
    }

    /// What expanding meta-context `meta` of `prompt` takes: its run-ahead from the start, since carries inside a
    /// run-ahead are not stored.
    pub(super) fn part(
        &self,
        backend: &mut dyn Backend,
        prompt: usize,
        meta: usize,
    ) -> Result<Part, RuntimeError> {
        let holds = |segment: &&Segment| (segment.first..segment.first + segment.count).contains(&meta);
        let found = self.segments.iter().find(holds).and_then(|segment| {
            let row = segment.prompts.iter().position(|stored| *stored == prompt)?;
            Some((segment, row))
        });
        let Some((segment, row)) = found else { return Err(RuntimeError::NotInTrajectory { prompt, meta }) };
        let count = meta + 1 - segment.first;
        let units = segment.reconstruction.shape().get(1).copied().unwrap_or(0) / segment.count;
        let whole = backend.gather(&segment.reconstruction, &[row])?;
        let reconstruction = backend.slice(&whole, 1, 0, units * count)?;
        let mut state = State { lengths: vec![0], ..State::default() };
        for (name, buffer) in &segment.carries {
            state.buffers.insert(name.clone(), backend.gather(buffer, &[row])?);
        }
        Ok(Part { first: segment.first, count, reconstruction, state })
    }
}
