//! Tests, as Jinja2 has them: `value is name(given)`.

use super::ast::Compare;
use super::budget;
use super::error::{Outcome, fail};
use super::filters::is_filter;
use super::given::{Given, integer, string};
use super::interpreter::Interpreter;
use super::value::Value;
use super::{ops, printing, strings};

/// Tests that compare, by all their names.
const COMPARISONS: [(&[&str], Compare); 7] = [
    (&["eq", "equalto", "=="], Compare::Eq),
    (&["ne", "!="], Compare::Ne),
    (&["lt", "lessthan", "<"], Compare::Lt),
    (&["le", "<="], Compare::Le),
    (&["gt", "greaterthan", ">"], Compare::Gt),
    (&["ge", ">="], Compare::Ge),
    (&["in"], Compare::In),
];

const OTHERS: [&str; 21] = [
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
];

impl Interpreter {
    /// `value is name(given)`
    pub fn test(&mut self, name: &str, value: &Value, given: Given) -> Outcome<bool> {
        budget::steps(1)?;
        let comparison = COMPARISONS.iter().find(|(names, _)| names.contains(&name));
        if let Some((_, how)) = comparison {
            let [other] =
                given.unnamed(name)?.try_into().or_else(|_| fail(format!("`{name}` takes one value")))?;
            return ops::compare(*how, value, &other);
        }
        let mut given = given.unnamed(name)?.into_iter();
        let argument = given.next();
        let takes = usize::from(["divisibleby", "sameas"].contains(&name));
        if usize::from(argument.is_some()) + given.len() != takes {
            return fail(format!("the test `{name}` takes {takes} arguments"));
        }
        let whole = || match value {
            Value::Undefined(why) => fail(why.to_string()),
            other => other
                .as_int()
                .map_or_else(|| fail(format!("`{name}` of a {} is not supported", other.kind())), Ok),
        };
        Ok(match name {
            "boolean" => matches!(value, Value::Bool(_)),
            "callable" => {
                matches!(
                    value,
                    Value::Macro(_)
                        | Value::Method(..)
                        | Value::Function(_)
                        | Value::Joiner(..)
                        | Value::Loop(_)
                ) || matches!(value, Value::Undefined(_))
            }
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "divisibleby" => {
                let by = argument.map_or(Ok(0), |by| integer(&by, name))?;
                whole()?.checked_rem_euclid(by).map_or_else(|| fail("division by zero"), Ok)? == 0
            }
            "even" => whole()? % 2 == 0,
            "odd" => whole()?.rem_euclid(2) == 1,
            "false" => matches!(value, Value::Bool(false)),
            "true" => matches!(value, Value::Bool(true)),
            "none" => matches!(value, Value::None),
            "float" => matches!(value, Value::Float(_)),
            "integer" => matches!(value, Value::Int(_)),
            "number" => value.as_float().is_some(),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "iterable" => {
                use Value::{Dict, Iter, List, Loop, Range, Str, Tuple, Undefined, View};
                matches!(
                    value,
                    Undefined(_)
                        | Str(_)
                        | List(_)
                        | Tuple(_)
                        | Dict(_)
                        | View(..)
                        | Range(_)
                        | Iter(_)
                        | Loop(_)
                )
            }
            "sequence" => {
                use Value::{Dict, List, Range, Str, Tuple, Undefined};
                matches!(value, Undefined(_) | Str(_) | List(_) | Tuple(_) | Dict(_) | Range(_))
            }
            "lower" | "upper" => strings::has_case(&printing::to_str(value)?, name == "upper")?,
            "sameas" => same(value, &argument.unwrap_or(Value::None))?,
            "escaped" => false,
            "filter" | "test" if value.as_str().is_none() => {
                value.key()?;
                false
            }
            "filter" => is_filter(string(value, name)?),
            "test" => {
                let name = string(value, name)?;
                OTHERS.contains(&name)
                    || ["undefined", "upper"].contains(&name)
                    || COMPARISONS.iter().any(|(names, _)| names.contains(&name))
            }
            _ => return fail(format!("no test named '{name}'")),
        })
    }
}

/// Python's `is`, where it does not depend on how Python keeps its values.
fn same(a: &Value, b: &Value) -> Outcome<bool> {
    match (a, b) {
        (Value::None | Value::Bool(_), _) | (_, Value::None | Value::Bool(_)) => {
            Ok(std::mem::discriminant(a) == std::mem::discriminant(b) && ops::equal(a, b)?)
        }
        (Value::Int(a), Value::Int(b)) if (-5..=256).contains(a) && (-5..=256).contains(b) => Ok(a == b),
        _ => fail("`sameas` is supported only for none, true, false and small integers"),
    }
}
