//! What differs between two compiled models: graphs, weights, proofs, signatures and cost. Owns the comparison; two
//! subjects without a difference are the same for every caller.
//!
//! Nodes have no names that survive a rewrite, so a scope is compared as a bag of nodes, each written with its attributes,
//! its type and the operations and scopes it reads. A node on only one side is removed or added; a pair of the same
//! operation in one scope is a change. Where the bags agree and the canonical text does not, the wiring differs.

mod text;

use super::cost::CostReport;
use super::gpu::Gpu;
use super::sheet::{Row, Sheet};
use super::subject::{Setting, StoredWeight, Subject};
use super::work::Work;
use crate::passes::compile::Plan;
use photonc_graph::graph::text as graph_text;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Every difference; empty parts are equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Facts of the model that differ, by name: left and right.
    pub facts: BTreeMap<String, Pair<String>>,
    /// Graphs on one side only, or different, by name.
    pub graphs: BTreeMap<String, GraphDifference>,
    /// Weights on one side only, or different, by canonical name.
    pub weights: BTreeMap<String, Pair<StoredWeight>>,
    /// Plans with their certificates or refusals, by protocol; creation numbers on a path are 0.
    pub plans: BTreeMap<String, Pair<Plan>>,
    /// Work of graphs on both sides that cost differently, by name.
    pub work: BTreeMap<String, Pair<Work>>,
    /// Predicted tokens a second at the floor, by protocol, where they differ.
    pub floor_tokens_per_s: BTreeMap<String, Pair<f64>>,
    /// Weights compared by type alone, because a side has no hashes.
    pub unhashed_weights: usize,
}

/// One thing on two sides; `None` where a side lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair<T> {
    /// On the left.
    pub left: Option<T>,
    /// On the right.
    pub right: Option<T>,
}

impl<T: Clone + PartialEq> Pair<T> {
    fn of(left: Option<&T>, right: Option<&T>) -> Option<Self> {
        (left != right).then(|| Pair { left: left.cloned(), right: right.cloned() })
    }
}

/// How a graph differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GraphDifference {
    /// Number of nodes.
    pub nodes: Pair<usize>,
    /// Inputs and outputs that differ, as `input NAME` or `output NAME`: their types.
    pub ports: BTreeMap<String, Pair<String>>,
    /// Scopes with other nodes.
    pub scopes: BTreeMap<String, ScopeDifference>,
    /// The same nodes in every scope, but wired or ordered in another way.
    pub rewired: bool,
}

/// How a scope differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScopeDifference {
    /// Nodes on the left only.
    pub removed: Vec<String>,
    /// Nodes on the right only.
    pub added: Vec<String>,
    /// Nodes of the same operation on both sides that differ: left, right.
    pub changed: Vec<(String, String)>,
}

impl Difference {
    /// Compares two subjects; costs are counted under `setting` on `gpu`.
    #[must_use]
    pub fn between(left: &Subject, right: &Subject, setting: &Setting, gpu: Gpu) -> Self {
        let names: BTreeSet<&String> = left.graphs.keys().chain(right.graphs.keys()).collect();
        let differ = |name: &String| graph_difference(name, left, right, setting);
        let graphs = names.into_iter().filter_map(|name| Some((name.clone(), differ(name)?))).collect();
        let (costs, others) = (CostReport::new(left, setting, gpu), CostReport::new(right, setting, gpu));
        let works = |report: &CostReport| -> BTreeMap<String, Work> {
            report.graphs.iter().map(|graph| (graph.graph.clone(), graph.total.work)).collect()
        };
        let speeds = |report: &CostReport| -> BTreeMap<String, f64> {
            let all = report.generation.iter();
            all.map(|generation| (generation.protocol.to_owned(), generation.floor_tokens_per_s)).collect()
        };
        let mut work = pairs(&works(&costs), &works(&others));
        // A graph on one side only is a difference of graphs.
        work.retain(|_, pair| pair.left.is_some() && pair.right.is_some());
        Difference {
            facts: pairs(&sorted(&left.facts), &sorted(&right.facts)),
            graphs,
            weights: weights(left, right),
            plans: pairs(&plans(left), &plans(right)),
            work,
            floor_tokens_per_s: pairs(&speeds(&costs), &speeds(&others)),
            unhashed_weights: unhashed(left, right),
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
            && self.graphs.is_empty()
            && self.weights.is_empty()
            && self.plans.is_empty()
            && self.work.is_empty()
            && self.floor_tokens_per_s.is_empty()
    }
}

fn sorted<V: Clone>(map: &indexmap::IndexMap<String, V>) -> BTreeMap<String, V> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn pairs<T: Clone + PartialEq>(
    left: &BTreeMap<String, T>,
    right: &BTreeMap<String, T>,
) -> BTreeMap<String, Pair<T>> {
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differ = |name: &&String| Pair::of(left.get(*name), right.get(*name));
    names.iter().filter_map(|name| Some(((*name).clone(), differ(name)?))).collect()
}

fn plans(subject: &Subject) -> BTreeMap<String, Plan> {
    let unnumbered = |plan: &Plan| {
        let mut plan = plan.clone();
        if let Plan::Undistributed { declined, .. } = &mut plan {
            // Creation numbers follow from every node before, so they say nothing about this place.
            declined.path.iter_mut().for_each(|node| node.serial = 0);
        }
        plan
    };
    subject.plans.iter().map(|(protocol, plan)| (protocol.to_string(), unnumbered(plan))).collect()
}

/// Weights that differ; where a side has no hash of one, its type decides.
fn weights(left: &Subject, right: &Subject) -> BTreeMap<String, Pair<StoredWeight>> {
    let mut found = pairs(&left.weights, &right.weights);
    found.retain(|_, pair| match (&pair.left, &pair.right) {
        (Some(left), Some(right)) => left.ty != right.ty || (left.blake3.is_some() && right.blake3.is_some()),
        _ => true,
    });
    found
}

fn unhashed(left: &Subject, right: &Subject) -> usize {
    let both = left.weights.iter().filter_map(|(name, weight)| Some((weight, right.weights.get(name)?)));
    both.filter(|(left, right)| left.blake3.is_none() || right.blake3.is_none()).count()
}

fn graph_difference(
    name: &str,
    left: &Subject,
    right: &Subject,
    setting: &Setting,
) -> Option<GraphDifference> {
    let (a, b) = (left.graphs.get(name), right.graphs.get(name));
    if let (Some(a), Some(b)) = (a, b)
        && graph_text::print(a) == graph_text::print(b)
    {
        return None;
    }
    let (a, b) = (left.sheet(name, setting), right.sheet(name, setting));
    let nodes = Pair { left: a.as_ref().map(|a| a.rows.len()), right: b.as_ref().map(|b| b.rows.len()) };
    let (Some(a), Some(b)) = (a, b) else {
        return Some(GraphDifference {
            nodes,
            ports: BTreeMap::new(),
            scopes: BTreeMap::new(),
            rewired: false,
        });
    };
    let scopes = scopes(&a, &b);
    let ports = pairs(&ports(&a), &ports(&b));
    let rewired = scopes.is_empty() && ports.is_empty();
    Some(GraphDifference { nodes, ports, scopes, rewired })
}

fn ports(sheet: &Sheet) -> BTreeMap<String, String> {
    let inputs = sheet.rows.iter().filter(|row| row.op == "input");
    let inputs = inputs.map(|row| (format!("input {}", row.own_name().unwrap_or_default()), row.ty.clone()));
    let outputs = sheet.outputs.iter();
    let outputs = outputs.map(|(name, node)| (format!("output {name}"), sheet.rows[*node].ty.clone()));
    inputs.chain(outputs).collect()
}

/// Nodes of a sheet by scope and text, with how often each occurs.
fn bags(sheet: &Sheet) -> BTreeMap<(&str, String), usize> {
    let mut bags = BTreeMap::new();
    for row in &sheet.rows {
        *bags.entry((row.scope.as_str(), words(sheet, row))).or_insert(0) += 1;
    }
    bags
}

/// A node without numbers: `linear level1.converter.reshape, levels.0.converter.weight : f32[batch, 16]`.
fn words(sheet: &Sheet, row: &Row) -> String {
    let operand = |number: &usize| {
        let read = &sheet.rows[*number];
        let name = read.called();
        name.map_or_else(|| format!("{}.{}", read.scope, read.op), str::to_owned)
    };
    let operands: Vec<String> = row.operands.iter().map(operand).collect();
    let label = row.label.as_ref().map(|label| format!(" #{label}")).unwrap_or_default();
    let blank = if operands.is_empty() { "" } else { " " };
    format!("{}{blank}{} : {}{label}", row.head(), operands.join(", "), row.ty)
}

fn scopes(left: &Sheet, right: &Sheet) -> BTreeMap<String, ScopeDifference> {
    let (left, right) = (bags(left), bags(right));
    let mut scopes: BTreeMap<String, ScopeDifference> = BTreeMap::new();
    let keys: BTreeSet<&(&str, String)> = left.keys().chain(right.keys()).collect();
    for key in keys {
        let (before, after) = (left.get(key).copied().unwrap_or(0), right.get(key).copied().unwrap_or(0));
        if before == after {
            continue;
        }
        let scope = scopes.entry(key.0.to_owned()).or_default();
        scope.removed.extend(std::iter::repeat_n(key.1.clone(), before.saturating_sub(after)));
        scope.added.extend(std::iter::repeat_n(key.1.clone(), after.saturating_sub(before)));
    }
    for scope in scopes.values_mut() {
        scope.pair();
    }
    scopes
}

impl ScopeDifference {
    /// Makes changes of removed and added nodes of the same operation.
    fn pair(&mut self) {
        let op = |text: &str| text.split([' ', '{']).next().unwrap_or_default().to_owned();
        for removed in std::mem::take(&mut self.removed) {
            match self.added.iter().position(|added| op(added) == op(&removed)) {
                Some(at) => self.changed.push((removed, self.added.remove(at))),
                None => self.removed.push(removed),
            }
        }
    }
}
