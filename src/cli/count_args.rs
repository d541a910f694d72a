//! Sizes of a run and the GPU that costs are predicted for, shared by the subcommands that count.

use super::Failure;
use crate::inspect::gpu::{GPUS, Gpu};
use crate::inspect::{Setting, Subject};
use crate::ir::dtype::Dtype;
use clap::builder::PossibleValuesParser;

/// Largest of each: products of them are counted.
const MAX_COUNT: usize = 1 << 24;

/// What costs are counted for.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Costs")]
pub struct CountArgs {
    /// GPU whose ceilings predict times
    #[arg(long, value_parser = PossibleValuesParser::new(GPUS.map(|gpu| gpu.name)), default_value = "h100")]
    gpu: String,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Meta-contexts that the coarse graph runs ahead
    #[arg(long, value_name = "K", default_value_t = 1)]
    run_ahead: usize,
    /// Tokens that the caches hold, prompt included; by default the longest sequence of the model
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Count every float as of this type instead of the graph's own
    #[arg(long, value_name = "DTYPE", value_parser = PossibleValuesParser::new(["f32", "f16", "bf16"]))]
    dtype: Option<String>,
}

impl CountArgs {
    /// The sizes, for a subject.
    pub fn setting(&self, subject: &Subject) -> Result<Setting, Failure> {
        if self.batch == 0 || self.run_ahead == 0 || self.context == Some(0) {
            return Err(Failure::usage(&"--batch, --run-ahead and --context count from 1"));
        }
        let most = self.batch.max(self.run_ahead).max(self.context.unwrap_or(1));
        if most > MAX_COUNT {
            let cause = format!("--batch, --run-ahead and --context count to {MAX_COUNT}, found {most}");
            return Err(Failure::usage(&cause));
        }
        let default = Setting::of(subject);
        let slots = |tokens: usize| tokens.div_ceil(subject.meta_tokens.max(1));
        Ok(Setting {
            batch: self.batch,
            run_ahead: self.run_ahead,
            capacity: self.context.map_or(default.capacity, slots),
            precision: self.dtype.as_deref().and_then(Dtype::from_name),
        })
    }

    /// The GPU.
    pub fn gpu(&self) -> Result<Gpu, Failure> {
        Gpu::named(&self.gpu).ok_or_else(|| Failure::bug(&"a GPU that parses is not in the table"))
    }
}
