//! Prompts from a file of JSON lines, results to another. Owns the form of a result, and going on where a killed run stopped: a
//! result is a whole line with the key of what it answers, and what has one is not done again.

use super::lines::{self, Line};
use super::print::Printer;
use super::results::{Found, Results, two_forms};
use crate::bundle::{Blake3, Bundle};
use crate::cli::language::Language;
use crate::cli::prompts::ChatArgs;
use crate::cli::{Failure, Reporter};
use crate::runtime::error::RuntimeError;
use crate::runtime::generator::Generator;
use crate::runtime::prompt::Prompt;
use crate::runtime::request::{Cancel, Request, Sequence};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Files of prompts.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files of prompts")]
pub struct FileArgs {
    /// File for one JSON line of result a prompt; results that stand there already are kept, so that the same command
    /// goes on after a kill [default: standard output]
    #[arg(long, value_name = "FILE", requires = "prompts_file")]
    out: Option<PathBuf>,
}

/// A prompt on its way.
struct Entry {
    index: usize,
    id: Option<Box<RawValue>>,
    tokens: Vec<i64>,
    /// Why the line has no tokens.
    bad: Option<String>,
    max_new_tokens: usize,
    seed: u64,
    key: String,
}

/// A line of result, with the caller's `id` letter by letter.
#[derive(Serialize)]
struct ResultLine<'e> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'e RawValue>,
    key: &'e str,
    #[serde(flatten)]
    result: Map<String, Value>,
}

/// What a run over a file has done.
#[derive(Default)]
struct Totals {
    before: usize,
    prompts: usize,
    tokens: usize,
    failed: usize,
}

/// Where results go and how: everything that a whole file shares.
pub struct Job<'j> {
    pub bundle: &'j Bundle,
    pub language: &'j Language,
    pub generator: &'j mut Generator,
    pub printer: &'j Printer,
    pub chat: &'j ChatArgs,
    /// The request without its prompts.
    pub request: Request,
    /// Whether the user said how long sequences get; what a checkpoint says gives way to the room there is.
    pub asked: bool,
    /// Prompts side by side.
    pub batch: usize,
}

impl Job<'_> {
    /// Answers every prompt of `file` that has no result yet.
    pub fn run(&mut self, file: &Path, args: &FileArgs, reporter: &Reporter) -> Result<(), Failure> {
        if reporter.json() && args.out.is_none() {
            return Err(two_forms());
        }
        let started = Instant::now();
        let entries = self.entries(file)?;
        let (mut results, found) = Results::open(args.out.as_deref(), file, *reporter)?;
        let mut totals = Totals::default();
        let left = left(&entries, &found, args.out.as_deref())?;
        totals.before = entries.len() - left.len();
        totals.failed = found.values().filter(|result| result.failed).count();
        let shown = reporter.steps("prompts", entries.len() as u64);
        let mut rest = &left[..];
        while let Some(first) = rest.first() {
            shown.set((entries.len() - rest.len()) as u64, entries.len() as u64);
            let alike =
                |entry: &&&Entry| (entry.max_new_tokens, entry.seed) == (first.max_new_tokens, first.seed);
            let count = rest.iter().take(self.batch).take_while(alike).count();
            let (batch, later) = rest.split_at(count);
            results.add(&self.batch(batch, &mut totals)?)?;
            rest = later;
        }
        drop(shown);
        totals.tell(entries.len(), started, reporter)
    }

    fn entries(&self, file: &Path) -> Result<Vec<Entry>, Failure> {
        let common = self.common_key()?;
        let lines = lines::read(file, self.chat, self.language)?;
        Ok(lines.into_iter().enumerate().map(|(index, line)| self.entry(index, line, &common)).collect())
    }

    fn entry(&self, index: usize, line: Line, common: &str) -> Entry {
        let Line { id, tokens, max_new_tokens, seed, text } = line;
        let (tokens, bad) = match tokens {
            Ok(tokens) => (tokens, None),
            Err(cause) => (Vec::new(), Some(cause)),
        };
        let room = self.generator.program().max_tokens.saturating_sub(tokens.len()).max(1);
        let default = if self.asked { usize::MAX } else { room }.min(self.request.max_new_tokens);
        let max_new_tokens = max_new_tokens.unwrap_or(default);
        let seed = seed.unwrap_or(self.request.sampling.seed);
        let key = match &bad {
            None => json!([common, tokens, max_new_tokens, seed]).to_string(),
            Some(_) => format!("{common} {}", Blake3::of(&text)),
        };
        let key = Blake3::of(key.as_bytes()).as_str()[..16].to_owned();
        Entry { index, id, tokens, bad, max_new_tokens, seed, key }
    }

    /// What, beside a prompt, its result depends on.
    fn common_key(&self) -> Result<String, Failure> {
        let manifest = serde_json::to_vec(self.bundle.manifest()).map_err(|error| Failure::bug(&error))?;
        let Request { samples, protocol, sampling, penalties, stop, eos, .. } = &self.request;
        let choices = format!(
            "{samples} {protocol} {sampling:?} {penalties:?} {stop:?} {eos:?} {:?}",
            self.printer.stops
        );
        Ok(format!("{} {choices}", Blake3::of(&manifest)))
    }

    /// One line of result for each entry.
    fn batch(&mut self, entries: &[&Entry], totals: &mut Totals) -> Result<String, Failure> {
        let refusal = |entry: &&Entry| entry.bad.clone().or_else(|| Some(self.refusal(entry)?.to_string()));
        let refused: Vec<Option<String>> = entries.iter().map(refusal).collect();
        let fit = entries.iter().zip(&refused).filter(|(_, refused)| refused.is_none());
        let prompts: Vec<Vec<i64>> = fit.map(|(entry, _)| entry.tokens.clone()).collect();
        let mut sequences = Vec::new();
        if let (Some(first), false) = (entries.first(), prompts.is_empty()) {
            let mut request =
                Request { prompts, max_new_tokens: first.max_new_tokens, ..self.request.clone() };
            request.sampling.seed = first.seed;
            sequences = self.generator.generate(&request, &mut |_| {}, &Cancel::default())?.sequences;
        }
        let mut samples = sequences.chunks(self.request.samples.max(1));
        let mut lines = String::new();
        for (entry, refused) in entries.iter().zip(&refused) {
            let result = match refused {
                Some(error) => {
                    totals.failed += 1;
                    json!({"error": error})
                }
                None => self.result(samples.next().unwrap_or_default(), totals)?,
            };
            totals.prompts += 1;
            lines.push_str(&entry.line(result)?);
        }
        Ok(lines)
    }

    /// Why a prompt can have no result: the others of its batch can.
    fn refusal(&self, entry: &Entry) -> Option<RuntimeError> {
        let program = self.generator.program();
        let aligned = Prompt::align(entry.index, &entry.tokens, program.meta_tokens, program.vocab_size);
        let prompt_tokens = match aligned {
            Ok(prompt) => prompt.tokens.len(),
            Err(error) => return Some(error.into()),
        };
        let new_tokens =
            entry.max_new_tokens.div_ceil(program.meta_tokens).saturating_mul(program.meta_tokens);
        let (row, max_tokens) = (entry.index, program.max_tokens);
        let too_long = prompt_tokens.saturating_add(new_tokens) > max_tokens;
        if entry.max_new_tokens == 0 {
            return Some(RuntimeError::Empty { what: "the number of new tokens" });
        }
        too_long.then_some(RuntimeError::Capacity { row, prompt_tokens, new_tokens, max_tokens })
    }

    fn result(&self, sequences: &[Sequence], totals: &mut Totals) -> Result<Value, Failure> {
        totals.tokens += sequences.iter().map(|sequence| sequence.tokens.len()).sum::<usize>();
        match sequences {
            [one] => self.printer.sequence(one),
            several => {
                let several: Result<Vec<Value>, Failure> =
                    several.iter().map(|one| self.printer.sequence(one)).collect();
                Ok(json!({"samples": several?}))
            }
        }
    }
}

impl Entry {
    fn line(&self, result: Value) -> Result<String, Failure> {
        let Value::Object(result) = result else { return Err(Failure::bug(&"a result that is no object")) };
        let line = ResultLine { index: self.index, id: self.id.as_deref(), key: &self.key, result };
        let mut line = serde_json::to_string(&line).map_err(|error| Failure::bug(&error))?;
        line.push('\n');
        Ok(line)
    }
}

/// The entries without a result; fails where a result answers something else.
fn left<'e>(entries: &'e [Entry], found: &Found, out: Option<&Path>) -> Result<Vec<&'e Entry>, Failure> {
    let shown = out.map(|out| out.display().to_string()).unwrap_or_default();
    let stranger = |cause: String| {
        Failure::input("these results answer something else", &format_args!("{shown}: {cause}"))
            .help("name another file with --out, or remove this one: the prompts or the options differ from its run's")
    };
    for (index, result) in found {
        match entries.get(*index) {
            Some(entry) if entry.key == result.key => {}
            Some(_) => return Err(stranger(format!("the result of prompt {index} was made of other input"))),
            None => return Err(stranger(format!("has a result for prompt {index}, of {}", entries.len()))),
        }
    }
    Ok(entries.iter().filter(|entry| !found.contains_key(&entry.index)).collect())
}

impl Totals {
    fn tell(&self, all: usize, started: Instant, reporter: &Reporter) -> Result<(), Failure> {
        let seconds = started.elapsed().as_secs_f64();
        let per_second = if seconds > 0.0 { self.tokens as f64 / seconds } else { 0.0 };
        if reporter.json() {
            reporter.document(&json!({
                "prompts": all,
                "done_before": self.before,
                "failed": self.failed,
                "tokens": self.tokens,
                "seconds": seconds,
                "tokens_per_second": per_second,
            }))?;
        }
        if self.before > 0 {
            reporter.note(&format!("{} of {all} prompts had results already", self.before));
        }
        let (prompts, tokens) = (self.prompts, self.tokens);
        reporter
            .note(&format!("{prompts} prompts, {tokens} tokens in {seconds:.1}s, {per_second:.1} tokens/s"));
        if self.failed == 0 {
            return Ok(());
        }
        let cause = format!("{} of {all}; their lines say why under \"error\"", self.failed);
        Err(Failure::input("some prompts have no result", &cause))
    }
}
