//! One page about a checkpoint or a bundle: its shape, how each protocol runs, and its graphs.

use crate::bundle::{Bundle, PortRecord};
use crate::cli::report::path_text;
use crate::cli::{Failure, Reporter};
use crate::engine::{self, EngineSet, EngineSource, Sets};
use crate::graph::Graph;
use crate::inspect::page;
use crate::ir::op::Op;
use crate::model::checkpoint::Checkpoint;
use crate::model::parameter_table::{ParameterTable, grouped};
use crate::passes::compile::{Compilation, Plan};
use crate::passes::distribute::{Certificate, Recurrence};
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// Prints the page of what was compiled for every defined protocol.
pub fn checkpoint(
    path: &Path,
    checkpoint: &Checkpoint,
    compilation: &Compilation,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let config = &checkpoint.config;
    if reporter.json() {
        return reporter.document(&page::checkpoint(&path_text(path), checkpoint, compilation));
    }
    let mut text = format!(
        "{}: dialect {}, {} levels, {} tokens in a meta-context, vocabulary {}, {} parameters in {}\n\n",
        path.display(),
        checkpoint.dialect.name,
        config.depth(),
        config.meta_tokens(),
        config.vocab_size,
        grouped(ParameterTable::new(config).total),
        page::dtypes(checkpoint).join(" and "),
    );
    for (protocol, plan) in &compilation.plans {
        let _infallible = writeln!(text, "{protocol}: {}", plan_text(plan));
    }
    text.push_str("\ngraphs:\n");
    for graph in compilation.graphs.values() {
        text.push_str(&graph_text(graph));
    }
    reporter.text(&text)
}

/// Prints the page from the manifest.
pub fn bundle(path: &Path, bundle: &Bundle, reporter: &Reporter) -> Result<(), Failure> {
    let manifest = bundle.manifest();
    let Sets { readable: engines, unreadable } = engine::sets(bundle);
    if reporter.json() {
        let mut document = page::bundle(&path_text(path), bundle);
        if !engines.is_empty() {
            let records =
                engines.iter().map(|set| json!({"path": path_text(&set.folder), "record": set.record}));
            document["engines"] = records.collect();
        }
        if !unreadable.is_empty() {
            document["unreadable_engines"] = unreadable.iter().map(ToString::to_string).collect();
        }
        return reporter.document(&document);
    }
    let mut text = format!(
        "{}: bundle format {} by photonc {}, dialect {}, {} tokens in a meta-context, vocabulary {}, up to {} tokens, {}\n\n",
        path.display(),
        manifest.format,
        manifest.photonc,
        manifest.source.dialect,
        manifest.model.meta_tokens,
        manifest.model.vocab_size,
        manifest.model.max_tokens,
        manifest.precision,
    );
    for (protocol, plan) in &manifest.protocols {
        let _infallible = writeln!(text, "{protocol}: {}", plan_text(plan));
    }
    text.push_str("\ngraphs:\n");
    for (name, graph) in &manifest.graphs {
        let _infallible = writeln!(text, "  {name}");
        let ports = |way| {
            move |port: &PortRecord| {
                let PortRecord { name, dtype, shape, meaning } = port;
                format!("    {way:<4} {name}: {dtype}[{}]  {meaning}\n", shape.join(", "))
            }
        };
        text.extend(graph.inputs.iter().map(ports("in")));
        text.extend(graph.outputs.iter().map(ports("out")));
    }
    for set in &engines {
        text.push_str(&engines_text(bundle, set));
    }
    for error in &unreadable {
        let _infallible = writeln!(text, "\nengines that cannot be read: {error}");
    }
    reporter.text(&text)
}

/// A set of engines: who built it, for what, and whether it still is that of the bundle's graphs.
fn engines_text(bundle: &Bundle, set: &EngineSet) -> String {
    let record = &set.record;
    let sms: Vec<String> = record.sms.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "\nengines of {} {} for {}, {}:\n",
        record.vendor,
        record.version,
        sms.join(" and "),
        record.precision
    );
    for (name, engine) in &record.graphs {
        let fits = EngineSource::of(bundle, record.vendor, name).is_ok_and(|source| source == engine.source);
        let state = if fits { "" } else { "  of an earlier bundle: build it again" };
        let _infallible = writeln!(text, "  {name}  {} bytes{state}", engine.bytes);
        text.extend(engine.profiles.iter().map(|profile| format!("    {profile}\n")));
    }
    text
}

/// How a protocol runs, in a line.
pub fn plan_line(plan: &Plan) -> String {
    match plan {
        Plan::Distributed { coarse, expand, certificate, .. } => {
            let how = match plan.expands_in_order() {
                true => "one meta-context after the other",
                false => "in one wide batch",
            };
            format!("split around `{}`: `{coarse}` runs ahead, `{expand}` follows {how}", certificate.state)
        }
        Plan::Undistributed { decode, reencode: Some(reencode), .. } => {
            format!("one meta-context at a time: `{decode}`, then `{reencode}`")
        }
        Plan::Undistributed { decode, reencode: None, .. } => {
            format!("one meta-context at a time: `{decode}`, which returns the next state")
        }
    }
}

/// How a protocol runs, and the proof or the reason.
fn plan_text(plan: &Plan) -> String {
    let line = plan_line(plan);
    match plan {
        Plan::Distributed { certificate, .. } => format!("{line}\n{}", proof(certificate)),
        Plan::Undistributed { declined, .. } => {
            format!("{line}\n  {}", declined.to_string().replace('\n', "\n  "))
        }
    }
}

fn proof(certificate: &Certificate) -> String {
    let names = |values: Vec<&str>| if values.is_empty() { "none".into() } else { values.join(", ") };
    let listed = |recurrences: &[Recurrence]| -> String {
        let line = |one: &Recurrence| format!("\n    {} nodes through {}", one.nodes, one.delays.join(", "));
        recurrences.iter().map(line).collect()
    };
    let loops = match certificate.loops.is_empty() {
        true => String::new(),
        false => {
            let behind = "\n  recurrences that samples reach, alone behind them:";
            format!("{behind}{}", listed(&certificate.loops))
        }
    };
    format!(
        "  {} nodes coarse, {} of them reached by a sample; {} nodes expansion, {} samples\n  \
         recurrences, none reached by a sample:{}{loops}\n  \
         handed over: {}; shifted along the meta axis: {}",
        certificate.coarse_nodes,
        certificate.tainted_coarse_nodes,
        certificate.expand_nodes,
        certificate.samples,
        listed(&certificate.recurrences),
        names(certificate.cut.iter().map(|value| value.name.as_str()).collect()),
        names(certificate.shifts.iter().map(String::as_str).collect()),
    )
}

fn graph_text(graph: &Graph) -> String {
    let mut text = format!("  {}, {} nodes\n", graph.name(), graph.len());
    for id in graph.inputs() {
        if let Op::Input { name, ty, .. } = graph.op(id) {
            let _infallible = writeln!(text, "    in   {name}: {ty}");
        }
    }
    for output in graph.outputs() {
        let _infallible = writeln!(text, "    out  {}: {}", output.name, graph.ty(output.node));
    }
    text
}
