//! `photonc synth`: random checkpoints in canonical format. Owns the options; the weights come from `model::synth`.

use super::report::path_text;
use super::{Failure, Reporter};
use crate::ir::dtype::Dtype;
use crate::model::parameter_table::{ParameterTable, grouped};
use crate::model::preset::{PRESETS, preset};
use crate::model::synth::{SynthError, synth_over};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;

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
    let written = synth_over(&config, args.dtype, args.seed, &args.out, args.force, &tell);
    let written = written.map_err(|error| match (&error, args.layers) {
        (SynthError::Config { .. }, Some(layers)) => {
            Failure::usage(&format_args!("--layers {layers}: {error}"))
        }
        _ => error.into(),
    })?;
    let bytes = written.weights_bytes;
    drop(progress);
    written.notes.iter().for_each(|note| reporter.note(note));
    let table = ParameterTable::new(&config);
    let parameters = table.total + table.start_latents;
    if reporter.json() {
        return reporter.document(&serde_json::json!({
            "path": path_text(&args.out),
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
