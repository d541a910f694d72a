//! Weights side by side: a concatenation of stored weights along their rows is itself stored where a store holds them
//! one after the other, and so is one of weights in few bits, whose codes and scales are two stored tensors. Owns the name
//! of such a weight; joins nothing: elsewhere the concatenation stays a node.

use super::emit::Emitter;
use super::{ExportError, WeightLocation};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::op::Op;

/// Weights that a concatenation puts one after the other in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedWeights {
    /// Their canonical names, in order.
    pub parts: Vec<String>,
    /// How they are kept, if in few bits.
    pub scheme: Option<Scheme>,
}

/// The weights that the concatenation `id` puts one after the other; `None` where it joins anything else, or matrices that
/// have one scale each (fp8).
#[must_use]
pub fn joined_weights(graph: &Graph, id: NodeId) -> Option<JoinedWeights> {
    let Op::Concat { axis: 0 } = graph.op(id) else { return None };
    let part = |operand: NodeId| match graph.op(operand) {
        Op::Weight { name, .. } => Some((name.to_string(), None)),
        Op::QuantizedWeight { name, scheme: scheme @ (Scheme::Int8 | Scheme::Int4), .. } => {
            Some((name.to_string(), Some(*scheme)))
        }
        _ => None,
    };
    let parts: Option<Vec<_>> = graph.operands(id).into_iter().map(part).collect();
    let (parts, schemes): (Vec<String>, Vec<Option<Scheme>>) = parts?.into_iter().unzip();
    let scheme = *schemes.first()?;
    schemes.iter().all(|other| *other == scheme).then_some(JoinedWeights { parts, scheme })
}

impl JoinedWeights {
    /// Name of the initialiser that holds them, or their codes.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.keys(""))
    }

    /// Names of the parts in a store.
    fn keys(&self, suffix: &str) -> Vec<String> {
        let key = |part: &String| self.scheme.map_or_else(|| part.clone(), |scheme| scheme.key(part));
        self.parts.iter().map(|part| format!("{}{suffix}", key(part))).collect()
    }
}

impl Emitter<'_> {
    /// The value of the concatenation `id`, if the store has its parts one after the other.
    pub(super) fn joined(&mut self, id: NodeId) -> Result<Option<String>, ExportError> {
        let graph = self.graph;
        let Some(joined) = joined_weights(graph.graph(), id) else { return Ok(None) };
        if self.target.is_tensorrt() && first_is_read_otherwise(graph.graph(), &joined) {
            return Ok(None);
        }
        let Some(at) = self.adjacent(&joined.keys("")) else { return Ok(None) };
        let (name, ty) = (joined.name(), graph.ty(id));
        let Some(scheme) = joined.scheme else { return self.stored_as(&name, ty, &at).map(Some) };
        let Some(scales) = self.adjacent(&joined.keys(".scale")) else { return Ok(None) };
        self.dequantized(&name, ty, scheme, [&at, &scales]).map(Some)
    }

    fn adjacent(&self, keys: &[String]) -> Option<WeightLocation> {
        let found: Option<Vec<WeightLocation>> = keys.iter().map(|key| (self.weights)(key)).collect();
        found.and_then(adjacent)
    }
}

/// Whether the first part is also read alone, or joined with others. TensorRT knows weights by the address of their first
/// element and refuses a graph that has two of different length there.
fn first_is_read_otherwise(graph: &Graph, joined: &JoinedWeights) -> bool {
    let Some(first) = joined.parts.first() else { return false };
    let is_first = |id: &NodeId| match graph.op(*id) {
        Op::Weight { name, .. } => **name == **first && joined.scheme.is_none(),
        Op::QuantizedWeight { name, scheme, .. } => **name == **first && joined.scheme == Some(*scheme),
        _ => false,
    };
    let readers = graph.nodes().into_iter().filter(is_first).flat_map(|id| graph.users(id));
    readers.into_iter().any(|(reader, _)| joined_weights(graph, reader).as_ref() != Some(joined))
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
    use crate::WeightLocation;

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
