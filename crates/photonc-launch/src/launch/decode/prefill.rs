//! Prompts into rows: the encoding graph on the coarse stream, then its results copied to the state of each row. Owns the
//! grouping of prompts and the memory that every prefill uses again; never waits on the host.

use super::super::backend::failed_in;
use super::super::bound_plan;
use super::super::bound_plan::BoundPlan;
use super::super::plan::view::{Element, View, row_major};
use super::super::plan::{Contents, Plan};
use super::layout::bindings;
use super::{EXPAND, RecordedDecoder, Taken};
use photonc_runtime::backend::BackendError;
use photonc_runtime::decoder::{Admission, SharedPrompt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Alignment of each value in bytes: what vector loads and cuBLASLt want.
const ALIGN_BYTES: usize = 256;

/// Sizes of prefill that are kept ready; others are planned anew.
const MOST_READY: usize = 32;

/// Where a prefill's inputs, results and arena lie in its memory, as bytes from the start.
pub(super) struct Places {
    values: BTreeMap<String, usize>,
    arena: usize,
    pub bytes: usize,
}

impl Places {
    /// For `rows` prompts of `tokens` tokens each.
    pub fn of(plan: &Plan, rows: usize, tokens: usize) -> Self {
        let mut places = Places { values: BTreeMap::new(), arena: 0, bytes: 0 };
        let inputs = [("ids".to_owned(), rows * tokens * 8), ("lengths".to_owned(), rows * 8)];
        let outputs = plan.buffers.iter().filter_map(|buffer| match &buffer.contents {
            Contents::Output { name } => Some((name.clone(), buffer.bytes)),
            _ => None,
        });
        for (name, bytes) in inputs.into_iter().chain(outputs) {
            let at = places.take(bytes);
            places.values.insert(name, at);
        }
        places.arena = places.take(plan.arena_bytes);
        places
    }

    fn take(&mut self, bytes: usize) -> usize {
        let at = self.bytes;
        self.bytes += bytes.next_multiple_of(ALIGN_BYTES);
        at
    }
}

/// A prefill of one size, ready to run.
pub(super) struct Prefill {
    rows: usize,
    meta: usize,
    bound: BoundPlan,
    values: BTreeMap<String, u64>,
}

impl RecordedDecoder<'_> {
    pub(super) fn prefill(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        // Prompts of like lengths go together: padding is work.
        let order = SharedPrompt::of(admissions.iter());
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let ready = self.ready(rest)?;
            let (group, others) = rest.split_at(ready.rows);
            self.encode(&ready, group)?;
            group.iter().for_each(|shared| self.prefilled.count(shared));
            rest = others;
        }
        for admission in admissions {
            let length = admission.prompt.len() / self.program.meta_tokens;
            self.rows[admission.row] = Some(Taken { length, sequences: admission.sequences.to_vec() });
            self.parameters.admit(admission);
        }
        Ok(())
    }

    /// Makes the largest prefills ready and loads what they need, before any prompt is there.
    pub(super) fn prepare_prefill(&mut self) -> Result<(), BackendError> {
        let longest = self.layout.longest_prompt();
        for rows in [1, self.layout.prefill_rows(&self.program, longest)] {
            self.size(rows, longest)?;
        }
        Ok(())
    }

    /// The prefill for as many of the first of `order`, shortest first, as go together.
    fn ready(&mut self, order: &[SharedPrompt<'_, '_>]) -> Result<Arc<Prefill>, BackendError> {
        // The longest of a group sets its padding, so the group ends where the longest would no longer fit.
        // A row without a meta-context has one of padding: the encoder reads nothing of it.
        let (least, meta_tokens) = (self.layout.least_prompt, self.program.meta_tokens);
        let meta = |rows: usize| (order[rows - 1].prompt.len() / meta_tokens).max(least);
        let mut rows = 1;
        while rows < order.len() && rows < self.layout.prefill_rows(&self.program, meta(rows + 1)) {
            rows += 1;
        }
        loop {
            let size = (rows, meta(rows));
            if let Some(ready) = self.size(size.0, size.1)? {
                return Ok(ready);
            }
            if rows == 1 {
                // The memory was made for the longest prompt.
                let longest = self.layout.longest_prompt();
                let setup = self.layout.setup;
                let refused = || setup.refuses(format!("no room to encode {longest} meta-contexts"));
                return self.size(1, longest)?.ok_or_else(refused);
            }
            rows /= 2;
        }
    }

    /// The prefill of a size; `None` if its memory does not fit.
    fn size(&mut self, rows: usize, meta: usize) -> Result<Option<Arc<Prefill>>, BackendError> {
        if let Some(ready) = self.prefills.get(&(rows, meta)) {
            return Ok(Some(Arc::clone(ready)));
        }
        let plan = self.layout.prefill_plan(self.loaded, &self.program, rows, meta)?;
        let places = Places::of(&plan, rows, meta * self.program.meta_tokens);
        if places.bytes > self.prefill_memory.bytes {
            return Ok(None);
        }
        let start = self.prefill_memory.address;
        let at = |place: usize| start + place as u64;
        let values = places.values.iter().map(|(name, place)| (name.clone(), at(*place))).collect();
        let failed = |error| failed_in(self.layout.setup.protocol.encode(), error);
        let bound = self.loaded.bind(&plan, at(places.arena), &values).map_err(failed)?;
        let ready = Arc::new(Prefill { rows, meta, bound, values });
        if self.prefills.len() >= MOST_READY {
            self.prefills.clear();
        }
        self.prefills.insert((rows, meta), Arc::clone(&ready));
        Ok(Some(ready))
    }

    fn encode(&mut self, prefill: &Prefill, group: &[SharedPrompt<'_, '_>]) -> Result<(), BackendError> {
        let device = Arc::clone(&self.loaded.device);
        let tokens = prefill.meta * self.program.meta_tokens;
        let mut ids = Vec::with_capacity(group.len() * tokens * 8);
        let mut lengths = Vec::with_capacity(group.len() * 8);
        for SharedPrompt { prompt, .. } in group {
            let padding = std::iter::repeat_n(0, tokens - prompt.len());
            ids.extend(prompt.iter().copied().chain(padding).flat_map(i64::to_le_bytes));
            let length = prompt.len() / self.program.meta_tokens;
            lengths.extend(i64::try_from(length).expect("invariant: prompts fit their caches").to_le_bytes());
        }
        // The other stream may still read the results of the prefill before.
        if let Some(scattered) = self.scattered.take() {
            device.wait(self.ahead, scattered)?;
        }
        for (name, bytes) in [("ids", &ids), ("lengths", &lengths)] {
            let address = *prefill.values.get(name).expect("invariant: every input of a prefill has a place");
            device.write(self.ahead, address, bytes)?;
        }
        let from = self.times.mark(&*device, self.ahead)?;
        prefill.bound.run(&*device, self.ahead)?;
        self.times.span(&*device, self.ahead, self.layout.setup.protocol.encode(), 1, from)?;
        let encoded = device.record(self.ahead)?;
        device.wait(EXPAND, encoded)?;
        for (name, address) in &prefill.values {
            if self.state.contains_key(name) && !["ids", "lengths"].contains(&name.as_str()) {
                self.scatter(name, *address, group, prefill.meta)?;
            }
        }
        self.scattered = Some(device.record(EXPAND)?);
        Ok(())
    }

    /// Copies a result `[group, ..]` to the state of the group's rows, once per sequence that has its own.
    fn scatter(
        &self,
        name: &str,
        from: u64,
        group: &[SharedPrompt<'_, '_>],
        meta: usize,
    ) -> Result<(), BackendError> {
        let device = &*self.loaded.device;
        let (source, target) = (self.result_dims(name, group.len(), meta)?, self.state_dims(name)?);
        // A cache's axis of slots is longer than the prompt's.
        let mut dims = target.clone();
        dims.iter_mut().zip(&source).skip(1).for_each(|(into, from)| *into = (*into).min(*from));
        let view = |dims: &[usize]| View { strides: row_major(dims), ..View::whole(0, Element::Model, dims) };
        let (whole, into) = (view(&source), view(&target));
        let stream = if self.layout.expand.as_ref().is_some_and(|plan| plan.input(name).is_some()) {
            EXPAND
        } else {
            self.ahead
        };
        for Stretch { from: at, rows_from, to, rows_to } in stretches(group, self.is_of_rows(name)) {
            let mut part = into.slice(0, to, rows_to);
            let mut given = whole.slice(0, at, rows_from);
            for (axis, len) in dims.iter().enumerate().skip(1) {
                part = part.slice(axis, 0, *len);
                given = given.slice(axis, 0, *len);
            }
            bound_plan::copy(
                device,
                stream,
                self.loaded.dtype,
                (from, &given),
                (self.address(name)?, &part),
            )?;
        }
        Ok(())
    }

    /// Whether a state is one of rows, not of sequences.
    fn is_of_rows(&self, name: &str) -> bool {
        self.layout.is_split() && self.layout.ahead.input(name).is_some()
    }

    fn result_dims(&self, name: &str, rows: usize, meta: usize) -> Result<Vec<usize>, BackendError> {
        self.dims(self.layout.setup.protocol.encode(), name, rows, meta, true)
    }

    fn state_dims(&self, name: &str) -> Result<Vec<usize>, BackendError> {
        let nobody = || BackendError::Binding {
            graph: self.layout.setup.protocol.encode().to_owned(),
            message: format!("nothing reads its result `{name}`"),
        };
        let plan = self.layout.plans().find(|plan| plan.input(name).is_some()).ok_or_else(nobody)?;
        let rows = if self.is_of_rows(name) { self.layout.setup.rows } else { self.layout.sequences() };
        self.dims(&plan.graph, name, rows, 1, false)
    }

    fn dims(
        &self,
        graph: &str,
        name: &str,
        rows: usize,
        meta: usize,
        output: bool,
    ) -> Result<Vec<usize>, BackendError> {
        let unknown =
            || BackendError::Binding { graph: graph.to_owned(), message: format!("`{name}` has no size") };
        let signature = self.program.signature(graph).map_err(|_| unknown())?;
        let ports = if output { &signature.outputs } else { &signature.inputs };
        let sizes = bindings(rows, meta, self.layout.setup.capacity);
        ports.get(name).and_then(|ty| ty.shape.eval(&sizes)).ok_or_else(unknown)
    }
}

/// Neighbouring results that go to neighbouring places, or one result that goes to several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    from: usize,
    rows_from: usize,
    to: usize,
    rows_to: usize,
}

/// Where the results of a group go, in as few copies as there can be.
fn stretches(group: &[SharedPrompt<'_, '_>], of_rows: bool) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let all = group.iter().enumerate();
    for (at, admission) in all.flat_map(|(at, shared)| shared.admissions.iter().map(move |one| (at, one))) {
        let places = if of_rows { std::slice::from_ref(&admission.row) } else { admission.sequences };
        for to in places {
            match stretches.last_mut() {
                Some(last)
                    if last.to + last.rows_to == *to
                        && last.rows_from == last.rows_to
                        && last.from + last.rows_from == at =>
                {
                    last.rows_from += 1;
                    last.rows_to += 1;
                }
                Some(last) if last.to + last.rows_to == *to && last.rows_from == 1 && last.from == at => {
                    last.rows_to += 1;
                }
                _ => stretches.push(Stretch { from: at, rows_from: 1, to: *to, rows_to: 1 }),
            }
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::{Stretch, stretches};
    use photonc_runtime::decoder::{Admission, SharedPrompt};
    use photonc_runtime::draws::Draws;
    use photonc_runtime::request::Keep;
    use std::sync::Arc;

    #[test]
    fn neighbours_go_in_one_copy() {
        let draws = Arc::new(Draws::greedy());
        let admission = |row, sequences, prompt| Admission {
            row,
            sequences,
            prompt,
            forced: &[],
            only_first: false,
            meta_contexts: 1,
            draws: &draws,
            first_sample: 0,
            keep: Keep::default(),
        };
        let prompts: [&[i64]; 4] = [&[1], &[2], &[3], &[1]];
        let (a, b, c) = (
            admission(4, &[0, 1], prompts[0]),
            admission(5, &[2], prompts[1]),
            admission(7, &[8], prompts[2]),
        );
        // It has the prompt of the first, and is encoded with it.
        let d = admission(9, &[3], prompts[3]);
        let found = |all: &[Admission<'_>], of_rows| -> Vec<[usize; 4]> {
            let all = stretches(&SharedPrompt::of(all.iter()), of_rows).into_iter();
            all.map(|Stretch { from, rows_from, to, rows_to }| [from, rows_from, to, rows_to]).collect()
        };
        assert_eq!(found(&[a, b, c], true), [[0, 2, 4, 2], [2, 1, 7, 1]]);
        assert_eq!(found(&[a, b, c], false), [[0, 1, 0, 2], [1, 1, 2, 1], [2, 1, 8, 1]]);
        assert_eq!(found(&[b, d, a], true), [[0, 1, 4, 1], [0, 1, 9, 1], [1, 1, 5, 1]]);
    }
}
