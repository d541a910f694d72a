//! States of a generation noted for people. Owns which rows want them, and how a batch's values are shared out.

use crate::decoder::Kept;
use crate::error::RuntimeError;
use crate::request::StateRecord;
use crate::session::{Session, State};
use std::collections::BTreeMap;

/// Whose state a row of a batch is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub row: usize,
    pub number: usize,
    /// Meta-contexts to note.
    pub wanted: usize,
}

pub(super) fn keeps_states(kept: &BTreeMap<usize, Kept>, row: usize) -> bool {
    kept.get(&row).is_some_and(|kept| kept.states.is_some())
}

/// Notes the states, caches left out, that condition meta-context `metas[i]` of each row.
pub(super) fn note_state(
    session: &mut Session<'_>,
    state: &State,
    labels: &[Label],
    metas: &[usize],
    kept: &mut BTreeMap<usize, Kept>,
) -> Result<(), RuntimeError> {
    if !labels.iter().any(|label| keeps_states(kept, label.row)) {
        return Ok(());
    }
    for (name, buffer) in state.buffers.iter().filter(|(name, _)| !state.caches.contains_key(*name)) {
        let values = session.download_floats(buffer)?;
        note(name, &values, labels, metas, kept);
    }
    Ok(())
}

/// Notes `values`, one part for each label.
pub(super) fn note(
    name: &str,
    values: &[f64],
    labels: &[Label],
    metas: &[usize],
    kept: &mut BTreeMap<usize, Kept>,
) {
    let parts = values.chunks_exact(values.len() / labels.len());
    for (part, (label, meta)) in parts.zip(labels.iter().zip(metas)) {
        if *meta >= label.wanted {
            continue;
        }
        let Some(states) = kept.get_mut(&label.row).and_then(|kept| kept.states.as_mut()) else { continue };
        let (name, values) = (name.to_owned(), part.to_vec());
        states.push(StateRecord { prompt: 0, sample: label.number, meta: *meta, name, values });
    }
}
