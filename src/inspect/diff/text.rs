//! A difference as text: `-` on the left only, `+` on the right only, `~` changed.

use super::{Difference, GraphDifference, Pair};
use crate::inspect::units::si;
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
            writeln!(f, "~ plan of {protocol}")?;
            for (sign, plan) in [("-", &pair.left), ("+", &pair.right)] {
                let lines = plan.as_ref().and_then(|plan| serde_json::to_value(plan).ok());
                for (key, value) in lines.iter().filter_map(serde_json::Value::as_object).flatten() {
                    let other = if sign == "-" { &pair.right } else { &pair.left };
                    let other = other.as_ref().and_then(|plan| serde_json::to_value(plan).ok());
                    if other.as_ref().and_then(|other| other.get(key)) != Some(value) {
                        writeln!(f, "  {sign} {key}: {value}")?;
                    }
                }
            }
        }
        for (name, graph) in &self.graphs {
            graph.write(name, f)?;
        }
        for (name, pair) in self.weights.iter().take(MAX_WEIGHTS) {
            let weight = |weight: &crate::inspect::subject::StoredWeight| {
                let hash = weight.blake3.as_deref().map(|hash| format!(" {}", &hash[..hash.len().min(12)]));
                format!("{}{}", weight.ty, hash.unwrap_or_default())
            };
            writeln!(f, "{} weight {name}: {}", sign(pair), sides(pair, weight))?;
        }
        more(f, "", self.weights.len(), MAX_WEIGHTS, "weights")?;
        for (name, pair) in &self.work {
            let work = |work: &crate::inspect::Work| {
                let (flops, bytes) = (si(work.flops() as f64), si(work.bytes() as f64));
                format!("{flops} FLOPs, {bytes}B")
            };
            writeln!(f, "~ cost of {name}: {}", sides(pair, work))?;
        }
        for (protocol, pair) in &self.floor_tokens_per_s {
            writeln!(f, "~ {protocol} at the floor, tokens/s: {}", sides(pair, |speed| si(*speed)))?;
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
            let removed = difference.removed.iter().map(|node| format!("    - {node}\n"));
            let added = difference.added.iter().map(|node| format!("    + {node}\n"));
            let changed =
                difference.changed.iter().map(|(left, right)| format!("    - {left}\n    + {right}\n"));
            let lines: Vec<String> = changed.chain(removed).chain(added).collect();
            all += lines.len();
            let room = MAX_NODES.saturating_sub(shown).min(lines.len());
            shown += room;
            if room > 0 {
                writeln!(f, "  @{scope}\n{}", lines[..room].concat().trim_end())?;
            }
        }
        more(f, "  ", all, MAX_NODES, "nodes")
    }
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

fn sides<T>(pair: &Pair<T>, print: impl Fn(&T) -> String) -> String {
    match (&pair.left, &pair.right) {
        (Some(left), Some(right)) => match (print(left), print(right)) {
            (left, right) if left == right => left,
            (left, right) => format!("{left} -> {right}"),
        },
        (one, other) => one.as_ref().or(other.as_ref()).map(print).unwrap_or_default(),
    }
}
