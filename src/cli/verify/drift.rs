//! `photonc verify --drift`: RecGen against HierGen on a text. Owns the table, the limits and the exit code.

use super::{Args, backend, plot};
use crate::api::DriftSetup;
use crate::bundle::Bundle;
use crate::cli::backends::BackendName;
use crate::cli::output::{Kind, Output};
use crate::cli::report::path_text;
use crate::cli::rows::count;
use crate::cli::score::TextArgs;
use crate::cli::{Failure, Reporter};
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::Plan;
use crate::runtime::drift::{DISTANCES, Drift, DriftOptions, Range, Ranges, States, measure};
use crate::runtime::generator::Generator;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `--plot` writes, in errors.
const PLOT: &str = "the plot";

/// How RecGen is measured against HierGen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Drift")]
pub struct DriftArgs {
    /// Measure how far RecGen drifts from HierGen on a text instead: docs/text.md
    #[arg(long, requires = "TextArgs", conflicts_with = "against")]
    pub drift: bool,
    #[command(flatten)]
    text: TextArgs,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = DriftOptions::default().prompt_tokens, value_parser = count, requires = "drift")]
    prompt_tokens: usize,
    /// Tokens after each prompt
    #[arg(short = 'n', long, value_name = "N", default_value_t = DriftOptions::default().new_tokens, value_parser = count, requires = "drift")]
    new_tokens: usize,
    /// Prompts, at most; they and what follows them do not overlap in the text
    #[arg(long, value_name = "N", default_value_t = DriftOptions::default().prompts, value_parser = count, requires = "drift")]
    prompts: usize,
    /// Prompts at once
    #[arg(long, value_name = "N", default_value_t = DriftOptions::default().batch, value_parser = count, requires = "drift")]
    batch: usize,
    /// Distances from the prompt, in tokens, at which the table is divided
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = DISTANCES, requires = "drift")]
    distances: Vec<usize>,
    /// Do not draw greedily under both protocols
    #[arg(long, requires = "drift")]
    no_free_running: bool,
    /// Write a plot by distance as SVG
    #[arg(long, value_name = "FILE", requires = "drift")]
    plot: Option<PathBuf>,
    /// Fail where greedy agreement over all distances is below X, from 0 to 1
    #[arg(long, value_name = "X", requires = "drift")]
    min_agreement: Option<f64>,
    /// Fail where the mean divergence over all distances is above X nats per token
    #[arg(long, value_name = "X", requires = "drift")]
    max_kl: Option<f64>,
    /// Fail where RecGen's perplexity over all distances is above X times HierGen's
    #[arg(long, value_name = "X", requires = "drift")]
    max_perplexity_ratio: Option<f64>,
    /// Fail where RecGen's mean cosine over all distances is below X at some level
    #[arg(long, value_name = "X", requires = "drift", allow_negative_numbers = true)]
    min_cosine: Option<f64>,
}

/// A limit and what was measured.
struct Limit {
    name: &'static str,
    found: f64,
    limit: f64,
    holds: bool,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<ExitCode, Failure> {
    let asked = &args.drift;
    let plot = asked.plot.as_deref().map(|file| Output::claim(file, Kind::Picture, PLOT)).transpose()?;
    let (bundle, mut generator) = args.backend.open(&args.bundle, reporter)?;
    asked.check_length(&bundle)?;
    let tokens = asked.text.read(&bundle, reporter)?;
    let drift = drift(args, &bundle, &mut generator, &tokens.ids, reporter)?;
    let ranges = drift.ranges(&asked.distances);
    let limits = asked.limits(&ranges.whole);
    if let Some(file) = plot {
        file.write(plot::svg(&drift.by_meta_context()).as_bytes(), PLOT)?;
    }
    if reporter.json() {
        reporter.document(&document(args, &drift, &ranges, &limits))?;
    } else {
        reporter.text(&table(&drift, &ranges))?;
        let broken = limits.iter().filter(|limit| !limit.holds);
        for Limit { name, found, limit, .. } in broken {
            reporter.text(&format!("{name} is {found:.4}, the limit {limit}\n"))?;
        }
    }
    Ok(if limits.iter().all(|limit| limit.holds) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn drift(
    args: &Args,
    bundle: &Bundle,
    generator: &mut Generator,
    tokens: &[i64],
    reporter: &Reporter,
) -> Result<Drift, Failure> {
    let asked = &args.drift;
    if let Plan::Undistributed { declined, .. } = generator.program().plan(Protocol::Recgen)? {
        let cause = format_args!("RecGen of this model reads its own samples: {declined}").to_string();
        return Err(Failure::input("there is no open-loop state to measure", &cause));
    }
    let setup = DriftSetup::of(bundle)?;
    let verified = setup.graph().map_err(|error| Failure::bug(&error))?;
    let model = match args.backend.name {
        BackendName::Reference | BackendName::Cuda | BackendName::Cpu => None,
        BackendName::Tensorrt => {
            let cause =
                "an engine yields the outputs it was built with, and drift needs the states of every level";
            return Err(Failure::usage(&cause).help("measure it with another --backend"));
        }
        BackendName::Tract | BackendName::Ort => Some(setup.onnx(bundle)?),
    };
    let mut forward = backend(args, bundle, verified, model, true, reporter)?;
    let levels = setup.levels.clone();
    let mut states = States { backend: forward.as_mut(), graph: verified.graph().name(), levels };
    let options = DriftOptions {
        prompt_tokens: asked.prompt_tokens,
        new_tokens: asked.new_tokens,
        prompts: asked.prompts,
        batch: asked.batch,
        free_running: !asked.no_free_running,
    };
    let shown = reporter.steps("prompts", 0);
    let on_progress = |done: usize, all: usize| shown.set(done as u64, all as u64);
    Ok(measure(generator, &mut states, tokens, options, &on_progress)?)
}

impl DriftArgs {
    /// As every generation: no longer than the bundle was exported for.
    fn check_length(&self, bundle: &Bundle) -> Result<(), Failure> {
        let (asked, longest) =
            (self.prompt_tokens.saturating_add(self.new_tokens), bundle.manifest().model.max_tokens);
        if asked <= longest {
            return Ok(());
        }
        let cause = format!(
            "--prompt-tokens {} and --new-tokens {} are {asked} together, and the bundle's longest sequence has {longest} tokens",
            self.prompt_tokens, self.new_tokens
        );
        Err(Failure::usage(&cause).help("measure shorter ones, or export with a larger --max-tokens"))
    }

    fn limits(&self, whole: &Range) -> Vec<Limit> {
        let at_least = |name, found: f64, limit: Option<f64>| {
            limit.map(|limit| Limit { name, found, limit, holds: found >= limit })
        };
        let at_most = |name, found: f64, limit: Option<f64>| {
            limit.map(|limit| Limit { name, found, limit, holds: found <= limit })
        };
        let cosine = whole.levels.iter().filter_map(|level| level.recgen).fold(1.0, f64::min);
        let ratio = whole.perplexity_recgen / whole.perplexity_hiergen;
        let limits = [
            at_least("greedy agreement", whole.greedy_agreement, self.min_agreement),
            at_most("the mean divergence", whole.kl, self.max_kl),
            at_most("the ratio of perplexities", ratio, self.max_perplexity_ratio),
            at_least("the smallest cosine", cosine, self.min_cosine),
        ];
        limits.into_iter().flatten().collect()
    }
}

/// The measures between distances, a line each.
fn table(drift: &Drift, ranges: &Ranges) -> String {
    let Drift { prompts, prompt_tokens, new_tokens, .. } = drift;
    let plural = if *prompts == 1 { "prompt" } else { "prompts" };
    let mut text =
        format!("{prompts} {plural} of {prompt_tokens} tokens and the {new_tokens} after each\n\n");
    let levels =
        ranges.whole.levels.iter().map(|level| format!("{:>16}", format!("cosine level {}", level.level)));
    let levels: String = levels.rev().collect();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<10}{:>11}{:>9}{:>10}{:>20}{:>10}{levels}",
        "tokens", "agreement", "drawn", "KL nats", "perplexity HierGen", "RecGen"
    );
    let named = ranges.parts.iter().map(|part| (format!("{}-{}", part.first + 1, part.last), part));
    for (name, range) in named.chain([("all".to_owned(), &ranges.whole)]) {
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        let cosine = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let levels = range.levels.iter().rev();
        let levels: String = levels
            .map(|l| format!("{:>16}", format!("{} {}", cosine(l.hiergen), cosine(l.recgen))))
            .collect();
        let _ = writeln!(
            text,
            "{name:<10}{:>11}{:>9}{:>10.4}{:>20.3}{:>10.3}{levels}",
            percent(range.greedy_agreement),
            range.free_agreement.map_or("-".to_owned(), percent),
            range.kl,
            range.perplexity_hiergen,
            range.perplexity_recgen
        );
    }
    text.push_str(
        "\nagreement: same most probable token on the text's own tokens; drawn: same token when each goes on greedily from its own\n\
         cosine: reconstruction and encoder state, from the encoder's states (HierGen) and open-loop (RecGen)\n",
    );
    text
}

fn document(args: &Args, drift: &Drift, ranges: &Ranges, limits: &[Limit]) -> Value {
    let limits = limits.iter().map(
        |limit| json!({"name": limit.name, "found": limit.found, "limit": limit.limit, "holds": limit.holds}),
    );
    json!({
        "backend": args.backend.name.name(),
        "prompts": drift.prompts,
        "prompt_tokens": drift.prompt_tokens,
        "new_tokens": drift.new_tokens,
        "meta_tokens": drift.meta_tokens,
        "ranges": ranges.parts,
        "whole": ranges.whole,
        "by_meta_context": drift.by_meta_context(),
        "limits": limits.collect::<Vec<_>>(),
        "plot": args.drift.plot.as_deref().map(path_text),
    })
}
