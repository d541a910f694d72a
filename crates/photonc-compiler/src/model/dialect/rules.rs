//! The data file of a dialect: its structure and the checks that make it usable. Owns names and field rules; applying
//! the field rules to a configuration belongs to `read`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::patterns::canonical_patterns;
use super::stacks::STACK_FIELDS;
use super::{DialectError, pattern_of};

/// Fields of a model that every dialect settles.
const MODEL_FIELDS: [&str; 7] = [
    "vocab_size",
    "embed_dim",
    "tie_word_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "max_position_embeddings",
    "levels",
];
/// Sizes of a level in the order in which they are read: a `from` rule names only earlier ones.
pub(super) const LEVEL_SIZES: [&str; 14] = [
    "chunk_size",
    "dim",
    "prefix",
    "decoder.dim",
    "encoder.layers",
    "encoder.heads",
    "encoder.kv_heads",
    "encoder.head_dim",
    "encoder.ffn",
    "decoder.layers",
    "decoder.heads",
    "decoder.kv_heads",
    "decoder.head_dim",
    "decoder.ffn",
];
/// Fields of a model that most do without.
const MODEL_OPTIONS: [&str; 9] = [
    "decoder_embed_dim",
    "condition",
    "scaled_embedding",
    "final_norm",
    "softcap",
    "tied_middle",
    "tied_decoder_head",
    "shifted_labels",
    "predictor.layers",
];
/// Fields of a level that most do without, beside those of its stacks.
const LEVEL_OPTIONS: [&str; 6] = [
    "converter.kernel",
    "converter.inner",
    "decoder.slot",
    "decoder.projection",
    "decoder.stream",
    "encoder_window",
];
/// The other fields of a level.
const LEVEL_CHOICES: [&str; 6] = [
    "chunker.kind",
    "chunker.norm",
    "chunker.bias",
    "converter.bias",
    "converter.layout",
    "decoder.feedback",
];
/// What the equations implement of the choices that no configuration key expresses.
const SUPPORTED_CHOICES: [(&str, &str); 7] = [
    ("condition", "recon"),
    ("condition", "estimate"),
    ("condition", "state"),
    ("condition", "predicted"),
    ("align", "drop_left"),
    ("align", "force"),
    ("unit", "meta-context"),
];

/// A layout of checkpoints: keys of `config.json`, tensor names, and the choices it fixes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialect {
    /// Name, as `--dialect` takes it.
    pub name: String,
    /// Choices that no configuration key expresses: `condition`, `align`, `unit`.
    #[serde(default)]
    pub choices: BTreeMap<String, String>,
    #[serde(default)]
    recognise: Recognise,
    #[serde(default)]
    pub(super) expect: Vec<Expect>,
    pub(super) model: BTreeMap<String, Rule>,
    pub(super) level: BTreeMap<String, Rule>,
    #[serde(default)]
    pub(super) unknown_keys: UnknownKeys,
    tensors: BTreeMap<String, StoredName>,
    /// Native names that may be stored and are not weights; `{i}` and `{j}` stand for numbers, a last `*` for any rest.
    #[serde(default)]
    ignore: Vec<String>,
    /// Key under which all others may stand.
    pub(super) root: Option<String>,
    /// Prefixes of the native names of the first level, the top and all between, where one set serves all between:
    /// each in the place of the prefix that levels have otherwise.
    tied: Option<TiedNames>,
}

/// What a canonical tensor is called in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a name, a list of names, one a level, or a table of name, part and parts"
)]
enum StoredName {
    One(String),
    /// By level, bottom first.
    Levels(Vec<String>),
    /// Part number `part`, from 0, of so many equal ones along the first axis.
    Part(PartName),
}

/// A tensor that is stored with others behind one another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartName {
    name: String,
    part: usize,
    parts: usize,
}

/// Where in a stored tensor another one stands: part number `index`, from 0, of `count` equal ones along the first axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

/// Native prefixes of levels where one set of tensors serves all that are neither first nor top.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TiedNames {
    prefix: String,
    first: String,
    middle: String,
    top: String,
}

/// What a checkpoint of the dialect looks like from outside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recognise {
    #[serde(default)]
    config: BTreeMap<String, Value>,
    #[serde(default)]
    tensors: Vec<String>,
    /// One of these is enough.
    #[serde(default)]
    any: Vec<String>,
}

/// A key whose value must be one of a few, because the dialect describes no other case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub key: String,
    pub values: Vec<Value>,
    #[serde(default)]
    pub required: bool,
    /// Whether the key stands in the object of each level.
    #[serde(default)]
    pub level: bool,
    pub reason: String,
}

/// What to say of keys that no rule reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnknownKeys {
    #[serde(default)]
    pub report: bool,
    #[serde(default)]
    pub information: Vec<String>,
}

/// Where a field's value comes from; the first that applies, in the order of the members.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub key: Option<String>,
    /// A key for each level, bottom first, beside those of the model.
    pub each: Option<Vec<String>>,
    pub first: Option<Value>,
    pub value: Option<Value>,
    pub from: Option<String>,
}

/// A `from` rule: `x`, `x * y` or `x / y`.
pub(super) enum Formula<'a> {
    Copy(&'a str),
    Product(&'a str, &'a str),
    Quotient(&'a str, &'a str),
}

impl Formula<'_> {
    pub fn parse(text: &str) -> Formula<'_> {
        if let Some((left, right)) = text.split_once('*') {
            Formula::Product(left.trim(), right.trim())
        } else if let Some((left, right)) = text.split_once('/') {
            Formula::Quotient(left.trim(), right.trim())
        } else {
            Formula::Copy(text.trim())
        }
    }
}

impl Dialect {
    /// Parses and checks a data file; `file` names it in errors.
    ///
    /// # Errors
    /// Text that is no TOML of this structure, or rules that leave a field open: all faults in one message.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, DialectError> {
        let bad = |reason: String| DialectError::BadFile { file: file.to_owned(), reason };
        let dialect: Dialect =
            toml::from_str(text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
        let faults = dialect.faults();
        if faults.is_empty() { Ok(dialect) } else { Err(bad(faults.join("\n  "))) }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        field_faults("model", &self.model, &MODEL_FIELDS, &MODEL_OPTIONS, &mut faults);
        let level_fields: Vec<&str> = LEVEL_SIZES.iter().chain(&LEVEL_CHOICES).copied().collect();
        let of_stacks: Vec<String> = ["encoder", "decoder"]
            .iter()
            .flat_map(|part| STACK_FIELDS.iter().map(move |field| format!("{part}.{field}")))
            .collect();
        let optional: Vec<&str> =
            LEVEL_OPTIONS.iter().copied().chain(of_stacks.iter().map(String::as_str)).collect();
        field_faults("level", &self.level, &level_fields, &optional, &mut faults);
        for (at, field) in LEVEL_SIZES.iter().enumerate() {
            let Some(text) = self.level.get(*field).and_then(|rule| rule.from.as_deref()) else {
                continue;
            };
            let (Formula::Copy(left) | Formula::Product(left, _) | Formula::Quotient(left, _)) =
                Formula::parse(text);
            let (Formula::Copy(right) | Formula::Product(_, right) | Formula::Quotient(_, right)) =
                Formula::parse(text);
            for operand in [left, right] {
                if operand != "below.dim" && !LEVEL_SIZES[..at].contains(&operand) {
                    faults.push(format!(
                        "level.\"{field}\": `from` names `{operand}`, expected `below.dim` or one of {}",
                        LEVEL_SIZES[..at].join(", ")
                    ));
                    break;
                }
            }
        }
        for (choice, value) in &self.choices {
            if !SUPPORTED_CHOICES.contains(&(choice.as_str(), value.as_str())) {
                let known: Vec<String> =
                    SUPPORTED_CHOICES.iter().map(|(name, value)| format!("{name} = \"{value}\"")).collect();
                faults.push(format!("choices.{choice}: found \"{value}\", supported: {}", known.join(", ")));
            }
        }
        let canonical = canonical_patterns();
        for (pattern, name) in &self.tensors {
            if let StoredName::Part(PartName { part, parts, .. }) = name
                && part >= parts
            {
                faults.push(format!("tensors: `{pattern}`: part {part} of {parts}, expected less, from 0"));
            }
        }
        if let Some(field) = self.model.iter().find_map(|(field, rule)| rule.each.is_some().then_some(field))
        {
            faults.push(format!("model.\"{field}\": `each` names keys of levels only"));
        }
        for pattern in self.tensors.keys().filter(|pattern| !canonical.contains(pattern)) {
            let nearest = canonical
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, pattern).total_cmp(&strsim::jaro_winkler(b, pattern)));
            faults.push(format!(
                "tensors: `{pattern}` is no canonical name; did you mean `{}`",
                nearest.map_or("", String::as_str)
            ));
        }
        faults
    }

    /// The checkpoint's own name of a canonical tensor; `None` where the dialect has no such tensor.
    #[must_use]
    pub fn native_name(&self, canonical: &str) -> Option<String> {
        self.native_name_of(canonical, None)
    }

    /// The same in a model of `depth` levels of which all between the first and the top have one set of tensors.
    #[must_use]
    pub fn native_name_of(&self, canonical: &str, tied_depth: Option<usize>) -> Option<String> {
        let (pattern, i, j) = pattern_of(canonical);
        let mut native = match self.tensors.get(&pattern)? {
            StoredName::One(name) | StoredName::Part(PartName { name, .. }) => name.clone(),
            StoredName::Levels(names) => names.get(i)?.clone(),
        };
        if let (Some(depth), Some(tied)) = (tied_depth, &self.tied)
            && let Some(rest) = native.strip_prefix(&tied.prefix)
        {
            let prefix = match i {
                0 => &tied.first,
                i if i + 1 == depth => &tied.top,
                _ => &tied.middle,
            };
            native = format!("{prefix}{rest}");
        }
        let native = native.replace("{i+1}", &(i + 1).to_string()).replace("{j+1}", &(j + 1).to_string());
        Some(native.replace("{i}", &i.to_string()).replace("{j}", &j.to_string()))
    }

    /// Where in the stored tensor a canonical one stands, if it is not the whole.
    #[must_use]
    pub fn part_of(&self, canonical: &str) -> Option<Part> {
        match self.tensors.get(&pattern_of(canonical).0)? {
            StoredName::Part(PartName { part, parts, .. }) => Some(Part { index: *part, count: *parts }),
            StoredName::One(_) | StoredName::Levels(_) => None,
        }
    }

    /// Whether a stored tensor of that native name is none of the model's and harmless.
    #[must_use]
    pub fn ignores(&self, native: &str) -> bool {
        is_left_over(native)
            || self.ignore.iter().any(|pattern| {
                let (mut expected, mut found) = (pattern.split('.'), native.split('.'));
                loop {
                    match (expected.next(), found.next()) {
                        (None, None) | (Some("*"), Some(_)) => return true,
                        (Some("{i}" | "{j}"), Some(segment)) if segment.parse::<usize>().is_ok() => {}
                        (Some(expected), Some(segment)) if expected == segment => {}
                        _ => return false,
                    }
                }
            })
    }

    pub(super) fn recognises_config(&self, config: &Value) -> bool {
        let expected = &self.recognise.config;
        !expected.is_empty() && expected.iter().all(|(key, value)| config.get(key) == Some(value))
    }

    pub(super) fn recognises_names<'a>(&self, mut names: impl Iterator<Item = &'a str> + Clone) -> bool {
        let Recognise { tensors: expected, any, .. } = &self.recognise;
        if any.iter().any(|tensor| names.clone().any(|name| name == tensor)) {
            return true;
        }
        !expected.is_empty()
            && expected.iter().all(|tensor| names.clone().any(|name| name == tensor))
            && names.next().is_some()
    }
}

/// Whether a tensor of that name is left over from training in any layout: the optimiser's state, heads that draft tokens,
/// tables of rotary frequencies.
fn is_left_over(native: &str) -> bool {
    let first = native.split('.').next().unwrap_or(native);
    ["optimizer", "optimizer_state", "mtp"].contains(&first) || native.ends_with(".rotary_emb.inv_freq")
}

fn field_faults(
    section: &str,
    rules: &BTreeMap<String, Rule>,
    required: &[&str],
    optional: &[&str],
    faults: &mut Vec<String>,
) {
    for field in required.iter().filter(|field| !rules.contains_key(**field)) {
        faults.push(format!("{section}.\"{field}\": missing; every field needs a rule"));
    }
    for (field, rule) in rules {
        if !required.contains(&field.as_str()) && !optional.contains(&field.as_str()) {
            faults.push(format!("{section}.\"{field}\": no such field"));
        }
        if rule.key.is_none() && rule.each.is_none() && rule.value.is_none() && rule.from.is_none() {
            faults.push(format!("{section}.\"{field}\": expected `key`, `each`, `value` or `from`"));
        }
        if rule.from.is_some() && !LEVEL_SIZES.contains(&field.as_str()) {
            faults.push(format!("{section}.\"{field}\": `from` computes sizes of a level only"));
        }
    }
}
