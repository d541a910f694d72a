//! Weights side by side: a concatenation of stored weights along their rows is itself stored where a store holds them
//! one after the other. Owns the name of such a weight; joins nothing: elsewhere the concatenation stays a node.

use super::emit::Emitter;
use super::{ExportError, WeightLocation};
use crate::graph::{Graph, NodeId};
use crate::ir::op::Op;

/// Canonical names of the weights that the concatenation `id` puts one after the other in memory.
#[must_use]
pub fn joined_weights(graph: &Graph, id: NodeId) -> Option<Vec<String>> {
    let Op::Concat { axis: 0 } = graph.op(id) else { return None };
    let part = |operand: NodeId| match graph.op(operand) {
        Op::Weight { name, .. } => Some(name.to_string()),
        _ => None,
    };
    graph.operands(id).into_iter().map(part).collect()
}

impl Emitter<'_> {
    /// One initialiser for the concatenation `id`, if the store has its parts one after the other.
    pub(super) fn joined(&mut self, id: NodeId) -> Result<Option<String>, ExportError> {
        let graph = self.graph;
        let Some(parts) = joined_weights(graph.graph(), id) else { return Ok(None) };
        let found: Option<Vec<WeightLocation>> = parts.iter().map(|part| (self.weights)(part)).collect();
        match found.and_then(adjacent) {
            Some(at) => self.stored(&name(&parts), graph.ty(id), at).map(Some),
            None => Ok(None),
        }
    }
}

/// The place of all parts together, if each starts where the one before ends.
fn adjacent(parts: Vec<WeightLocation>) -> Option<WeightLocation> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next()?;
    for part in parts {
        if part.file != whole.file || part.offset_bytes != whole.offset_bytes + whole.length_bytes {
            return None;
        }
        whole.length_bytes += part.length_bytes;
    }
    Some(whole)
}

/// `a.{q,k,v}.b`: what the names have in common, and where they differ.
fn name(parts: &[String]) -> String {
    let common = |same: &dyn Fn(&str, usize) -> bool| {
        (0..).take_while(|length| parts.iter().all(|part| same(part, *length))).count()
    };
    let Some(first) = parts.first() else { return String::new() };
    let shortest = parts.iter().map(String::len).min().unwrap_or(0);
    let head = common(&|part, at| at < shortest && part.as_bytes()[at] == first.as_bytes()[at]);
    let tail = common(&|part, at| {
        at < shortest - head && part.as_bytes()[part.len() - 1 - at] == first.as_bytes()[first.len() - 1 - at]
    });
    let middles: Vec<&str> = parts.iter().map(|part| &part[head..part.len() - tail]).collect();
    format!("{}{{{}}}{}", &first[..head], middles.join(","), &first[first.len() - tail..])
}

#[cfg(test)]
mod tests {
    use super::{adjacent, name};
    use crate::export::onnx::WeightLocation;

    #[test]
    fn names_share_what_they_have_in_common() {
        let names = |parts: &[&str]| name(&parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["l.q_proj.weight", "l.k_proj.weight"]), "l.{q,k}_proj.weight");
        assert_eq!(names(&["aa", "a"]), "a{a,}");
        assert_eq!(names(&["q", "k", "v"]), "{q,k,v}");
    }

    // A gap or another file would make the initialiser read what is not its own.
    #[test]
    fn only_neighbours_are_joined() {
        let at = |file: &str, offset_bytes| WeightLocation {
            file: file.to_owned(),
            offset_bytes,
            length_bytes: 8,
        };
        let whole = adjacent(vec![at("w", 16), at("w", 24), at("w", 32)]).expect("are neighbours");
        assert_eq!((whole.offset_bytes, whole.length_bytes), (16, 24));
        assert_eq!(adjacent(vec![at("w", 16), at("w", 32)]), None);
        assert_eq!(adjacent(vec![at("w", 16), at("v", 24)]), None);
    }
}
