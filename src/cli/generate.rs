//! `photonc generate`: tokens and text from a bundle. Owns the options of a request and the order of a run.

mod choices;
mod file;
mod print;
mod results;

use super::backends::{BackendArgs, load_graphs};
use super::language::Language;
use super::prompts::{ChatArgs, PromptArgs};
use super::rows::{Batch, DEFAULT_RESERVE_MIB};
use super::{Failure, Reporter, replicas};
use crate::bundle::Bundle;
use crate::passes::choose_protocol::Protocol;
use crate::runtime::request::{Burst, Cancel, Generation, Keep, Request, RunAhead};
use choices::{EndArgs, SamplingArgs};
use file::{FileArgs, Job};
use print::{Form, Printer};
use std::path::PathBuf;
use std::time::Instant;

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
    /// How the top state advances [default: recgen where the bundle has it, otherwise hiergen]
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

fn run_ahead(text: &str) -> Result<RunAhead, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(RunAhead::MetaContexts(count)),
        _ if text == "all" => Ok(RunAhead::All),
        _ => Err("expected a number of meta-contexts from 1, or `all`".to_owned()),
    }
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    args.backend.check()?;
    let bundle = Bundle::open(&args.bundle)?;
    let form = args.print.unwrap_or(if args.prompts.are_text() { Form::Text } else { Form::Ids });
    let needs_text = args.prompts.are_text() || args.ends.need_text() || form == Form::Text;
    let language = Language::of(&bundle, needs_text, reporter)?.with_chat(args.chat.options()?);
    let request = args.request(&bundle, &language, reporter)?;
    let printer = Printer { form, tokenizer: language.tokenizer().cloned(), stops: args.ends.stops()? };
    if args.backend.shares_out(request.prompts.len()) && !request.needs_host() {
        let rows = |at_most: usize| args.batch.rows(args.reserve, at_most);
        let generation = replicas::generate(&args.backend, &bundle, &request, &rows, reporter)?;
        return args.tell(&printer, &request, &generation, false, reporter);
    }
    if args.batch != Batch::Max && args.prompts.prompts_file.is_none() {
        return Err(Failure::usage(
            &"--batch shares several prompts out on GPUs: use it with --backend cuda",
        ));
    }
    let started = Instant::now();
    let mut generator = args.backend.generator(&bundle, reporter)?;
    let on_host = load_graphs(&mut generator, &request)?;
    reporter.detail(&format!("graphs loaded in {:.1?}", started.elapsed()));
    if on_host {
        reporter.note("these sampling parameters are drawn outside the graphs, which is slower; --top-k up to 64 without --min-p and penalties stays inside");
    }
    if let Some(file) = &args.prompts.prompts_file {
        let (bundle, language, printer, chat) = (&bundle, &language, &printer, &args.chat);
        let (generator, asked) = (&mut generator, args.ends.max_new_tokens.is_some());
        let batch = match args.batch {
            Batch::Rows(rows) => rows,
            Batch::Max => FILE_BATCH,
        };
        let mut job = Job { bundle, language, generator, printer, chat, request, asked, batch };
        return job.run(file, &args.file, reporter);
    }
    let streams = request.prompts.len() * request.samples == 1 && !reporter.json();
    let mut printed = Ok(());
    let mut stream = printer.stream();
    let mut on_burst = |burst: &Burst<'_>| {
        if streams && printed.is_ok() {
            printed = stream.print(burst, reporter);
        }
    };
    let generation = generator.generate(&request, &mut on_burst, &Cancel::default())?;
    printed?;
    args.tell(&printer, &request, &generation, streams, reporter)
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

    fn request(&self, bundle: &Bundle, language: &Language, reporter: &Reporter) -> Result<Request, Failure> {
        let prompts = self.prompts.read(&self.chat, language)?;
        let defaults = language.defaults(self.sampling.wanted(&self.ends))?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let room = bundle.manifest().model.max_tokens.saturating_sub(longest);
        Ok(Request {
            prompts,
            samples: self.samples,
            max_new_tokens: self.sampling.max_new_tokens(&self.ends, &defaults, room),
            protocol: self.run.protocol(bundle),
            sampling: self.sampling.told(&defaults, reporter),
            penalties: self.sampling.penalties(&defaults),
            given: None,
            run_ahead: self.run.run_ahead,
            stop: self.ends.stop_ids(bundle.manifest().model.vocab_size)?,
            eos: defaults.eos,
            watch: self.ends.watch(language)?,
            keep: Keep::default(),
            profile: reporter.json(),
        })
    }
}

/// What alignment took from a prompt.
pub fn dropped_left(tokens: usize) -> String {
    let (noun, verb) = if tokens == 1 { ("token", "was") } else { ("tokens", "were") };
    format!("the oldest {tokens} {noun} {verb} dropped to fill whole meta-contexts")
}
