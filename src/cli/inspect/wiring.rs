//! What a model's choices are and what said so, and a picture of one meta-context.

use super::source::{Model, Source};
use crate::cli::{Failure, Reporter};
use crate::model::checkpoint::Checkpoint;
use crate::model::config::{Condition, Feedback, ModelConfig, Slot};
use crate::model::dialect::Origin;
use serde_json::json;
use std::fmt::Write as _;

/// Prints the wiring of a checkpoint.
pub fn print(source: &Source, reporter: &Reporter) -> Result<(), Failure> {
    let Model::Checkpoint(checkpoint) = &source.model else {
        return Err(Failure::usage(
            &"a bundle has no configuration of its own; name the checkpoint it was made from",
        ));
    };
    if reporter.json() {
        return reporter.document(&json!({
            "dialect": checkpoint.dialect.name,
            "file": checkpoint.config_file,
            "choices": checkpoint.dialect.choices,
            "fields": checkpoint.sources,
            "picture": picture(&checkpoint.config),
        }));
    }
    reporter.text(&text(checkpoint))
}

fn text(checkpoint: &Checkpoint) -> String {
    let (dialect, file) = (&checkpoint.dialect.name, &checkpoint.config_file);
    let mut rows: Vec<[String; 3]> = Vec::new();
    for (choice, value) in &checkpoint.dialect.choices {
        rows.push([choice.clone(), value.clone(), format!("dialect {dialect}")]);
    }
    for source in &checkpoint.sources {
        let origin = match &source.origin {
            Origin::Key(key) => format!("{file}: {key}"),
            Origin::Default(key) => format!("dialect {dialect}, {file} does not say {key}"),
            Origin::Dialect => format!("dialect {dialect}"),
            Origin::Computed(from) => format!("dialect {dialect}: {from}"),
        };
        rows.push([source.field.clone(), source.value.clone(), origin]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1)];
    let mut text = String::new();
    for [field, value, origin] in &rows {
        let [a, b] = widths;
        let _infallible = writeln!(text, "{field:<a$}  {value:<b$}  {origin}");
    }
    text.push('\n');
    text.push_str(&picture(&checkpoint.config));
    text
}

/// One meta-context, from the top down: what conditions a window, what it holds, what it reads back.
fn picture(config: &ModelConfig) -> String {
    let depth = config.depth();
    let mut text = format!("one meta-context, {} tokens:\n", config.meta_tokens());
    for l in (1..=depth).rev() {
        let level = config.level(l);
        let condition = match (config.wiring.condition, l == depth) {
            (Condition::Predicted, true) => {
                format!("X{l} of the unit before (the start latent first), or what is predicted of it")
            }
            (_, true) => format!("X{l} of the unit before (the start latent first)"),
            (Condition::Carried, false) => format!("Xhat{l} of the unit before (carried over meta-contexts)"),
            (Condition::State, false) => format!("X{l} of the unit before (RecGen: Xhat{l})"),
            (Condition::Predicted, false) => {
                format!("Xhat{l} of the unit before (the first: X{l}, or RecGen's first Xhat{l})")
            }
            (Condition::Estimate, false) => format!("Xhat{l} of this very unit"),
        };
        let reads = match (level.feedback, l) {
            (Feedback::Latent, _) => "its own outputs",
            (Feedback::Token, _) => "embeddings of drawn tokens, from a table of its own",
            (Feedback::Summary, 1) => "embeddings of drawn tokens, from the encoder's table",
            (Feedback::Summary, _) => "the protocol's summaries of finished units",
        };
        let slot = match level.slot {
            Slot::None => "",
            Slot::Repeat => ", the last of them twice",
            Slot::Zero => ", and zero in the place of the next",
        };
        let projected = if level.projection { ", projected" } else { "" };
        let _infallible = writeln!(
            text,
            "  level {l}: {} x window [{} from {condition}{slot}; {} of {reads}] -> {} x Xhat{}{projected}",
            config.units(l),
            level.prefix,
            level.chunk_size - 1,
            config.units(l - 1),
            l - 1,
        );
    }
    text.push_str(if config.wiring.final_norm {
        "  Xhat0 -> norm -> head -> tokens\n"
    } else {
        "  Xhat0 -> head -> tokens\n"
    });
    text
}
