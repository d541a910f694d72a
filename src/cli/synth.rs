//! `photonc synth`: random checkpoints in canonical format. Owns `--force`; the weights come from `model::synth`.

use super::{Failure, Reporter};
use crate::ir::dtype::Dtype;
use crate::model::parameter_table::{ParameterTable, grouped};
use crate::model::preset::{PRESETS, preset};
use crate::model::synth::{SynthError, synth};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Names of the files of a synthesised checkpoint.
const FILES: [&str; 2] = ["config.json", "model.safetensors"];

/// Write a checkpoint with random weights, for tests and benchmarks
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Size of the model
    #[arg(long, value_parser = PossibleValuesParser::new(PRESETS))]
    preset: String,
    /// Layers of every stack [default: those of the model]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    layers: Option<u16>,
    /// Directory to write
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Type of the weights
    #[arg(long, default_value = "f32", value_parser = dtype_parser())]
    dtype: Dtype,
    /// Seed of the weights; the same seed gives the same bytes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Replace a checkpoint that stands there
    #[arg(long)]
    force: bool,
}

fn dtype_parser() -> impl TypedValueParser<Value = Dtype> {
    PossibleValuesParser::new(["f32", "f16", "bf16"])
        .try_map(|name| Dtype::from_name(&name).ok_or("not a type of weights"))
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let mut config = preset(&args.preset).ok_or_else(|| Failure::bug(&"a preset without a configuration"))?;
    if let Some(layers) = args.layers {
        for level in &mut config.levels {
            (level.encoder.layers, level.decoder.layers) = (layers.into(), layers.into());
        }
    }
    let progress = reporter.progress("writing weights");
    let tell = |done, total| progress.set(done, total);
    let write = |directory: &Path| synth(&config, args.dtype, args.seed, directory, &tell);
    let bytes = match args.force && is_checkpoint(&args.out) {
        true => replace(&args.out, write)?,
        false => write(&args.out)?,
    };
    drop(progress);
    let table = ParameterTable::new(&config);
    let parameters = table.total + table.start_latents;
    if reporter.json() {
        return reporter.document(&serde_json::json!({
            "path": args.out,
            "preset": args.preset,
            "layers": args.layers,
            "dtype": args.dtype.name(),
            "seed": args.seed,
            "parameters": parameters,
            "weights_bytes": bytes,
        }));
    }
    reporter.text(&format!(
        "{}: {}, {} parameters in {}, seed {}, {} bytes of weights\n",
        args.out.display(),
        args.preset,
        grouped(parameters),
        args.dtype,
        args.seed,
        bytes
    ))
}

/// Whether a directory holds exactly what `synth` writes: nothing else is ever replaced.
fn is_checkpoint(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    let names: Result<Vec<OsString>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    names.is_ok_and(|names| {
        !names.is_empty() && names.iter().all(|name| FILES.iter().any(|file| name == file))
    })
}

/// Writes beside `target` and exchanges the two at once, so that one whole checkpoint stands there at any time.
fn replace(target: &Path, write: impl FnOnce(&Path) -> Result<u64, SynthError>) -> Result<u64, SynthError> {
    let failed = |source: std::io::Error| SynthError::Write { path: target.to_owned(), source };
    let parent = target.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let aside = tempfile::Builder::new().prefix(".photonc-synth-").tempdir_in(parent).map_err(failed)?;
    let fresh = aside.path().join("fresh");
    let bytes = write(&fresh)?;
    if renameat_with(CWD, &fresh, CWD, target, RenameFlags::EXCHANGE).is_err() {
        // File systems that cannot exchange still can rename.
        fs::rename(target, aside.path().join("old")).map_err(failed)?;
        fs::rename(&fresh, target).map_err(failed)?;
    }
    Ok(bytes)
}
