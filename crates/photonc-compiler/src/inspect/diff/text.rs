//! A difference as text: `-` on the left only, `+` on the right only, `~` changed.

use super::{Difference, GraphDifference, Pair, pairs};
use crate::inspect::subject::StoredWeight;
use crate::inspect::units::si;
use crate::passes::compile::Plan;
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Nodes shown of one graph; JSON has all.
const MAX_NODES: usize = 24;

/// Weights shown; JSON has all.
const MAX_WEIGHTS: usize = 24;

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            f.write_str("no difference")?;
            return self.unhashed(f);
        }
        for (name, pair) in &self.facts {
            writeln!(f, "~ {name}: {}", sides(pair, String::clone))?;
        }
        for (protocol, pair) in &self.plans {
            writeln!(f, "{} plan of {protocol}", sign(pair))?;
            let lines = |plan: &Option<Plan>| {
                let mut lines = BTreeMap::new();
                let value = plan.as_ref().and_then(|plan| serde_json::to_value(plan).ok());
                leaves("", value.as_ref().unwrap_or(&Value::Null), &mut lines);
                lines
            };
            for (field, pair) in pairs(&lines(&pair.left), &lines(&pair.right)) {
                writeln!(f, "  {} {field}: {}", sign(&pair), sides(&pair, String::clone))?;
            }
        }
        for (name, graph) in &self.graphs {
            graph.write(name, f)?;
        }
        for (name, pair) in self.weights.iter().take(MAX_WEIGHTS) {
            let weight = |weight: &StoredWeight| {
                let hash = weight.blake3.as_deref().map(|hash| format!(" {}", &hash[..hash.len().min(12)]));
                format!("{}{}", weight.ty, hash.unwrap_or_default())
            };
            writeln!(f, "{} weight {name}: {}", sign(pair), sides(pair, weight))?;
        }
        more(f, "", self.weights.len(), MAX_WEIGHTS, "weights")?;
        for (name, pair) in &self.work {
            let flops = figures(pair, |work| work.flops() as f64);
            let bytes = figures(pair, |work| work.bytes() as f64);
            writeln!(f, "~ cost of {name}: FLOPs {flops}; bytes {bytes}")?;
        }
        for (protocol, pair) in &self.floor_tokens_per_s {
            writeln!(f, "~ {protocol} at the floor, tokens/s: {}", figures(pair, |speed| *speed))?;
        }
        self.unhashed(f)
    }
}

impl Difference {
    fn unhashed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.unhashed_weights, self.is_empty()) {
            (0, true) => writeln!(f),
            (0, false) => Ok(()),
            (count, true) => writeln!(f, "; {count} weights compared by type alone"),
            (count, false) => writeln!(f, "{count} weights compared by type alone"),
        }
    }
}

impl GraphDifference {
    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = sides(&self.nodes, |count| format!("{count} nodes"));
        let wiring = if self.rewired { ", wired or ordered in another way" } else { "" };
        writeln!(f, "{} graph {name}: {nodes}{wiring}", sign(&self.nodes))?;
        for (port, pair) in &self.ports {
            writeln!(f, "  {} {port}: {}", sign(pair), sides(pair, String::clone))?;
        }
        let (mut shown, mut all) = (0, 0);
        for (scope, difference) in &self.scopes {
            let removed = difference.removed.iter().map(|node| format!("    - {node}"));
            let added = difference.added.iter().map(|node| format!("    + {node}"));
            let changed =
                difference.changed.iter().map(|(left, right)| format!("    - {left}\n    + {right}"));
            let lines = counted(changed.chain(removed).chain(added));
            all += lines.len();
            let room = MAX_NODES.saturating_sub(shown).min(lines.len());
            shown += room;
            if room > 0 {
                writeln!(f, "  @{scope}\n{}", lines[..room].join("\n"))?;
            }
        }
        more(f, "  ", all, MAX_NODES, "nodes")
    }
}

/// Equal lines once each, with how often they stood there.
fn counted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut found: IndexMap<String, usize> = IndexMap::new();
    for line in lines {
        *found.entry(line).or_default() += 1;
    }
    let line = |(line, times)| if times == 1 { line } else { format!("{line}  ({times} times)") };
    found.into_iter().map(line).collect()
}

fn more(f: &mut fmt::Formatter<'_>, pad: &str, count: usize, shown: usize, what: &str) -> fmt::Result {
    match count.saturating_sub(shown) {
        0 => Ok(()),
        rest => writeln!(f, "{pad}.. and {rest} more {what}"),
    }
}

fn sign<T>(pair: &Pair<T>) -> &'static str {
    match (&pair.left, &pair.right) {
        (Some(_), None) => "-",
        (None, Some(_)) => "+",
        _ => "~",
    }
}

/// Two numbers with as few digits as tell them apart.
fn figures<T>(pair: &Pair<T>, number: impl Fn(&T) -> f64) -> String {
    let (Some(left), Some(right)) = (&pair.left, &pair.right) else {
        return sides(pair, |value| si(number(value)));
    };
    let (left, right) = (number(left), number(right));
    match (si(left), si(right)) {
        (same, _) if left.total_cmp(&right).is_eq() => same,
        (a, b) if a != b => format!("{a} -> {b}"),
        _ => format!("{left:.0} -> {right:.0}"),
    }
}

/// Text of every plain value inside a document, by its path.
fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, field)| leaves(&inside(key), field, found)),
        Value::Array(items) => {
            let all = items.iter().enumerate();
            all.for_each(|(at, item)| leaves(&inside(&at.to_string()), item, found));
        }
        Value::Null => {}
        plain => {
            found.insert(path.to_owned(), plain.to_string());
        }
    }
}

fn sides<T>(pair: &Pair<T>, print: impl Fn(&T) -> String) -> String {
    match (&pair.left, &pair.right) {
        (Some(left), Some(right)) => match (print(left), print(right)) {
            (left, right) if left == right => left,
            (left, right) => format!("{left} -> {right}"),
        },
        (one, other) => one.as_ref().or(other.as_ref()).map(print).unwrap_or_default(),
    }
}
