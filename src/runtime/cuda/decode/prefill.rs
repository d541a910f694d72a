//! Prompts into rows: the encoding graph on the coarse stream, then its results copied to the state of each row.

use super::super::device::Allocation;
use super::super::dispatch;
use super::super::plan::Contents;
use super::super::plan::view::{Element, View, row_major};
use super::{COARSE, CudaDecoder, EXPAND, failed};
use crate::ir::dim::{Bindings, Symbol};
use crate::runtime::backend::BackendError;
use crate::runtime::decoder::Admission;
use crate::runtime::plan::ENCODE;
use std::collections::BTreeMap;
use std::sync::Arc;

impl CudaDecoder<'_> {
    pub(super) fn prefill(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        // Prompts of like lengths go together: padding is work.
        let mut order: Vec<&Admission<'_>> = admissions.iter().collect();
        order.sort_by_key(|admission| (admission.tokens.len(), admission.row));
        let mut start = 0;
        while start < order.len() {
            // The longest of a group sets its padding, so the group ends where the longest would no longer fit.
            let longest = |end: usize| order[end - 1].tokens.len() / self.program.meta_tokens;
            let mut end = start + 1;
            while end < order.len() && end - start < self.layout.prefill_rows(&self.program, longest(end + 1))
            {
                end += 1;
            }
            self.encode(&order[start..end])?;
            start = end;
        }
        for admission in admissions {
            self.lengths[admission.row] = Some(admission.tokens.len() / self.program.meta_tokens);
            self.parameters.admit(admission, self.layout.setup.samples);
        }
        Ok(())
    }

    fn encode(&mut self, group: &[&Admission<'_>]) -> Result<(), BackendError> {
        let device = Arc::clone(&self.machine.device);
        let meta_tokens = self.program.meta_tokens;
        let meta = group.iter().map(|admission| admission.tokens.len() / meta_tokens).max().unwrap_or(0);
        let plan = self.layout.prefill_plan(self.machine, &self.program, group.len(), meta)?;
        let mut ids = Vec::with_capacity(group.len() * meta * meta_tokens * 8);
        let mut lengths = Vec::with_capacity(group.len() * 8);
        for admission in group {
            let padding = std::iter::repeat_n(0, meta * meta_tokens - admission.tokens.len());
            ids.extend(admission.tokens.iter().copied().chain(padding).flat_map(i64::to_le_bytes));
            let length = i64::try_from(admission.tokens.len() / meta_tokens).unwrap_or(i64::MAX);
            lengths.extend(length.to_le_bytes());
        }
        let mut memory: BTreeMap<String, Allocation> = BTreeMap::new();
        for (name, bytes) in [("ids", &ids), ("lengths", &lengths)] {
            let allocation = device.allocate(bytes.len())?;
            device.write(COARSE, allocation.address, bytes)?;
            memory.insert(name.to_owned(), allocation);
        }
        for buffer in &plan.buffers {
            if let Contents::Output { name } = &buffer.contents {
                memory.insert(name.clone(), device.allocate(buffer.bytes.max(1))?);
            }
        }
        let arena = self.prefill_arena(plan.arena_bytes)?;
        let values = memory.iter().map(|(name, allocation)| (name.clone(), allocation.address)).collect();
        let bound = self.machine.bind(&plan, arena, &values).map_err(failed)?;
        bound.run(&*device, COARSE)?;
        let encoded = device.record(COARSE)?;
        device.wait(EXPAND, encoded)?;
        for (name, allocation) in &memory {
            if self.state.contains_key(name) && !["ids", "lengths"].contains(&name.as_str()) {
                self.scatter(name, allocation.address, group, meta)?;
            }
        }
        // The results' memory goes when this returns.
        device.synchronize()?;
        Ok(())
    }

    fn prefill_arena(&mut self, bytes: usize) -> Result<u64, BackendError> {
        if let Some(arena) = self.prefill_arena.as_ref().filter(|arena| arena.bytes >= bytes) {
            return Ok(arena.address);
        }
        self.machine.device.synchronize()?;
        self.prefill_arena = None;
        let arena = self.machine.device.allocate(bytes.max(1))?;
        let address = arena.address;
        self.prefill_arena = Some(arena);
        Ok(address)
    }

    /// Copies a result `[group, ..]` to the state of the group's rows, once per sequence that has its own.
    fn scatter(
        &self,
        name: &str,
        from: u64,
        group: &[&Admission<'_>],
        meta: usize,
    ) -> Result<(), BackendError> {
        let device = &*self.machine.device;
        let (source, target) = (self.result_dims(name, group.len(), meta)?, self.state_dims(name)?);
        let samples = target[0] / self.layout.setup.rows;
        // A cache's axis of slots is longer than the prompt's.
        let mut dims = target.clone();
        dims.iter_mut().zip(&source).skip(1).for_each(|(into, from)| *into = (*into).min(*from));
        let view = |dims: &[usize]| View { strides: row_major(dims), ..View::whole(0, Element::Model, dims) };
        let (whole, into) = (view(&source), view(&target));
        let stream = if self.layout.expand.as_ref().is_some_and(|plan| plan.input(name).is_some()) {
            EXPAND
        } else {
            COARSE
        };
        let mut at = 0;
        while at < group.len() {
            let first = group[at].row;
            // Neighbouring rows of one sequence each go in one copy.
            let run = match samples {
                1 => group[at..]
                    .iter()
                    .zip(first..)
                    .take_while(|(admission, row)| admission.row == *row)
                    .count(),
                _ => 1,
            };
            let rows = if samples == 1 { run } else { samples };
            let mut part = into.slice(0, first * samples, rows);
            let mut given = whole.slice(0, at, run);
            for (axis, len) in dims.iter().enumerate().skip(1) {
                part = part.slice(axis, 0, *len);
                given = given.slice(axis, 0, *len);
            }
            dispatch::copy(device, stream, self.machine.dtype, (from, &given), (self.address(name)?, &part))?;
            at += run;
        }
        Ok(())
    }

    fn result_dims(&self, name: &str, rows: usize, meta: usize) -> Result<Vec<usize>, BackendError> {
        self.dims(ENCODE, name, rows, meta, true)
    }

    fn state_dims(&self, name: &str) -> Result<Vec<usize>, BackendError> {
        for plan in [Some(&self.layout.ahead), self.layout.expand.as_ref(), self.layout.reencode.as_ref()] {
            let Some(plan) = plan.filter(|plan| plan.input(name).is_some()) else { continue };
            let coarse = self.layout.is_split() && plan.graph == self.layout.ahead.graph;
            let rows = if coarse { self.layout.setup.rows } else { self.layout.sequences() };
            return self.dims(&plan.graph, name, rows, 1, false);
        }
        Err(BackendError::Binding { graph: ENCODE.to_owned(), message: format!("nothing reads `{name}`") })
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
        let mut bindings = Bindings::default();
        bindings.bind(Symbol::Batch, rows);
        bindings.bind(Symbol::Meta, meta);
        bindings.bind(Symbol::Capacity, self.layout.setup.capacity);
        ports.get(name).and_then(|ty| ty.shape.eval(&bindings)).ok_or_else(unknown)
    }
}
