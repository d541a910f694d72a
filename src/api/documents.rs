//! Results as JSON, for languages that have no types of ours.

use crate::export::ExportReport;
use crate::inspect::diff::Difference;
use crate::runtime::drift::Drift;
use crate::runtime::verify::{Compared, Comparison};
use serde_json::{Value, json};

/// What was exported.
#[must_use]
pub fn of_export(report: &ExportReport) -> Value {
    let manifest = &report.manifest;
    json!({
        "notes": report.notes,
        "weights_bytes": manifest.weight_bytes(),
        "nodes": report.nodes,
        "precision": manifest.precision,
        "max_tokens": manifest.model.max_tokens,
        "protocols": manifest.protocols,
    })
}

/// A graph on a backend and the reference.
#[must_use]
pub fn of_comparison(comparison: &Comparison) -> Value {
    let value = |value: &Compared| {
        json!({
            "scope": value.scope,
            "output": value.output,
            "error": value.error,
            "tolerance": value.tolerance,
            "largest": value.largest,
            "decided": value.decided,
            "diverges": value.diverges(),
        })
    };
    json!({
        "graph": comparison.graph,
        "seed": comparison.seed,
        "first_divergent_scope": comparison.first_divergent().map(|value| &value.scope),
        "values": comparison.values.iter().map(value).collect::<Vec<_>>(),
    })
}

/// Every graph of a bundle on a backend and the reference, and whether all hold.
#[must_use]
pub fn of_verify(comparisons: &[Comparison]) -> Value {
    let holds = comparisons.iter().all(|one| one.first_divergent().is_none());
    json!({"holds": holds, "graphs": comparisons.iter().map(of_comparison).collect::<Vec<_>>()})
}

/// A drift between `distances` and over all.
#[must_use]
pub fn of_drift(drift: &Drift, distances: &[usize]) -> Value {
    let ranges = drift.ranges(distances);
    json!({
        "prompts": drift.prompts,
        "prompt_tokens": drift.prompt_tokens,
        "new_tokens": drift.new_tokens,
        "meta_tokens": drift.meta_tokens,
        "ranges": ranges.parts,
        "whole": ranges.whole,
        "by_meta_context": drift.by_meta_context(),
    })
}

/// What differs, and whether nothing does.
#[must_use]
pub fn of_diff(difference: &Difference) -> Value {
    let mut document = json!(difference);
    document["equal"] = difference.is_empty().into();
    document
}
