//! `photonc verify MODEL --against FILE`: a checkpoint beside the values of the code that it was trained with. Owns the table
//! and the exit code.

use super::Args;
use crate::api::{Against, AgainstOptions, Difference, against};
use crate::cli::model_args::DialectArgs;
use crate::cli::{Failure, Reporter};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// What only the comparison of a bundle heeds.
const OF_A_BUNDLE: [&str; 12] = [
    "name",
    "devices",
    "compute",
    "batch_invariant",
    "no_rebuild",
    "trust",
    "no_verify",
    "ort_lib",
    "provider",
    "graph",
    "per_layer",
    "seed",
];

/// What a checkpoint is compared with.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Values of other code")]
pub struct AgainstArgs {
    /// Compare a checkpoint (not a bundle) with values that other code made: a safetensors file with `ids`, `logits` and any of
    /// `encoded.1`, `reconstructed.1`, .. or names of modules (docs/dialects.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_A_BUNDLE)]
    pub against: Option<PathBuf>,
    /// Difference that counts as none, as a part of the largest value
    #[arg(long, value_name = "X", default_value_t = 2e-3, requires = "against")]
    tolerance: f64,
    #[command(flatten)]
    dialect: DialectArgs,
}

impl AgainstArgs {
    /// Whether only a comparison with other code reads what was given.
    pub fn is_misplaced(&self) -> bool {
        self.against.is_none() && self.dialect.given()
    }
}

pub fn run(args: &Args, file: &std::path::Path, reporter: &Reporter) -> Result<ExitCode, Failure> {
    let options = &args.against;
    if !(options.tolerance.is_finite() && options.tolerance > 0.0) {
        return Err(Failure::usage(&"--tolerance takes a positive number"));
    }
    if args.bundle.join("photon.json").is_file() {
        let cause = format!("{} is a bundle", args.bundle.display());
        return Err(Failure::usage(&cause).help("name the checkpoint that it was made from"));
    }
    let checkpoint = Arc::new(options.dialect.open(&args.bundle, reporter)?);
    let settings = AgainstOptions { tolerance: options.tolerance, threads: args.backend.threads() };
    let found = against(&checkpoint, file, settings)?;
    if reporter.json() {
        reporter.document(&document(&found))?;
    } else {
        reporter.text(&text(&found))?;
    }
    Ok(if found.first().is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn text(found: &Against) -> String {
    let width = found.values.iter().map(|value| value.name.chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("{:<width$}  {:>10}  {:>10}  verdict\n", "value", "difference", "largest");
    for value in &found.values {
        let verdict = if value.agrees { "agrees" } else { "differs" };
        let Difference { name, error, largest, .. } = value;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<width$}  {error:>10.2e}  {largest:>10.2e}  {verdict}");
    }
    let Some(first) = found.first() else {
        return text;
    };
    let _ = writeln!(
        text,
        "\nthe first difference is in {} (`{}`, element {})",
        place(first),
        first.name,
        first.at
    );
    if found.explanations.is_empty() {
        text.push_str(
            "no choice that is built would explain it: give states of levels and modules to narrow it down, or look for \
             an operation that the model has and the dialect has not\n",
        );
    }
    for one in &found.explanations {
        let (choices, error) = (one.choices.join("; "), one.error);
        let _ =
            writeln!(text, "would explain it: {choices} (logits then differ by {error:.1e} of the largest)");
    }
    text
}

/// Level and module of a value, in words.
fn place(value: &Difference) -> String {
    let (level, module) = value.module.split_once('.').unwrap_or((&value.module, ""));
    match level.strip_prefix("level") {
        Some(level) if module.is_empty() => format!("level {level}"),
        Some(level) => format!("level {level}, {module}"),
        None => format!("module {}", value.module),
    }
}

fn document(found: &Against) -> Value {
    let values = found.values.iter().map(|value| {
        json!({
            "name": value.name,
            "module": value.module,
            "difference": value.error,
            "largest": value.largest,
            "element": value.at,
            "agrees": value.agrees,
        })
    });
    let explanations = found
        .explanations
        .iter()
        .map(|one| json!({"choices": one.choices, "relative_difference": one.error}));
    json!({
        "values": values.collect::<Vec<_>>(),
        "first_difference": found.first().map(|value| &value.name),
        "explanations": explanations.collect::<Vec<_>>(),
    })
}
