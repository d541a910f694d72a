//! `photonc bench`: speed and memory of generation with random prompts and no end of sequence. Owns the protocol of
//! measurement: one warm-up, then repetitions, the median of which is reported; throughput counts prefill and decode.

use super::backends::BackendArgs;
use super::generate::RunArgs;
use super::timing::{as_json, per_second};
use super::{Failure, Reporter};
use crate::runtime::generator::Generator;
use crate::runtime::random::uniform;
use crate::runtime::request::{Cancel, Request};
use crate::runtime::timing::Timing;
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Measure generation: tokens/s, time to first token, peak memory, time per graph
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
    /// Tokens of the prompt and new tokens: `pf` (2048/128), `de` (128/2048) or PROMPT/NEW
    #[arg(long, value_name = "PROMPT/NEW", default_value = "128/128", value_parser = regime)]
    regime: Regime,
    /// Prompts at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Measured repetitions after one warm-up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    repetitions: u16,
    #[command(flatten)]
    run: RunArgs,
}

/// Tokens of a prompt, and new ones.
#[derive(Clone, Copy, Debug)]
struct Regime {
    prompt_tokens: usize,
    new_tokens: usize,
}

fn regime(text: &str) -> Result<Regime, String> {
    let sizes = match text {
        "pf" => Some((2048, 128)),
        "de" => Some((128, 2048)),
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
    let (bundle, mut generator) = args.backend.open(&args.bundle)?;
    let Regime { prompt_tokens, new_tokens } = args.regime;
    let prompts = random_prompts(args.batch, prompt_tokens, bundle.manifest().model.vocab_size);
    let request = Request {
        run_ahead: args.run.run_ahead(),
        profile: true,
        ..Request::greedy(args.run.protocol(&bundle), prompts, new_tokens)
    };
    let timings = measure(&mut generator, &request, args.repetitions, reporter)?;
    let tokens = args.batch * new_tokens;
    let median = timings.get(timings.len() / 2).ok_or_else(|| Failure::bug(&"no measurements"))?;
    let peak_memory_bytes = peak_memory_bytes();
    if reporter.json() {
        return reporter.document(&json!({
            "backend": args.backend.name.name(),
            "protocol": request.protocol,
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
            "batch": args.batch,
            "repetitions": args.repetitions,
            "tokens_per_second": per_second(tokens, median.total),
            "first_token_seconds": median.first_token.map(|time| time.as_secs_f64()),
            "peak_memory_bytes": peak_memory_bytes,
            "total_seconds": timings.iter().map(|timing| timing.total.as_secs_f64()).collect::<Vec<_>>(),
            "median": as_json(median, tokens),
        }));
    }
    let mut text = format!(
        "{} on {}, batch {}, {prompt_tokens} tokens in, {new_tokens} out, median of {}\n",
        request.protocol,
        args.backend.name.name(),
        args.batch,
        args.repetitions
    );
    let _infallible = writeln!(text, "tokens/s            {:.1}", per_second(tokens, median.total));
    if let Some(first) = median.first_token {
        let _infallible = writeln!(text, "time to first token {first:.1?}");
    }
    if let Some(bytes) = peak_memory_bytes {
        let _infallible = writeln!(text, "peak memory         {} MiB (host, whole process)", bytes >> 20);
    }
    for (name, time) in &median.graphs {
        let _infallible = writeln!(text, "  {name:<18} {:>6} runs  {:.1?}", time.calls, time.total);
    }
    reporter.text(&text)
}

/// Times of the repetitions after a warm-up, fastest first.
fn measure(
    generator: &mut Generator,
    request: &Request,
    repetitions: u16,
    reporter: &Reporter,
) -> Result<Vec<Timing>, Failure> {
    let mut once = || generator.generate(request, &mut |_| {}, &Cancel::default());
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

/// Prompts of the same random tokens in every run.
fn random_prompts(batch: usize, tokens: usize, vocab_size: usize) -> Vec<Vec<i64>> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a uniform below 1 times the vocabulary is a token id"
    )]
    let token =
        |row: usize, at: usize| (f64::from(uniform(0, row as u64, at as u64)) * vocab_size as f64) as i64;
    (0..batch).map(|row| (0..tokens).map(|at| token(row, at)).collect()).collect()
}

/// Largest resident memory of this process so far, where the system tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
