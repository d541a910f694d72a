//! Prompts from a file of JSON lines, results to another. Owns the form of a result, and going on where a killed run stopped: a
//! result is a whole line with the key of what it answers, and what has one is not done again.

use super::lines::{self, Line};
use super::print::Printer;
use super::results::{Found, Results, two_forms};
use crate::bundle::{Blake3, Bundle};
use crate::cli::language::Language;
use crate::cli::memory::check_batch;
use crate::cli::prompts::ChatArgs;
use crate::cli::replicas::{Listeners, Runner};
use crate::cli::{Failure, Reporter};
use crate::runtime::error::RuntimeError;
use crate::runtime::plan::Program;
use crate::runtime::request::{Batch as Requests, Cancel, Request, Sequence};
use crate::runtime::schedule::{Finished, Limits};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Prompts that become requests at a time: each of these takes about 2 KB until the last of them has its answer.
const PROMPTS_AT_ONCE: usize = 1 << 14;

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

/// Lines whose turn has not come: requests end in any order, and results stand in that of the prompts.
#[derive(Default)]
struct InOrder {
    /// Place of the line that is next.
    next: usize,
    waiting: BTreeMap<usize, String>,
}

impl InOrder {
    fn put(&mut self, place: usize, line: String) {
        self.waiting.insert(place, line);
    }

    /// The lines whose turn has come.
    fn take(&mut self) -> String {
        let mut lines = String::new();
        while let Some(line) = self.waiting.remove(&self.next) {
            lines.push_str(&line);
            self.next += 1;
        }
        lines
    }
}

/// Where results go and how: everything that a whole file shares.
pub struct Job<'j> {
    pub bundle: &'j Bundle,
    pub language: &'j Language,
    pub runner: &'j Runner<'j>,
    pub printer: &'j Printer,
    pub chat: &'j ChatArgs,
    /// The request without its prompts.
    pub request: Request,
    /// Whether the user said how long sequences get; what a checkpoint says gives way to the room there is.
    pub asked: bool,
    /// How requests run, without them.
    pub work: Requests,
}

impl Job<'_> {
    /// Answers every prompt of `file` that has no result yet.
    pub fn run(&self, file: &Path, args: &FileArgs, reporter: &Reporter) -> Result<(), Failure> {
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
        for some in left.chunks(PROMPTS_AT_ONCE) {
            self.answer(some, &mut totals, &mut |done, lines| {
                shown.set((entries.len() - left.len() + done) as u64, entries.len() as u64);
                results.add(lines)
            })?;
        }
        results.finish()?;
        drop(shown);
        totals.tell(entries.len(), started, reporter)
    }

    fn entries(&self, file: &Path) -> Result<Vec<Entry>, Failure> {
        let common = self.common_key()?;
        let lines = lines::read(file, self.chat, self.language)?;
        lines.into_iter().enumerate().map(|(index, line)| self.entry(index, line, &common)).collect()
    }

    fn entry(&self, index: usize, line: Line, common: &str) -> Result<Entry, Failure> {
        let Line { id, tokens, max_new_tokens, seed, text } = line;
        let (tokens, bad) = match tokens {
            Ok(tokens) => (tokens, None),
            Err(cause) => (Vec::new(), Some(cause)),
        };
        let room = self.bundle.manifest().model.max_tokens.saturating_sub(tokens.len()).max(1);
        let default = if self.asked { usize::MAX } else { room }.min(self.request.max_new_tokens);
        let max_new_tokens = max_new_tokens.unwrap_or(default);
        let seed = seed.unwrap_or(self.request.sampling.seed);
        let key = match &bad {
            None => serde_json::to_vec(&(common, &tokens, max_new_tokens, seed))
                .map_err(|error| Failure::bug(&error))?,
            Some(_) => format!("{common} {}", Blake3::of(&text)).into_bytes(),
        };
        let key = Blake3::of(&key).as_str()[..16].to_owned();
        Ok(Entry { index, id, tokens, bad, max_new_tokens, seed, key })
    }

    /// What, beside a prompt, its result depends on.
    fn common_key(&self) -> Result<String, Failure> {
        let manifest = serde_json::to_vec(self.bundle.manifest()).map_err(|error| Failure::bug(&error))?;
        let Request { align, samples, protocol, sampling, penalties, stop, eos, .. } = &self.request;
        let choices = format!(
            "{align:?} {samples} {protocol} {sampling:?} {penalties:?} {stop:?} {eos:?} {:?}",
            self.printer.stops
        );
        Ok(format!("{} {choices}", Blake3::of(&manifest)))
    }

    /// Answers entries, which take rows as these become free; `write` is told how many have an answer and given the lines
    /// whose turn has come, in the order of the entries.
    fn answer(
        &self,
        entries: &[&Entry],
        totals: &mut Totals,
        write: &mut (dyn FnMut(usize, &str) -> Result<(), Failure> + Send),
    ) -> Result<(), Failure> {
        let limits = Limits::of(&Program::from_bundle(self.bundle)?);
        let mut work = Requests { requests: Vec::new(), ..self.work.clone() };
        let (mut taken, mut ordered) = (Vec::new(), InOrder::default());
        for (place, entry) in entries.iter().enumerate() {
            let request = self.request(entry);
            let refusal = limits.meta_contexts(entry.index, &request, 1).err().map(|error| error.to_string());
            match entry.bad.clone().or(refusal) {
                Some(error) => {
                    totals.failed += 1;
                    totals.prompts += 1;
                    ordered.put(place, entry.line(json!({"error": error}))?);
                }
                None => {
                    work.requests.push(request);
                    taken.push((place, *entry));
                }
            }
        }
        write(totals.prompts, &ordered.take())?;
        if taken.is_empty() {
            return Ok(());
        }
        let bundle = self.bundle;
        check_batch(bundle, &work, self.runner.backend.name)?;
        let cancel = Cancel::default();
        let state = Mutex::new((totals, write, ordered, Ok(())));
        let on_finished = |finished: Finished| {
            let (totals, write, ordered, outcome) =
                &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
            if outcome.is_ok() && !cancel.is_cancelled() {
                let (place, entry) = taken[finished.number];
                *outcome = self.line(entry, finished, totals).and_then(|line| {
                    ordered.put(place, line);
                    write(totals.prompts, &ordered.take())
                });
                // What cannot be written need not be computed.
                if outcome.is_err() {
                    cancel.cancel();
                }
            }
        };
        let listeners = Listeners { on_burst: &|_| {}, on_finished: &on_finished };
        self.runner.run(&work, &listeners, &cancel)?;
        state.into_inner().unwrap_or_else(PoisonError::into_inner).3
    }

    fn request(&self, entry: &Entry) -> Request {
        let mut request = Request {
            prompt: entry.tokens.clone(),
            max_new_tokens: entry.max_new_tokens,
            ..self.request.clone()
        };
        request.sampling.seed = entry.seed;
        request
    }

    /// The line of an entry whose request has ended.
    fn line(&self, entry: &Entry, finished: Finished, totals: &mut Totals) -> Result<String, Failure> {
        totals.prompts += 1;
        let result = match finished.result {
            Ok(completion) => self.result(&completion.sequences, totals)?,
            Err(error @ (RuntimeError::Refused(_) | RuntimeError::NotADistribution { .. })) => {
                totals.failed += 1;
                json!({"error": error.to_string()})
            }
            Err(error) => return Err(error.into()),
        };
        entry.line(result)
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
