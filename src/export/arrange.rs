//! The order of tensors in a weights file: as the checkpoint has them, but those that a graph reads side by side one
//! after the other, so that their concatenation is stored without being written a second time.

use super::onnx::joined_weights;
use crate::graph::Graph;
use crate::model::checkpoint::TensorEntry;
use std::collections::{HashMap, HashSet};

/// Names of weights that graphs read as one, longest first, each once.
pub(super) fn joined<'g>(graphs: impl Iterator<Item = &'g Graph>) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for graph in graphs {
        for parts in graph.nodes().into_iter().filter_map(|id| joined_weights(graph, id)) {
            if !found.contains(&parts) {
                found.push(parts);
            }
        }
    }
    // Keys and values of a last layer are a part of its queries, keys and values.
    found.sort_by_key(|parts| std::cmp::Reverse(parts.len()));
    found
}

/// `entries` of one file, in file order, with the parts of each of `joined` that the file has as a whole brought
/// together where the first of them is.
pub(super) fn arrange<'c>(
    entries: &[(&'c str, &'c TensorEntry)],
    joined: &[Vec<String>],
) -> Vec<(&'c str, &'c TensorEntry)> {
    let places: HashMap<&str, usize> =
        entries.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let mut group_of: HashMap<usize, Vec<usize>> = HashMap::new();
    for parts in joined {
        let members: Option<Vec<usize>> =
            parts.iter().map(|part| places.get(part.as_str()).copied()).collect();
        let Some(members) = members else { continue };
        let distinct: HashSet<usize> = members.iter().copied().collect();
        if distinct.len() == members.len() && members.iter().all(|member| !group_of.contains_key(member)) {
            for member in &members {
                group_of.insert(*member, members.clone());
            }
        }
    }
    let mut placed = vec![false; entries.len()];
    let mut order = Vec::with_capacity(entries.len());
    for at in 0..entries.len() {
        for member in group_of.get(&at).map_or(vec![at], Clone::clone) {
            if !std::mem::replace(&mut placed[member], true) {
                order.push(entries[member]);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::arrange;
    use crate::ir::dtype::Dtype;
    use crate::model::checkpoint::TensorEntry;

    fn arranged(names: &[&str], joined: &[&[&str]]) -> Vec<String> {
        let entry = |name: &&str| TensorEntry {
            native: (*name).to_owned(),
            file: 0,
            dtype: Dtype::F32,
            shape: vec![1],
            offset_bytes: 0,
            length_bytes: 4,
        };
        let entries: Vec<TensorEntry> = names.iter().map(entry).collect();
        let entries: Vec<(&str, &TensorEntry)> = names.iter().copied().zip(&entries).collect();
        let joined: Vec<Vec<String>> =
            joined.iter().map(|parts| parts.iter().map(|part| (*part).to_owned()).collect()).collect();
        arrange(&entries, &joined).into_iter().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn parts_come_together_where_the_first_is() {
        assert_eq!(
            arranged(&["a", "k", "o", "q", "v", "z"], &[&["q", "k", "v"]]),
            ["a", "q", "k", "v", "o", "z"]
        );
    }

    // A part of a longer run is in its place already; a second way to join one tensor would tear the first apart.
    #[test]
    fn one_tensor_joins_one_run() {
        let joined: &[&[&str]] = &[&["q", "k", "v"], &["k", "v"], &["v", "o"]];
        assert_eq!(arranged(&["k", "o", "q", "v"], joined), ["q", "k", "v", "o"]);
    }

    // Parts in different files cannot be read as one.
    #[test]
    fn runs_with_a_part_elsewhere_stay() {
        assert_eq!(arranged(&["k", "o", "q"], &[&["q", "k", "v"]]), ["k", "o", "q"]);
    }
}
