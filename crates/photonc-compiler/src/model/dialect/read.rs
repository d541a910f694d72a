//! From a checkpoint's own `config.json` to a `ModelConfig`, by the rules of a dialect. Owns which
//! fields make a model; relations between sizes belong to `validate`, and both kinds of finding come in one report.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fields::{Reader, Scope, Source, brief};
use super::rules::{Dialect, Expect, LEVEL_SIZES, Rule};
use crate::model::config::{
    Chunker, Condition, Converter, ConverterLayout, Feedback, LevelConfig, ModelConfig, Slot, StackConfig,
    StackOptions, Wiring,
};
use crate::model::validate::{self, Problem};
use photonc_graph::ir::attr::Real;

/// Most levels of a model: a meta-context of 64 levels of two units each is longer than any text.
const MAX_LEVELS: usize = 64;
/// Problems, or keys that are not read, listed at most.
const MAX_LISTED: usize = 50;

/// A `config.json` that does not describe a model.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {} in the model configuration (dialect {dialect}){}", count(problems.len()), lines(problems))]
pub struct ConfigError {
    /// The configuration file.
    pub file: String,
    /// Dialect by which it was read.
    pub dialect: String,
    /// Everything found, in reading order.
    pub problems: Vec<Problem>,
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
}

fn lines(problems: &[Problem]) -> String {
    let mut text: String = problems.iter().take(MAX_LISTED).map(|problem| format!("\n  {problem}")).collect();
    if problems.len() > MAX_LISTED {
        text.push_str(&format!("\n  and {} more", problems.len() - MAX_LISTED));
    }
    text
}

/// A configuration read by a dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedConfig {
    /// The model's shape, free of contradictions.
    pub config: ModelConfig,
    /// What the user may want to know: keys that were ignored.
    pub notes: Vec<String>,
    /// Where the value of each field came from, in reading order.
    pub sources: Vec<Source>,
}

impl Dialect {
    /// Reads a configuration; `file` names it in errors.
    ///
    /// # Errors
    /// One report of every missing key, wrong type and contradiction.
    pub fn read_config(&self, file: &str, json: &Value) -> Result<ParsedConfig, ConfigError> {
        let mut problems = Vec::new();
        steering_keys("", json, &mut problems);
        let json = match self.root.as_ref().and_then(|root| json.get(root)) {
            Some(inner) if inner.is_object() => inner,
            _ => json,
        };
        let mut reader =
            Reader { dialect: self, root: json, problems, used: BTreeSet::new(), sources: Vec::new() };
        reader.expectations(json);
        let config = reader.model(json);
        let Reader { mut problems, used, sources, .. } = reader;
        for problem in validate::problems(&config) {
            let at = self.native_path(&problem.at);
            if !already_covered(&problems, &at) {
                problems.push(Problem { at, what: problem.what });
            }
        }
        if !problems.is_empty() {
            return Err(ConfigError { file: file.to_owned(), dialect: self.name.clone(), problems });
        }
        let notes = if self.unknown_keys.report { self.unknown_notes(json, &used) } else { Vec::new() };
        Ok(ParsedConfig { config, notes, sources })
    }

    /// The key path that a canonical field has in the checkpoint's own configuration.
    fn native_path(&self, canonical: &str) -> String {
        let list = self.list_key();
        let level = canonical.strip_prefix("levels[").and_then(|rest| rest.split_once("]."));
        let (prefix, field, rules) = match level {
            Some((index, field)) => (format!("{list}[{index}]."), field, &self.level),
            None => (String::new(), canonical, &self.model),
        };
        match rules.get(field) {
            Some(Rule { key: Some(key), .. }) => format!("{prefix}{key}"),
            Some(Rule { each: Some(keys), .. }) => {
                let key = level.and_then(|(index, _)| keys.get(index.parse::<usize>().ok()?));
                key.map_or_else(|| canonical.to_owned(), String::clone)
            }
            Some(Rule { from: Some(from), .. }) => format!("{prefix}{field} (= {from})"),
            _ => format!("{prefix}{field}"),
        }
    }

    fn list_key(&self) -> &str {
        self.model.get("levels").and_then(|rule| rule.key.as_deref()).unwrap_or("levels")
    }

    fn unknown_notes(&self, json: &Value, used: &BTreeSet<String>) -> Vec<String> {
        let mut unknown = Vec::new();
        unknown_keys("", json, used, &mut unknown);
        unknown.retain(|path| !self.unknown_keys.information.contains(path));
        let ignored =
            |what: &str| format!("config.json: {what} not read by dialect {} and was ignored", self.name);
        let listed = unknown.iter().take(MAX_LISTED);
        let mut notes: Vec<String> = listed.map(|path| ignored(&format!("`{}` is", cut(path)))).collect();
        if unknown.len() > MAX_LISTED {
            notes.push(ignored(&format!("a further number of {} keys is", unknown.len() - MAX_LISTED)));
        }
        notes
    }
}

/// As much of a key as a message needs.
fn cut(key: &str) -> String {
    const MOST: usize = 200;
    if key.chars().count() <= MOST { key.to_owned() } else { key.chars().take(MOST).chain(['…']).collect() }
}

/// Whether a finding of `validate` only follows from one of the reader's: the same key, a missing object around it, or a
/// size computed from one that is reported.
fn already_covered(problems: &[Problem], at: &str) -> bool {
    let computed = at.contains(" (= ") && !problems.is_empty();
    computed
        || problems.iter().any(|known| {
            at.strip_prefix(known.at.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
}

/// Keys with control characters: no configuration has them, and a terminal would take them as commands.
fn steering_keys(prefix: &str, json: &Value, problems: &mut Vec<Problem>) {
    match json {
        Value::Object(map) => {
            let dot = if prefix.is_empty() { "" } else { "." };
            for (key, value) in map {
                let path = format!("{prefix}{dot}{}", cut(key));
                if key.chars().any(char::is_control) {
                    let what = "a key with control characters, expected none".to_owned();
                    problems.push(Problem { at: path, what });
                } else {
                    steering_keys(&path, value, problems);
                }
            }
        }
        Value::Array(items) => {
            for (at, value) in
                items.iter().enumerate().filter(|(_, value)| value.is_object() || value.is_array())
            {
                steering_keys(&format!("{prefix}[{at}]"), value, problems);
            }
        }
        _ => {}
    }
}

/// Paths of the outermost values that no rule reads.
fn unknown_keys(prefix: &str, json: &Value, used: &BTreeSet<String>, unknown: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match json {
        Value::Object(map) => {
            let dot = if prefix.is_empty() { "" } else { "." };
            map.iter().map(|(key, value)| (format!("{prefix}{dot}{key}"), value)).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, value)| (format!("{prefix}[{at}]"), value)).collect()
        }
        _ => Vec::new(),
    };
    for (path, value) in children {
        let leads_on = |used: &&String| {
            used.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        let inside =
            used.range(path.clone()..).take_while(|used| used.starts_with(&path)).any(|used| leads_on(&used));
        if inside {
            unknown_keys(&path, value, used, unknown);
        } else if !used.contains(&path) {
            unknown.push(path);
        }
    }
}

impl Reader<'_> {
    fn expectations(&mut self, json: &Value) {
        let list = self.dialect.list_key().to_owned();
        let levels = json.get(&list).and_then(Value::as_array);
        for expect in &self.dialect.expect {
            let places: Vec<(String, &Value)> = match expect.level {
                false => vec![(String::new(), json)],
                true => levels
                    .iter()
                    .flat_map(|levels| levels.iter().enumerate())
                    .map(|(index, level)| (format!("{list}[{index}]."), level))
                    .collect(),
            };
            for (prefix, object) in places {
                self.expectation(expect, format!("{prefix}{}", expect.key), object);
            }
        }
    }

    fn expectation(&mut self, expect: &Expect, at: String, object: &Value) {
        self.used.insert(at.clone());
        let values: Vec<String> = expect.values.iter().map(ToString::to_string).collect();
        let found = expect.key.split('.').try_fold(object, |value, part| value.get(part));
        let what = match found {
            Some(Value::Null) if !expect.required => return,
            Some(found) if !expect.values.contains(found) => {
                let expected = if values.is_empty() { "nothing".to_owned() } else { values.join(" or ") };
                format!("found {}, expected {expected} ({})", brief(found), expect.reason)
            }
            None if expect.required => {
                format!("missing, expected {} ({})", values.join(" or "), expect.reason)
            }
            _ => return,
        };
        self.problem(at, what);
    }

    fn model(&mut self, json: &Value) -> ModelConfig {
        let rules = &self.dialect.model;
        let scope = Scope { json, rules, prefix: String::new(), level: None, sizes: BTreeMap::new() };
        let vocab_size = self.size(&scope, "vocab_size");
        let embed_dim = self.size(&scope, "embed_dim");
        let tied_head = self.flag(&scope, "tie_word_embeddings");
        let rms_norm_eps = self.number(&scope, "rms_norm_eps");
        let rope_theta = self.number(&scope, "rope_theta");
        let max_position_embeddings = self.size(&scope, "max_position_embeddings");
        let levels = self.levels(&scope, embed_dim);
        if rules.contains_key("decoder_embed_dim") {
            let (width, at) =
                (self.size(&scope, "decoder_embed_dim"), self.dialect.native_path("decoder_embed_dim"));
            match levels.first().map(|level: &LevelConfig| level.decoder_dim) {
                Some(expected) if expected != width && expected != 0 && width != 0 => {
                    let decoder = self.dialect.native_path("levels[0].decoder.dim");
                    self.problem(
                        at,
                        format!(
                            "found {width}, expected {expected}: the width of the level-1 decoder ({decoder})"
                        ),
                    );
                }
                _ => {}
            }
        }
        ModelConfig {
            vocab_size,
            embed_dim,
            tied_head,
            rms_norm_eps,
            rope_theta,
            max_position_embeddings,
            levels,
            wiring: self.wiring(&scope),
        }
    }

    fn wiring(&mut self, scope: &Scope<'_>) -> Wiring {
        // A choice of the dialect itself, unless a key says it.
        let names = ["recon", "estimate", "state", "predicted"];
        let condition = match self.dialect.choices.get("condition") {
            Some(fixed) if !scope.rules.contains_key("condition") => {
                names.iter().position(|name| name == fixed).unwrap_or(0)
            }
            _ => self.optional_choice(scope, "condition", &names),
        };
        let kinds = [Condition::Carried, Condition::Estimate, Condition::State, Condition::Predicted];
        Wiring {
            condition: kinds[condition],
            scaled_embedding: self.optional_flag(scope, "scaled_embedding"),
            final_norm: self.optional_flag(scope, "final_norm"),
            softcap: self.optional_number(scope, "softcap").map(Real::from),
            tied_middle: self.optional_flag(scope, "tied_middle"),
            tied_decoder_head: self.optional_flag(scope, "tied_decoder_head"),
            shifted_labels: self.optional_flag(scope, "shifted_labels"),
            predictor: self.optional_size(scope, "predictor.layers"),
        }
    }

    fn levels(&mut self, scope: &Scope<'_>, embed_dim: usize) -> Vec<LevelConfig> {
        let Some((value, at)) = self.find(scope, "levels") else {
            return Vec::new();
        };
        let Value::Array(items) = value else {
            self.problem(
                at,
                format!("found {}, expected a list of levels, bottom level first", brief(&value)),
            );
            return Vec::new();
        };
        if items.len() > MAX_LEVELS {
            self.problem(at, format!("found {} levels, at most {MAX_LEVELS} are supported", items.len()));
            return Vec::new();
        }
        let mut levels: Vec<LevelConfig> = Vec::new();
        for (index, json) in items.iter().enumerate() {
            let below = levels.last().map_or(embed_dim, |level| level.dim);
            let prefix = format!("{}[{index}].", self.dialect.list_key());
            let sizes = BTreeMap::from([("below.dim", below)]);
            let mut scope = Scope { json, rules: &self.dialect.level, prefix, level: Some(index), sizes };
            levels.push(self.level(&mut scope));
        }
        levels
    }

    fn level(&mut self, scope: &mut Scope<'_>) -> LevelConfig {
        let latents = ["encoder", "decoder"].map(|part| (part, self.has_latent(scope, part)));
        for field in LEVEL_SIZES {
            // Heads of a latent follow from its own sizes.
            let of_latent = latents.iter().any(|(part, has)| {
                let rest = field.strip_prefix(part).filter(|_| *has);
                matches!(rest, Some(".kv_heads" | ".head_dim"))
            });
            let size = if of_latent { 0 } else { self.size(scope, field) };
            scope.sizes.insert(field, size);
        }
        let size = |field: &str| scope.sizes.get(field).copied().unwrap_or(0);
        let [encoder, decoder] = latents.map(|(part, has_latent)| {
            let stack = StackConfig {
                layers: size(&format!("{part}.layers")),
                heads: size(&format!("{part}.heads")),
                kv_heads: size(&format!("{part}.kv_heads")),
                head_dim: size(&format!("{part}.head_dim")),
                ffn: size(&format!("{part}.ffn")),
                options: StackOptions::default(),
            };
            self.with_options(scope, part, stack, has_latent)
        });
        // A kind that was reported reads as linear without options, so that no relation is checked on top of it.
        let chunker = match self.choice(scope, "chunker.kind", &["concat", "linear", "normed_each"]) {
            Some(0) => Chunker::Concat,
            Some(2) => Chunker::NormedEach,
            Some(_) => Chunker::Linear {
                norm: self.flag(scope, "chunker.norm"),
                bias: self.flag(scope, "chunker.bias"),
            },
            None => Chunker::Linear { norm: false, bias: false },
        };
        let layouts = ["linear", "conv_transpose", "convolved", "narrowed"];
        let layout = match self.choice(scope, "converter.layout", &layouts) {
            Some(3) => ConverterLayout::Narrowed { inner: self.size(scope, "converter.inner") },
            Some(1) => ConverterLayout::ConvTranspose,
            Some(2) => ConverterLayout::Convolved { kernel: self.size(scope, "converter.kernel") },
            _ => ConverterLayout::Linear,
        };
        let feedback = match self.choice(scope, "decoder.feedback", &["latent", "token", "summary"]) {
            Some(1) => Feedback::Token,
            Some(2) => Feedback::Summary,
            _ => Feedback::Latent,
        };
        LevelConfig {
            chunk_size: size("chunk_size"),
            dim: size("dim"),
            prefix: size("prefix"),
            chunker,
            encoder,
            converter: Converter { layout, bias: self.flag(scope, "converter.bias") },
            decoder,
            decoder_dim: size("decoder.dim"),
            slot: match self.optional_choice(scope, "decoder.slot", &["none", "repeat", "zero"]) {
                1 => Slot::Repeat,
                2 => Slot::Zero,
                _ => Slot::None,
            },
            projection: self.optional_flag(scope, "decoder.projection"),
            feedback,
            encoder_window: self.optional_size(scope, "encoder_window"),
            stream: self.optional_size(scope, "decoder.stream"),
        }
    }
}
