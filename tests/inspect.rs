//! Inspection counts what the graphs read, shows it in every form, and tells two builds apart.

use photonc::inspect::cost::CostReport;
use photonc::inspect::gpu::Gpu;
use photonc::inspect::{Setting, Subject, explain, html, summary};
use photonc::ir::dtype::Dtype;
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::compile;
use std::path::Path;

fn subject(name: &str) -> Subject {
    Subject::of_config(name, &preset(name).expect("a preset")).expect("compiles")
}

fn bf16(subject: &Subject) -> Setting {
    Setting { precision: Some(Dtype::Bf16), ..Setting::of(subject) }
}

/// Gigabytes and milliseconds to the digits that the measurements' floors were written down with.
fn hundredths(value: f64) -> i64 {
    (value * 100.0).round() as i64
}

// The floors were worked out by hand before there was a compiler: a coarse step reads the top encoder once, the top
// decoder four times, chunker and converter; an expansion the bottom decoder and the head four times and a converter.
#[test]
fn the_600m_floors_are_those_worked_out_by_hand() {
    let subject = subject("paper-600m");
    let report = CostReport::new(&subject, &bf16(&subject), Gpu::named("h100").expect("known"));
    let of = |name: &str| &report.graphs.iter().find(|graph| graph.graph == name).expect("a graph").total;
    let (coarse, expand) = (of("coarse"), of("expand"));
    assert_eq!(hundredths(coarse.work.weight_bytes as f64 / 1e9), 129);
    assert_eq!(hundredths(expand.work.weight_bytes as f64 / 1e9), 145);
    assert_eq!(hundredths(coarse.floor_s * 1e3), 42);
    // 1.446 GB at 3.11 TB/s is 0.465 ms; by hand, from 1.45 GB, 0.47.
    assert_eq!((expand.floor_s * 1e6).round() as i64, 465);
    insta::assert_snapshot!("cost_600m", report.to_string());
}

#[test]
fn a_scope_folds_to_one_line() {
    let subject = subject("paper-600m");
    let sheet = subject.sheet("coarse", &bf16(&subject)).expect("a graph");
    insta::assert_snapshot!("summary_600m_coarse", summary::summary(&sheet, 3));
}

#[test]
fn a_pass_says_what_it_did_and_declined() {
    let config = preset("tiny").expect("a preset");
    let compiled = compile(&config, &[Protocol::Recgen, Protocol::Hiergen]).expect("compiles");
    let passes = explain::passes(&compiled.records);
    let explained = passes.iter().filter_map(|pass| explain::explain(&compiled.records, pass));
    let text: Vec<String> = explained.map(|explanation| explanation.to_string()).collect();
    insta::assert_snapshot!("explain_tiny", text.join("\n"));
}

/// Where a report of the paper's largest model goes for people: beside the build outputs.
#[test]
fn the_report_of_the_largest_model_loads_nothing_from_elsewhere() {
    let subject = subject("paper-1.2b");
    let page = html::report(&subject, &bf16(&subject), Gpu::named("h100").expect("known"));
    for elsewhere in ["src=\"", "href=\"http", "@import", "url(http", "fetch("] {
        assert!(!page.contains(elsewhere), "the page contains {elsewhere}");
    }
    assert!(page.len() < 4_000_000, "{} bytes", page.len());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join("report-1.2b.html"), page).expect("writes");
}
