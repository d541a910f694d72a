//! `photonc score`: perplexity and logits of given tokens under the teacher-forced forward.

use super::backends::BackendArgs;
use super::generate::dropped_left;
use super::prompts::{Ids, ids, lines};
use super::timing::as_json;
use super::{Failure, Reporter};
use crate::runtime::score::Scored;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Score tokens: perplexity, and logits if asked for
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    backend: BackendArgs,
    /// Write the logits as f32 tensor `logits [tokens, vocabulary]` of a safetensors file
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct TextArgs {
    /// Token ids, `1,2,3`
    #[arg(long, value_name = "IDS", value_parser = ids)]
    ids: Option<Ids>,
    /// File with the token ids on one line
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
}

impl TextArgs {
    fn read(&self) -> Result<Vec<i64>, Failure> {
        let mut texts = match (&self.ids, &self.ids_file) {
            (Some(ids), _) => vec![ids.0.clone()],
            (None, Some(file)) => lines(file)?,
            (None, None) => Vec::new(),
        };
        match (texts.pop(), texts.len()) {
            (Some(ids), 0) => Ok(ids),
            (_, more) => Err(Failure::input(
                "the tokens cannot be read",
                &format_args!("found {} lines, expected one", more + 1),
            )),
        }
    }
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let ids = args.text.read()?;
    let (bundle, mut generator) = args.backend.open(&args.bundle)?;
    let (scored, timing) = generator.score(&[ids])?;
    let scored = scored.first().ok_or_else(|| Failure::bug(&"a text without a score"))?;
    if let Some(file) = &args.logits {
        write_logits(file, scored, bundle.manifest().model.vocab_size)?;
    }
    if reporter.json() {
        return reporter.document(&json!({
            "tokens": scored.tokens.len(),
            "dropped_left": scored.dropped_left,
            "negative_log_likelihood": scored.negative_log_likelihood,
            "perplexity": scored.perplexity(),
            "logits": args.logits,
            "backend": args.backend.name.name(),
            "timing": as_json(&timing, scored.tokens.len()),
        }));
    }
    if scored.dropped_left > 0 {
        reporter.note(&dropped_left(scored.dropped_left));
    }
    reporter.text(&format!("{} tokens, perplexity {:.6}\n", scored.tokens.len(), scored.perplexity()))
}

/// Writes beside `file`, then renames: a failed write leaves what was there.
fn write_logits(file: &Path, scored: &Scored, vocab_size: usize) -> Result<(), Failure> {
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::input("the logits were not written", &format_args!("{}: {cause}", file.display()))
            .help("make room or name another file; nothing was left behind")
    };
    #[expect(clippy::cast_possible_truncation, reason = "the file holds f32")]
    let bytes: Vec<u8> = scored.logits.iter().flat_map(|logit| (*logit as f32).to_le_bytes()).collect();
    let shape = vec![scored.tokens.len(), vocab_size];
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(|error| Failure::bug(&error))?;
    let bytes = safetensors::serialize([("logits", view)], None).map_err(|error| Failure::bug(&error))?;
    let parent = file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let mut aside = tempfile::NamedTempFile::new_in(parent).map_err(|error| failed(&error))?;
    aside.write_all(&bytes).map_err(|error| failed(&error))?;
    aside.persist(file).map_err(|error| failed(&error))?;
    Ok(())
}
