//! Engines that no longer fit and that building again would mend. Owns which graphs those are, and for which GPUs and sizes
//! they are built again; building them belongs to the parts above.

use super::mismatch::{Here, Mismatch, mismatches};
use super::profile::Profile;
use super::record::{EngineSet, EngineSource, sets};
use super::target::Sm;
use photonc_bundle::bundle::Bundle;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What to build again.
#[derive(Clone, Debug, PartialEq)]
pub struct Stale {
    /// GPUs that the new engines serve: those of the set that they replace, where it is meant for the GPU here.
    pub sms: Vec<Sm>,
    /// Graphs, with the sizes that their engines were built for.
    pub graphs: BTreeMap<String, Vec<Profile>>,
    /// Every set with such a graph, and how it differs from what is here.
    pub why: Vec<(PathBuf, Vec<Mismatch>)>,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graphs: Vec<String> = self.graphs.keys().map(|graph| format!("`{graph}`")).collect();
        write!(f, "no engine of {} fits what is here", graphs.join(", "))?;
        for (folder, found) in &self.why {
            let found: Vec<String> = found.iter().map(Mismatch::to_string).collect();
            write!(f, "\n  {}: {}", folder.display(), found.join("; "))?;
        }
        Ok(())
    }
}

/// The graphs that have engines of which none fits what is here; `None` where there are none, or where the GPU, or the want of
/// one, makes building useless. Graphs that never had an engine are not among them, nor are those of a set that cannot be read.
/// Reads records, not engines.
#[must_use]
pub fn stale(bundle: &Bundle, here: &Here) -> Option<Stale> {
    let gpu = here.gpu.as_ref().filter(|gpu| here.vendor.serves(gpu.sm))?;
    let mut sets = sets(bundle).readable;
    // A set that is meant for this GPU is the one to replace.
    let is_meant = |set: &EngineSet| set.record.vendor == here.vendor && set.record.sms.contains(&gpu.sm);
    sets.sort_by_key(|set| !is_meant(set));
    let mut found = Stale { sms: vec![gpu.sm], graphs: BTreeMap::new(), why: Vec::new() };
    for graph in bundle.manifest().graphs.keys() {
        let Ok(source) = EngineSource::of(bundle, here.vendor, graph) else { continue };
        let differences = |set: &EngineSet| {
            let engine = set.graph(graph).ok()?;
            Some((engine.profiles.clone(), mismatches(&set.record, graph, &engine.source, &source, here)))
        };
        let compared: Vec<_> = sets.iter().filter_map(|set| Some((set, differences(set)?))).collect();
        if compared.iter().any(|(_, (_, found))| found.is_empty()) {
            continue;
        }
        let Some((first, (profiles, _))) = compared.first() else { continue };
        if is_meant(first) {
            found.sms.clone_from(&first.record.sms);
        }
        found.graphs.insert(graph.clone(), profiles.clone());
        for (set, (_, found_here)) in compared {
            add(&mut found.why, set, found_here);
        }
    }
    (!found.graphs.is_empty()).then_some(found)
}

/// Adds differences of a set, each once.
fn add(why: &mut Vec<(PathBuf, Vec<Mismatch>)>, set: &EngineSet, found: Vec<Mismatch>) {
    let known = match why.iter_mut().find(|(folder, _)| *folder == set.folder) {
        Some((_, known)) => known,
        None => {
            why.push((set.folder.clone(), Vec::new()));
            let Some((_, known)) = why.last_mut() else { return };
            known
        }
    };
    known.extend(found.into_iter().filter(|mismatch| !known.contains(mismatch)).collect::<Vec<_>>());
}
