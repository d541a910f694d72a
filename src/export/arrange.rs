//! The order of tensors in a weights file: as the checkpoint has them, but those that a graph reads side by side one
//! after the other, so that their concatenation is stored without being written a second time.

use super::onnx::{JoinedWeights, joined_weights};
use crate::graph::Graph;
use crate::ir::attr::Scheme;
use std::collections::{HashMap, HashSet};

/// Names of weights that graphs read as one and that are kept by `scheme`, longest first, each once.
pub(super) fn joined<'g>(
    graphs: impl Iterator<Item = &'g Graph>,
    scheme: Option<Scheme>,
) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for graph in graphs {
        let all = graph.nodes().into_iter().filter_map(|id| joined_weights(graph, id));
        for JoinedWeights { parts, .. } in all.filter(|joined| joined.scheme == scheme) {
            if !found.contains(&parts) {
                found.push(parts);
            }
        }
    }
    // Keys and values of a last layer are a part of its queries, keys and values.
    found.sort_by_key(|parts| std::cmp::Reverse(parts.len()));
    found
}

/// `entries` in their order, those of each of `joined` that are all there brought together where the first of them is:
/// runs that stand one after the other.
pub(super) fn arrange<'n, T: Copy>(
    entries: &[(&'n str, T)],
    joined: &[Vec<String>],
) -> Vec<Vec<(&'n str, T)>> {
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
    let mut runs = Vec::with_capacity(entries.len());
    for at in 0..entries.len() {
        if placed[at] {
            continue;
        }
        let members = group_of.get(&at).map_or(vec![at], Clone::clone);
        members.iter().for_each(|member| placed[*member] = true);
        runs.push(members.into_iter().map(|member| entries[member]).collect());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::arrange;

    fn arranged(names: &[&str], joined: &[&[&str]]) -> Vec<String> {
        let entries: Vec<(&str, ())> = names.iter().map(|name| (*name, ())).collect();
        let joined: Vec<Vec<String>> =
            joined.iter().map(|parts| parts.iter().map(|part| (*part).to_owned()).collect()).collect();
        arrange(&entries, &joined).concat().into_iter().map(|(name, ())| name.to_owned()).collect()
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
