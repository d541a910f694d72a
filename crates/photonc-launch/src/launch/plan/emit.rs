//! From what is needed to steps. Owns the memory of every value: outputs and concatenations lend theirs to the nodes that
//! make their parts, so that most views, slices and concatenations cost nothing.

use super::attend::Window;
use super::demand::{Demand, Fusion};
use super::view::{Element, View};
use super::weights::WeightLayout;
use super::{Buffer, Call, Contents, Plan, PlanError, PlanOptions, Step};
use crate::launch::arguments::{Heads, Rows};
use photonc_bundle::program::NEXT;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dim::Bindings;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use std::collections::{HashMap, HashSet};

pub(super) struct Emitter<'d> {
    pub demand: &'d Demand<'d>,
    pub dtype: Dtype,
    pub buffers: Vec<Buffer>,
    pub steps: Vec<Step>,
    /// Where a value should be made.
    pub placed: HashMap<NodeId, View>,
    /// Where a value is.
    pub values: HashMap<NodeId, View>,
    pub windows: HashMap<NodeId, Window>,
    /// New cache entries that their attention writes into the cache itself.
    pub in_place: HashSet<NodeId>,
    /// Values that samplers and callers want in f32.
    pub wide: HashSet<NodeId>,
    /// Numbers of filled slots, by the cache that an attention in its general form reads.
    pub lengths_of: HashMap<NodeId, NodeId>,
    /// Buffers of packs of weights.
    pub weights: HashMap<usize, usize>,
    rotations: HashMap<(u64, usize), usize>,
    /// Buffer and node of every input.
    inputs: HashMap<String, (usize, NodeId)>,
    targets: Vec<(NodeId, View)>,
    /// New entries of caches, and the caches.
    appends: Vec<(NodeId, NodeId)>,
    /// The buffer of `min_p`, once a sampler reads it.
    min_p: Option<usize>,
}

pub(super) fn emit(
    graph: &Graph,
    bindings: &Bindings,
    dtype: Dtype,
    layout: &WeightLayout,
    options: &PlanOptions,
) -> Result<Plan, PlanError> {
    let demand = Demand::of(graph, bindings, layout, options)?;
    let mut emitter = Emitter {
        demand: &demand,
        dtype,
        buffers: Vec::new(),
        steps: Vec::new(),
        placed: HashMap::new(),
        values: HashMap::new(),
        windows: HashMap::new(),
        in_place: HashSet::new(),
        wide: HashSet::new(),
        lengths_of: HashMap::new(),
        weights: HashMap::new(),
        rotations: HashMap::new(),
        inputs: HashMap::new(),
        targets: Vec::new(),
        appends: Vec::new(),
        min_p: None,
    };
    let order = &demand.order;
    emitter.widen(order);
    emitter.inputs()?;
    emitter.outputs()?;
    emitter.place(order);
    for id in order {
        if demand.needed.contains(id) && !emitter.values.contains_key(id) {
            emitter.node(*id)?;
        }
    }
    emitter.deliver()?;
    Ok(Plan {
        graph: graph.name().to_owned(),
        dtype,
        buffers: emitter.buffers,
        steps: emitter.steps,
        arena_bytes: 0,
    })
}

impl Emitter<'_> {
    pub(super) fn graph(&self) -> &Graph {
        self.demand.graph
    }

    pub(super) fn step(&mut self, id: NodeId, call: Call) {
        self.step_with(id, call, self.dtype);
    }

    /// A step that reads a matrix of a type.
    pub(super) fn step_with(&mut self, id: NodeId, call: Call, matrices: Dtype) {
        self.steps.push(Step { scope: self.graph().scope(id).clone(), call, matrices });
    }

    pub(super) fn count(&self, id: NodeId, size: usize) -> Result<i32, PlanError> {
        i32::try_from(size).map_err(|_| self.demand.error(id, format!("{size} is too large for a kernel")))
    }

    pub(super) fn four(&self, id: NodeId, of: NodeId) -> Result<[usize; 4], PlanError> {
        let dims = self.demand.dims(of);
        dims.try_into().map_err(|_| self.demand.error(id, format!("has {} axes, expected 4", dims.len())))
    }

    /// Where the value of a needed node is.
    pub(super) fn value(&self, id: NodeId) -> Result<View, PlanError> {
        self.values.get(&id).cloned().ok_or_else(|| {
            let name = self.graph().op(id).kind().def().name;
            self.demand.error(id, format!("the value of `{name}` exists only inside another kernel"))
        })
    }

    /// Whether the graph's outputs or another node read the value itself.
    pub(super) fn is_read(&self, id: NodeId) -> bool {
        self.demand.needed.contains(&id)
    }

    fn buffer(&mut self, contents: Contents, element: Element, elements: usize) -> usize {
        let bytes = elements * element.size_bytes(self.dtype);
        self.buffers.push(Buffer { contents, element, bytes });
        self.buffers.len() - 1
    }

    pub(super) fn arena(&mut self, element: Element, elements: usize) -> usize {
        self.buffer(Contents::Arena { offset_bytes: 0 }, element, elements)
    }

    /// Where `id` is to be made: its place, or fresh memory.
    pub(super) fn target(&mut self, id: NodeId) -> View {
        if let Some(placed) = self.placed.get(&id) {
            return placed.clone();
        }
        let (element, dims) = (self.element(id), self.demand.dims(id).to_vec());
        let buffer = self.arena(element, dims.iter().product());
        View::whole(buffer, element, &dims)
    }

    /// Fresh row-major memory.
    pub(super) fn fresh(&mut self, element: Element, dims: &[usize]) -> View {
        let buffer = self.arena(element, dims.iter().product());
        View::whole(buffer, element, dims)
    }

    pub(super) fn element(&self, id: NodeId) -> Element {
        match self.graph().ty(id).dtype {
            Dtype::I64 => Element::Int,
            Dtype::Bool => Element::Bool,
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 if self.wide.contains(&id) => Element::Float,
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Element::Model,
        }
    }

    /// Symbolic address of cosines and sines up to `positions`.
    pub(super) fn rotation_table(&mut self, theta: f64, half: usize, positions: usize) -> u64 {
        let key = (theta.to_bits(), half);
        let elements = positions * half * 2;
        let bytes = elements * Element::Float.size_bytes(self.dtype);
        let buffer = match self.rotations.get(&key) {
            Some(buffer) => *buffer,
            None => {
                let contents = Contents::Rotation { theta: key.0, half, positions };
                let buffer = self.buffer(contents, Element::Float, elements);
                self.rotations.insert(key, buffer);
                buffer
            }
        };
        if self.buffers[buffer].bytes < bytes {
            self.buffers[buffer].bytes = bytes;
            self.buffers[buffer].contents = Contents::Rotation { theta: key.0, half, positions };
        }
        super::view::symbolic(buffer, 0)
    }

    pub(super) fn heads(&self, id: NodeId, view: &View) -> Result<Heads, PlanError> {
        view.heads(self.dtype).ok_or_else(|| self.demand.error(id, "the width of a head is not contiguous"))
    }

    /// Rows of a value; it is copied where strides cannot say them.
    pub(super) fn rows(&mut self, id: NodeId, view: &View) -> Result<Rows, PlanError> {
        if let Some(rows) = view.rows(self.dtype) {
            return Ok(rows);
        }
        let copy = self.fresh(view.element, &view.dims);
        self.copy(id, view, &copy)?;
        copy.rows(self.dtype).ok_or_else(|| self.demand.error(id, "has no rows"))
    }

    fn inputs(&mut self) -> Result<(), PlanError> {
        for id in self.graph().inputs() {
            let Op::Input { name, .. } = self.graph().op(id) else { continue };
            let name = name.to_string();
            let wanted = self.element(id);
            let given = self.demand.options.inputs.get(&name).copied().unwrap_or(wanted);
            let dims = self.demand.dims(id).to_vec();
            let buffer = self.buffer(Contents::Input { name: name.clone() }, given, dims.iter().product());
            self.inputs.insert(name, (buffer, id));
            let view = View::whole(buffer, given, &dims);
            if given == wanted || !self.demand.needed.contains(&id) {
                self.values.insert(id, view);
                continue;
            }
            let converted = self.fresh(wanted, &dims);
            self.copy(id, &view, &converted)?;
            self.values.insert(id, converted);
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<(), PlanError> {
        for output in self.graph().outputs().to_vec() {
            let (id, name) = (output.node, output.name.to_string());
            if !self.demand.options.wants(&name) {
                continue;
            }
            let (element, dims) = (self.element(id), self.demand.dims(id).to_vec());
            let state = name.strip_prefix(NEXT).and_then(|input| self.inputs.get(input)).copied();
            let target = match state {
                Some((buffer, input_id)) if self.demand.options.in_place => {
                    let input = &self.buffers[buffer];
                    let fits = input.bytes == dims.iter().product::<usize>() * element.size_bytes(self.dtype);
                    match fits && input.element == element {
                        true => View::whole(buffer, element, &dims),
                        // The new entries of a cache, which its attention appends or a step at the end.
                        false => {
                            self.appends.push((id, input_id));
                            continue;
                        }
                    }
                }
                _ => {
                    let elements = dims.iter().product();
                    let buffer = self.buffer(Contents::Output { name: name.clone() }, element, elements);
                    let mut view = View::whole(buffer, element, &dims);
                    if let Some(strides) = self.demand.options.output_strides.get(&name) {
                        view.strides.clone_from(strides);
                    }
                    if state.is_none() || !self.demand.options.in_place {
                        self.propose(id, view.clone());
                    }
                    view
                }
            };
            self.targets.push((id, target));
        }
        Ok(())
    }

    /// Appends to caches, and copies outputs that were not made in place.
    fn deliver(&mut self) -> Result<(), PlanError> {
        for (id, input) in std::mem::take(&mut self.appends) {
            if !self.in_place.contains(&id) {
                self.append(id, input)?;
            }
        }
        for (id, target) in std::mem::take(&mut self.targets) {
            let value = self.value(id)?;
            if !super::elements::same_memory(&value, &target) {
                self.copy(id, &value, &target)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, id: NodeId) -> Result<(), PlanError> {
        match self.demand.fused.get(&id) {
            Some(Fusion::Residual { linear, other }) => return self.residual(id, *linear, *other),
            Some(Fusion::Swiglu { gate, .. }) => return self.swiglu_product(id, *gate),
            Some(Fusion::Attend(attend)) => return self.attend(id, &attend.clone()),
            Some(Fusion::General(general)) => return self.attend_general(id, &general.clone()),
            None => {}
        }
        if self.in_place.contains(&id) {
            return Ok(());
        }
        let operands = self.graph().operands(id);
        match self.graph().op(id).clone() {
            Op::Linear => self.product(id),
            Op::RmsNorm { eps } => self.norm(id, &operands, eps.get()),
            Op::SwiGlu => self.swiglu(id, &operands),
            Op::Gather => self.embed(id, &operands),
            Op::GatherRows => self.gather_rows(id, &operands),
            Op::Sample { .. } => self.sample(id, &operands),
            Op::Const { value } => self.constant(id, value),
            Op::Iota { .. } => self.iota(id),
            Op::Weight { .. } => self.weight_value(id),
            Op::Reshape { .. } => self.reshape(id, operands[0]),
            Op::Transpose { perm } => {
                let view = self.value(operands[0])?.transpose(&perm);
                self.values.insert(id, view);
                Ok(())
            }
            Op::Slice { axis, start, len, from_end } => {
                let view = self.value(operands[0])?;
                let first = if from_end { view.dims[axis].saturating_sub(start) } else { start };
                self.values.insert(id, view.slice(axis, first, len));
                Ok(())
            }
            Op::Concat { axis } => self.concat(id, &operands, axis),
            Op::Shift => self.shift(id, &operands),
            Op::Unary { .. } | Op::Binary { .. } | Op::Compare { .. } | Op::Where | Op::Cast { .. } => {
                self.elementwise(id, &operands)
            }
            Op::Rope { .. } | Op::Attention { .. } if self.demand.stored.contains(&id) => Ok(()),
            Op::Input { .. } => Ok(()),
            Op::Rope { theta } => self.rope(id, &operands, theta.get()),
            Op::Route { .. } => self.route(id, &operands),
            Op::Experts { top_k } => self.experts(id, &operands, top_k),
            Op::Attention { .. }
            | Op::QuantizedWeight { .. }
            | Op::CacheAppend
            | Op::Delay { .. }
            | Op::ProtocolSwitch => {
                let name = self.graph().op(id).kind().def().name;
                Err(self.demand.error(id, format!("`{name}` has no kernel where it stands")))
            }
        }
    }

    /// Symbolic address of `min_p` for a sampler of `parameters` rows; 0 where it is not asked for.
    pub(super) fn min_p(&mut self, parameters: usize) -> u64 {
        if !self.demand.options.min_p {
            return 0;
        }
        let buffer = match self.min_p {
            Some(buffer) => buffer,
            None => self.buffer(Contents::Input { name: "min_p".to_owned() }, Element::Float, parameters),
        };
        self.min_p = Some(buffer);
        super::view::symbolic(buffer, 0)
    }

    fn constant(&mut self, id: NodeId, value: photonc_graph::ir::tensor::Literal) -> Result<(), PlanError> {
        let (element, dims) = (self.element(id), value.shape().to_vec());
        let elements = dims.iter().product();
        let buffer = self.buffer(Contents::Constant(value), element, elements);
        self.values.insert(id, View::whole(buffer, element, &dims));
        Ok(())
    }
}
