//! The report: one HTML file that folds by scope, searches, and shows the split with its proof. Owns the data it carries;
//! how it looks and behaves is in `report/`. Works from a disk without a network: nothing is loaded from elsewhere.
//!
//! Sums come from here, so the page and every other form show the same numbers; the page renders a fold when it opens.

use super::cost::CostReport;
use super::gpu::Gpu;
use super::sheet::{Fold, Row, Sheet};
use super::subject::{Setting, Subject};
use super::work::Work;
use indexmap::IndexSet;
use photonc_graph::ir::dim::Symbol;
use serde_json::{Map, Value, json};

const PAGE: &str = include_str!("report/page.html");
const STYLE: &str = include_str!("report/style.css");
const SCRIPTS: [&str; 3] =
    [include_str!("report/tree.js"), include_str!("report/split.js"), include_str!("report/page.js")];

/// The report of a subject: its graphs counted under `setting`, times predicted for `gpu`.
#[must_use]
pub fn report(subject: &Subject, setting: &Setting, gpu: Gpu) -> String {
    let data = data(subject, setting, gpu).to_string();
    // `</` would end the script element; JSON may write it otherwise.
    let data = data.replace("</", "<\\/").replace("<!--", "<\\u0021--");
    let parts = [
        ("{{title}}", escaped(&subject.title)),
        ("{{style}}", STYLE.to_owned()),
        ("{{script}}", SCRIPTS.concat()),
        ("{{data}}", data),
    ];
    let mut page =
        String::with_capacity(PAGE.len() + parts.iter().map(|(_, text)| text.len()).sum::<usize>());
    let mut rest = PAGE;
    // Each mark stands once and in this order, so no part is searched for the marks of another.
    for (mark, text) in &parts {
        if let Some((before, after)) = rest.split_once(mark) {
            page.push_str(before);
            page.push_str(text);
            rest = after;
        }
    }
    page.push_str(rest);
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn data(subject: &Subject, setting: &Setting, gpu: Gpu) -> Value {
    let plans: Map<String, Value> = subject
        .plans
        .iter()
        .filter_map(|(protocol, plan)| Some((protocol.to_string(), serde_json::to_value(plan).ok()?)))
        .collect();
    json!({
        "title": subject.title,
        "facts": subject.facts,
        "setting": setting.describe(),
        "plans": plans,
        "cost": CostReport::new(subject, setting, gpu),
        "graphs": subject.sheets(setting).iter().map(graph).collect::<Vec<_>>(),
    })
}

/// A graph with its repeated words in one list each: `nodes` are `[scope, operation, attributes, type, operands, name,
/// parameters, FLOPs, weight bytes, cache bytes, activation bytes]`, the first four by place in `words`.
fn graph(sheet: &Sheet) -> Value {
    let mut words: IndexSet<String> = IndexSet::new();
    let mut word = |text: &str| words.insert_full(text.to_owned()).0;
    let nodes: Vec<Value> = sheet.rows.iter().map(|row| node(row, &mut word)).collect();
    let bindings: Map<String, Value> = Symbol::ALL
        .into_iter()
        .filter_map(|symbol| Some((symbol.name().to_owned(), sheet.bindings.get(symbol)?.into())))
        .collect();
    json!({
        "name": sheet.graph,
        "bindings": bindings,
        "nodes": nodes,
        "words": words,
        "outputs": sheet.outputs,
        "fold": fold(&sheet.root),
    })
}

fn node(row: &Row, word: &mut impl FnMut(&str) -> usize) -> Value {
    let attributes: Vec<String> = row
        .attributes
        .iter()
        .filter(|(name, _)| *name != "name")
        .map(|(name, text)| format!("{name}={text}"))
        .collect();
    let name = row.called();
    let [flops, weights, cache, activations] = numbers(&row.work);
    json!([
        word(&row.scope),
        word(row.op),
        word(&attributes.join(", ")),
        word(&row.ty),
        row.operands,
        name,
        row.parameters,
        flops,
        weights,
        cache,
        activations
    ])
}

fn numbers(work: &Work) -> [u64; 4] {
    [work.flops(), work.weight_bytes, work.cache_bytes, work.activation_bytes]
}

fn fold(fold: &Fold) -> Value {
    json!({
        "name": fold.name,
        "scope": fold.scope,
        "own": fold.own,
        "nodes": fold.nodes,
        "parameters": fold.parameters,
        "work": numbers(&fold.work),
        "children": fold.children.iter().map(self::fold).collect::<Vec<_>>(),
    })
}
