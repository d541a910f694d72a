//! `photonc generate`: tokens from a bundle. Owns the options of a request and the forms of its result.

use super::backends::{BackendArgs, load_graphs};
use super::prompts::{Ids, PromptArgs, ids};
use super::rows::{Batch, DEFAULT_RESERVE_MIB};
use super::timing::{as_json, one_line};
use super::{Failure, Reporter, replicas};
use crate::bundle::Bundle;
use crate::passes::choose_protocol::Protocol;
use crate::runtime::request::{Burst, Cancel, Generation, Keep, Request, RunAhead, Sequence};
use crate::runtime::sampler::Sampling;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Generate tokens from a bundle
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    #[command(flatten)]
    prompts: PromptArgs,
    /// New tokens per sequence, at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    #[command(flatten)]
    backend: BackendArgs,
    /// Prompts side by side on each GPU, or `max`: as many as fit; the others wait for a row
    #[arg(long, value_name = "N", default_value = "max")]
    batch: Batch,
    /// Device memory to leave free under `--batch max`, in MiB
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_RESERVE_MIB)]
    reserve: usize,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Sequences per prompt; under a split protocol they share one coarse trajectory
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: usize,
    /// Token ids that end a sequence
    #[arg(long, value_name = "IDS", value_parser = ids)]
    stop_ids: Option<Ids>,
    /// Go on after the end-of-sequence id that the checkpoint's generation_config.json names
    #[arg(long)]
    ignore_eos: bool,
}

/// How a protocol runs, for generation and benchmarks.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RunArgs {
    /// How the top state advances [default: recgen where the bundle has it, otherwise hiergen]
    #[arg(long, value_enum)]
    protocol: Option<ProtocolName>,
    /// Meta-contexts that the coarse graph runs ahead, or `all`; changes the speed, not the tokens
    #[arg(long, value_name = "K", default_value = "4", value_parser = run_ahead)]
    run_ahead: RunAhead,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ProtocolName {
    /// From the reconstruction; no sampled token is read
    Recgen,
    /// From the sampled tokens, re-encoded
    Hiergen,
}

impl RunArgs {
    /// The protocol asked for, or the bundle's first.
    pub fn protocol(&self, bundle: &Bundle) -> Protocol {
        let has_recgen = bundle.manifest().protocols.contains_key(&Protocol::Recgen);
        match self.protocol {
            Some(ProtocolName::Recgen) => Protocol::Recgen,
            Some(ProtocolName::Hiergen) => Protocol::Hiergen,
            None if has_recgen => Protocol::Recgen,
            None => Protocol::Hiergen,
        }
    }

    /// The run-ahead asked for.
    pub fn run_ahead(&self) -> RunAhead {
        self.run_ahead
    }
}

/// How tokens are drawn. Without any of them: from the model's own distribution.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArgs {
    /// Take the most probable token every time
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Divides the logits; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Keep the K most probable tokens; up to 64 the graphs sample themselves, otherwise the host does, slower
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    top_k: usize,
    /// Keep the most probable tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Keep tokens at least this probable relative to the most probable one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f64,
    /// Key of the random numbers; the same seed gives the same tokens, whatever the batch or the run-ahead
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn run_ahead(text: &str) -> Result<RunAhead, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(RunAhead::MetaContexts(count)),
        _ if text == "all" => Ok(RunAhead::All),
        _ => Err("expected a number of meta-contexts from 1, or `all`".to_owned()),
    }
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        if self.greedy {
            return Sampling { seed: self.seed, ..Sampling::greedy() };
        }
        let SamplingArgs { temperature, top_k, top_p, min_p, seed, .. } = *self;
        Sampling { temperature, top_k, top_p, min_p, seed }
    }
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    args.backend.check()?;
    let prompts = args.prompts.read()?;
    let bundle = Bundle::open(&args.bundle)?;
    let request = Request {
        prompts,
        samples: args.samples,
        max_new_tokens: args.max_new_tokens,
        protocol: args.run.protocol(&bundle),
        sampling: args.sampling.sampling(),
        run_ahead: args.run.run_ahead,
        stop: args.stop_ids.as_ref().map(|ids| ids.0.clone()).unwrap_or_default(),
        eos: if args.ignore_eos { Vec::new() } else { eos(&bundle)? },
        keep: Keep::default(),
        profile: reporter.json(),
    };
    if args.backend.shares_out(request.prompts.len()) {
        let rows = |at_most: usize| args.batch.rows(args.reserve, at_most);
        let generation = replicas::generate(&args.backend, &bundle, &request, &rows, reporter)?;
        return tell(args, &request, &generation, false, reporter);
    }
    if args.batch != Batch::Max {
        return Err(Failure::usage(
            &"--batch shares several prompts out on GPUs: use it with --backend cuda",
        ));
    }
    let started = Instant::now();
    let mut generator = args.backend.generator(&bundle)?;
    let on_host = load_graphs(&mut generator, request.protocol, &request.sampling)?;
    reporter.detail(&format!("graphs loaded in {:.1?}", started.elapsed()));
    if on_host {
        reporter.note("these sampling parameters are drawn outside the graphs, which is slower; --top-k up to 64 stays inside");
    }
    let streams = request.prompts.len() * request.samples == 1 && !reporter.json();
    let mut printed = Ok(());
    let mut first = true;
    let mut stream = |burst: &Burst<'_>| {
        if streams && printed.is_ok() {
            printed = print_burst(burst, &mut first, reporter);
        }
    };
    let generation = generator.generate(&request, &mut stream, &Cancel::default())?;
    printed?;
    tell(args, &request, &generation, streams, reporter)
}

fn print_burst(burst: &Burst<'_>, first: &mut bool, reporter: &Reporter) -> Result<(), Failure> {
    let mut text = String::new();
    for token in burst.tokens {
        text.push_str(if std::mem::take(first) { "" } else { " " });
        text.push_str(&token.to_string());
    }
    if burst.finish.is_some() {
        text.push('\n');
    }
    reporter.text(&text)
}

fn tell(
    args: &Args,
    request: &Request,
    generation: &Generation,
    streamed: bool,
    reporter: &Reporter,
) -> Result<(), Failure> {
    if reporter.json() {
        return reporter.document(&document(args, request, generation));
    }
    let dropped = |sequence: &&Sequence| sequence.sample == 0 && sequence.dropped_left > 0;
    for sequence in generation.sequences.iter().filter(dropped) {
        reporter.note(&format!("prompt {}: {}", sequence.prompt, dropped_left(sequence.dropped_left)));
    }
    if !streamed {
        for sequence in &generation.sequences {
            let ids: Vec<String> = sequence.tokens.iter().map(ToString::to_string).collect();
            let place = format!("prompt {} sample {}", sequence.prompt, sequence.sample);
            reporter.text(&format!("{place}: {}\n", ids.join(" ")))?;
        }
    }
    let tokens: usize = generation.sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    reporter.note(&one_line(&generation.timing, tokens, request.protocol, args.backend.name));
    Ok(())
}

/// What alignment took from a prompt.
pub fn dropped_left(tokens: usize) -> String {
    let (noun, verb) = if tokens == 1 { ("token", "was") } else { ("tokens", "were") };
    format!("the oldest {tokens} {noun} {verb} dropped to fill whole meta-contexts")
}

/// The result as JSON: one sequence at the top, several under `samples`.
fn document(args: &Args, request: &Request, generation: &Generation) -> Value {
    let sequence = |sequence: &Sequence| {
        json!({
            "tokens": sequence.tokens,
            // Until a bundle's tokenizer is read there is no text.
            "text": null,
            "dropped_left": sequence.dropped_left,
            "finish": sequence.finish.name(),
        })
    };
    let mut document = match &generation.sequences[..] {
        [one] => sequence(one),
        several => {
            let placed = several.iter().map(|one| {
                let mut value = sequence(one);
                value["prompt"] = json!(one.prompt);
                value["sample"] = json!(one.sample);
                value
            });
            json!({"samples": placed.collect::<Vec<_>>()})
        }
    };
    let tokens: usize = generation.sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    document["protocol"] = json!(request.protocol);
    document["backend"] = json!(args.backend.name.name());
    document["host_sampled"] = json!(generation.host_sampled);
    document["timing"] = as_json(&generation.timing, tokens);
    document
}

/// End-of-sequence ids of the checkpoint's `generation_config.json`: a number or a list of them, if it has any.
fn eos(bundle: &Bundle) -> Result<Vec<i64>, Failure> {
    let Some(path) = bundle.carried("generation_config.json") else { return Ok(Vec::new()) };
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::input("the bundle cannot be used", &format_args!("{}: {cause}", path.display()))
            .help("mend generation_config.json in the checkpoint and export again, or pass --ignore-eos")
    };
    let text = std::fs::read(&path).map_err(|error| failed(&error))?;
    let config: Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    match &config["eos_token_id"] {
        Value::Null => Ok(Vec::new()),
        Value::Array(ids) => ids
            .iter()
            .map(|id| id.as_i64().ok_or_else(|| failed(&"eos_token_id holds what is no token id")))
            .collect(),
        id => Ok(vec![id.as_i64().ok_or_else(|| failed(&"eos_token_id is no token id"))?]),
    }
}
