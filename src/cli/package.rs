//! `photonc package`: what a fleet's software needs to run a bundle, written from its manifest. Owns the options, the facts that
//! all packages state, and the folder; what stands in it is one file of `package/` for each kind.

mod docker;
mod dynamo;
mod kserve;
mod triton;

use super::open_args::OpenArgs;
use super::report::path_text;
use super::rows::count;
use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::inspect::source::subject_title;
use crate::staging::{Site, Staging, StagingError};
use crate::text::defaults::{GenerationDefaults, Wanted};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file without which a package is not whole.
const SEAL: &str = "photonc-package.json";

/// Write what a fleet's software needs to run a bundle
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    /// Whom it is for
    #[arg(long = "for", value_enum, value_name = "KIND")]
    kind: Kind,
    /// Directory to write
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the model for those who ask [default: the name of the bundle's directory]
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// Jinja file in place of the bundle's chat template
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Image with photonc, as examples/serve/Dockerfile builds it
    #[arg(long, value_name = "IMAGE", default_value = "photonc")]
    image: String,
    /// GPUs of each server; without, it runs on the host
    #[arg(long, value_name = "N", value_parser = count)]
    gpus: Option<usize>,
    /// Replace a package that stands there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    open: OpenArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// NVIDIA Dynamo: a worker, and the card that its frontend reads
    Dynamo,
    /// Triton: a model of the Python backend beside `photonc serve`
    Triton,
    /// KServe: an InferenceService
    Kserve,
    /// Docker: an image with the bundle in it, and a compose file
    Docker,
}

/// What all packages say of a bundle.
#[derive(Debug, Serialize)]
struct Facts {
    #[serde(rename = "for")]
    kind: Kind,
    /// Version of photonc that wrote it.
    photonc: &'static str,
    /// The model's name.
    model: String,
    vocab_size: usize,
    /// Tokens of a meta-context.
    meta_tokens: usize,
    /// Most tokens of a sequence, prompt included.
    max_tokens: usize,
    protocols: Vec<&'static str>,
    /// Ids that end a sequence.
    eos_token_ids: Vec<i64>,
    weight_bytes: u64,
    /// Memory to ask for on the host, which computes in f32 and may hold the weights twice while it loads, in GiB.
    memory_gib: u64,
    gpus: usize,
    image: String,
}

/// A file of a package: its path in it and its text.
type PackageFile = (&'static str, String);

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    if args.chat_template.is_some() && args.kind != Kind::Dynamo {
        return Err(Failure::usage(
            &"--chat-template goes into the card that --for dynamo writes; leave it out",
        ));
    }
    let bundle = args.open.open(&args.bundle)?;
    let facts = args.facts(&bundle)?;
    let mut files = match args.kind {
        Kind::Dynamo => dynamo::files(&facts, &bundle, args.chat_template.as_deref())?,
        Kind::Triton => triton::files(&facts),
        Kind::Kserve => kserve::files(&facts),
        Kind::Docker => docker::files(&facts),
    };
    let stated = serde_json::to_string_pretty(&facts).map_err(|error| Failure::bug(&error))?;
    files.push((SEAL, stated + "\n"));
    write(args, &files)?.iter().for_each(|note| reporter.note(note));
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    if reporter.json() {
        return reporter.document(&json!({"path": path_text(&args.out), "package": facts, "files": names}));
    }
    let list: String = names.iter().map(|name| format!("  {name}\n")).collect();
    reporter.text(&format!("{}: {} for {}\n{list}", args.out.display(), facts.model, args.kind.name()))
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Dynamo => "dynamo",
            Kind::Triton => "triton",
            Kind::Kserve => "kserve",
            Kind::Docker => "docker",
        }
    }
}

impl Args {
    fn facts(&self, bundle: &Bundle) -> Result<Facts, Failure> {
        const GIB: u64 = 1 << 30;
        let manifest = bundle.manifest();
        let tokenizer = Tokenizer::of_bundle(bundle)?;
        let wanted = Wanted { eos: true, ..Wanted::default() };
        let defaults = GenerationDefaults::of_bundle(bundle, tokenizer.as_ref(), wanted)?;
        let quantized = manifest.quantized.values().map(|record| &record.codes);
        let elements =
            manifest.weights.values().chain(quantized).map(|record| record.shape.iter().product::<usize>());
        let wide_bytes = elements.sum::<usize>() as u64 * 4;
        let model = self.served_model_name.clone().unwrap_or_else(|| subject_title(&self.bundle));
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if model.is_empty()
            || !model.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            || !model.chars().all(plain)
        {
            let cause = format!(
                "`{model}` is to stand in file names and addresses: letters, digits, `-`, `_` and `.` only"
            );
            return Err(Failure::usage(&cause).help("name the model with --served-model-name"));
        }
        let named = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@".contains(letter);
        if self.image.is_empty() || !self.image.chars().all(named) {
            let cause = format!("`{}` is no name of an image", self.image);
            return Err(Failure::usage(&cause).help("name one as in registry.example/photonc:1 with --image"));
        }
        Ok(Facts {
            kind: self.kind,
            photonc: env!("CARGO_PKG_VERSION"),
            model,
            vocab_size: manifest.model.vocab_size,
            meta_tokens: manifest.model.meta_tokens,
            max_tokens: manifest.model.max_tokens,
            protocols: manifest.protocols.keys().map(|protocol| protocol.name()).collect(),
            eos_token_ids: defaults.eos,
            weight_bytes: manifest.weight_bytes(),
            memory_gib: (2 * wide_bytes).div_ceil(GIB) + 1,
            gpus: self.gpus.unwrap_or(0),
            image: self.image.clone(),
        })
    }
}

impl Facts {
    /// A template with what it asks for in place of `@NAME@` and the like.
    fn filled(&self, template: &str) -> String {
        let gpus: Vec<String> = (0..self.gpus).map(|gpu| gpu.to_string()).collect();
        let backend = match self.gpus {
            0 => String::new(),
            _ => format!(", \"--backend\", \"cuda\", \"--devices\", \"{}\"", gpus.join(",")),
        };
        let dns = self.model.to_ascii_lowercase().replace(['_', '.'], "-");
        let mut text = template.to_owned();
        for (name, value) in [
            ("@MODEL@", self.model.clone()),
            ("@DNS@", dns),
            ("@MAX_TOKENS@", self.max_tokens.to_string()),
            ("@META_TOKENS@", self.meta_tokens.to_string()),
            ("@MEMORY@", self.memory_gib.to_string()),
            ("@IMAGE@", self.image.clone()),
            ("@BACKEND@", backend),
            ("@GPUS@", self.gpus.to_string()),
            ("@PHOTONC@", self.photonc.to_owned()),
        ] {
            text = text.replace(name, &value);
        }
        // Lines for GPUs stand only where there are some.
        let kept = text.lines().filter_map(|line| match line.strip_suffix(" #gpu") {
            Some(line) => (self.gpus > 0).then_some(line),
            None => Some(line),
        });
        kept.map(|line| format!("{line}\n")).collect()
    }
}

/// Writes the files as one folder, which is there whole or not at all.
fn write(args: &Args, files: &[PackageFile]) -> Result<Vec<String>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::input("no package was written", &format_args!("{}: {error}", args.out.display()))
    };
    let exists =
        || failed(&"is there already").help("pass --force to replace a package, or name another directory");
    let staged = |error: StagingError| match error {
        StagingError::Exists { .. } => exists(),
        StagingError::NotDurable { .. } => Failure::input("the package may not last", &error)
            .help("look for faults of the device, and run the command again"),
        error => failed(&error).help("make room or name another directory; nothing was left behind"),
    };
    let site = Site::of(&args.out, SEAL).map_err(staged)?;
    let there = site.contents().map_err(|error| failed(&error))?.unwrap_or_default();
    let ours = args.force && there.iter().any(|name| name == SEAL);
    if !there.is_empty() && !ours {
        return Err(exists());
    }
    let staging = Staging::create(site, args.force).map_err(staged)?;
    for (name, text) in files {
        let path = staging.directory().join(name);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| durable(&path, text));
        written.map_err(|error| {
            failed(&error).help("make room or name another directory; nothing was left behind")
        })?;
    }
    staging.publish().map_err(staged)
}

/// Writes a file and waits until it is on the device.
fn durable(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
