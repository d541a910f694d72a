//! Lets linear maps of chosen stacks read their weights in few bits. Activations stay as they are: codes become numbers
//! before the product. Never touches tables (a gather of codes builds in no target), biases, norms, matrices that a
//! scheme does not fit, or weights that reach the product through more than a concatenation of rows.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::op::Op;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// A stack (a prefix of scopes, whole parts) and its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// `level1.decoder`, `lm_head`, `level2`.
    pub stack: Cow<'static, str>,
    /// How its weights are kept.
    pub scheme: Scheme,
}

/// See the module's description.
#[derive(Clone, Debug)]
pub struct QuantizeWeights {
    /// Of two that cover a map, the longer counts.
    pub choices: Cow<'static, [Choice]>,
}

impl Pass for QuantizeWeights {
    fn name(&self) -> &'static str {
        "quantize-weights"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.select(|op| matches!(op, Op::Linear)) {
            let Some(scheme) = chosen(&self.choices, graph.scope(id).as_str()) else { continue };
            let Some(stored) = stored(graph, graph.operands(id)[1]) else { continue };
            if routes(graph, id) {
                rewrites.decline(graph, id, "a choice of experts turns on small differences of its result");
                continue;
            }
            if let Some(reason) = stored.iter().find_map(|weight| misfit(graph, *weight, scheme)) {
                rewrites.decline(graph, id, reason);
                continue;
            }
            if !graph.may_rewrite() {
                break;
            }
            quantize(graph, id, &stored, scheme)?;
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// Whether a map gives the logits of a router.
fn routes(graph: &Graph, linear: NodeId) -> bool {
    let mut users = graph.users(linear).into_iter().map(|(user, _)| user);
    users.any(|user| match graph.op(user) {
        Op::Route { .. } => true,
        Op::Reshape { .. } | Op::Cast { .. } => routes(graph, user),
        _ => false,
    })
}

/// The scheme of the longest choice that covers a scope.
fn chosen(choices: &[Choice], scope: &str) -> Option<Scheme> {
    let covering = choices.iter().filter(|choice| covers(&choice.stack, scope));
    covering.max_by_key(|choice| choice.stack.len()).map(|choice| choice.scheme)
}

/// Whether `stack` is `scope` or a part around it.
#[must_use]
pub fn covers(stack: &str, scope: &str) -> bool {
    scope.strip_prefix(stack).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Scopes of a graph's maps that have weights to quantise.
#[must_use]
pub fn scopes(graph: &Graph) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for id in graph.select(|op| matches!(op, Op::Linear)) {
        if stored(graph, graph.operands(id)[1]).is_some() && !routes(graph, id) {
            found.insert(graph.scope(id).to_string());
        }
    }
    found
}

/// What a compiled graph keeps in few bits, map by map: as choices that do the same to another graph of the model.
#[must_use]
pub fn choices_of(graph: &Graph) -> Vec<Choice> {
    let mut found = BTreeMap::new();
    for id in graph.nodes() {
        if let Op::QuantizedWeight { scheme, .. } = graph.op(id) {
            found.insert(graph.scope(id).to_string(), *scheme);
        }
    }
    found.into_iter().map(|(stack, scheme)| Choice { stack: stack.into(), scheme }).collect()
}

/// The stack that a scope is in: `level1.decoder`, `lm_head`.
#[must_use]
pub fn stack_of(scope: &str) -> String {
    scope.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The stored matrices that a map's weight is, or whose rows it joins.
fn stored(graph: &Graph, weight: NodeId) -> Option<Vec<NodeId>> {
    let is_weight = |id: &NodeId| matches!(graph.op(*id), Op::Weight { .. });
    match graph.op(weight) {
        Op::Weight { .. } => Some(vec![weight]),
        Op::Concat { axis: 0 } => Some(graph.operands(weight)).filter(|parts| parts.iter().all(is_weight)),
        _ => None,
    }
}

fn misfit(graph: &Graph, weight: NodeId, scheme: Scheme) -> Option<String> {
    let sizes = graph.ty(weight).shape.as_const()?;
    let [rows, columns] = sizes[..] else { return Some("the weight is no matrix".to_owned()) };
    match scheme.scale_shape([rows, columns]) {
        Some(_) => None,
        None => Some(format!(
            "{columns} inputs are no multiple of {}, which {} needs",
            photonc_graph::ir::quant::BLOCK,
            scheme.name()
        )),
    }
}

fn quantize(graph: &mut Graph, linear: NodeId, stored: &[NodeId], scheme: Scheme) -> Result<(), BuildError> {
    let scope = graph.scope(linear).clone();
    let mut coded = Vec::with_capacity(stored.len());
    for weight in stored {
        let Op::Weight { name, ty } = graph.op(*weight).clone() else { continue };
        coded.push(graph.add(Op::QuantizedWeight { name, ty, scheme }, &[], &scope)?);
    }
    let mut operands = graph.operands(linear);
    operands[1] = match coded[..] {
        [one] => one,
        _ => graph.add(Op::Concat { axis: 0 }, &coded, &scope)?,
    };
    let product = graph.add(Op::Linear, &operands, &scope)?;
    graph.replace_uses(linear, product)?;
    graph.erase(linear);
    Ok(())
}
