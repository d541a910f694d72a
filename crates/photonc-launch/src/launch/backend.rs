//! Every graph of a bundle on a device, one run at a time, as the generator asks for it. Owns the
//! buffers' memory, which it reuses by size, and the conversion between what graphs declare and what the device holds.

use super::bound_plan;
use super::derived_weights::BrokenGraph;
use super::device::{Allocation, Device, DeviceError, Stream};
use super::loaded_model::{LoadedModel, ModelError, bytes_of};
use super::plan::view::{Element, View, row_major};
use super::plan::{Plan as ExecutionPlan, PlanError, PlanOptions};
use super::weights::{InMemory, WeightBytes};
use indexmap::IndexMap;
use photonc_bundle::bundle::Bundle;
use photonc_graph::graph::Graph;
use photonc_graph::graph::interp::WeightSource;
use photonc_graph::ir::bytes::floats_of;
use photonc_graph::ir::dim::Bindings;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::{Data, Tensor};
use photonc_runtime::backend::{BackendError, Buffer, Outputs};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// What errors say before `named.rs` puts the device's own name.
const NAME: &str = "cuda";
pub(super) const STREAM: Stream = Stream(0);

/// Graphs on a device.
pub struct LaunchBackend {
    pub(super) loaded: LoadedModel,
    pool: Pool,
    arena: Option<Allocation>,
    /// Plans made last, the newest at the end.
    plans: VecDeque<(PlanKey, Arc<ExecutionPlan>)>,
}

/// Graph, sizes, and element types of the inputs.
type PlanKey = (String, Bindings, BTreeMap<String, Element>);

/// Plans that are kept: those of a few batches with all their graphs.
const KEPT_PLANS: usize = 64;

/// Memory for reuse, by size. One stream uses it, so what is handed out anew is written after what read it before.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<BTreeMap<usize, Vec<Allocation>>>>);

/// Memory of a buffer, returned to the pool when dropped.
pub(super) struct Held {
    memory: Option<Allocation>,
    pub(super) element: Element,
    pool: Pool,
}

impl Drop for LaunchBackend {
    fn drop(&mut self) {
        // Work that nobody has waited for may still use the memory. A device that has failed does none.
        let _idle = self.device().synchronize();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
            free.entry(memory.bytes).or_default().push(memory);
        }
    }
}

impl Held {
    pub(super) fn address(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.address)
    }
}

impl LaunchBackend {
    /// The graphs of a bundle, activations and weights in `dtype`.
    ///
    /// # Errors
    /// A graph that does not parse.
    pub fn of_bundle(bundle: Bundle, device: Arc<dyn Device>, dtype: Dtype) -> Result<Self, BackendError> {
        let mut graphs = IndexMap::new();
        for name in bundle.manifest().graphs.keys() {
            let error = |message: String| BackendError::Load { graph: name.clone(), message };
            let graph = bundle.parsed(name).map_err(|source| error(source.to_string()))?;
            graphs.insert(name.clone(), graph.clone());
        }
        Self::with_weights_of(bundle, graphs, device, dtype)
    }

    /// Graphs in memory with the weights of a bundle.
    ///
    /// # Errors
    /// Never for verified graphs.
    pub fn with_weights_of(
        bundle: Bundle,
        graphs: IndexMap<String, Graph>,
        device: Arc<dyn Device>,
        dtype: Dtype,
    ) -> Result<Self, BackendError> {
        Self::with(graphs, Box::new(Arc::new(bundle)), device, dtype)
    }

    /// Graphs in memory.
    ///
    /// # Errors
    /// Never for verified graphs.
    pub fn of_graphs(
        graphs: IndexMap<String, Graph>,
        weights: Arc<dyn WeightSource>,
        device: Arc<dyn Device>,
        dtype: Dtype,
    ) -> Result<Self, BackendError> {
        Self::with(graphs, Box::new(InMemory(weights)), device, dtype)
    }

    fn with(
        graphs: IndexMap<String, Graph>,
        weights: Box<dyn WeightBytes>,
        device: Arc<dyn Device>,
        dtype: Dtype,
    ) -> Result<Self, BackendError> {
        let broken =
            |error: BrokenGraph| BackendError::Load { message: error.source.to_string(), graph: error.graph };
        let mut loaded = LoadedModel::new(device, graphs, weights, dtype).map_err(broken)?;
        loaded.tuning = loaded
            .tuning
            .from_environment()
            .map_err(|message| BackendError::Device { backend: NAME, message })?;
        Ok(LaunchBackend { loaded, pool: Pool::default(), arena: None, plans: VecDeque::new() })
    }

    /// The graphs and weights on the device.
    pub fn loaded(&mut self) -> &mut LoadedModel {
        &mut self.loaded
    }

    pub(super) fn device(&self) -> &dyn Device {
        &*self.loaded.device
    }

    pub(super) fn hold(
        &mut self,
        element: Element,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<Buffer, BackendError> {
        let bytes = shape.iter().product::<usize>() * element.size_bytes(self.loaded.dtype);
        let bytes = bytes.max(1).next_multiple_of(256);
        let free =
            self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&bytes).and_then(Vec::pop);
        let memory = match free {
            Some(memory) => memory,
            None => self.allocate_or_trim(bytes)?,
        };
        let held = Held { memory: Some(memory), element, pool: self.pool.clone() };
        Ok(Buffer::new(dtype, shape.to_vec(), held))
    }

    /// Fresh memory; what lies unused in the pool is given back first where there is no room.
    fn allocate_or_trim(&mut self, bytes: usize) -> Result<Allocation, BackendError> {
        match self.device().allocate(bytes) {
            Err(DeviceError::OutOfMemory { .. }) => {
                self.device().synchronize().map_err(failed)?;
                self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.device().allocate(bytes).map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    fn arena(&mut self, bytes: usize) -> Result<u64, BackendError> {
        if let Some(arena) = self.arena.as_ref().filter(|arena| arena.bytes >= bytes) {
            return Ok(arena.address);
        }
        self.device().synchronize().map_err(failed)?;
        self.arena = None;
        let arena = self.allocate_or_trim(bytes.max(1).next_multiple_of(1 << 20))?;
        let address = arena.address;
        self.arena = Some(arena);
        Ok(address)
    }

    /// Copies a box of elements on the device, converting between element types.
    pub(super) fn copy(&self, from: (u64, &View), to: (u64, &View)) -> Result<(), BackendError> {
        bound_plan::copy(self.device(), STREAM, self.loaded.dtype, from, to).map_err(failed)
    }
}

pub(super) fn failed(error: DeviceError) -> BackendError {
    match error {
        DeviceError::OutOfMemory { bytes, .. } => BackendError::OutOfMemory { backend: NAME, bytes },
        DeviceError::Unavailable(message) => BackendError::Unavailable { backend: NAME, message },
        other => BackendError::Device { backend: NAME, message: other.to_string() },
    }
}

pub(super) fn failed_in(graph: &str, error: ModelError) -> BackendError {
    match error {
        ModelError::NoGraph(graph) => BackendError::NoGraph { graph, backend: NAME },
        ModelError::Verify(source) => {
            BackendError::Load { graph: graph.to_owned(), message: source.to_string() }
        }
        ModelError::Plan(PlanError { graph, scope, message }) => {
            BackendError::Load { graph, message: format!("{scope}: {message}") }
        }
        ModelError::Unbound { graph, name } => {
            BackendError::Binding { graph, message: format!("`{name}` was given no memory") }
        }
        ModelError::Device(error @ (DeviceError::OutOfMemory { .. } | DeviceError::Unavailable(_))) => {
            failed(error)
        }
        ModelError::Device(error) => {
            BackendError::Run { graph: graph.to_owned(), backend: NAME, message: error.to_string() }
        }
    }
}

pub(super) fn held(buffer: &Buffer) -> Result<&Held, BackendError> {
    buffer.storage()
}

pub(super) fn whole(buffer: &Buffer, element: Element) -> View {
    View { buffer: 0, element, offset: 0, dims: buffer.shape().to_vec(), strides: row_major(buffer.shape()) }
}

/// How the device holds values that a graph declares as `dtype`.
fn element_of(dtype: Dtype) -> Element {
    match dtype {
        Dtype::I64 => Element::Int,
        Dtype::Bool => Element::Bool,
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Element::Model,
    }
}

// What `named.rs` calls.
impl LaunchBackend {
    pub(super) fn zeroed(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        let buffer = self.hold(element_of(dtype), dtype, shape)?;
        let held = held(&buffer)?;
        let bytes = buffer.elements() * held.element.size_bytes(self.loaded.dtype);
        self.device().fill(STREAM, held.address(), 0, bytes).map_err(failed)?;
        Ok(buffer)
    }

    pub(super) fn uploaded(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        if !tensor.holds(dtype) || tensor.data.len() != tensor.shape.iter().product::<usize>() {
            return Err(BackendError::Elements { dtype });
        }
        // What comes from the host keeps its precision; a graph that wants less converts it.
        let element = match element_of(dtype) {
            Element::Model => Element::Float,
            other => other,
        };
        let buffer = self.hold(element, dtype, &tensor.shape)?;
        let bytes = bytes_of(&tensor.data, element, self.loaded.dtype);
        self.device().write(STREAM, held(&buffer)?.address(), &bytes).map_err(failed)?;
        Ok(buffer)
    }

    pub(super) fn downloaded(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        let held = held(buffer)?;
        let mut bytes = vec![0; buffer.elements() * held.element.size_bytes(self.loaded.dtype)];
        self.device().read(STREAM, held.address(), &mut bytes).map_err(failed)?;
        Ok(Tensor { shape: buffer.shape().to_vec(), data: data_of(&bytes, held.element, self.loaded.dtype) })
    }

    pub(super) fn written(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError> {
        photonc_runtime::region::check_write(target.shape(), source.shape(), axis, offsets)?;
        let (into, from) = (held(target)?, held(source)?);
        let (to, source_view) = (whole(target, into.element), whole(source, from.element));
        let rows = offsets.len();
        let shared = offsets.windows(2).all(|pair| pair[0] == pair[1]);
        let runs: Vec<(usize, usize)> = match (shared, rows) {
            (_, 0) => Vec::new(),
            (true, _) => vec![(0, rows)],
            (false, _) => (0..rows).map(|row| (row, 1)).collect(),
        };
        for (row, count) in runs {
            let len = source_view.dims[axis];
            let part = to.slice(0, row, count).slice(axis, offsets[row], len);
            self.copy((from.address(), &source_view.slice(0, row, count)), (into.address(), &part))?;
        }
        Ok(())
    }

    pub(super) fn gathered(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        photonc_runtime::region::check_gather(source.shape(), rows)?;
        let from = held(source)?;
        let (element, address) = (from.element, from.address());
        let shape = [&[rows.len()], source.shape().get(1..).unwrap_or_default()].concat();
        let buffer = self.hold(element, source.dtype(), &shape)?;
        let each = shape[1..].iter().product::<usize>() * element.size_bytes(self.loaded.dtype);
        let to = held(&buffer)?.address();
        let mut row = 0;
        while row < rows.len() {
            // Neighbouring rows go in one copy.
            let run = (row..rows.len()).take_while(|at| rows[*at] == rows[row] + (at - row)).count();
            let (start, target) = (address + (rows[row] * each) as u64, to + (row * each) as u64);
            if each > 0 {
                self.device().copy(STREAM, start, target, run * each).map_err(failed)?;
            }
            row += run;
        }
        Ok(buffer)
    }

    pub(super) fn sliced(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        photonc_runtime::region::check_slice(source.shape(), axis, start, len)?;
        let from = held(source)?;
        let (element, address) = (from.element, from.address());
        let part = whole(source, element).slice(axis, start, len);
        let buffer = self.hold(element, source.dtype(), &part.dims)?;
        let target = whole(&buffer, element);
        self.copy((address, &part), (held(&buffer)?.address(), &target))?;
        Ok(buffer)
    }

    /// The plan of a graph; of the sizes that were asked for last it is there already.
    fn plan(
        &mut self,
        graph: &str,
        bindings: Bindings,
        options: PlanOptions,
    ) -> Result<Arc<ExecutionPlan>, ModelError> {
        let wanted = (graph.to_owned(), bindings, options.inputs.clone());
        if let Some((_, plan)) = self.plans.iter().find(|(known, _)| *known == wanted) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(self.loaded.plan(graph, &bindings, &options)?);
        if self.plans.len() == KEPT_PLANS {
            self.plans.pop_front();
        }
        self.plans.push_back((wanted, Arc::clone(&plan)));
        Ok(plan)
    }

    pub(super) fn ran(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        let failed_here = |error: ModelError| failed_in(graph, error);
        let binding = |message: String| BackendError::Binding { graph: graph.to_owned(), message };
        let bindings = self.sizes_of(graph, inputs)?;
        let names = photonc_runtime::plan::signature(self.loaded.graph(graph).map_err(failed_here)?);
        let mut options = PlanOptions::default();
        let mut values = BTreeMap::new();
        for (name, buffer) in inputs {
            let held = held(buffer)?;
            options.inputs.insert((*name).to_owned(), held.element);
            values.insert((*name).to_owned(), held.address());
        }
        let plan = self.plan(graph, bindings, options).map_err(failed_here)?;
        let mut outputs = Outputs::new();
        for (name, ty) in &names.outputs {
            let shape = ty.shape.eval(&bindings).ok_or_else(|| binding(format!("`{name}` has no size")))?;
            let element = plan.output(name).map_or(element_of(ty.dtype), |buffer| buffer.element);
            let buffer = self.hold(element, ty.dtype, &shape)?;
            values.insert(name.clone(), held(&buffer)?.address());
            outputs.push((name.clone(), buffer));
        }
        let arena = self.arena(plan.arena_bytes)?;
        let bound = self.loaded.bind(&plan, arena, &values).map_err(failed_here)?;
        bound.run(self.device(), STREAM).map_err(|error| failed_in(graph, error.into()))?;
        Ok(outputs)
    }
}

/// Elements as the host reads them.
fn data_of(bytes: &[u8], element: Element, model: Dtype) -> Data {
    match element {
        Element::Int => Data::int(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        Element::Bool => Data::bool(bytes.iter().map(|byte| *byte != 0).collect()),
        Element::Float => Data::float(floats_of(Dtype::F32, bytes)),
        Element::Model => Data::float(floats_of(model, bytes)),
    }
}
