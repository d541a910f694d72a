//! The expansion of many meta-contexts at once: the steps become rows of the batch (row-major, batch outside, meta
//! inside), delays become shifts along the meta axis, per-step inputs gain that axis. Refuses any operation that is
//! not row-wise.

use super::{Declined, NotDistributed, Split, row_wise};
use photonc_graph::graph::{Graph, NodeId, Scope};
use photonc_graph::ir::attr::{BinaryFn, Role};
use photonc_graph::ir::dim::{Dim, Symbol};
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::{Shape, Type};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) fn widen(split: &Split<'_>) -> Result<Graph, NotDistributed> {
    widen_as("expand", split)
}

/// The same under another name.
pub(super) fn widen_as(name: &str, split: &Split<'_>) -> Result<Graph, NotDistributed> {
    let mut widener = Widener { split, wide: Graph::new(name), map: HashMap::new() };
    for (id, name) in &split.cut {
        let input = widener.per_step(*id, &name.as_str().into())?;
        widener.map.insert(*id, input);
    }
    for id in order(split) {
        let wide = widener.node(id)?;
        widener.map.insert(id, wide);
    }
    for (id, name) in &split.roots {
        let wide = widener.map[id];
        let folded = widener.fold_into_rows(*id, wide)?;
        widener.wide.set_output(name, folded);
    }
    widener.last_states()?;
    Ok(widener.wide)
}

/// Nodes of the expansion and the fixed and input nodes they read, operands first; a delay follows its next state.
fn order(split: &Split<'_>) -> Vec<NodeId> {
    let graph = split.graph;
    let mut done: HashSet<NodeId> = split.cut.iter().map(|(id, _)| *id).collect();
    let mut order = Vec::new();
    let roots = split.rest.iter().copied().chain(split.roots.iter().map(|(id, _)| *id));
    for root in roots {
        // Depth first with an explicit stack: a node is placed when it is met the second time.
        let mut stack = vec![(root, false)];
        while let Some((id, operands_done)) = stack.pop() {
            if operands_done {
                if done.insert(id) {
                    order.push(id);
                }
            } else if !done.contains(&id) {
                stack.push((id, true));
                stack.extend(graph.operands(id).into_iter().rev().map(|operand| (operand, false)));
            }
        }
    }
    order
}

struct Widener<'s, 'g> {
    split: &'s Split<'g>,
    wide: Graph,
    map: HashMap<NodeId, NodeId>,
}

impl Widener<'_, '_> {
    fn node(&mut self, id: NodeId) -> Result<NodeId, NotDistributed> {
        let graph = self.split.graph;
        let scope = graph.scope(id).clone();
        match graph.op(id) {
            Op::Input { name, role: Role::PerStep, .. } => self.per_step(id, name),
            Op::Input { name, ty, role: Role::Counter } => self.counter(id, name, ty, &scope),
            Op::Input { name, ty, role: Role::Invariant | Role::Argument } => {
                let op = Op::Input { name: name.clone(), ty: ty.clone(), role: Role::Argument };
                Ok(self.wide.add(op, &[], &scope)?)
            }
            Op::Delay { name, ty } => self.shift(id, name, ty, &scope),
            op if self.split.fixed.contains(&id) => {
                let operands: Vec<NodeId> =
                    graph.operands(id).iter().map(|operand| self.map[operand]).collect();
                Ok(self.wide.add(op.clone(), &operands, &scope)?)
            }
            op => {
                let types: Vec<Type> = graph.operands(id).iter().map(|o| graph.ty(*o).clone()).collect();
                row_wise::row_wise(op, &types, graph.ty(id)).map_err(|reason| {
                    let reason = format!(
                        "{scope}: `{}` cannot run many steps as rows: {reason}",
                        op.kind().def().name
                    );
                    NotDistributed::Declined(Declined::without_path(&scope.to_string(), reason))
                })?;
                let operands = self.operands(id, op)?;
                let wide = self.wide.add(widened(op), &operands, &scope)?;
                if let Some(label) = graph.label(id) {
                    self.wide.set_label(wide, label);
                }
                Ok(wide)
            }
        }
    }

    /// The wide operands: rows, but for what a sample reads as the parameters of many rows.
    fn operands(&self, id: NodeId, op: &Op) -> Result<Vec<NodeId>, NotDistributed> {
        let operands = self.split.graph.operands(id).into_iter().enumerate();
        let wide = operands.map(|(slot, operand)| match op {
            Op::Sample { .. } if slot >= 2 => Ok(self.map[&operand]),
            _ => self.as_rows(operand),
        });
        wide.collect()
    }

    /// The wide value of a node, if it has a row for each row of each step.
    fn as_rows(&self, id: NodeId) -> Result<NodeId, NotDistributed> {
        let wide = self.map[&id];
        match self.wide.ty(wide).shape == rows(&self.split.graph.ty(id).shape) {
            true => Ok(wide),
            false => Err(self.declined(id, "it is one for all steps, but read as a row of each")),
        }
    }

    fn declined(&self, id: NodeId, reason: &str) -> NotDistributed {
        let graph = self.split.graph;
        let (scope, op) = (graph.scope(id), graph.op(id).kind().def().name);
        let reason = format!("{scope}: `{op}` of {} cannot run many steps as rows: {reason}", graph.ty(id));
        NotDistributed::Declined(Declined::without_path(scope.as_str(), reason))
    }

    /// A value of every step as an input `[batch, meta*d_1, ..]`, laid out as rows `[batch*meta, d_1, ..]`.
    fn per_step(&mut self, id: NodeId, name: &Arc<str>) -> Result<NodeId, NotDistributed> {
        let ty = self.split.graph.ty(id).clone();
        if ty.shape.0.first() != Some(&Symbol::Batch.into()) || row_wise::mixed(&ty.shape) {
            return Err(self.declined(id, "its first axis is not the batch alone"));
        }
        let scope = self.split.graph.scope(id).clone();
        let mut dims = ty.shape.0.clone();
        match dims.get_mut(1) {
            Some(dim) => *dim = dim.times(&Symbol::Meta.into()),
            None => dims.push(Symbol::Meta.into()),
        }
        let op = Op::Input { name: name.clone(), ty: Type::new(ty.dtype, Shape(dims)), role: Role::Argument };
        let input = self.wide.add(op, &[], &scope)?;
        Ok(self.wide.add(Op::Reshape { shape: rows(&ty.shape) }, &[input], &scope)?)
    }

    /// A counter of steps: the given value plus the step index, as rows.
    fn counter(
        &mut self,
        id: NodeId,
        name: &Arc<str>,
        ty: &Type,
        scope: &Scope,
    ) -> Result<NodeId, NotDistributed> {
        if ty.shape.0 != [Symbol::Batch.into()] {
            return Err(self.declined(id, "a count of steps has one entry for each row"));
        }
        let op = Op::Input { name: name.clone(), ty: ty.clone(), role: Role::Argument };
        let first = self.wide.add(op, &[], scope)?;
        let (batch, meta): (Dim, Dim) = (Symbol::Batch.into(), Symbol::Meta.into());
        let column = Shape(vec![batch.clone(), Dim::from(1)]);
        let first = self.wide.add(Op::Reshape { shape: column }, &[first], scope)?;
        // Any cut value has the meta axis; its values are not read.
        let Some((cut, _)) = self.split.cut.first() else {
            return Err(self.declined(id, "nothing beside it tells how many steps there are"));
        };
        let like = self.map[cut];
        let dims = self.split.graph.ty(*cut).shape.0.clone();
        let stacked = [batch, meta].into_iter().chain(dims.into_iter().skip(1)).collect();
        let like = self.wide.add(Op::Reshape { shape: stacked }, &[like], scope)?;
        let index = self.wide.add(Op::Iota { axis: 1 }, &[like], scope)?;
        let all = self.wide.add(Op::Binary { function: BinaryFn::Add }, &[first, index], scope)?;
        Ok(self.wide.add(Op::Reshape { shape: rows(&ty.shape) }, &[all], scope)?)
    }

    /// The value of the step before: the next states one place later, the carry-in first.
    fn shift(
        &mut self,
        id: NodeId,
        name: &Arc<str>,
        ty: &Type,
        scope: &Scope,
    ) -> Result<NodeId, NotDistributed> {
        let batched = ty.shape.0.first().is_some_and(|first| first.without_factor(Symbol::Batch).is_some());
        if !batched || row_wise::mixed(&ty.shape) {
            return Err(self.declined(id, "the batch is not a factor of its first axis alone"));
        }
        let op = Op::Input { name: name.clone(), ty: ty.clone(), role: Role::Argument };
        let init = self.wide.add(op, &[], scope)?;
        let init = self.wide.add(Op::Reshape { shape: steps(&ty.shape, &Dim::from(1)) }, &[init], scope)?;
        let next = self.stacked_next(id, ty, scope)?;
        let shifted = self.wide.add(Op::Shift, &[next, init], scope)?;
        Ok(self.wide.add(Op::Reshape { shape: rows(&ty.shape) }, &[shifted], scope)?)
    }

    /// Next states of a delay as `[batch, meta, ..]`.
    fn stacked_next(&mut self, delay: NodeId, ty: &Type, scope: &Scope) -> Result<NodeId, NotDistributed> {
        let next = self.split.graph.operands(delay)[0];
        let shape = steps(&ty.shape, &Symbol::Meta.into());
        let next = self.as_rows(next)?;
        Ok(self.wide.add(Op::Reshape { shape }, &[next], scope)?)
    }

    /// The state after the last step of every shifted delay, as output `next.X`.
    fn last_states(&mut self) -> Result<(), NotDistributed> {
        for id in self.split.rest.clone() {
            let Op::Delay { name, ty } = self.split.graph.op(id).clone() else { continue };
            let scope = self.split.graph.scope(id).clone();
            let stacked = self.stacked_next(id, &ty, &scope)?;
            let op = Op::Slice { axis: 1, start: 1, len: 1, from_end: true };
            let last = self.wide.add(op, &[stacked], &scope)?;
            let last = self.wide.add(Op::Reshape { shape: ty.shape.clone() }, &[last], &scope)?;
            self.wide.set_output(&format!("next.{name}"), last);
        }
        Ok(())
    }

    /// An output of every step `[batch, d_1, ..]` as `[batch, meta*d_1, ..]`; one whose first axis is more than the
    /// batch stays as rows.
    fn fold_into_rows(&mut self, id: NodeId, wide: NodeId) -> Result<NodeId, NotDistributed> {
        let mut dims = self.split.graph.ty(id).shape.0.clone();
        if dims.first() != Some(&Symbol::Batch.into()) {
            return Ok(wide);
        }
        match dims.get_mut(1) {
            Some(dim) => *dim = dim.times(&Symbol::Meta.into()),
            None => dims.push(Symbol::Meta.into()),
        }
        self.as_rows(id)?;
        let scope = self.split.graph.scope(id).clone();
        Ok(self.wide.add(Op::Reshape { shape: Shape(dims) }, &[wide], &scope)?)
    }
}

/// The shape with steps as rows: `batch` becomes `batch*meta`.
fn rows(shape: &Shape) -> Shape {
    shape.substitute(Symbol::Batch, &Dim::from(Symbol::Batch).times(&Symbol::Meta.into()))
}

/// `[k*batch, d_1, ..]` as `[batch, count, k*d_1, ..]`, which has the same elements in the same order.
fn steps(shape: &Shape, count: &Dim) -> Shape {
    let factor =
        shape.0.first().and_then(|dim| dim.without_factor(Symbol::Batch)).unwrap_or_else(|| Dim::from(1));
    let mut dims = vec![Dim::from(Symbol::Batch), count.clone()];
    let rest = shape.0.get(1..).unwrap_or_default();
    match rest.split_first() {
        Some((first, rest)) => {
            dims.push(first.times(&factor));
            dims.extend_from_slice(rest);
        }
        None => dims.push(factor),
    }
    Shape(dims)
}

/// The operation on rows of many steps.
fn widened(op: &Op) -> Op {
    match op {
        Op::Reshape { shape } => Op::Reshape { shape: rows(shape) },
        other => other.clone(),
    }
}
