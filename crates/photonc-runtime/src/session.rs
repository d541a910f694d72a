//! Running graphs by name over named state. Owns binding of inputs, taking over of `next.` outputs, growth of caches
//! and row selection; knows no graph and no level: signatures say what is state, what is a cache and how it grows.

use super::backend::{Backend, BackendError, Buffer, Outputs};
use super::error::RuntimeError;
use super::plan::{CacheAxis, NEXT, Program};
use super::timing::{Phase, Timing};
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::{Data, Tensor};
use std::collections::BTreeMap;
use std::time::Instant;

/// What lives on from one meta-context to the next, for a batch of rows.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Values by the input name that reads them.
    pub buffers: BTreeMap<String, Buffer>,
    /// Which of them are caches, and how they grow.
    pub caches: BTreeMap<String, CacheAxis>,
    /// Meta-contexts in the caches, per row.
    pub lengths: Vec<usize>,
}

/// A backend at work on one request.
pub(super) struct Session<'g> {
    pub backend: &'g mut dyn Backend,
    pub program: &'g Program,
    pub timing: Timing,
    pub started: Instant,
    /// Waits for the device after each run, so that times are the device's.
    pub profile: bool,
}

/// Named outputs of a run, to be taken one by one.
pub(super) struct Results {
    graph: String,
    outputs: BTreeMap<String, Buffer>,
}

impl Results {
    pub(super) fn take(&mut self, name: &str) -> Result<Buffer, RuntimeError> {
        let message = || format!("has no output `{name}`");
        self.outputs.remove(name).ok_or_else(|| RuntimeError::signature(&self.graph, message()))
    }

    /// Every output that is no next value of a state.
    pub(super) fn take_values(&mut self) -> BTreeMap<String, Buffer> {
        let (states, values) =
            std::mem::take(&mut self.outputs).into_iter().partition(|(name, _)| name.starts_with(NEXT));
        self.outputs = states;
        values
    }

    pub(super) fn get(&self, name: &str) -> Option<&Buffer> {
        self.outputs.get(name)
    }
}

impl<'g> Session<'g> {
    pub(super) fn new(backend: &'g mut dyn Backend, program: &'g Program, profile: bool) -> Self {
        Session { backend, program, timing: Timing::default(), started: Instant::now(), profile }
    }

    /// Runs `graph`: inputs from `given` by name, then from the state, lengths included where they are asked for.
    pub(super) fn run(
        &mut self,
        graph: &str,
        phase: Phase,
        state: &State,
        given: &[(&str, &Buffer)],
    ) -> Result<Results, RuntimeError> {
        let start = Instant::now();
        let program = self.program;
        let signature = program.signature(graph)?;
        let lengths = match signature.inputs.contains_key("lengths") {
            true => Some(self.upload_lengths(&state.lengths)?),
            false => None,
        };
        let mut inputs: Vec<(&str, &Buffer)> = Vec::with_capacity(signature.inputs.len());
        for name in signature.inputs.keys() {
            let buffer = match given.iter().find(|(key, _)| key == name) {
                Some((_, buffer)) => Some(*buffer),
                None if name == "lengths" => lengths.as_ref(),
                None => state.buffers.get(name),
            };
            let unknown =
                || RuntimeError::signature(graph, format!("asks for `{name}`, which nothing yields"));
            inputs.push((name, buffer.ok_or_else(unknown)?));
        }
        let outputs: Outputs = self.backend.run(graph, &inputs)?;
        if self.profile {
            self.backend.synchronize()?;
        }
        self.timing.add(phase, graph, start.elapsed());
        Ok(Results { graph: graph.to_owned(), outputs: outputs.into_iter().collect() })
    }

    /// Takes `next.` outputs into the state: caches grow behind each row's length, the rest is replaced.
    pub(super) fn advance(&mut self, results: &mut Results, state: &mut State) -> Result<(), RuntimeError> {
        let names: Vec<String> =
            results.outputs.keys().filter(|name| name.starts_with(NEXT)).cloned().collect();
        for output in names {
            let value = results.take(&output)?;
            let name = output.trim_start_matches(NEXT);
            match (state.caches.get(name), state.buffers.get_mut(name)) {
                (Some(CacheAxis { axis, units }), Some(cache)) => {
                    let offsets: Vec<usize> = state.lengths.iter().map(|length| length * units).collect();
                    self.backend.write(cache, &value, *axis, &offsets)?;
                }
                _ => {
                    state.buffers.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    /// The state that `graphs` start from: rows `rows` of prefill's results, caches of `capacity` meta-contexts filled
    /// with its keys and values.
    pub(super) fn begin(
        &mut self,
        graphs: &[&str],
        prefill: &Results,
        rows: &[usize],
        lengths: &[usize],
        capacity: usize,
    ) -> Result<State, RuntimeError> {
        let mut state = State { lengths: rows.iter().map(|row| lengths[*row]).collect(), ..State::default() };
        let program = self.program;
        for graph in graphs {
            for (name, ty) in &program.signature(graph)?.inputs {
                let Some(first) = prefill.get(name) else { continue };
                if state.buffers.contains_key(name) {
                    continue;
                }
                let value = self.backend.gather(first, rows)?;
                let value = match program.cache_axis(graph, name)? {
                    None => value,
                    Some(grows) => {
                        state.caches.insert(name.clone(), grows);
                        let mut bindings = Bindings::default();
                        bindings.bind(Symbol::Batch, rows.len());
                        bindings.bind(Symbol::Capacity, capacity);
                        let unbound =
                            || RuntimeError::signature(graph, format!("`{name}` has the type {ty}"));
                        let shape = ty.shape.eval(&bindings).ok_or_else(unbound)?;
                        let mut cache = self.backend.allocate(ty.dtype, &shape)?;
                        // Padding may be longer than any row.
                        let slots = shape[grows.axis];
                        let value = match value.shape()[grows.axis] > slots {
                            true => self.backend.slice(&value, grows.axis, 0, slots)?,
                            false => value,
                        };
                        self.backend.write(&mut cache, &value, grows.axis, &vec![0; rows.len()])?;
                        cache
                    }
                };
                state.buffers.insert(name.clone(), value);
            }
        }
        Ok(state)
    }

    /// The rows of two states that the same graphs read, those of `first` before those of `second`.
    pub(super) fn concat(&mut self, mut first: State, mut second: State) -> Result<State, RuntimeError> {
        let (above, below) = (first.lengths.len(), second.lengths.len());
        for (name, buffer) in std::mem::take(&mut first.buffers) {
            let other = second.buffers.remove(&name);
            let other = other.expect("invariant: the same graphs read the same values");
            let shape = [&[above + below], &buffer.shape()[1..]].concat();
            // Rows are written along an axis of slots: those of all rows are slots of one.
            let slots = |rows: usize| [&[1, rows], &shape[1..]].concat();
            let joined = self.backend.allocate(buffer.dtype(), &shape)?;
            let mut joined = joined.reshaped(&slots(above + below))?;
            self.backend.write(&mut joined, &buffer.reshaped(&slots(above))?, 1, &[0])?;
            self.backend.write(&mut joined, &other.reshaped(&slots(below))?, 1, &[above])?;
            first.buffers.insert(name, joined.reshaped(&shape)?);
        }
        first.lengths.extend(second.lengths);
        Ok(first)
    }

    /// Keeps only rows `rows` of a state.
    pub(super) fn select(&mut self, state: &mut State, rows: &[usize]) -> Result<(), RuntimeError> {
        for buffer in state.buffers.values_mut() {
            *buffer = self.backend.gather(buffer, rows)?;
        }
        state.lengths = rows.iter().map(|row| state.lengths[*row]).collect();
        Ok(())
    }

    pub(super) fn upload_ints(&mut self, shape: &[usize], values: Vec<i64>) -> Result<Buffer, RuntimeError> {
        let tensor = Tensor { shape: shape.to_vec(), data: Data::int(values) };
        Ok(self.backend.upload(&tensor, Dtype::I64)?)
    }

    pub(super) fn upload_floats(
        &mut self,
        shape: &[usize],
        values: Vec<f64>,
    ) -> Result<Buffer, RuntimeError> {
        let tensor = Tensor { shape: shape.to_vec(), data: Data::float(values) };
        Ok(self.backend.upload(&tensor, Dtype::F32)?)
    }

    fn upload_lengths(&mut self, lengths: &[usize]) -> Result<Buffer, RuntimeError> {
        let values = lengths.iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect();
        self.upload_ints(&[lengths.len()], values)
    }

    pub(super) fn download_ints(&mut self, buffer: &Buffer) -> Result<Vec<i64>, RuntimeError> {
        let tensor = self.backend.download(buffer)?;
        match tensor.data {
            Data::Int(values) => Ok(values.to_vec()),
            Data::Float(_) | Data::Bool(_) => Err(BackendError::Elements { dtype: Dtype::I64 }.into()),
        }
    }

    pub(super) fn download_floats(&mut self, buffer: &Buffer) -> Result<Vec<f64>, RuntimeError> {
        let tensor = self.backend.download(buffer)?;
        match tensor.data {
            Data::Float(values) => Ok(std::sync::Arc::unwrap_or_clone(values)),
            Data::Int(_) | Data::Bool(_) => Err(BackendError::Elements { dtype: Dtype::F32 }.into()),
        }
    }
}
