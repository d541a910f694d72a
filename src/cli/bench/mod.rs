//! `photonc bench`: speed and memory of generation with random prompts and no end of sequence. Owns the protocol of
//! measurement: one warm-up, then repetitions, the median of which is reported; throughput counts prefill and decode.

mod device;
mod measured;

use super::backends::{BackendArgs, BackendName};
use super::generate::RunArgs;
use super::memory::check_sequences;
use super::output::{Kind, Output};
use super::rows::{Batch, DEFAULT_RESERVE_MIB};
use super::timing::{as_json, per_second};
use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::inspect::plot::Plot;
use crate::runtime::error::RuntimeError;
use crate::runtime::generator::Generator;
use crate::runtime::measure::Regime;
use crate::runtime::plan::Program;
use crate::runtime::request::{Batch as Requests, Cancel, Request};
use crate::runtime::schedule::Refusal;
use crate::runtime::timing::Timing;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What `--plot` writes, in errors.
const PLOT: &str = "the plot";

/// Measure generation: tokens/s, time to first token, memory, time per graph
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
    /// Tokens of the prompt and new tokens: `pf` (2048/128), `de` (128/2048) or PROMPT/NEW
    #[arg(long, value_name = "PROMPT/NEW", default_value = "128/128", value_parser = regime)]
    regime: Regime,
    /// Prompts at once, or `max`: as many as fit the GPU; several numbers measure one after another
    #[arg(long, value_name = "N,..", default_value = "1", value_delimiter = ',')]
    batch: Vec<Batch>,
    /// Device memory to leave free under `--batch max`, in MiB
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_RESERVE_MIB)]
    reserve: usize,
    /// Measured repetitions after one warm-up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    repetitions: u16,
    /// File for an SVG plot of tokens/s over the batch
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

/// What one batch gave, as it is told.
struct Told {
    batch: usize,
    tokens_per_second: f64,
    json: Value,
    text: String,
}

fn regime(text: &str) -> Result<Regime, String> {
    let sizes = match text {
        "pf" => return Ok(Regime::PREFILL),
        "de" => return Ok(Regime::DECODE),
        _ => text.split_once('/').and_then(|(prompt, new)| Some((prompt.parse().ok()?, new.parse().ok()?))),
    };
    match sizes {
        Some((prompt_tokens, new_tokens)) if prompt_tokens > 0 && new_tokens > 0 => {
            Ok(Regime { prompt_tokens, new_tokens })
        }
        _ => Err("expected `pf`, `de` or two positive numbers, `128/2048`".to_owned()),
    }
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    args.backend.check()?;
    let plot = args.plot.as_deref().map(|file| Output::claim(file, Kind::Picture, PLOT)).transpose()?;
    let (head, told) = match args.backend.name {
        BackendName::Cuda | BackendName::Cpu => device::run(args, reporter)?,
        BackendName::Tract | BackendName::Ort | BackendName::Reference | BackendName::Tensorrt => {
            on_host(args, reporter)?
        }
    };
    if let (Some(path), Some(file)) = (&args.plot, plot) {
        let points: Vec<(f64, f64)> =
            told.iter().map(|told| (told.batch as f64, told.tokens_per_second)).collect();
        let title = format!("photonc {} in / {} out", args.regime.prompt_tokens, args.regime.new_tokens);
        let plot = Plot { title: &title, x_name: "batch", y_name: "tokens/s", points: &points };
        file.write(plot.svg().as_bytes(), PLOT)?;
        reporter.note(&format!("{}: tokens/s of {} batches", path.display(), points.len()));
    }
    if reporter.json() {
        let mut values = told.into_iter().map(|told| told.json);
        let first = match (values.next(), values.len()) {
            (Some(one), 0) => one,
            (one, _) => json!({"points": one.into_iter().chain(values).collect::<Vec<_>>()}),
        };
        return reporter.document(&merged(head, first));
    }
    told.iter().try_for_each(|told| reporter.text(&told.text))
}

/// The fields of both objects.
fn merged(mut head: Value, tail: Value) -> Value {
    if let (Value::Object(head), Value::Object(tail)) = (&mut head, tail) {
        head.extend(tail);
    }
    head
}

impl Args {
    /// Refuses sizes that cannot be, before their prompts are made.
    fn check_memory(&self, bundle: &Bundle, program: &Program, batch: usize) -> Result<(), Failure> {
        let Regime { prompt_tokens, new_tokens } = self.regime;
        if prompt_tokens.saturating_add(new_tokens) > program.max_tokens {
            let max_tokens = program.max_tokens;
            let refusal = Refusal::TooLong { number: 0, prompt_tokens, new_tokens, max_tokens };
            return Err(RuntimeError::from(refusal).into());
        }
        let protocol = self.run.protocol(bundle);
        check_sequences(program, protocol, (batch, 1), (prompt_tokens, new_tokens), self.backend.name)
    }
}

/// What every measurement is told with.
fn heading(args: &Args, bundle: &Bundle) -> Value {
    json!({
        "backend": args.backend.name.name(),
        "protocol": args.run.protocol(bundle),
        "prompt_tokens": args.regime.prompt_tokens,
        "new_tokens": args.regime.new_tokens,
        "repetitions": args.repetitions,
    })
}

/// What `--batch max` asks, where there is an answer.
const ONLY_GPUS: &str = "--batch max asks how many prompts fit a GPU: use it with --backend cuda";

/// Backends that run graph by graph.
fn on_host(args: &Args, reporter: &Reporter) -> Result<(Value, Vec<Told>), Failure> {
    let (bundle, mut generator) = args.backend.open(&args.bundle, reporter)?;
    let mut told = Vec::new();
    for batch in &args.batch {
        let Batch::Rows(batch) = *batch else {
            return Err(Failure::usage(&ONLY_GPUS));
        };
        told.push(batch_on_host(args, &bundle, &mut generator, batch, reporter)?);
    }
    Ok((heading(args, &bundle), told))
}

fn batch_on_host(
    args: &Args,
    bundle: &Bundle,
    generator: &mut Generator,
    batch: usize,
    reporter: &Reporter,
) -> Result<Told, Failure> {
    let Regime { prompt_tokens, new_tokens } = args.regime;
    args.check_memory(bundle, generator.program(), batch)?;
    let protocol = args.run.protocol(bundle);
    let prompts = args.regime.prompts(batch, bundle.manifest().model.vocab_size);
    let request = Request::greedy(protocol, Vec::new(), new_tokens);
    let work = Requests { profile: true, ..Requests::alike(&request, &prompts, args.run.run_ahead()) };
    let timings = measure(generator, &work, args.repetitions, reporter)?;
    let tokens = batch * new_tokens;
    let median = timings.get(timings.len() / 2).ok_or_else(|| Failure::bug(&"no measurements"))?;
    let peak_memory_bytes = peak_memory_bytes();
    let tokens_per_second = per_second(tokens, median.total);
    let json = json!({
        "batch": batch,
        "tokens_per_second": tokens_per_second,
        "first_token_seconds": median.first_token.map(|time| time.as_secs_f64()),
        "peak_memory_bytes": peak_memory_bytes,
        "total_seconds": timings.iter().map(|timing| timing.total.as_secs_f64()).collect::<Vec<_>>(),
        "median": as_json(median, tokens),
    });
    let mut text = format!(
        "{} on {}, batch {batch}, {prompt_tokens} tokens in, {new_tokens} out, median of {}\n",
        protocol,
        args.backend.name.name(),
        args.repetitions
    );
    let _infallible = writeln!(text, "tokens/s            {tokens_per_second:.1}");
    if let Some(first) = median.first_token {
        let _infallible = writeln!(text, "time to first token {first:.1?}");
    }
    if let Some(bytes) = peak_memory_bytes {
        let _infallible = writeln!(text, "peak memory         {}", peak(bytes));
    }
    for (name, time) in &median.graphs {
        let _infallible = writeln!(text, "  {name:<18} {:>6} runs  {:.1?}", time.calls, time.total);
    }
    Ok(Told { batch, tokens_per_second, json, text })
}

/// Times of the repetitions after a warm-up, fastest first.
fn measure(
    generator: &mut Generator,
    work: &Requests,
    repetitions: u16,
    reporter: &Reporter,
) -> Result<Vec<Timing>, Failure> {
    let mut once = || generator.generate(work, &mut |_| {}, &Cancel::default());
    let warm = once()?;
    reporter.detail(&format!("warm-up: {:.1?}", warm.timing.total));
    let mut timings = Vec::with_capacity(usize::from(repetitions));
    for repetition in 1..=repetitions {
        let timing = once()?.timing;
        reporter.detail(&format!("repetition {repetition}: {:.1?}", timing.total));
        timings.push(timing);
    }
    timings.sort_by_key(|timing| timing.total);
    Ok(timings)
}

fn peak(bytes: u64) -> String {
    format!("{} MiB (host, whole process)", bytes >> 20)
}

/// Largest resident memory of this process so far, where the system tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
