//! Prompts from a file of JSON lines, results to another. Owns both forms, and going on where a killed run stopped: a
//! result is a whole line with the key of what it answers, and what has one is not done again.

use super::print::Printer;
use super::results::{Found, Results};
use crate::bundle::{Blake3, Bundle};
use crate::cli::language::Language;
use crate::cli::prompts::{ChatArgs, text_file};
use crate::cli::{Failure, Reporter};
use crate::json::unmarked;
use crate::runtime::error::RuntimeError;
use crate::runtime::generator::Generator;
use crate::runtime::prompt::Prompt;
use crate::runtime::request::{Cancel, Request, Sequence};
use crate::text::chat::Message;
use serde::Deserialize;
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

/// One line of a file of prompts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Whatever tells the caller which one it is.
    id: Option<Value>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    /// The tools of a conversation, in place of those of the command line.
    tools: Option<Value>,
    prompt_ids: Option<Vec<i64>>,
    max_new_tokens: Option<usize>,
    seed: Option<u64>,
}

/// A prompt on its way.
struct Entry {
    index: usize,
    id: Option<Value>,
    tokens: Vec<i64>,
    max_new_tokens: usize,
    seed: u64,
    key: String,
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
            return Err(Failure::usage(
                &"--json prints one document, and the results are lines of standard output",
            )
            .help("name a file for the results with --out"));
        }
        let started = Instant::now();
        let entries = self.entries(file)?;
        let (mut results, found) = Results::open(args.out.as_deref(), *reporter)?;
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
        let text = text_file(file)?;
        let lines = unmarked(&text).lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let common = self.common_key()?;
        lines.enumerate().map(|(index, (number, line))| {
            let failed = |cause: &dyn std::fmt::Display| {
                let place = format_args!("{}: line {}: {cause}", file.display(), number + 1).to_string();
                Failure::input("the prompts cannot be read", &place).help(
                    "a line is {\"prompt\": TEXT}, {\"messages\": [..]} or {\"prompt_ids\": [..]}, with \"id\", \"max_new_tokens\" and \"seed\" if wanted",
                )
            };
            let line: Line = serde_json::from_str(line).map_err(|error| failed(&error))?;
            let tokens = match (&line.prompt, &line.messages, &line.prompt_ids) {
                (Some(text), None, None) => self.chat.tokens(text, self.language)?,
                (None, Some(messages), None) => self.language.encode_chat(messages, line.tools.as_ref())?.ids,
                (None, None, Some(ids)) => ids.clone(),
                _ => return Err(failed(&"expected one of prompt, messages and prompt_ids")),
            };
            let room = self.generator.program().max_tokens.saturating_sub(tokens.len()).max(1);
            let default = if self.asked { usize::MAX } else { room }.min(self.request.max_new_tokens);
            let max_new_tokens = line.max_new_tokens.unwrap_or(default);
            let seed = line.seed.unwrap_or(self.request.sampling.seed);
            let key = json!([common, tokens, max_new_tokens, seed]).to_string();
            let key = Blake3::of(key.as_bytes()).as_str()[..16].to_owned();
            Ok(Entry { index, id: line.id, tokens, max_new_tokens, seed, key })
        }).collect()
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
        let refused: Vec<Option<RuntimeError>> = entries.iter().map(|entry| self.refusal(entry)).collect();
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
                    json!({"error": error.to_string()})
                }
                None => self.result(samples.next().unwrap_or_default(), totals)?,
            };
            totals.prompts += 1;
            lines.push_str(&format!("{}\n", entry.line(result)));
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
    fn line(&self, result: Value) -> Value {
        let mut line = Map::new();
        line.insert("index".into(), self.index.into());
        if let Some(id) = &self.id {
            line.insert("id".into(), id.clone());
        }
        line.insert("key".into(), self.key.clone().into());
        if let Value::Object(result) = result {
            line.extend(result);
        }
        Value::Object(line)
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
