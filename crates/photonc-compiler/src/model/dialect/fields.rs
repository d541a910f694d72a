//! Values of single fields, looked up by the rules of a dialect. Owns key paths, types and constants; which fields make a
//! model belongs to `read`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::rules::{Dialect, Formula, Rule};
use crate::model::validate::Problem;

/// Reads fields, collecting what is wrong with them and which keys were read.
pub(super) struct Reader<'a> {
    pub dialect: &'a Dialect,
    /// The model's own keys.
    pub root: &'a Value,
    pub problems: Vec<Problem>,
    pub used: BTreeSet<String>,
    pub sources: Vec<Source>,
}

/// Where a field's value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Canonical name of the field, `levels[0].encoder.rope_theta`.
    pub field: String,
    /// Its value.
    pub value: String,
    /// What said so.
    pub origin: Origin,
}

/// What said a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "at", rename_all = "lowercase")]
pub enum Origin {
    /// A key of the configuration's file.
    Key(String),
    /// The dialect, because the key is not there or is null.
    Default(String),
    /// The dialect, whatever the file says.
    Dialect,
    /// The dialect, from other sizes.
    Computed(String),
}

/// The object that keys are looked up in, and what is known around it.
pub(super) struct Scope<'a> {
    pub json: &'a Value,
    pub rules: &'a BTreeMap<String, Rule>,
    pub prefix: String,
    /// Level from 0; `None` for the model's own keys.
    pub level: Option<usize>,
    /// Sizes read so far in this level. A 0 is one already reported.
    pub sizes: BTreeMap<&'static str, usize>,
}

impl Scope<'_> {
    /// The canonical path of a field.
    fn canonical(&self, field: &str) -> String {
        self.level.map_or_else(|| field.to_owned(), |level| format!("levels[{level}].{field}"))
    }
}

impl Reader<'_> {
    pub fn problem(&mut self, at: String, what: String) {
        let problem = Problem { at, what };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The value of a field and where it stands; reports a missing one.
    pub fn find(&mut self, scope: &Scope<'_>, field: &str) -> Option<(Value, String)> {
        self.look(scope, field, true)
    }

    /// The value of a field that a model may do without; nothing where neither a key nor the dialect says one.
    pub fn find_optional(&mut self, scope: &Scope<'_>, field: &str) -> Option<(Value, String)> {
        self.look(scope, field, false)
    }

    fn note(&mut self, scope: &Scope<'_>, field: &str, value: &Value, origin: Origin) {
        self.sources.push(Source { field: scope.canonical(field), value: brief(value), origin });
    }

    fn look(&mut self, scope: &Scope<'_>, field: &str, required: bool) -> Option<(Value, String)> {
        let rule = scope.rules.get(field)?;
        let constant = rule.first.as_ref().filter(|_| scope.level == Some(0)).or(rule.value.as_ref());
        let own = match (&rule.each, scope.level) {
            (Some(keys), Some(level)) => keys.get(level).map(|key| (key, self.root, "")),
            _ => rule.key.as_ref().map(|key| (key, scope.json, scope.prefix.as_str())),
        };
        let Some((key, json, prefix)) = own else {
            constant.iter().for_each(|value| self.note(scope, field, value, Origin::Dialect));
            return constant.map(|value| (value.clone(), format!("{}{field}", scope.prefix)));
        };
        let path = format!("{prefix}{key}");
        self.used.insert(path.clone());
        let replaceable = constant.is_some() || rule.from.is_some() || !required;
        let mut value = json;
        let mut walked = prefix.trim_end_matches('.').to_owned();
        for part in key.split('.') {
            let Value::Object(map) = value else {
                self.problem(walked, format!("found {}, expected an object", brief(value)));
                return None;
            };
            // Where something stands for a missing value, null says that it is missing.
            let Some(next) = map.get(part).filter(|next| !(replaceable && next.is_null())) else {
                if !replaceable {
                    self.problem(path.clone(), "missing".into());
                }
                constant
                    .iter()
                    .for_each(|value| self.note(scope, field, value, Origin::Default(path.clone())));
                return constant.map(|value| (value.clone(), format!("{}{field}", scope.prefix)));
            };
            if !walked.is_empty() {
                walked.push('.');
            }
            walked.push_str(part);
            value = next;
        }
        self.note(scope, field, value, Origin::Key(path.clone()));
        Some((value.clone(), path))
    }

    /// A whole number of a model that may do without; 0 where it was reported.
    pub fn optional_size(&mut self, scope: &Scope<'_>, field: &str) -> Option<usize> {
        let (value, at) = self.find_optional(scope, field)?;
        Some(self.whole(&value, at))
    }

    fn whole(&mut self, value: &Value, at: String) -> usize {
        value.as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or_else(|| {
            self.problem(at, format!("found {}, expected a whole number", brief(value)));
            0
        })
    }

    /// A number of a model that may do without.
    pub fn optional_number(&mut self, scope: &Scope<'_>, field: &str) -> Option<f64> {
        let (value, at) = self.find_optional(scope, field)?;
        let number = value.as_f64();
        if number.is_none() {
            self.problem(at, format!("found {}, expected a number", brief(&value)));
        }
        number
    }

    /// Whether something is there that a model may do without.
    pub fn optional_flag(&mut self, scope: &Scope<'_>, field: &str) -> bool {
        let Some((value, at)) = self.find_optional(scope, field) else {
            return false;
        };
        value.as_bool().unwrap_or_else(|| {
            self.problem(at, format!("found {}, expected true or false", brief(&value)));
            false
        })
    }

    /// A choice that a model may leave open: the first name then.
    pub fn optional_choice(&mut self, scope: &Scope<'_>, field: &str, names: &[&str]) -> usize {
        match self.find_optional(scope, field) {
            Some((value, at)) => self.among(&value, at, names).unwrap_or(0),
            None => 0,
        }
    }

    /// A whole number; 0 when it was reported or is 0 itself, which `validate` reports.
    pub fn size(&mut self, scope: &Scope<'_>, field: &str) -> usize {
        if let Some((value, at)) = self.find(scope, field) {
            return self.whole(&value, at);
        }
        let Some(from) = scope.rules.get(field).and_then(|rule| rule.from.as_deref()) else { return 0 };
        let size = self.computed(scope, field, from);
        self.note(scope, field, &size.into(), Origin::Computed(from.to_owned()));
        size
    }

    fn computed(&mut self, scope: &Scope<'_>, field: &str, from: &str) -> usize {
        let size = |operand: &str| scope.sizes.get(operand).copied().unwrap_or(0);
        match Formula::parse(from) {
            Formula::Copy(operand) => size(operand),
            Formula::Product(left, right) => size(left).saturating_mul(size(right)),
            Formula::Quotient(left, right) => {
                let (whole, part) = (size(left), size(right));
                if part == 0 || whole.is_multiple_of(part) {
                    return whole.checked_div(part).unwrap_or(0);
                }
                self.problem(
                    format!("{}{field} (= {from})", scope.prefix),
                    format!("{left} {whole} is not a multiple of {right} {part}"),
                );
                0
            }
        }
    }

    pub fn number(&mut self, scope: &Scope<'_>, field: &str) -> f64 {
        let Some((value, at)) = self.find(scope, field) else {
            return 1.0;
        };
        value.as_f64().unwrap_or_else(|| {
            self.problem(at, format!("found {}, expected a number", brief(&value)));
            1.0
        })
    }

    pub fn flag(&mut self, scope: &Scope<'_>, field: &str) -> bool {
        let Some((value, at)) = self.find(scope, field) else {
            return false;
        };
        value.as_bool().unwrap_or_else(|| {
            self.problem(at, format!("found {}, expected true or false", brief(&value)));
            false
        })
    }

    pub fn choice(&mut self, scope: &Scope<'_>, field: &str, names: &[&str]) -> Option<usize> {
        let (value, at) = self.find(scope, field)?;
        self.among(&value, at, names)
    }

    fn among(&mut self, value: &Value, at: String, names: &[&str]) -> Option<usize> {
        let found = value.as_str().and_then(|text| names.iter().position(|name| *name == text));
        if found.is_none() {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            self.problem(at, format!("found {}, expected {}", brief(value), quoted.join(" or ")));
        }
        found
    }
}

/// A JSON value, short enough for a message.
pub(super) fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("{:?}..", text.chars().take(40).collect::<String>())
        }
        other => other.to_string(),
    }
}
