//! Forms of graphs for people and tools. Owns which form fits which options; the forms are the library's.

use super::{Args, Format, Source};
use crate::cli::{Failure, Reporter};
use crate::graph::text;
use crate::inspect::cost::CostReport;
use crate::inspect::{Sheet, dot, html, json, summary};

/// Scopes drawn by default: level, stack and layer.
const DOT_DEPTH: usize = 3;

pub fn graph(
    source: &Source,
    name: &str,
    format: Format,
    args: &Args,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let graph = source.graph(name)?;
    let sheet = || -> Result<_, Failure> {
        let subject = source.subject(&args.path, false)?;
        let setting = args.count.setting(&subject)?;
        Ok((Sheet::new(&graph, subject.bindings(name, &setting), &setting), setting))
    };
    match (format, reporter.json()) {
        (Format::Dot | Format::Html, true) => {
            Err(Failure::usage(&"--json and --format dot ask for two forms at once"))
        }
        (Format::Dot | Format::Html, false) => {
            reporter.text(&dot::dot(&sheet()?.0, Some(args.fold.unwrap_or(DOT_DEPTH))))
        }
        (Format::Json, _) | (Format::Text, true) => {
            let (sheet, setting) = sheet()?;
            reporter.document(&json::document(&sheet, &setting))
        }
        (Format::Text, false) => match args.fold {
            Some(depth) => reporter.text(&summary::summary(&sheet()?.0, depth)),
            None => reporter.text(&text::print(&graph)),
        },
    }
}

pub fn folds(source: &Source, args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let subject = source.subject(&args.path, false)?;
    let setting = args.count.setting(&subject)?;
    let sheets = subject.sheets(&setting);
    if reporter.json() {
        let documents: Vec<_> = sheets.iter().map(|sheet| json::document(sheet, &setting)).collect();
        return reporter.document(&documents);
    }
    let depth = args.fold.unwrap_or_default();
    let tables: Vec<String> = sheets.iter().map(|sheet| summary::summary(sheet, depth)).collect();
    reporter.text(&tables.join("\n"))
}

pub fn report(source: &Source, args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    if reporter.json() {
        return Err(Failure::usage(&"--json and --format html ask for two forms at once"));
    }
    let subject = source.subject(&args.path, false)?;
    let setting = args.count.setting(&subject)?;
    reporter.text(&html::report(&subject, &setting, args.count.gpu()?))
}

pub fn cost(source: &Source, args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let subject = source.subject(&args.path, false)?;
    let mut report = CostReport::new(&subject, &args.count.setting(&subject)?, args.count.gpu()?);
    if let Some(name) = &args.graph {
        report.graphs.retain(|graph| graph.graph == *name);
        if report.graphs.is_empty() {
            return Err(super::source::unknown(name, subject.graphs.keys().map(String::as_str)));
        }
    }
    if reporter.json() { reporter.document(&report) } else { reporter.text(&report.to_string()) }
}
