//! Values of single fields, looked up by the rules of a dialect. Owns key paths, types and constants; which fields make a
//! model belongs to `read`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::rules::{Dialect, Formula, Rule};
use crate::model::validate::Problem;

/// Reads fields, collecting what is wrong with them and which keys were read.
pub(super) struct Reader<'a> {
    pub dialect: &'a Dialect,
    pub problems: Vec<Problem>,
    pub used: BTreeSet<String>,
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

impl Reader<'_> {
    pub fn problem(&mut self, at: String, what: String) {
        let problem = Problem { at, what };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The value of a field and where it stands; reports a missing one.
    pub fn find(&mut self, scope: &Scope<'_>, field: &str) -> Option<(Value, String)> {
        let rule = scope.rules.get(field)?;
        let constant = rule.first.as_ref().filter(|_| scope.level == Some(0)).or(rule.value.as_ref());
        let Some(key) = &rule.key else {
            return constant.map(|value| (value.clone(), format!("{}{field}", scope.prefix)));
        };
        let path = format!("{}{key}", scope.prefix);
        self.used.insert(path.clone());
        let mut value = scope.json;
        let mut walked = scope.prefix.trim_end_matches('.').to_owned();
        for part in key.split('.') {
            let Value::Object(map) = value else {
                self.problem(walked, format!("found {}, expected an object", brief(value)));
                return None;
            };
            let Some(next) = map.get(part) else {
                if constant.is_none() && rule.from.is_none() {
                    self.problem(path, "missing".into());
                }
                return constant.map(|value| (value.clone(), format!("{}{field}", scope.prefix)));
            };
            if !walked.is_empty() {
                walked.push('.');
            }
            walked.push_str(part);
            value = next;
        }
        Some((value.clone(), path))
    }

    /// A whole number; 0 when it was reported or is 0 itself, which `validate` reports.
    pub fn size(&mut self, scope: &Scope<'_>, field: &str) -> usize {
        if let Some((value, at)) = self.find(scope, field) {
            return value.as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or_else(|| {
                self.problem(at, format!("found {}, expected a whole number", brief(&value)));
                0
            });
        }
        let from = scope.rules.get(field).and_then(|rule| rule.from.as_deref());
        from.map_or(0, |from| self.computed(scope, field, from))
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
        let found = value.as_str().and_then(|text| names.iter().position(|name| *name == text));
        if found.is_none() {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            self.problem(at, format!("found {}, expected {}", brief(&value), quoted.join(" or ")));
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
