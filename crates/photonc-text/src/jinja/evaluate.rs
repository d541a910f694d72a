//! Expressions to values.

use super::ast::{Applied, Args, Expr, ExprKind};
use super::budget::{self, Buffer};
use super::error::{Outcome, fail};
use super::given::Given;
use super::interpreter::{Interpreter, unknown};
use super::value::Value;
use super::{attributes, ops, printing, walking};

/// Functions that every template has.
const FUNCTIONS: [&str; 7] =
    ["cycler", "dict", "joiner", "namespace", "raise_exception", "range", "strftime_now"];

impl Interpreter {
    /// The value of an expression.
    pub fn evaluate(&mut self, expr: &Expr) -> Outcome<Value> {
        self.deeper(|run| run.kind(expr)).map_err(|fault| fault.at(expr.line))
    }

    fn kind(&mut self, expr: &Expr) -> Outcome<Value> {
        match &expr.kind {
            ExprKind::None => Ok(Value::None),
            ExprKind::Bool(truth) => Ok(Value::Bool(*truth)),
            ExprKind::Int(number) => Ok(Value::Int(*number)),
            ExprKind::Float(number) => Ok(Value::Float(*number)),
            ExprKind::Str(text) => Value::text(text.as_str()),
            ExprKind::Name(name) => self.variable(name),
            ExprKind::List(parts) => Value::list(self.all(parts)?),
            ExprKind::Tuple(parts) => Value::tuple(self.all(parts)?),
            ExprKind::Dict(entries) => {
                let mut evaluated = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    evaluated.push((self.evaluate(key)?, self.evaluate(value)?));
                }
                Value::dict(evaluated)
            }
            ExprKind::Attr(value, name) => {
                let value = self.evaluate(value)?;
                attributes::get(&value, name, &self.namespaces)
            }
            ExprKind::Item(value, key) => {
                let (value, key) = (self.evaluate(value)?, self.evaluate(key)?);
                attributes::item(&value, &key, &self.namespaces)
            }
            ExprKind::Slice(value, bounds) => {
                let value = self.evaluate(value)?;
                let mut evaluated = [Value::None, Value::None, Value::None];
                for (place, bound) in evaluated.iter_mut().zip(bounds.iter()) {
                    if let Some(bound) = bound {
                        *place = self.evaluate(bound)?;
                    }
                }
                attributes::slice(&value, &evaluated)
            }
            ExprKind::Call(callee, args) => {
                let callee = self.evaluate(callee)?;
                let given = self.arguments(args)?;
                self.call(&callee, given)
            }
            ExprKind::Filter(value, filter) => self.apply_filter(value, filter),
            ExprKind::Test(value, test) => {
                let value = self.evaluate(value)?;
                let given = self.arguments(&test.args)?;
                self.test(&test.name, &value, given).map(Value::Bool)
            }
            ExprKind::Not(value) => Ok(Value::Bool(!self.evaluate(value)?.is_true())),
            ExprKind::Neg(value) => ops::signed(&self.evaluate(value)?, true),
            ExprKind::Pos(value) => ops::signed(&self.evaluate(value)?, false),
            ExprKind::And(left, right) => {
                let left = self.evaluate(left)?;
                if left.is_true() { self.evaluate(right) } else { Ok(left) }
            }
            ExprKind::Or(left, right) => {
                let left = self.evaluate(left)?;
                if left.is_true() { Ok(left) } else { self.evaluate(right) }
            }
            ExprKind::Binary(how, left, right) => {
                let (left, right) = (self.evaluate(left)?, self.evaluate(right)?);
                ops::binary(*how, &left, &right)
            }
            ExprKind::Concat(parts) => self.concat(parts),
            ExprKind::Compare(first, rest) => {
                let mut left = self.evaluate(first)?;
                for (how, right) in rest {
                    let right = self.evaluate(right)?;
                    if !ops::compare(*how, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            ExprKind::Cond(choice, otherwise) => {
                let [condition, value] = &**choice;
                match otherwise {
                    _ if self.evaluate(condition)?.is_true() => self.evaluate(value),
                    Some(otherwise) => self.evaluate(otherwise),
                    None => Ok(Value::undefined(
                        "the inline if-expression evaluated to false and no else section was defined",
                    )),
                }
            }
        }
    }

    fn all(&mut self, parts: &[Expr]) -> Outcome<Vec<Value>> {
        parts.iter().map(|part| self.evaluate(part)).collect()
    }

    fn variable(&mut self, name: &str) -> Outcome<Value> {
        if let Some(value) = self.scope.get(name) {
            return Ok(value);
        }
        match FUNCTIONS.iter().find(|function| **function == name) {
            Some(function) => Ok(Value::Function(function)),
            None if ["lipsum", "self", "super"].contains(&name) => fail(format!("`{name}` is not supported")),
            None => Ok(unknown(name)),
        }
    }

    fn concat(&mut self, parts: &[Expr]) -> Outcome<Value> {
        // All values first, as Python evaluates arguments before it joins them.
        let values = self.all(parts)?;
        let mut out = Buffer::default();
        for value in &values {
            printing::push_str(value, &mut out)?;
        }
        Value::text(out.into_string())
    }

    fn apply_filter(&mut self, value: &Expr, filter: &Applied) -> Outcome<Value> {
        let value = self.evaluate(value)?;
        let given = self.arguments(&filter.args)?;
        self.filter(&filter.name, value, given)
    }

    /// Arguments as values.
    pub(super) fn arguments(&mut self, args: &Args) -> Outcome<Given> {
        let mut given = Given { positional: self.all(&args.positional)?, keywords: Vec::new() };
        if let Some(star) = &args.star {
            let more = self.evaluate(star)?;
            given.positional.extend(walking::items(&more)?.iter().cloned());
        }
        for (name, value) in &args.keywords {
            let value = self.evaluate(value)?;
            given.keywords.push((name.clone(), value));
        }
        if let Some(double_star) = &args.double_star {
            let Value::Dict(more) = self.evaluate(double_star)? else {
                return fail("argument after ** must be a mapping");
            };
            for (key, value) in more.entries.values() {
                let Some(name) = key.as_str() else { return fail("keywords must be strings") };
                given.keywords.push((name.to_owned(), value.clone()));
            }
        }
        budget::steps(given.positional.len() + given.keywords.len())?;
        for (at, (name, _)) in given.keywords.iter().enumerate() {
            if given.keywords[..at].iter().any(|(before, _)| before == name) {
                return fail(format!("got multiple values for keyword argument '{name}'"));
            }
        }
        Ok(given)
    }
}
