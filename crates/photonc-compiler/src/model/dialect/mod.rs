//! Dialects: how a checkpoint's own `config.json` and tensor names map to the canonical ones. Owns the data files, their
//! checks and the choice among them; refuses to look at weights. No code here knows a particular dialect.

mod fields;
mod patterns;
mod read;
mod rules;
mod stacks;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::is_file_of_a_checkpoint;
pub use fields::{Origin, Source};
pub use read::{ConfigError, ParsedConfig};
pub use rules::{Dialect, Part};

/// Longest data file read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The dialects that come with the compiler, in the order in which they are tried.
const BUILT_IN: [(&str, &str); 5] = [
    ("paper.toml", include_str!("../dialects/paper.toml")),
    ("photon-experiment-v1.toml", include_str!("../dialects/photon-experiment-v1.toml")),
    ("photon-experiment.toml", include_str!("../dialects/photon-experiment.toml")),
    ("gvessere.toml", include_str!("../dialects/gvessere.toml")),
    ("scala.toml", include_str!("../dialects/scala.toml")),
];

/// How the caller wants the dialect of a checkpoint found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DialectChoice {
    /// By the configuration's `model_type` and the tensors' names.
    #[default]
    Recognise,
    /// By name among the built-in ones.
    Named(String),
    /// From a data file of the same form as the built-in ones.
    File(PathBuf),
}

/// Why no dialect could be settled on.
#[derive(Debug, thiserror::Error)]
pub enum DialectError {
    /// No built-in dialect has that name.
    #[error("no dialect is named `{name}`; known: {}{}", known.join(", "), suggestion(name, known))]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The built-in names.
        known: Vec<String>,
    },
    /// A data file does not describe a dialect.
    #[error("{file}: not a dialect: {reason}")]
    BadFile {
        /// The data file.
        file: String,
        /// Every fault, one a line.
        reason: String,
    },
    /// Neither the configuration nor the names are those of a known dialect.
    #[error(
        "not the layout of a known dialect: {model_type}, first tensors {}; known: {}; describe the layout in a data file and pass it with --weight-map",
        first.join(", "), known.join(", ")
    )]
    Unrecognised {
        /// What `model_type` says.
        model_type: String,
        /// A few of the tensor names found.
        first: Vec<String>,
        /// The built-in names.
        known: Vec<String>,
    },
}

fn suggestion(name: &str, known: &[String]) -> String {
    let scored = known.iter().map(|candidate| (strsim::jaro_winkler(candidate, name), candidate));
    let nearest = scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
    nearest.map_or_else(String::new, |(_, candidate)| format!("; did you mean `{candidate}`"))
}

/// Every built-in dialect, in the order in which they are tried.
///
/// # Errors
/// A built-in data file that does not describe a dialect: a fault of this program.
pub fn built_in() -> Result<Vec<Dialect>, DialectError> {
    BUILT_IN.iter().map(|(file, text)| Dialect::parse(file, text)).collect()
}

/// Settles on the dialect of a checkpoint with that configuration and those tensor names.
///
/// # Errors
/// An unknown name, a data file that cannot be read or is no dialect, or a checkpoint that no built-in dialect recognises.
pub fn choose<'a>(
    choice: &DialectChoice,
    config: &Value,
    mut names: impl Iterator<Item = &'a str> + Clone,
) -> Result<Dialect, DialectError> {
    match choice {
        DialectChoice::File(path) => from_file(path),
        DialectChoice::Named(name) => {
            let dialects = built_in()?;
            let known = dialects.iter().map(|dialect| dialect.name.clone()).collect();
            let found = dialects.into_iter().find(|dialect| dialect.name == *name);
            found.ok_or_else(|| DialectError::UnknownName { name: name.clone(), known })
        }
        DialectChoice::Recognise => {
            let dialects = built_in()?;
            if let Some(at) = dialects.iter().position(|dialect| dialect.recognises_config(config)) {
                return Ok(nth(dialects, at));
            }
            if let Some(at) = dialects.iter().position(|dialect| dialect.recognises_names(names.clone())) {
                return Ok(nth(dialects, at));
            }
            Err(DialectError::Unrecognised {
                model_type: config.get("model_type").map_or_else(
                    || "config.json has no model_type".into(),
                    |kind| format!("model_type {kind}"),
                ),
                first: names.by_ref().take(3).map(|name| format!("`{name}`")).collect(),
                known: dialects.into_iter().map(|dialect| dialect.name).collect(),
            })
        }
    }
}

fn nth(mut dialects: Vec<Dialect>, at: usize) -> Dialect {
    dialects.swap_remove(at)
}

/// Reads a dialect from a user's data file.
///
/// # Errors
/// The file cannot be read or does not describe a dialect; the message lists every fault.
pub fn from_file(path: &Path) -> Result<Dialect, DialectError> {
    let file = path.display().to_string();
    let bad = |reason: String| DialectError::BadFile { file: file.clone(), reason };
    is_file_of_a_checkpoint(path).map_err(bad)?;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    read.map_err(|error| bad(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(bad(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    Dialect::parse(&file, &text)
}

/// Splits a canonical name into its pattern and indices: `levels.0.encoder.layers.3.norm` gives
/// `levels.{i}.encoder.layers.{j}.norm`, level 0, layer 3.
fn pattern_of(name: &str) -> (String, usize, usize) {
    let mut indices = BTreeMap::new();
    let mut segments: Vec<&str> = Vec::new();
    for segment in name.split('.') {
        let hole = match segments.last() {
            Some(&"levels") => Some("{i}"),
            Some(&"layers") => Some("{j}"),
            _ => None,
        };
        match (hole, segment.parse::<usize>()) {
            (Some(hole), Ok(index)) => {
                indices.insert(hole, index);
                segments.push(hole);
            }
            _ => segments.push(segment),
        }
    }
    let index = |hole| indices.get(hole).copied().unwrap_or(0);
    (segments.join("."), index("{i}"), index("{j}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters::parameters;
    use crate::model::preset::preset;
    use serde_json::json;

    fn name_of(config: &Value, names: &[&str]) -> Result<String, String> {
        choose(&DialectChoice::Recognise, config, names.iter().copied())
            .map(|dialect| dialect.name)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn built_in_data_files_are_dialects() {
        let names: Vec<String> =
            built_in().expect("built-in dialects parse").into_iter().map(|dialect| dialect.name).collect();
        assert_eq!(names, ["paper", "photon-experiment-v1", "photon-experiment", "gvessere", "scala"]);
    }

    /// The canonical names are the compiler's own: the canonical dialect may not rename any.
    #[test]
    fn paper_names_are_the_canonical_names() {
        let paper = &built_in().expect("built-in dialects parse")[0];
        for parameter in parameters(&preset("tiny").expect("`tiny` is a preset")) {
            assert_eq!(paper.native_name(&parameter.name).as_deref(), Some(parameter.name.as_str()));
        }
    }

    #[test]
    fn recognises_by_model_type_before_names() {
        let third = [
            "chunkers.0.proj.weight",
            "encoders.0.layers.0.attn.wq.weight",
            "converters.0.conv.weight",
            "start_vecs.0",
        ];
        assert_eq!(name_of(&json!({"model_type": "photon"}), &third), Ok("paper".into()));
        assert_eq!(name_of(&json!({}), &third), Ok("photon-experiment".into()));
    }

    #[test]
    fn an_unknown_layout_says_what_it_saw_and_what_to_do() {
        let error = name_of(&json!({"model_type": "llama"}), &["model.embed_tokens.weight"])
            .expect_err("no dialect has these names");
        assert_eq!(
            error,
            "not the layout of a known dialect: model_type \"llama\", first tensors `model.embed_tokens.weight`; known: paper, photon-experiment-v1, photon-experiment, gvessere, scala; describe the layout in a data file and pass it with --weight-map"
        );
    }

    #[test]
    fn a_misspelt_dialect_gets_a_suggestion() {
        let error = choose(&DialectChoice::Named("photon-experimental".into()), &json!({}), [].into_iter())
            .expect_err("no such dialect");
        assert!(error.to_string().ends_with("did you mean `photon-experiment`"), "{error}");
    }

    #[test]
    fn patterns_keep_levels_and_layers_apart() {
        let split = pattern_of("levels.2.encoder.layers.13.mlp.up_proj.weight");
        assert_eq!(split, ("levels.{i}.encoder.layers.{j}.mlp.up_proj.weight".into(), 2, 13));
    }
}
