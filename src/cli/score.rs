//! `photonc score`: perplexity of a text or of given tokens under the teacher-forced forward, and their logits.

use super::backends::BackendArgs;
use super::language::Language;
use super::output::{Kind, Output};
use super::prompts::{Ids, ids, lines, text_file};
use super::report::path_text;
use super::rows::count;
use super::timing::as_json;
use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::runtime::generator::Generator;
use crate::runtime::score::{LongScore, Scored, Windows};
use crate::runtime::timing::Timing;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use std::path::PathBuf;

/// What `--logits` writes, in errors.
const LOGITS: &str = "the file of logits";

/// Score a text or tokens: perplexity, bits per byte, and logits if asked for
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    backend: BackendArgs,
    /// Tokens that the model reads at once [default: the bundle's longest sequence]
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "logits")]
    window: Option<usize>,
    /// Tokens that each window after the first scores; those before them are its context [default: half a window]
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "logits")]
    stride: Option<usize>,
    /// Write the logits as f32 tensor `logits [tokens, vocabulary]` of a safetensors file; reads all tokens at once
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
}

/// A text as words or as tokens.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct TextArgs {
    /// File of UTF-8 text
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// Token ids, `1,2,3`
    #[arg(long, value_name = "IDS", value_parser = ids)]
    ids: Option<Ids>,
    /// File with the token ids on one line
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
}

/// A text as tokens.
pub struct TextTokens {
    pub ids: Vec<i64>,
    /// Bytes of the text that its tokens stand for, where there is a text.
    bytes: Option<usize>,
}

impl TextTokens {
    /// Bytes of the text, where there is one.
    fn bytes(&self) -> Option<usize> {
        self.bytes
    }
}

impl TextArgs {
    /// The tokens, without marks around them.
    pub fn read(&self, bundle: &Bundle, reporter: &Reporter) -> Result<TextTokens, Failure> {
        if let Some(file) = &self.text_file {
            let text = text_file(file)?;
            let encoded = Language::of(bundle, true, reporter)?.needed()?.encode(&text, false)?;
            let bytes = encoded.starts.first().map(|start| text.len() - start);
            return Ok(TextTokens { ids: encoded.ids, bytes });
        }
        let mut texts = match (&self.ids, &self.ids_file) {
            (Some(ids), _) => vec![ids.0.clone()],
            (None, Some(file)) => lines(file)?,
            (None, None) => {
                return Err(Failure::usage(&"no text is given")
                    .help("name one with --text-file, or tokens with --ids or --ids-file"));
            }
        };
        match (texts.pop(), texts.len()) {
            (Some(ids), 0) => Ok(TextTokens { ids, bytes: None }),
            (_, more) => Err(Failure::input(
                "the tokens cannot be read",
                &format_args!("found {} lines, expected one", more + 1),
            )),
        }
    }
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let logits = args.logits.as_deref().map(|file| Output::claim(file, Kind::Logits, LOGITS)).transpose()?;
    let (bundle, mut generator) = args.backend.open(&args.bundle, reporter)?;
    let longest = bundle.manifest().model.max_tokens;
    let text = args.text.read(&bundle, reporter)?;
    let (score, timing) = match logits {
        Some(file) => {
            refuse_longer(text.ids.len(), longest, "--logits reads all tokens of the text at once")?;
            with_logits(&mut generator, &text.ids, file)?
        }
        None => {
            let tokens = args.window.unwrap_or(longest);
            refuse_longer(tokens, longest, "--window is how many the model reads at once")?;
            let windows = Windows { tokens, stride: args.stride.unwrap_or(tokens.div_ceil(2)) };
            let shown = reporter.steps("score", text.ids.len() as u64);
            let on_progress = |done: usize, all: usize| shown.set(done as u64, all as u64);
            generator.score_long(&text.ids, windows, &on_progress)?
        }
    };
    tell(args, &text, &score, &timing, reporter)
}

/// Refuses to read more tokens at once than the bundle was exported for.
fn refuse_longer(tokens: usize, longest: usize, why: &str) -> Result<(), Failure> {
    if tokens <= longest {
        return Ok(());
    }
    let cause = format!("{tokens} tokens, and the bundle's longest sequence has {longest}: {why}");
    Err(Failure::usage(&cause).help("read fewer at once, or export with a larger --max-tokens"))
}

fn with_logits(generator: &mut Generator, ids: &[i64], file: Output) -> Result<(LongScore, Timing), Failure> {
    let vocab_size = generator.program().vocab_size;
    let (scored, timing) = generator.score(&[ids.to_vec()])?;
    let scored = scored.first().ok_or_else(|| Failure::bug(&"a text without a score"))?;
    write_logits(file, scored, vocab_size)?;
    let score = LongScore {
        tokens: scored.tokens.len(),
        negative_log_likelihood: scored.negative_log_likelihood,
        windows: 1,
    };
    Ok((score, timing))
}

fn tell(
    args: &Args,
    text: &TextTokens,
    score: &LongScore,
    timing: &Timing,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let bytes = text.bytes();
    if reporter.json() {
        return reporter.document(&json!({
            "tokens": score.tokens,
            "negative_log_likelihood": score.negative_log_likelihood,
            "perplexity": score.perplexity(),
            "bytes": bytes,
            "bits_per_byte": bytes.map(|bytes| score.bits_per_byte(bytes)),
            "windows": score.windows,
            "logits": args.logits.as_deref().map(path_text),
            "backend": args.backend.name.name(),
            "timing": as_json(timing, score.tokens),
        }));
    }
    let bytes = bytes.map_or_else(String::new, |bytes| {
        format!(", {:.6} bits per byte ({bytes} bytes)", score.bits_per_byte(bytes))
    });
    reporter.text(&format!("{} tokens, perplexity {:.6}{bytes}\n", score.tokens, score.perplexity()))
}

fn write_logits(file: Output, scored: &Scored, vocab_size: usize) -> Result<(), Failure> {
    #[expect(clippy::cast_possible_truncation, reason = "the file holds f32")]
    let bytes: Vec<u8> = scored.logits.iter().flat_map(|logit| (*logit as f32).to_le_bytes()).collect();
    let shape = vec![scored.tokens.len(), vocab_size];
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(|error| Failure::bug(&error))?;
    let bytes = safetensors::serialize([("logits", view)], None).map_err(|error| Failure::bug(&error))?;
    file.write(&bytes, LOGITS)
}
