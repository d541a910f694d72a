//! Recording what a burst does: the coarse run-ahead and the expansion, or whole steps where the protocol has no split.

use super::super::arguments::{ElementArguments, GatherArguments, UniformArguments};
use super::super::backend::failed_in;
use super::super::bound_plan::{self, BoundPlan};
use super::super::device::{Device, Recording, Stream};
use super::super::loaded_model::LoadedModel;
use super::super::plan::view::{Element, View};
use super::super::plan::{Call, Plan};
use super::{ALL_FORCED, EXPAND, FORCED, Lane, ROW_OF, RecordedDecoder};
use photonc_runtime::backend::BackendError;
use photonc_runtime::plan::NEXT;
use std::collections::BTreeMap;
use std::sync::Arc;

impl RecordedDecoder<'_> {
    /// Memory and recordings of one burst in flight.
    pub(super) fn record_lane(&mut self) -> Result<Lane, BackendError> {
        let device = Arc::clone(&self.loaded.device);
        let ids_bytes = self.layout.ids_bytes();
        let ids = device.allocate(ids_bytes)?;
        let host = device.allocate_host(ids_bytes)?;
        let mut trajectory = Vec::new();
        let mut cuts = BTreeMap::new();
        let element_bytes = self.loaded.dtype.size_bytes();
        for cut in &self.layout.cuts {
            let memory = device.allocate(cut.burst.elements() * element_bytes)?;
            cuts.insert(cut.name.clone(), memory.address);
            trajectory.push(memory);
        }
        let (ahead, expand) = match self.layout.expand.clone() {
            Some(plan) => {
                let ahead = self.record_coarse(&cuts)?;
                let wide = self.widen(&cuts, &mut trajectory)?;
                (ahead, Some(self.record_expand(&plan, &cuts, &wide, ids.address)?))
            }
            None => (self.record_steps(ids.address)?, None),
        };
        Ok(Lane { ids, host, ahead, expand, expanded: None, _trajectory: trajectory })
    }

    /// Memory of every state, under the name that reads it and the one that a graph without that input writes.
    fn state_addresses(&self) -> BTreeMap<String, u64> {
        let both = |(name, memory): (&String, &super::Allocation)| {
            [(name.clone(), memory.address), (format!("{NEXT}{name}"), memory.address)]
        };
        self.state.iter().flat_map(both).collect()
    }

    fn record_coarse(&mut self, cuts: &BTreeMap<String, u64>) -> Result<Recording, BackendError> {
        let device = Arc::clone(&self.loaded.device);
        let arena = self.arenas[0].address;
        let element_bytes = self.loaded.dtype.size_bytes();
        let mut bound = Vec::with_capacity(self.layout.setup.run_ahead);
        for step in 0..self.layout.setup.run_ahead {
            let mut values = self.state_addresses();
            for cut in &self.layout.cuts {
                let offset = step * cut.step.dims[1..].iter().product::<usize>() * element_bytes;
                let base = address_of(cuts, &cut.name);
                values.insert(cut.name.clone(), base + offset as u64);
            }
            bound.push(bind(self.loaded, &self.layout.ahead, arena, &values)?);
        }
        device.begin_recording(self.ahead)?;
        for bound in &bound {
            bound.run(&*device, self.ahead)?;
            self.count_up(&*device, self.ahead)?;
        }
        Ok(device.end_recording(self.ahead)?)
    }

    /// Rows of the trajectory once per sample, where there are several.
    fn widen(
        &self,
        cuts: &BTreeMap<String, u64>,
        memory: &mut Vec<super::Allocation>,
    ) -> Result<BTreeMap<String, u64>, BackendError> {
        if !self.layout.setup.shares_rows() {
            return Ok(cuts.clone());
        }
        let mut wide = BTreeMap::new();
        for cut in &self.layout.cuts {
            let each = cut.burst.elements() / self.layout.setup.rows * self.loaded.dtype.size_bytes();
            let bytes = each * self.layout.sequences();
            let allocation = self.loaded.device.allocate(bytes)?;
            wide.insert(cut.name.clone(), allocation.address);
            memory.push(allocation);
        }
        Ok(wide)
    }

    fn record_expand(
        &mut self,
        plan: &Plan,
        cuts: &BTreeMap<String, u64>,
        wide: &BTreeMap<String, u64>,
        ids: u64,
    ) -> Result<Recording, BackendError> {
        let device = Arc::clone(&self.loaded.device);
        let mut values = self.state_addresses();
        values.extend(wide.iter().map(|(name, address)| (name.clone(), *address)));
        values.insert("ids".to_owned(), ids);
        let arena = self.arenas.get(1).map_or(0, |arena| arena.address);
        let bound = bind(self.loaded, plan, arena, &values)?;
        self.prepare_helpers(&*device)?;
        device.begin_recording(EXPAND)?;
        self.draw_uniforms(&*device, EXPAND)?;
        if self.layout.setup.shares_rows() {
            self.spread_samples(&*device, cuts, wide)?;
        }
        bound.run(&*device, EXPAND)?;
        Ok(device.end_recording(EXPAND)?)
    }

    fn spread_samples(
        &self,
        device: &dyn Device,
        cuts: &BTreeMap<String, u64>,
        wide: &BTreeMap<String, u64>,
    ) -> Result<(), BackendError> {
        for cut in &self.layout.cuts {
            let each = cut.burst.elements() / self.layout.setup.rows;
            let too_large = |_| self.layout.setup.refuses("a trajectory larger than a kernel can count");
            let size = |count: usize| i32::try_from(count).map_err(too_large);
            let arguments = GatherArguments {
                x: address_of(cuts, &cut.name),
                index: self.address(ROW_OF)?,
                out: address_of(wide, &cut.name),
                x_row: 0,
                x_position: each as i64,
                index_row: 0,
                index_inner: 1,
                batch: 1,
                length: size(self.layout.setup.rows)?,
                count: size(self.layout.sequences())?,
                width: size(each)?,
            };
            bound_plan::start(device, EXPAND, self.loaded.dtype, &Call::Gather(arguments))?;
        }
        Ok(())
    }

    /// Whole steps one after another on the coarse stream: tokens, then the state they lead to.
    fn record_steps(&mut self, ids: u64) -> Result<Recording, BackendError> {
        let device = Arc::clone(&self.loaded.device);
        let (arena, values) = (self.arenas[0].address, self.state_addresses());
        let decode = bind(self.loaded, &self.layout.ahead, arena, &values)?;
        let reencode = match &self.layout.reencode {
            Some(plan) => Some(bind(self.loaded, plan, arena, &values)?),
            None => None,
        };
        self.prepare_helpers(&*device)?;
        let (sequences, tokens) = (self.layout.sequences(), self.layout.drawn_tokens());
        let drawn = View::whole(0, Element::Int, &[sequences, tokens]);
        let all = View::whole(0, Element::Int, &[sequences, self.layout.burst_tokens]);
        device.begin_recording(self.ahead)?;
        for step in 0..self.layout.setup.run_ahead {
            self.draw_uniforms(&*device, self.ahead)?;
            let part = all.slice(1, step * tokens, tokens);
            bound_plan::copy(
                &*device,
                self.ahead,
                self.loaded.dtype,
                (self.address(ALL_FORCED)?, &part),
                (self.address(FORCED)?, &drawn),
            )?;
            decode.run(&*device, self.ahead)?;
            bound_plan::copy(
                &*device,
                self.ahead,
                self.loaded.dtype,
                (self.address("ids")?, &drawn),
                (ids, &part),
            )?;
            if let Some(reencode) = &reencode {
                reencode.run(&*device, self.ahead)?;
            }
            self.count_up(&*device, self.ahead)?;
        }
        Ok(device.end_recording(self.ahead)?)
    }

    /// Loads the kernels between graphs before a recording begins: loading cannot be recorded.
    fn prepare_helpers(&self, device: &dyn Device) -> Result<(), BackendError> {
        device.write(EXPAND, self.address("step")?, &self.step_tokens().to_le_bytes())?;
        self.draw_uniforms(device, EXPAND)?;
        device.fill(EXPAND, self.address("first")?, 0, self.layout.sequences() * 8)?;
        device.synchronize()?;
        Ok(())
    }

    fn step_tokens(&self) -> i64 {
        i64::try_from(self.layout.drawn_tokens()).unwrap_or(i64::MAX)
    }

    /// Uniform numbers for the next tokens of every sequence, and the count of tokens.
    fn draw_uniforms(&self, device: &dyn Device, stream: Stream) -> Result<(), BackendError> {
        let too_large = |_| self.layout.setup.refuses("more sequences than a kernel can count");
        let arguments = UniformArguments {
            out: self.address("uniforms")?,
            seed: self.address("seed")?,
            sample: self.address("sample")?,
            first: self.address("first")?,
            rows: i32::try_from(self.layout.sequences()).map_err(too_large)?,
            count: i32::try_from(self.layout.drawn_tokens()).map_err(too_large)?,
        };
        bound_plan::start(device, stream, self.loaded.dtype, &Call::Uniforms(arguments))?;
        let first = View::whole(0, Element::Int, &[self.layout.sequences()]);
        let step = View::whole(0, Element::Int, &[1]);
        self.add(device, stream, ("first", &first), ("step", &step))
    }

    /// One meta-context more in every row that is taken.
    fn count_up(&self, device: &dyn Device, stream: Stream) -> Result<(), BackendError> {
        let rows = if self.layout.is_split() { self.layout.setup.rows } else { self.layout.sequences() };
        let counters = View::whole(0, Element::Int, &[rows]);
        self.add(device, stream, ("lengths", &counters), ("active", &counters))
    }

    fn add(
        &self,
        device: &dyn Device,
        stream: Stream,
        (to, to_view): (&str, &View),
        (by, by_view): (&str, &View),
    ) -> Result<(), BackendError> {
        let (to, by) = (self.address(to)?, self.address(by)?);
        if let Some(arguments) = ElementArguments::sum(self.loaded.dtype, (to, to_view), (by, by_view)) {
            bound_plan::start(device, stream, self.loaded.dtype, &Call::Element(arguments))?;
        }
        Ok(())
    }
}

fn address_of(cuts: &BTreeMap<String, u64>, name: &str) -> u64 {
    *cuts.get(name).expect("invariant: every value on the cut has memory in every lane")
}

/// A plan with addresses, ready to be recorded: what its products need is loaded.
fn bind(
    loaded: &mut LoadedModel,
    plan: &Plan,
    arena: u64,
    values: &BTreeMap<String, u64>,
) -> Result<BoundPlan, BackendError> {
    let bound = loaded.bind(plan, arena, values).map_err(|error| failed_in(&plan.graph, error))?;
    loaded.warm(&bound)?;
    Ok(bound)
}
