//! Which weights lie side by side on the device, so that one product serves several. Owns the grouping: linear maps of
//! the same value (q, k and v; gate and up) share a pack, in the order the graph has them.

use crate::graph::{Graph, NodeId};
use crate::ir::op::Op;
use crate::ir::shape::Type;
use std::collections::{BTreeMap, HashMap};

/// Weights stored one after another along axis 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Canonical names, in order.
    pub names: Vec<String>,
    /// Elements of each.
    pub elements: Vec<usize>,
}

/// Where a weight lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the pack.
    pub pack: usize,
    /// Elements before the weight.
    pub offset: usize,
    /// Elements of the weight.
    pub elements: usize,
}

/// The packs of all graphs of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightLayout {
    packs: Vec<Pack>,
    places: BTreeMap<String, Place>,
}

impl WeightLayout {
    /// The packs for `graphs`; weights that only some of them use are there once.
    #[must_use]
    pub fn of(graphs: &[&Graph]) -> Self {
        let mut layout = WeightLayout::default();
        // The longest joins first: shorter ones are usually part of them.
        let mut joins: Vec<_> = graphs.iter().flat_map(|graph| joins(graph)).collect();
        joins.sort_by_key(|join| std::cmp::Reverse(join.len()));
        joins.iter().for_each(|join| layout.add(join));
        for graph in graphs {
            for group in gates(graph).into_iter().chain(groups(graph)) {
                layout.add(&group);
            }
        }
        for graph in graphs {
            for id in graph.order() {
                if let Op::Weight { name, ty } = graph.op(id) {
                    layout.add(&[(name.to_string(), elements(ty))]);
                }
            }
        }
        layout
    }

    /// The packs, by index.
    #[must_use]
    pub fn packs(&self) -> &[Pack] {
        &self.packs
    }

    /// Where a weight lies; `None` if no graph has it.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Place> {
        self.places.get(name).copied()
    }

    /// Where the weight `id` of a product lies: a stored one, or several along axis 0 whose places follow each other.
    #[must_use]
    pub fn place_of(&self, graph: &Graph, id: NodeId) -> Option<Place> {
        let mut parts = joined(graph, id)?.into_iter();
        let mut whole = self.place(&parts.next()?.0)?;
        for (name, _) in parts {
            let next = self.place(&name)?;
            if next.pack != whole.pack || next.offset != whole.offset + whole.elements {
                return None;
            }
            whole.elements += next.elements;
        }
        Some(whole)
    }

    fn add(&mut self, group: &[(String, usize)]) {
        let new: Vec<&(String, usize)> =
            group.iter().filter(|(name, _)| !self.places.contains_key(name)).collect();
        if new.is_empty() {
            return;
        }
        let mut pack = Pack { names: Vec::new(), elements: Vec::new() };
        let mut offset = 0;
        for (name, elements) in new {
            let place = Place { pack: self.packs.len(), offset, elements: *elements };
            self.places.insert(name.clone(), place);
            pack.names.push(name.clone());
            pack.elements.push(*elements);
            offset += elements;
        }
        self.packs.push(pack);
    }
}

fn elements(ty: &Type) -> usize {
    ty.shape.as_const().map_or(0, |dims| dims.iter().product())
}

/// The stored weights that `id` is, in order: itself, or those it joins along axis 0.
#[must_use]
pub fn joined(graph: &Graph, id: NodeId) -> Option<Vec<(String, usize)>> {
    match graph.op(id) {
        Op::Weight { name, ty } => Some(vec![(name.to_string(), elements(ty))]),
        Op::Concat { axis: 0 } => {
            let parts: Option<Vec<_>> =
                graph.operands(id).into_iter().map(|part| joined(graph, part)).collect();
            Some(parts?.concat())
        }
        _ => None,
    }
}

/// Weights that graphs join themselves, for one product.
fn joins(graph: &Graph) -> Vec<Vec<(String, usize)>> {
    let linears = graph.order().into_iter().filter(|id| matches!(graph.op(*id), Op::Linear));
    let weights = linears.filter_map(|id| joined(graph, *graph.operands(id).get(1)?));
    weights.filter(|weights| weights.len() > 1).collect()
}

/// Gate and up weights of every SwiGLU: the order its kernel wants.
fn gates(graph: &Graph) -> Vec<Vec<(String, usize)>> {
    let swiglus = graph.order().into_iter().filter(|id| matches!(graph.op(*id), Op::SwiGlu));
    let weight = |linear: NodeId| match (graph.op(linear), graph.operands(linear).get(1)) {
        (Op::Linear, Some(weight)) => match graph.op(*weight) {
            Op::Weight { name, ty } => Some((name.to_string(), elements(ty))),
            _ => None,
        },
        _ => None,
    };
    swiglus.filter_map(|id| graph.operands(id).into_iter().map(weight).collect()).collect()
}

/// Weights of the bias-free linear maps of one value, several each.
fn groups(graph: &Graph) -> Vec<Vec<(String, usize)>> {
    let mut order = Vec::new();
    let mut members: HashMap<NodeId, Vec<(String, usize)>> = HashMap::new();
    for id in graph.order() {
        let operands = graph.operands(id);
        let (Op::Linear, [x, weight]) = (graph.op(id), operands.as_slice()) else { continue };
        let Op::Weight { name, ty } = graph.op(*weight) else { continue };
        let root = unsliced(graph, *x);
        let group = members.entry(root).or_insert_with(|| {
            order.push(root);
            Vec::new()
        });
        if group.iter().all(|(known, _)| **known != **name) {
            group.push((name.to_string(), elements(ty)));
        }
    }
    order.into_iter().filter_map(|root| members.remove(&root)).filter(|group| group.len() > 1).collect()
}

/// The value that `id` is a slice of.
#[must_use]
pub fn unsliced(graph: &Graph, id: NodeId) -> NodeId {
    match (graph.op(id), graph.operands(id).as_slice()) {
        (Op::Slice { .. }, [of]) => unsliced(graph, *of),
        _ => id,
    }
}
