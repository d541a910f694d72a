//! What a decoder keeps on the device, and how much of it. Owns the plans of its graphs and the sizes that follow; pure,
//! so that admission is computed before anything is allocated.

use super::super::machine::Machine;
use super::super::plan::view::{Element, View, row_major};
use super::super::plan::{Plan, PlanOptions};
use super::{IN_FLIGHT, failed, graphs};
use crate::ir::dim::{Bindings, Symbol};
use crate::runtime::backend::BackendError;
use crate::runtime::decoder::{Admission, DecoderSetup};
use crate::runtime::plan::{ENCODE, NEXT, Program};
use std::collections::{BTreeMap, BTreeSet};

/// Tokens, padding included, that one prefill encodes at most; longer prompts go alone.
const PREFILL_TOKENS: usize = 1 << 16;

/// A value that the coarse graph hands to the expansion.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub name: String,
    /// Of one step, `[rows, n, D]`.
    pub step: View,
    /// Of a whole burst, `[rows, run_ahead * n, D]`.
    pub burst: View,
}

/// Plans and sizes of a decoder.
#[derive(Debug)]
pub struct Layout {
    pub(super) setup: DecoderSetup,
    /// The coarse graph, or the undivided step.
    pub(super) ahead: Plan,
    pub(super) expand: Option<Plan>,
    pub(super) reencode: Option<Plan>,
    pub(super) cuts: Vec<Cut>,
    /// Bytes of each state.
    pub(super) state: BTreeMap<String, usize>,
    /// Which state grows with the capacity.
    pub(super) caches: BTreeSet<String>,
    pub(super) arenas: Vec<usize>,
    /// Tokens of a sequence in one burst.
    pub(super) burst_tokens: usize,
    element_bytes: usize,
    weight_bytes: usize,
    prefill_bytes: usize,
}

impl Layout {
    /// The layout of a decoder. Nothing is loaded or allocated.
    ///
    /// # Errors
    /// The bundle lacks the protocol or a graph, or a graph has no plan.
    pub fn new(machine: &Machine, program: &Program, setup: DecoderSetup) -> Result<Self, BackendError> {
        let binding = |message: String| BackendError::Binding { graph: "-".to_owned(), message };
        if [setup.rows, setup.samples, setup.capacity, setup.run_ahead].contains(&0) {
            return Err(binding("a decoder needs rows, samples, capacity and run-ahead above 0".to_owned()));
        }
        let split = program.plan(setup.protocol).map_err(|error| binding(error.to_string()))?.clone();
        let sequences = setup.rows * setup.samples;
        let (coarse, draw, reencode) = graphs(&split);
        let options = PlanOptions { in_place: true, min_p: true, ..PlanOptions::default() };
        let plan = |graph: &str, rows: usize, meta: usize, options: &PlanOptions| {
            machine.plan(graph, &bindings(rows, meta, setup.capacity), options).map_err(failed)
        };
        let (ahead, expand, cuts) = match coarse {
            Some(coarse) => {
                let cuts = cuts(machine, program, coarse, setup)?;
                let strides = cuts.iter().map(|cut| (cut.name.clone(), cut.burst.strides.clone())).collect();
                let coarse_options = PlanOptions { output_strides: strides, ..options.clone() };
                let ahead = plan(coarse, setup.rows, 1, &coarse_options)?;
                (ahead, Some(plan(draw, sequences, setup.run_ahead, &options)?), cuts)
            }
            None => (plan(draw, sequences, 1, &options)?, None, Vec::new()),
        };
        let reencode = reencode.map(|graph| plan(graph, sequences, 1, &options)).transpose()?;
        let mut layout = Layout {
            setup,
            arenas: vec![
                ahead.arena_bytes.max(reencode.as_ref().map_or(0, |plan| plan.arena_bytes)).max(256),
            ],
            ahead,
            expand,
            reencode,
            cuts,
            state: BTreeMap::new(),
            caches: BTreeSet::new(),
            burst_tokens: setup.run_ahead * program.meta_tokens,
            element_bytes: machine.dtype.size_bytes(),
            weight_bytes: 0,
            prefill_bytes: 0,
        };
        layout.arenas.extend(layout.expand.as_ref().map(|plan| plan.arena_bytes.max(256)));
        layout.size_state(program);
        let prefill = layout.prefill_plan(
            machine,
            program,
            1,
            PREFILL_TOKENS.div_ceil(program.meta_tokens).min(setup.capacity),
        )?;
        let rows = PREFILL_TOKENS / (program.meta_tokens * setup.capacity).max(1);
        let outputs: usize =
            prefill.buffers.iter().filter(|buffer| is_output(buffer)).map(|buffer| buffer.bytes).sum();
        layout.prefill_bytes = (prefill.arena_bytes + outputs) * rows.clamp(1, setup.rows);
        let packs: BTreeSet<usize> = layout.plans().flat_map(Plan::packs).chain(prefill.packs()).collect();
        layout.weight_bytes = packs
            .iter()
            .filter_map(|pack| machine.layout().packs().get(*pack))
            .map(|pack| pack.elements.iter().sum::<usize>() * layout.element_bytes)
            .sum();
        Ok(layout)
    }

    fn plans(&self) -> impl Iterator<Item = &Plan> {
        [Some(&self.ahead), self.expand.as_ref(), self.reencode.as_ref()].into_iter().flatten()
    }

    /// Bytes of device memory that a decoder of this layout takes at most, weights included.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        let state: usize = self.state.values().sum();
        let arenas: usize = self.arenas.iter().sum();
        self.weight_bytes + state + arenas + IN_FLIGHT * self.lane_bytes() + self.prefill_bytes
    }

    fn lane_bytes(&self) -> usize {
        let trajectory: usize = self.cuts.iter().map(|cut| cut.burst.elements() * self.element_bytes).sum();
        let wide = if self.setup.samples > 1 { trajectory * self.setup.samples } else { 0 };
        trajectory + wide + self.sequences() * self.burst_tokens * 8
    }

    /// Bytes of the caches of one row.
    #[must_use]
    pub fn cache_bytes_per_row(&self) -> usize {
        let bytes: usize = self.caches.iter().filter_map(|name| self.state.get(name)).sum();
        bytes / self.setup.rows
    }

    /// Sequences side by side.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.setup.rows * self.setup.samples
    }

    /// Whether a coarse run-ahead and an expansion share the work.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.expand.is_some()
    }

    /// Tokens of a sequence that one run of the sampler's graph yields.
    pub(super) fn drawn_tokens(&self) -> usize {
        if self.is_split() { self.burst_tokens } else { self.burst_tokens / self.setup.run_ahead }
    }

    fn size_state(&mut self, program: &Program) {
        let given: BTreeSet<&str> =
            self.cuts.iter().map(|cut| cut.name.as_str()).chain(["uniforms", "ids"]).collect();
        let mut state = BTreeMap::new();
        for (name, buffer) in self.plans().flat_map(Plan::inputs).filter(|(name, _)| !given.contains(name)) {
            let bytes = state.entry(name.to_owned()).or_insert(0usize);
            *bytes = (*bytes).max(buffer.bytes);
        }
        let sequences = self.sequences();
        let counters = if self.is_split() { self.setup.rows } else { sequences };
        for name in ["lengths", "active"] {
            state.insert(name.to_owned(), counters * 8);
        }
        for name in ["seed", "sample", "first", "top_k"] {
            state.insert(name.to_owned(), sequences * 8);
        }
        for name in ["temperature", "top_p", "min_p"] {
            state.insert(name.to_owned(), sequences * 4);
        }
        state.insert("step".to_owned(), 8);
        state.insert("uniforms".to_owned(), sequences * self.drawn_tokens() * 4);
        if !self.is_split() {
            state.insert("ids".to_owned(), sequences * self.drawn_tokens() * 8);
        }
        let graphs: Vec<String> = self.plans().map(|plan| plan.graph.clone()).collect();
        for name in state.keys() {
            let grows = |graph: &String| program.cache_axis(graph, name).is_ok_and(|axis| axis.is_some());
            if graphs.iter().any(grows) {
                self.caches.insert(name.clone());
            }
        }
        self.state = state;
    }

    /// The plan that encodes `rows` prompts of `meta` meta-contexts each to the state that bursts start from.
    pub(super) fn prefill_plan(
        &self,
        machine: &Machine,
        program: &Program,
        rows: usize,
        meta: usize,
    ) -> Result<Plan, BackendError> {
        let signature = program.signature(ENCODE).map_err(|error| BackendError::Binding {
            graph: ENCODE.to_owned(),
            message: error.to_string(),
        })?;
        let wanted =
            signature.outputs.keys().filter(|name| self.state.contains_key(*name)).cloned().collect();
        let options = PlanOptions { outputs: Some(wanted), ..PlanOptions::default() };
        machine.plan(ENCODE, &bindings(rows, meta, self.setup.capacity), &options).map_err(failed)
    }

    /// Rows that one prefill takes where prompts have `meta_contexts` each.
    pub(super) fn prefill_rows(&self, program: &Program, meta_contexts: usize) -> usize {
        (PREFILL_TOKENS / (meta_contexts * program.meta_tokens).max(1)).max(1)
    }
}

fn is_output(buffer: &super::super::plan::Buffer) -> bool {
    matches!(buffer.contents, super::super::plan::Contents::Output { .. })
}

fn bindings(batch: usize, meta: usize, capacity: usize) -> Bindings {
    let mut bindings = Bindings::default();
    bindings.bind(Symbol::Batch, batch);
    bindings.bind(Symbol::Meta, meta);
    bindings.bind(Symbol::Capacity, capacity);
    bindings
}

/// The outputs of the coarse graph that are no state.
fn cuts(
    machine: &Machine,
    program: &Program,
    coarse: &str,
    setup: DecoderSetup,
) -> Result<Vec<Cut>, BackendError> {
    let binding = |message: String| BackendError::Binding { graph: coarse.to_owned(), message };
    let signature = program.signature(coarse).map_err(|error| binding(error.to_string()))?;
    let _ = machine.graph(coarse).map_err(failed)?;
    let sizes = bindings(setup.rows, 1, setup.capacity);
    let mut cuts = Vec::new();
    for (name, ty) in signature.outputs.iter().filter(|(name, _)| !name.starts_with(NEXT)) {
        let dims = ty.shape.eval(&sizes).ok_or_else(|| binding(format!("`{name}` has no size")))?;
        let mut wide = dims.clone();
        if let Some(units) = wide.get_mut(1) {
            *units *= setup.run_ahead;
        }
        let strides = row_major(&wide);
        let view = |dims: Vec<usize>| View {
            buffer: 0,
            element: Element::Model,
            offset: 0,
            dims,
            strides: strides.clone(),
        };
        cuts.push(Cut { name: name.clone(), step: view(dims), burst: view(wide) });
    }
    Ok(cuts)
}

/// Sampling of every sequence.
#[derive(Debug)]
pub(super) struct Parameters {
    temperature: Vec<f32>,
    top_k: Vec<i64>,
    top_p: Vec<f32>,
    min_p: Vec<f32>,
    seed: Vec<u64>,
    sample: Vec<u64>,
    /// Place of the next token among the generated ones.
    first: Vec<i64>,
    changed: bool,
}

impl Parameters {
    pub(super) fn new(sequences: usize) -> Self {
        Parameters {
            temperature: vec![0.0; sequences],
            top_k: vec![1; sequences],
            top_p: vec![1.0; sequences],
            min_p: vec![0.0; sequences],
            seed: vec![0; sequences],
            sample: vec![0; sequences],
            first: vec![0; sequences],
            changed: false,
        }
    }

    pub(super) fn admit(&mut self, admission: &Admission<'_>, samples: usize) {
        let sampling = admission.sampling;
        for sample in 0..samples {
            let at = admission.row * samples + sample;
            self.temperature[at] = super::super::plan::narrow(sampling.temperature);
            self.top_k[at] = i64::try_from(sampling.top_k).unwrap_or(0);
            self.top_p[at] = super::super::plan::narrow(sampling.top_p);
            self.min_p[at] = super::super::plan::narrow(sampling.min_p);
            self.seed[at] = sampling.seed;
            self.sample[at] = admission.first_sample + sample as u64;
            self.first[at] = 0;
        }
        self.changed = true;
    }

    pub(super) fn change(&mut self) {
        self.changed = true;
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The device counts along: what it has after a burst.
    pub(super) fn advance(&mut self, tokens: usize) {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        self.first.iter_mut().for_each(|first| *first = first.saturating_add(tokens));
    }

    pub(super) fn bytes(&self) -> [(&'static str, Vec<u8>); 7] {
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let ints = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let words = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        [
            ("temperature", floats(&self.temperature)),
            ("top_k", ints(&self.top_k)),
            ("top_p", floats(&self.top_p)),
            ("min_p", floats(&self.min_p)),
            ("seed", words(&self.seed)),
            ("sample", words(&self.sample)),
            ("first", ints(&self.first)),
        ]
    }
}
