//! What a plan computes. Owns the walk from the outputs back: which nodes are needed, and which are part of another
//! node's kernel (residuals, SwiGLU, norms before narrow products, everything around attention).

use super::attention::{Attend, Kind};
use super::general::General;
use super::weights::{WeightLayout, unsliced};
use super::{PlanError, PlanOptions, window_keys};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::BinaryFn;
use photonc_graph::ir::dim::Bindings;
use photonc_graph::ir::op::Op;
use std::collections::{HashMap, HashSet};

/// A node whose kernel does the work of others too.
#[derive(Clone, Debug)]
pub(super) enum Fusion {
    /// `linear + other`.
    Residual { linear: NodeId, other: NodeId },
    /// `silu(x gate^T) * (x up^T)`.
    Swiglu { gate: NodeId, up: NodeId },
    /// Attention with the rotations, concatenations and stores around it.
    Attend(Attend),
    /// Attention by itself.
    General(General),
}

impl Fusion {
    /// Whether the product `linear` is part of this kernel.
    pub(super) fn takes(&self, linear: NodeId) -> bool {
        match self {
            Fusion::Residual { linear: own, .. } => *own == linear,
            Fusion::Swiglu { gate, up } => [*gate, *up].contains(&linear),
            Fusion::Attend(_) | Fusion::General(_) => false,
        }
    }
}

/// A graph at given sizes, and what of it a plan computes.
pub(super) struct Demand<'g> {
    pub graph: &'g Graph,
    /// Every node; what is written to a window's memory before who reads it there.
    pub order: Vec<NodeId>,
    pub layout: &'g WeightLayout,
    pub options: &'g PlanOptions,
    pub dims: HashMap<NodeId, Vec<usize>>,
    pub needed: HashSet<NodeId>,
    pub fused: HashMap<NodeId, Fusion>,
    /// Products of one value, by that value, in graph order.
    pub groups: HashMap<NodeId, Vec<NodeId>>,
    /// Positions of the longest window that starts with a key segment.
    pub windows: HashMap<NodeId, usize>,
    /// Keys of windows that a later place reads.
    window_keys: HashSet<NodeId>,
    /// The attention that writes each new key.
    storers: HashMap<NodeId, NodeId>,
    /// Keys that their attention writes.
    pub stored: HashSet<NodeId>,
}

impl<'g> Demand<'g> {
    pub(super) fn of(
        graph: &'g Graph,
        bindings: &Bindings,
        layout: &'g WeightLayout,
        options: &'g PlanOptions,
    ) -> Result<Self, PlanError> {
        let order = graph.order();
        let wanted = graph.outputs().iter().filter(|output| options.wants(&output.name));
        let live = graph.ancestors(wanted.map(|output| output.node));
        let storers = window_keys::storers(graph, &order, &live);
        let order = window_keys::behind_storers(graph, &order, &storers);
        let mut demand = Demand {
            graph,
            order: Vec::new(),
            storers,
            layout,
            options,
            dims: HashMap::new(),
            needed: graph
                .outputs()
                .iter()
                .filter(|o| options.wants(&o.name))
                .map(|output| output.node)
                .collect(),
            fused: HashMap::new(),
            groups: HashMap::new(),
            windows: HashMap::new(),
            window_keys: HashSet::new(),
            stored: HashSet::new(),
        };
        for id in &order {
            let unbound = || demand.error(*id, format!("a size of {} is not given", graph.ty(*id)));
            let dims = graph.ty(*id).shape.eval(bindings).ok_or_else(unbound)?;
            demand.dims.insert(*id, dims);
        }
        for id in order.iter().rev() {
            if demand.needed.contains(id) {
                let wants = demand.wants(*id)?;
                demand.needed.extend(wants);
            }
        }
        demand.collect_groups(&order);
        demand.order = order;
        Ok(demand)
    }

    pub(super) fn error(&self, id: NodeId, message: impl Into<String>) -> PlanError {
        PlanError {
            graph: self.graph.name().to_owned(),
            scope: self.graph.scope(id).clone(),
            message: message.into(),
        }
    }

    /// Sizes of a node's value.
    pub(super) fn dims(&self, id: NodeId) -> &[usize] {
        self.dims.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Rows of a node's value as a matrix.
    pub(super) fn rows(&self, id: NodeId) -> usize {
        let dims = self.dims(id);
        dims[..dims.len().saturating_sub(1)].iter().product()
    }

    /// Nodes whose values the kernel of `id` reads.
    fn wants(&mut self, id: NodeId) -> Result<Vec<NodeId>, PlanError> {
        let operands = self.graph.operands(id);
        Ok(match self.graph.op(id) {
            Op::Binary { function: BinaryFn::Add } => match self.residual(id, &operands) {
                Some((linear, other)) => {
                    self.fused.insert(id, Fusion::Residual { linear, other });
                    vec![self.source(linear), other]
                }
                None => operands,
            },
            Op::SwiGlu => match self.swiglu(&operands) {
                Some((gate, up)) => {
                    self.fused.insert(id, Fusion::Swiglu { gate, up });
                    vec![self.source(gate)]
                }
                None => operands,
            },
            Op::Linear => match self.own_residual(id) {
                Some(other) => {
                    self.fused.insert(id, Fusion::Residual { linear: id, other });
                    vec![self.source(id), other]
                }
                None => vec![self.source(id)],
            },
            Op::RmsNorm { .. } | Op::Route { .. } => vec![operands[0]],
            Op::Experts { .. } => vec![operands[0], operands[1]],
            Op::Gather => vec![operands[1]],
            Op::Iota { .. } => Vec::new(),
            Op::Attention { .. } => self.attention(id)?,
            Op::Rope { .. } if self.stored.contains(&id) => Vec::new(),
            _ => operands,
        })
    }

    fn attention(&mut self, id: NodeId) -> Result<Vec<NodeId>, PlanError> {
        let mut attend = match Attend::of(self, id) {
            Ok(attend) if !self.shares_new_keys(&attend) && self.finds_keys(&attend) => attend,
            _ => {
                let general = General::of(self, id)?;
                let wants = general.wants(self.graph.operands(id)[0]);
                self.fused.insert(id, Fusion::General(general));
                return Ok(wants);
            }
        };
        let wants = attend.wants();
        if attend.kind == Kind::Window {
            let first = attend.first_key();
            let positions = attend.past + attend.keys;
            // Users are met before what they use.
            attend.read_later = self.window_keys.contains(&attend.new_key);
            self.window_keys.extend(attend.earlier_keys.iter().copied());
            let longest = self.windows.entry(first).or_insert(positions);
            *longest = (*longest).max(positions);
        }
        self.stored.insert(attend.new_key);
        self.fused.insert(id, Fusion::Attend(attend));
        Ok(wants)
    }

    /// Whether every earlier key of a window is written to its memory by the attention of its own place.
    fn finds_keys(&self, attend: &Attend) -> bool {
        attend.kind != Kind::Window || attend.earlier_keys.iter().all(|key| self.storers.contains_key(key))
    }

    /// Whether new keys that would exist in a cache alone are read by others, such as a later position of the same step.
    fn shares_new_keys(&self, attend: &Attend) -> bool {
        let readers = |id| self.graph.users(id).len();
        let appends = attend.kind == Kind::Cache && self.options.in_place;
        appends && (readers(attend.new_key) > 1 || readers(attend.value) > 1)
    }

    /// The product and the other operand of a sum that the product's kernel can do.
    fn residual(&self, id: NodeId, operands: &[NodeId]) -> Option<(NodeId, NodeId)> {
        let [a, b] = operands else { return None };
        let fits = |linear: NodeId, other: NodeId| {
            matches!(self.graph.op(linear), Op::Linear)
                && linear != other
                && self.own_residual(linear).is_none()
                && self.graph.users(linear).len() == 1
                && self.graph.outputs().iter().all(|output| output.node != linear)
                && self.dims(linear) == self.dims(id)
                && self.dims(other) == self.dims(id)
        };
        if fits(*b, *a) {
            return Some((*b, *a));
        }
        fits(*a, *b).then_some((*a, *b))
    }

    /// The value that a product adds by itself, of the shape of its result.
    pub(super) fn own_residual(&self, linear: NodeId) -> Option<NodeId> {
        let third = *self.graph.operands(linear).get(2)?;
        (self.dims(third).len() > 1).then_some(third)
    }

    /// The one product whose halves are gate and up.
    fn joined_gate(&self, gate: NodeId, up: NodeId) -> Option<NodeId> {
        let half = |id: NodeId| match (self.graph.op(id), self.graph.operands(id).as_slice()) {
            (Op::Slice { axis, start, len, from_end: false }, [of]) if axis + 1 == self.dims(*of).len() => {
                Some((*of, *start, *len))
            }
            _ => None,
        };
        let ((a, 0, width), (b, start, other)) = (half(gate)?, half(up)?) else { return None };
        let fits = a == b
            && matches!(self.graph.op(a), Op::Linear)
            && self.graph.operands(a).len() == 2
            && (start, other) == (width, width)
            && self.dims(a).last() == Some(&(2 * width))
            && self.graph.users(a).len() == 2
            && self.graph.users(gate).len() == 1
            && self.graph.users(up).len() == 1
            && self.weight_place(a).is_some()
            && self.rows(a) <= self.options.tuning.skinny_rows;
        fits.then_some(a)
    }

    /// Gate and up product of a SwiGLU that one narrow kernel can do; the same one twice where they are joined.
    fn swiglu(&self, operands: &[NodeId]) -> Option<(NodeId, NodeId)> {
        let [gate, up] = operands else { return None };
        if let Some(joined) = self.joined_gate(*gate, *up) {
            return Some((joined, joined));
        }
        let alone = |id: NodeId| {
            matches!(self.graph.op(id), Op::Linear)
                && self.graph.operands(id).len() == 2
                && self.graph.users(id).len() == 1
                && self.graph.outputs().iter().all(|output| output.node != id)
        };
        let same = self.graph.operands(*gate).first() == self.graph.operands(*up).first();
        let adjacent = match (self.weight_place(*gate), self.weight_place(*up)) {
            (Some(gate), Some(up)) => gate.pack == up.pack && gate.offset + gate.elements == up.offset,
            _ => false,
        };
        let narrow = self.rows(*gate) <= self.options.tuning.skinny_rows;
        (gate != up && alone(*gate) && alone(*up) && same && adjacent && narrow).then_some((*gate, *up))
    }

    /// Where the weight of a product lies; `None` if it is not a stored weight.
    pub(super) fn weight_place(&self, linear: NodeId) -> Option<super::weights::Place> {
        self.layout.place_of(self.graph, *self.graph.operands(linear).get(1)?)
    }

    /// The norm that the kernel of a product computes itself, if any.
    pub(super) fn folded_norm(&self, linear: NodeId) -> Option<NodeId> {
        let root = unsliced(self.graph, *self.graph.operands(linear).first()?);
        // cuBLASLt computes no norm.
        let tuning = self.options.tuning;
        let narrow = self.rows(root) <= tuning.folded_norm_rows.min(tuning.skinny_rows);
        (narrow && matches!(self.graph.op(root), Op::RmsNorm { .. })).then_some(root)
    }

    /// The node whose value the kernel of a product reads.
    pub(super) fn source(&self, linear: NodeId) -> NodeId {
        let operands = self.graph.operands(linear);
        match self.folded_norm(linear) {
            Some(norm) => self.graph.operands(norm)[0],
            None => operands[0],
        }
    }

    fn collect_groups(&mut self, order: &[NodeId]) {
        for id in order {
            let plain = matches!(self.graph.op(*id), Op::Linear) && self.graph.operands(*id).len() == 2;
            if !plain || !self.needed.contains(id) {
                continue;
            }
            let root = unsliced(self.graph, self.graph.operands(*id)[0]);
            self.groups.entry(root).or_default().push(*id);
        }
    }
}
