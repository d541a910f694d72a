//! `photonc generate`: tokens and text from a bundle. Owns the options of a request and the order of a run.

mod choices;
mod file;
mod lines;
mod print;
mod results;

use super::backends::BackendArgs;
use super::language::Language;
use super::memory::check_batch;
use super::prompts::{ChatArgs, PromptArgs};
use super::replicas::{Listeners, Runner};
use super::rows::{Batch, DEFAULT_RESERVE_MIB};
use super::{Failure, Global, Reporter};
use crate::bundle::Bundle;
use crate::passes::choose_protocol::Protocol;
use crate::runtime::request::{Align, Batch as Requests, Burst, Cancel, Generation, Request, RunAhead};
use choices::{EndArgs, SamplingArgs};
use file::{FileArgs, Job};
use print::{Form, Printer};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Prompts of a file that generate side by side unless the user says.
const FILE_BATCH: usize = 8;

/// Generate text or tokens from a bundle
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    #[command(flatten)]
    prompts: PromptArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    backend: BackendArgs,
    /// Prompts side by side: on each GPU, or of a file of prompts. `max`: as many as fit a GPU, the others wait for a row; 8 of
    /// a file. Changes the speed, not the tokens
    #[arg(long, value_name = "N", default_value = "max")]
    batch: Batch,
    /// Device memory to leave free under `--batch max`, in MiB
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_RESERVE_MIB)]
    reserve: usize,
    #[command(flatten)]
    run: RunArgs,
    /// What becomes of a prompt that does not fill whole meta-contexts
    #[arg(long, value_enum, value_name = "RULE", default_value_t = AlignName::Force)]
    align: AlignName,
    /// Sequences per prompt; under a split protocol they share one coarse trajectory
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: usize,
    /// What to print of a sequence [default: text for prompts that are text, otherwise ids]
    #[arg(long, value_enum, value_name = "FORM")]
    print: Option<Form>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    ends: EndArgs,
    #[command(flatten)]
    file: FileArgs,
}

/// How a protocol runs, for generation and benchmarks.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RunArgs {
    /// How the top state advances [default: the first of these that the bundle has]
    #[arg(long, value_enum)]
    protocol: Option<ProtocolName>,
    /// Meta-contexts that the coarse graph runs ahead before their tokens are drawn together, or `all`: more is faster and
    /// comes in larger bursts; the tokens are the same
    #[arg(long, value_name = "K", default_value = "4", value_parser = run_ahead)]
    run_ahead: RunAhead,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ProtocolName {
    /// From the reconstruction; no sampled token is read
    Recgen,
    /// From the sampled tokens, re-encoded
    Hiergen,
    /// The same, of lower encoders that see a tile of units; SCALA's `recgen`
    Windowed,
    /// From chunks of the sampled tokens; only the top is re-encoded
    Chunkgen,
}

impl ProtocolName {
    fn protocol(self) -> Protocol {
        match self {
            ProtocolName::Recgen => Protocol::Recgen,
            ProtocolName::Hiergen => Protocol::Hiergen,
            ProtocolName::Windowed => Protocol::Windowed,
            ProtocolName::Chunkgen => Protocol::Chunkgen,
        }
    }
}

/// What becomes of a prompt that does not fill whole meta-contexts.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum AlignName {
    /// Every token is used: the meta-context that the last ones begin is decoded with them forced
    Force,
    /// The oldest tokens are dropped, up to one fewer than a meta-context has
    DropLeft,
}

impl From<AlignName> for Align {
    fn from(name: AlignName) -> Self {
        match name {
            AlignName::Force => Align::Force,
            AlignName::DropLeft => Align::DropLeft,
        }
    }
}

impl RunArgs {
    /// The protocol asked for, or the bundle's first.
    pub fn protocol(&self, bundle: &Bundle) -> Protocol {
        let found = |protocol: &Protocol| bundle.manifest().protocols.contains_key(protocol);
        let first = || Protocol::ALL.into_iter().find(found).unwrap_or(Protocol::Hiergen);
        self.protocol.map_or_else(first, ProtocolName::protocol)
    }

    /// The run-ahead asked for.
    pub fn run_ahead(&self) -> RunAhead {
        self.run_ahead
    }
}

fn run_ahead(text: &str) -> Result<RunAhead, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(RunAhead::MetaContexts(count)),
        _ if text == "all" => Ok(RunAhead::All),
        _ => Err("expected a number of meta-contexts from 1, or `all`".to_owned()),
    }
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    args.backend.check()?;
    let bundle = args.backend.bundle.open(&args.bundle)?;
    let form = args.print.unwrap_or(if args.prompts.are_text() { Form::Text } else { Form::Ids });
    let needs_text = args.prompts.are_text() || args.ends.need_text() || form == Form::Text;
    let language = Language::of(&bundle, needs_text, reporter)?.with_chat(args.chat.options()?);
    let (request, prompts) = args.request(&bundle, &language, reporter)?;
    let printer = Printer { form, tokenizer: language.tokenizer().cloned(), stops: args.ends.stops()? };
    let from_file = args.prompts.prompts_file.as_ref();
    if args.batch != Batch::Max && from_file.is_none() && !args.backend.is_cuda() {
        return Err(Failure::usage(
            &"--batch shares several prompts out on GPUs: use it with --backend cuda",
        ));
    }
    let rows = |at_most: usize| args.batch.rows(args.reserve, at_most);
    let runner = Runner { backend: &args.backend, bundle: &bundle, rows: &rows, reporter };
    let mut work =
        Requests { profile: reporter.json(), ..Requests::alike(&request, &prompts, args.run.run_ahead) };
    let count = prompts.len();
    drop(prompts);
    if let Some(file) = from_file {
        work.rows = Some(match args.batch {
            Batch::Rows(rows) => rows,
            Batch::Max => FILE_BATCH,
        });
        let (bundle, language, printer, chat) = (&bundle, &language, &printer, &args.chat);
        let asked = args.ends.max_new_tokens.is_some();
        let job = Job { bundle, language, runner: &runner, printer, chat, request, asked, work };
        return job.run(file, &args.file, reporter);
    }
    check_batch(&bundle, &work, args.backend.name)?;
    let streams = count * request.samples == 1 && !reporter.json();
    let cancel = Cancel::default();
    let printed = Mutex::new((printer.stream(), Ok(())));
    let on_burst = |burst: &Burst<'_>| {
        let (stream, printed) = &mut *printed.lock().unwrap_or_else(PoisonError::into_inner);
        if streams && printed.is_ok() {
            *printed = stream.print(burst, reporter);
            // Nobody reads what comes after.
            if printed.is_err() {
                cancel.cancel();
            }
        }
    };
    let finished = Mutex::new(Vec::new());
    let on_finished = |one| finished.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    let timing = runner.run(&work, &Listeners { on_burst: &on_burst, on_finished: &on_finished }, &cancel)?;
    printed.into_inner().unwrap_or_else(PoisonError::into_inner).1?;
    let finished = finished.into_inner().unwrap_or_else(PoisonError::into_inner);
    args.tell(&printer, &request, &Generation::of(finished, count, timing)?, streams, reporter)
}

impl Args {
    fn tell(
        &self,
        printer: &Printer,
        request: &Request,
        generation: &Generation,
        streamed: bool,
        reporter: &Reporter,
    ) -> Result<(), Failure> {
        if reporter.json() {
            return reporter.document(&printer.document(request, generation, self.backend.name)?);
        }
        if !streamed {
            printer.sequences(generation, reporter)?;
        }
        print::tell(request, generation, self.backend.name, reporter);
        Ok(())
    }

    /// What is asked of every prompt, and the prompts.
    fn request(
        &self,
        bundle: &Bundle,
        language: &Language,
        reporter: &Reporter,
    ) -> Result<(Request, Vec<Vec<i64>>), Failure> {
        let prompts = self.prompts.read(&self.chat, language)?;
        let defaults = language.defaults(self.sampling.wanted(&self.ends))?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let room = bundle.manifest().model.max_tokens.saturating_sub(longest);
        let max_new_tokens = self.sampling.max_new_tokens(&self.ends, &defaults, room);
        let request = Request {
            samples: self.samples,
            align: self.align.into(),
            sampling: self.sampling.told(&defaults, reporter),
            penalties: self.sampling.penalties(&defaults),
            stop: self.ends.stop_ids(bundle.manifest().model.vocab_size)?,
            stop_condition: self.ends.stop_condition(language)?,
            eos: defaults.eos,
            ..Request::greedy(self.run.protocol(bundle), Vec::new(), max_new_tokens)
        };
        Ok((request, prompts))
    }
}

/// Reads a file of prompts as a run with `bundle` does: the number of its lines.
///
/// # Errors
/// Why it cannot be used.
pub fn read_prompts(bundle: &Bundle, file: &Path) -> Result<usize, String> {
    let reporter = Reporter::new(Global { json: false, quiet: true, verbose: false });
    let read = Language::of(bundle, false, &reporter)
        .and_then(|language| lines::read(file, &ChatArgs::default(), &language));
    read.map(|lines| lines.len()).map_err(|failure| failure.to_string())
}

/// What alignment took from a prompt.
pub fn dropped_left(tokens: usize) -> String {
    let (noun, verb) = if tokens == 1 { ("token", "was") } else { ("tokens", "were") };
    format!("the oldest {tokens} {noun} {verb} dropped to fill whole meta-contexts")
}
