//! The interpreter: runs a verified graph with the reference semantics, one node at a time in the graph's order.
//!
//! Owns binding of symbols, state between meta-context steps, the lifetime of values, and the rounding of each value of a
//! narrow type to it, once; refuses a graph whose protocol is not chosen yet. What an operation computes is `ir::eval`'s.

mod bind;
mod error;
mod weights;

use super::{NodeId, Scope, Verified};
use crate::ir::attr::Scheme;
use crate::ir::dim::Bindings;
use crate::ir::dtype::Dtype;
use crate::ir::eval;
use crate::ir::op::Op;
use crate::ir::shape::Type;
use crate::ir::tensor::Tensor;
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use error::InterpError;
pub use weights::{WeightCache, WeightError, WeightSource};

/// Named tensors: inputs, outputs or states.
pub type Tensors = IndexMap<String, Tensor>;

/// Told every value right after it is computed, leaves included, in the graph's order.
pub type Observer<'o> = dyn FnMut(NodeId, &Tensor) + 'o;

/// Given every value right after it is computed, leaves included, in the graph's order; what it returns goes on.
pub type Through<'o> = dyn FnMut(NodeId, Tensor) -> Tensor + 'o;

/// One node, its operands by their place in the order.
#[derive(Clone, Debug)]
struct Instruction {
    node: NodeId,
    op: Op,
    ty: Type,
    scope: Scope,
    operands: Vec<usize>,
    /// Values nobody reads after this instruction.
    release: Vec<usize>,
    /// The value, where it depends on weights and constants alone.
    held: Option<Tensor>,
}

/// A verified graph made ready to run. It owns what it needs, so that it may outlive the graph; it holds no state and
/// can run from several threads at once.
#[derive(Clone, Debug)]
pub struct Interpreter {
    graph: String,
    program: Vec<Instruction>,
    /// By name, and how they are kept.
    weights: HashMap<(Arc<str>, Option<Scheme>), Tensor>,
    inputs: Vec<(String, Type)>,
    states: Vec<(String, Type)>,
    /// Place of the next value of each state.
    next: Vec<usize>,
    outputs: Vec<(String, usize)>,
    /// Element type of each output.
    output_types: Vec<Dtype>,
}

impl Interpreter {
    /// Prepares `graph` and fetches its weights, each once.
    ///
    /// # Errors
    /// A weight is missing or does not fit its type, or a protocol switch is unresolved.
    pub fn new(graph: Verified<'_>, source: &dyn WeightSource) -> Result<Self, InterpError> {
        let order = graph.order();
        let place: HashMap<NodeId, usize> = order.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let mut prepared = Interpreter {
            graph: graph.name().to_owned(),
            program: Vec::with_capacity(order.len()),
            weights: HashMap::new(),
            inputs: Vec::new(),
            states: Vec::new(),
            next: Vec::new(),
            outputs: graph.outputs().iter().map(|out| (out.name.to_string(), place[&out.node])).collect(),
            output_types: graph.outputs().iter().map(|out| graph.ty(out.node).dtype).collect(),
        };
        for id in order {
            let operands: Vec<usize> = graph.operands(id).iter().map(|operand| place[operand]).collect();
            let (op, ty) = (graph.op(id).clone(), graph.ty(id).clone());
            match &op {
                Op::ProtocolSwitch => {
                    return Err(InterpError::Unresolved { scope: graph.scope(id).to_string() });
                }
                Op::Weight { name, .. } => prepared.fetch(name, None, &ty, graph.scope(id), source)?,
                Op::QuantizedWeight { name, scheme, .. } => {
                    prepared.fetch(name, Some(*scheme), &ty, graph.scope(id), source)?;
                }
                _ => {}
            }
            let operands = if op.is_delay() { Vec::new() } else { operands };
            let scope = graph.scope(id).clone();
            let release = Vec::new();
            prepared.program.push(Instruction { node: id, op, ty, scope, operands, release, held: None });
        }
        for id in graph.inputs() {
            if let Op::Input { name, ty, .. } = graph.op(id) {
                prepared.inputs.push((name.to_string(), ty.clone()));
            }
        }
        for id in graph.delays() {
            if let (Op::Delay { name, ty }, [next]) = (graph.op(id), &graph.operands(id)[..]) {
                prepared.states.push((name.to_string(), ty.clone()));
                prepared.next.push(place[next]);
            }
        }
        prepared.fold(&graph.fixed())?;
        prepared.plan_releases();
        Ok(prepared)
    }

    /// Computes once what depends on weights and constants alone.
    fn fold(&mut self, fixed: &HashSet<NodeId>) -> Result<(), InterpError> {
        let nothing = Tensors::new();
        let mut values: Vec<Option<Tensor>> = vec![None; self.program.len()];
        for at in 0..self.program.len() {
            let instruction = &self.program[at];
            if !fixed.contains(&instruction.node) {
                continue;
            }
            let value = self.value(instruction, &values, &nothing, &nothing, &Bindings::default())?;
            if !instruction.op.is_leaf() {
                self.program[at].held = Some(value.clone());
            }
            values[at] = Some(value);
        }
        Ok(())
    }

    /// Names and types of the inputs, in order of declaration.
    #[must_use]
    pub fn inputs(&self) -> &[(String, Type)] {
        &self.inputs
    }

    /// Names and types of the states, in order of declaration.
    #[must_use]
    pub fn states(&self) -> &[(String, Type)] {
        &self.states
    }

    /// Element types of the outputs, in order of declaration.
    #[must_use]
    pub fn outputs(&self) -> &[Dtype] {
        &self.output_types
    }

    /// The outputs of a graph without delays.
    ///
    /// # Errors
    /// The graph has delays, an input does not fit, or an operation has no value.
    pub fn run(&self, inputs: &Tensors) -> Result<Tensors, InterpError> {
        self.run_observed(inputs, &mut |_, _| {})
    }

    /// [`Interpreter::run`] that shows every value to `observer`.
    ///
    /// # Errors
    /// As [`Interpreter::run`].
    pub fn run_observed(
        &self,
        inputs: &Tensors,
        observer: &mut Observer<'_>,
    ) -> Result<Tensors, InterpError> {
        self.run_through(inputs, &mut |id, value| {
            observer(id, &value);
            value
        })
    }

    /// [`Interpreter::run`] in which every value, right after it is computed, is what `through` makes of it: a tensor of
    /// the same type.
    ///
    /// # Errors
    /// As [`Interpreter::run`].
    pub fn run_through(&self, inputs: &Tensors, through: &mut Through<'_>) -> Result<Tensors, InterpError> {
        if let Some((delay, _)) = self.states.first() {
            return Err(InterpError::Stateful { graph: self.graph.clone(), delay: delay.clone() });
        }
        self.step_through(&mut Tensors::new(), inputs, through)
    }

    /// One meta-context step: the outputs, and every delay's next value in place of its state. An error leaves the
    /// state as it was.
    ///
    /// # Errors
    /// An input or a state does not fit, or an operation has no value.
    pub fn step(&self, state: &mut Tensors, inputs: &Tensors) -> Result<Tensors, InterpError> {
        self.step_observed(state, inputs, &mut |_, _| {})
    }

    /// [`Interpreter::step`] that shows every value to `observer`.
    ///
    /// # Errors
    /// As [`Interpreter::step`].
    pub fn step_observed(
        &self,
        state: &mut Tensors,
        inputs: &Tensors,
        observer: &mut Observer<'_>,
    ) -> Result<Tensors, InterpError> {
        self.step_through(state, inputs, &mut |id, value| {
            observer(id, &value);
            value
        })
    }

    fn step_through(
        &self,
        state: &mut Tensors,
        inputs: &Tensors,
        through: &mut Through<'_>,
    ) -> Result<Tensors, InterpError> {
        let bindings = self.bind(state, inputs)?;
        let mut values: Vec<Option<Tensor>> = vec![None; self.program.len()];
        for (at, instruction) in self.program.iter().enumerate() {
            let value = self.value(instruction, &values, state, inputs, &bindings)?;
            values[at] = Some(through(instruction.node, value));
            for done in &instruction.release {
                values[*done] = None;
            }
        }
        let read = |at: usize| values[at].clone();
        let outputs = self.outputs.iter().filter_map(|(name, at)| Some((name.clone(), read(*at)?))).collect();
        for ((name, _), next) in self.states.iter().zip(&self.next) {
            if let Some(next) = read(*next) {
                state.insert(name.clone(), next);
            }
        }
        Ok(outputs)
    }

    fn value(
        &self,
        instruction: &Instruction,
        values: &[Option<Tensor>],
        state: &Tensors,
        inputs: &Tensors,
        bindings: &Bindings,
    ) -> Result<Tensor, InterpError> {
        let op = instruction.op.kind().def().name;
        let scope = || instruction.scope.to_string();
        let held = match &instruction.op {
            Op::Input { name, .. } => inputs.get(&**name),
            Op::Delay { name, .. } => state.get(&**name),
            Op::Weight { name, .. } => self.weights.get(&(name.clone(), None)),
            Op::QuantizedWeight { name, scheme, .. } => self.weights.get(&(name.clone(), Some(*scheme))),
            _ => instruction.held.as_ref(),
        };
        if let Some(value) = held {
            return Ok(value.clone().rounded(instruction.ty.dtype));
        }
        let shape = instruction.ty.shape.eval(bindings).ok_or_else(|| InterpError::Unbound {
            scope: scope(),
            op,
            ty: instruction.ty.clone(),
        })?;
        let operands: Vec<&Tensor> =
            instruction.operands.iter().filter_map(|at| values[*at].as_ref()).collect();
        let value = eval::eval(&instruction.op, &operands, &shape).map_err(|source| InterpError::Node {
            scope: scope(),
            op,
            source: Box::new(source),
        })?;
        Ok(value.rounded(instruction.ty.dtype))
    }

    /// Frees every value after its last reader; results and next states are kept to the end.
    fn plan_releases(&mut self) {
        let mut last: Vec<usize> = (0..self.program.len()).collect();
        for (at, instruction) in self.program.iter().enumerate() {
            for operand in &instruction.operands {
                last[*operand] = at;
            }
        }
        for kept in self.outputs.iter().map(|(_, at)| *at).chain(self.next.iter().copied()) {
            last[kept] = usize::MAX;
        }
        for (value, at) in last.into_iter().enumerate() {
            if let Some(instruction) = self.program.get_mut(at) {
                instruction.release.push(value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
