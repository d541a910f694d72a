//! A stored coarse trajectory of one prompt. Owns what is needed to expand any of its meta-contexts again: for each run-ahead
//! the reconstructions and the carries that entered it.

use super::backend::{Backend, Buffer};
use super::error::RuntimeError;
use super::session::{Session, State};
use std::collections::BTreeMap;

/// What the coarse graph yielded for a prompt, on the device.
#[derive(Debug)]
pub struct Trajectory {
    /// Tokens encoded before its first meta-context.
    pub(super) encoded: usize,
    /// Name of the value that the coarse graph hands over.
    pub(super) cut: String,
    segments: Vec<Segment>,
}

/// One run-ahead.
#[derive(Debug)]
struct Segment {
    /// First meta-context, from 0 after the encoded tokens.
    first: usize,
    /// Number of meta-contexts.
    count: usize,
    /// `[1, C_L * count, W_L]`.
    reconstruction: Buffer,
    /// Carries that enter the first meta-context, by name.
    carries: BTreeMap<String, Buffer>,
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
    /// One without meta-contexts, behind so many encoded tokens, of the value called `cut`.
    pub(super) fn new(encoded: usize, cut: &str) -> Self {
        Trajectory { encoded, cut: cut.to_owned(), segments: Vec::new() }
    }

    /// Tokens that stand before its first meta-context.
    #[must_use]
    pub fn encoded_tokens(&self) -> usize {
        self.encoded
    }

    /// Meta-contexts stored.
    #[must_use]
    pub fn meta_contexts(&self) -> usize {
        self.segments.last().map_or(0, |segment| segment.first + segment.count)
    }

    /// Stores the first `own` meta-contexts of a run-ahead of `count`: one row of a reconstruction, one of the state that
    /// expands it.
    pub(super) fn push(
        &mut self,
        session: &mut Session<'_>,
        [count, own]: [usize; 2],
        (reconstruction, row): (&Buffer, usize),
        (state, of): (&State, usize),
    ) -> Result<(), RuntimeError> {
        if own == 0 {
            return Ok(());
        }
        let mut carries = BTreeMap::new();
        for (name, buffer) in &state.buffers {
            carries.insert(name.clone(), session.backend.gather(buffer, &[of])?);
        }
        let mut reconstruction = session.backend.gather(reconstruction, &[row])?;
        if own < count {
            let units = reconstruction.shape()[1] / count;
            reconstruction = session.backend.slice(&reconstruction, 1, 0, units * own)?;
        }
        self.segments.push(Segment { first: self.meta_contexts(), count: own, reconstruction, carries });
        Ok(())
    }

    /// What expanding meta-context `meta` takes: its run-ahead from the start, since carries inside a run-ahead are not
    /// stored.
    pub(super) fn part(&self, backend: &mut dyn Backend, meta: usize) -> Result<Part, RuntimeError> {
        let holds = |segment: &&Segment| (segment.first..segment.first + segment.count).contains(&meta);
        let Some(segment) = self.segments.iter().find(holds) else {
            return Err(RuntimeError::NotInTrajectory { meta, meta_contexts: self.meta_contexts() });
        };
        let count = meta + 1 - segment.first;
        let units = segment.reconstruction.shape()[1] / segment.count;
        let reconstruction = backend.slice(&segment.reconstruction, 1, 0, units * count)?;
        let mut state = State { lengths: vec![0], ..State::default() };
        for (name, buffer) in &segment.carries {
            state.buffers.insert(name.clone(), backend.gather(buffer, &[0])?);
        }
        Ok(Part { first: segment.first, count, reconstruction, state })
    }
}
