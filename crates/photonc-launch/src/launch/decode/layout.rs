//! What a decoder keeps on the device, and how much of it. Owns the plans of its graphs and the sizes that follow; pure,
//! so that admission is computed before anything is allocated.

use super::super::arguments::{ElementArguments, UniformArguments};
use super::super::backend::failed_in;
use super::super::device::Kernels;
use super::super::loaded_model::LoadedModel;
use super::super::plan::view::{Element, View, row_major};
use super::super::plan::{Call, Plan, PlanOptions};
use super::super::resources::Resources;
use super::prefill::Places;
use super::{IN_FLIGHT, graphs};
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_runtime::backend::BackendError;
use photonc_runtime::decoder::DecoderSetup;
use photonc_runtime::plan::{NEXT, Program};
use std::collections::{BTreeMap, BTreeSet};

/// Tokens, padding included, that one prefill encodes at most; longer prompts go alone.
const PREFILL_TOKENS: usize = 1 << 16;

/// Forced tokens of one run of the sampler's graph, negative where one is drawn.
pub(super) const FORCED: &str = "forced";
/// Those of a whole burst, where it takes several runs.
pub(super) const ALL_FORCED: &str = "forced of a burst";
/// The row of each sequence, where rows have several.
pub(super) const ROW_OF: &str = "row of a sequence";

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
    /// Bytes that every prefill gets along with.
    pub(super) prefill_bytes: usize,
    pub(super) resources: Resources,
    /// Kernels of everything that bursts and prefills run, to be compiled at once.
    pub(super) kernels: Kernels,
    element_bytes: usize,
    /// Meta-contexts to which shorter prompts are padded.
    pub least_prompt: usize,
}

impl Layout {
    /// The layout of a decoder. Nothing is loaded or allocated.
    ///
    /// # Errors
    /// The bundle lacks the protocol or a graph, a graph has no plan, or the setup has no room for any prompt.
    pub fn new(loaded: &LoadedModel, program: &Program, setup: DecoderSetup) -> Result<Self, BackendError> {
        let counted = setup.rows > 0 && setup.run_ahead > 0 && setup.sequences >= setup.rows;
        if !counted || setup.capacity <= setup.run_ahead {
            return Err(setup.refuses(format!(
                "rows and run-ahead count from 1, sequences are no fewer than rows, and the capacity exceeds the run-ahead; the capacity is {}, the run-ahead {}",
                setup.capacity, setup.run_ahead
            )));
        }
        let split = program.plan(setup.protocol).map_err(|error| setup.refuses(error.to_string()))?;
        let (coarse, draw, reencode) = graphs(split);
        let options = PlanOptions { in_place: true, min_p: true, ..PlanOptions::default() };
        let plan = |graph: &str, rows: usize, meta: usize, options: &PlanOptions| {
            let sizes = bindings(rows, meta, setup.capacity);
            loaded.plan(graph, &sizes, options).map_err(|error| failed_in(graph, error))
        };
        let sequences = setup.sequences;
        let (ahead, expand, cuts) = match coarse {
            Some(coarse) => {
                let cuts = cuts(program, coarse, setup)?;
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
            arenas: Vec::new(),
            ahead,
            expand,
            reencode,
            cuts,
            state: BTreeMap::new(),
            caches: BTreeSet::new(),
            burst_tokens: setup.run_ahead * program.meta_tokens,
            prefill_bytes: 0,
            resources: Resources::default(),
            kernels: loaded.device.kernels(&mut std::iter::empty(), loaded.dtype)?,
            element_bytes: loaded.dtype.size_bytes(),
            least_prompt: loaded.device.least_prompt(),
        };
        layout.size_arenas();
        layout.size_state(program);
        layout.size_prefill(loaded, program)?;
        Ok(layout)
    }

    /// Most rows of a decoder that fits `room_bytes` of free device memory beside what `loaded` has loaded, up to
    /// `at_most`; `None` if not one does. One row more would not fit, or is more than kernels can count.
    ///
    /// # Errors
    /// As `new`, for one row.
    pub fn most_rows(
        loaded: &LoadedModel,
        program: &Program,
        setup: DecoderSetup,
        room_bytes: usize,
        at_most: usize,
    ) -> Result<Option<usize>, BackendError> {
        let each = setup.sequences.div_ceil(setup.rows.max(1));
        let shape = |rows: usize| DecoderSetup { rows, sequences: rows * each, ..setup };
        let of = |rows: usize| Layout::new(loaded, program, shape(rows));
        if at_most == 0 || of(1)?.missing_bytes(loaded) > room_bytes {
            return Ok(None);
        }
        let fits = |rows: usize| of(rows).is_ok_and(|layout| layout.missing_bytes(loaded) <= room_bytes);
        let (mut fitting, mut step) = (1, 1);
        while fitting + step <= at_most && fits(fitting + step) {
            fitting += step;
            step *= 2;
        }
        while step > 0 {
            if fitting + step <= at_most && fits(fitting + step) {
                fitting += step;
            }
            step /= 2;
        }
        Ok(Some(fitting))
    }

    pub(super) fn plans(&self) -> impl Iterator<Item = &Plan> {
        [Some(&self.ahead), self.expand.as_ref(), self.reencode.as_ref()].into_iter().flatten()
    }

    /// Bytes of device memory that making a decoder of this layout takes: its own, and what `loaded` has not loaded yet
    /// of the weights, constants and tables. Exact where the device takes what it is asked for, else the most it takes.
    #[must_use]
    pub fn missing_bytes(&self, loaded: &LoadedModel) -> usize {
        loaded.missing_bytes(&self.resources) + self.own_bytes(loaded)
    }

    /// Bytes of device memory of the decoder itself: state, arenas, bursts in flight, prefill.
    #[must_use]
    pub fn own_bytes(&self, loaded: &LoadedModel) -> usize {
        loaded.device.properties().taken_bytes(self.allocations())
    }

    /// Sizes of the allocations that a decoder makes for itself.
    fn allocations(&self) -> impl Iterator<Item = usize> {
        let lane = self.cuts.iter().flat_map(|cut| {
            let bytes = cut.burst.elements() * self.element_bytes;
            let wide = self.setup.shares_rows().then_some(bytes / self.setup.rows * self.setup.sequences);
            [Some(bytes), wide].into_iter().flatten()
        });
        let lane: Vec<usize> = lane.chain([self.ids_bytes()]).collect();
        let lanes = std::iter::repeat_n(lane, IN_FLIGHT).flatten();
        let own = self.state.values().chain(&self.arenas).chain([&self.prefill_bytes]).copied();
        own.chain(lanes)
    }

    /// Bytes of the tokens of one burst.
    pub(super) fn ids_bytes(&self) -> usize {
        self.sequences() * self.burst_tokens * 8
    }

    /// Bytes of the caches of one row.
    #[must_use]
    pub fn cache_bytes_per_row(&self) -> usize {
        let bytes: usize = self.caches.iter().filter_map(|name| self.state.get(name)).sum();
        bytes / self.setup.rows
    }

    /// Bytes of weights that the decoder's graphs read, loaded or not.
    #[must_use]
    pub fn weight_bytes(&self, loaded: &LoadedModel) -> usize {
        loaded.pack_bytes(&self.resources).into_iter().map(|(_, bytes)| bytes).sum()
    }

    /// Sequences side by side.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.setup.sequences
    }

    /// Whether a coarse run-ahead and an expansion share the work.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.expand.is_some()
    }

    /// Names of the graphs that run on the coarse stream for one meta-context.
    pub(super) fn step_graphs(&self) -> String {
        let reencode = self.reencode.as_ref().map(|plan| format!(" + {}", plan.graph));
        format!("{}{}", self.ahead.graph, reencode.unwrap_or_default())
    }

    /// Tokens of a sequence that one run of the sampler's graph yields.
    pub(super) fn drawn_tokens(&self) -> usize {
        if self.is_split() { self.burst_tokens } else { self.burst_tokens / self.setup.run_ahead }
    }

    /// One arena for each stream.
    fn size_arenas(&mut self) {
        let reencode = self.reencode.as_ref().map_or(0, |plan| plan.arena_bytes);
        self.arenas = vec![self.ahead.arena_bytes.max(reencode).max(1)];
        self.arenas.extend(self.expand.as_ref().map(|plan| plan.arena_bytes.max(1)));
    }

    fn size_state(&mut self, program: &Program) {
        let given: BTreeSet<&str> =
            self.cuts.iter().map(|cut| cut.name.as_str()).chain(["uniforms", "forced", "ids"]).collect();
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
        state.insert(FORCED.to_owned(), sequences * self.drawn_tokens() * 8);
        if !self.is_split() {
            state.insert("ids".to_owned(), sequences * self.drawn_tokens() * 8);
            state.insert(ALL_FORCED.to_owned(), self.ids_bytes());
        }
        if self.is_split() && self.setup.shares_rows() {
            state.insert(ROW_OF.to_owned(), sequences * 8);
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

    /// Room for the longest prompt alone and for as many of them as go together; what needs more goes in smaller groups.
    fn size_prefill(&mut self, loaded: &LoadedModel, program: &Program) -> Result<(), BackendError> {
        let longest = self.longest_prompt();
        let together = self.prefill_rows(program, longest);
        let one = self.prefill_plan(loaded, program, 1, longest)?;
        let several = self.prefill_plan(loaded, program, together, longest)?;
        let bytes = |plan: &Plan, rows: usize| Places::of(plan, rows, longest * program.meta_tokens).bytes;
        self.prefill_bytes = bytes(&one, 1).max(bytes(&several, together));
        self.resources = Resources::of(self.plans().chain([&one, &several]));
        // Besides plans: copies and counters, uniform numbers.
        let outside = [
            Call::Element(ElementArguments { size: [1; 5], ..ElementArguments::default() }),
            Call::Uniforms(UniformArguments { rows: 1, count: 1, ..UniformArguments::default() }),
        ];
        let steps = self.plans().chain([&one, &several]).flat_map(|plan| &plan.steps);
        let calls: Vec<&Call> = steps.map(|step| &step.call).chain(&outside).collect();
        let kernels = loaded.device.kernels(&mut calls.into_iter(), loaded.dtype)?;
        self.kernels = kernels;
        Ok(())
    }

    /// Meta-contexts of the longest prompt that a row takes, padding included.
    pub(super) fn longest_prompt(&self) -> usize {
        (self.setup.capacity - self.setup.run_ahead).max(self.least_prompt)
    }

    /// The plan that encodes `rows` prompts of `meta` meta-contexts each to the state that bursts start from.
    pub(super) fn prefill_plan(
        &self,
        loaded: &LoadedModel,
        program: &Program,
        rows: usize,
        meta: usize,
    ) -> Result<Plan, BackendError> {
        let sizes = bindings(rows, meta, self.setup.capacity);
        loaded
            .plan(self.setup.protocol.encode(), &sizes, &self.prefill_options(program)?)
            .map_err(|error| failed_in(self.setup.protocol.encode(), error))
    }

    /// Prefill makes the states alone.
    fn prefill_options(&self, program: &Program) -> Result<PlanOptions, BackendError> {
        let signature = program
            .signature(self.setup.protocol.encode())
            .map_err(|error| self.setup.refuses(error.to_string()))?;
        let wanted =
            signature.outputs.keys().filter(|name| self.state.contains_key(*name)).cloned().collect();
        Ok(PlanOptions { outputs: Some(wanted), ..PlanOptions::default() })
    }

    /// Rows that one prefill takes where prompts have `meta_contexts` each.
    pub(super) fn prefill_rows(&self, program: &Program, meta_contexts: usize) -> usize {
        (PREFILL_TOKENS / (meta_contexts * program.meta_tokens).max(1)).clamp(1, self.setup.rows)
    }
}

/// Sizes of the symbols.
pub(super) fn bindings(batch: usize, meta: usize, capacity: usize) -> Bindings {
    let mut bindings = Bindings::default();
    bindings.bind(Symbol::Batch, batch);
    bindings.bind(Symbol::Meta, meta);
    bindings.bind(Symbol::Capacity, capacity);
    bindings
}

/// The outputs of the coarse graph that are no state.
fn cuts(program: &Program, coarse: &str, setup: DecoderSetup) -> Result<Vec<Cut>, BackendError> {
    let binding = |message: String| BackendError::Binding { graph: coarse.to_owned(), message };
    let signature = program.signature(coarse).map_err(|error| binding(error.to_string()))?;
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
