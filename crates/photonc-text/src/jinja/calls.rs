//! Calls: of macros, of methods, of the functions that every template has.

use super::ast::{Expr, ExprKind, Macro};
use super::budget;
use super::date::no_date;
use super::error::{Outcome, fail};
use super::given::{Given, integer, needed, string};
use super::interpreter::Interpreter;
use super::value::{Closure, Loop, Value, Walk};
use super::{attributes, ops, printing, strings, walking};
use std::cell::Cell;
use std::rc::Rc;

/// Elements of a range, at most: the bound of Jinja2's sandbox.
const MAX_RANGE: usize = 100_000;

/// Namespaces of one run.
const MAX_NAMESPACES: usize = 10_000;

impl Interpreter {
    /// `callee(given)`
    pub fn call(&mut self, callee: &Value, given: Given) -> Outcome<Value> {
        match callee {
            Value::Undefined(why) => fail(why.to_string()),
            Value::Macro(closure) => self.call_macro(closure, given),
            Value::Function(name) => self.call_function(name, given),
            Value::Method(of, name) => self.call_method(of, name, given),
            Value::Joiner(separator, called) => {
                let [] = given.take("joiner", [])?;
                if called.replace(true) { Ok(Value::Str(Rc::clone(separator))) } else { Value::text("") }
            }
            Value::Loop(state) => {
                let [walked] = given.take("loop", ["iterable"])?;
                let walked = needed(walked, "loop", "iterable")?;
                self.deeper(|run| run.walk_again(state, &walked))
            }
            other => fail(format!("'{}' object is not callable", other.kind())),
        }
    }

    /// A call with the body of a block as its `caller`.
    pub(super) fn call_with(&mut self, call: &Expr, caller: Value) -> Outcome<Value> {
        let ExprKind::Call(callee, args) = &call.kind else { return fail("expected a call") };
        let callee = self.evaluate(callee)?;
        let mut given = self.arguments(args)?;
        if given.keywords.iter().any(|(name, _)| name == "caller") {
            return fail("got multiple values for keyword argument 'caller'");
        }
        given.keywords.push(("caller".to_owned(), caller));
        self.call(&callee, given).map_err(|fault| fault.at(call.line))
    }

    fn call_macro(&mut self, closure: &Rc<Closure>, given: Given) -> Outcome<Value> {
        self.deeper(|run| run.run_macro(closure, |run, code| run.bind(code, given)))
    }

    /// Gives a macro's parameters their values, as Jinja2 does.
    fn bind(&mut self, code: &Macro, mut given: Given) -> Outcome<()> {
        let name = &code.name;
        let more = given.positional.split_off(code.parameters.len().min(given.positional.len()));
        let mut positional = given.positional.into_iter();
        let mut keywords = given.keywords;
        let mut take = |wanted: &str| {
            let at = keywords.iter().position(|(name, _)| name == wanted)?;
            Some(keywords.remove(at).1)
        };
        let mut values = Vec::new();
        for (parameter, _) in &code.parameters {
            values.push(positional.next().or_else(|| take(parameter)));
        }
        if code.uses_caller {
            let caller = take("caller").unwrap_or_else(|| Value::undefined("No caller defined"));
            self.scope.set("caller", caller);
        }
        if code.uses_kwargs {
            let named = keywords.into_iter().map(|(name, value)| Ok((Value::text(name)?, value)));
            self.scope.set("kwargs", Value::dict(named.collect::<Outcome<Vec<_>>>()?)?);
        } else if let Some((keyword, _)) = keywords.first() {
            return fail(format!("macro '{name}' takes no keyword argument '{keyword}'"));
        }
        if code.uses_varargs {
            self.scope.set("varargs", Value::tuple(more)?);
        } else if !more.is_empty() {
            return fail(format!("macro '{name}' takes not more than {} argument(s)", code.parameters.len()));
        }
        for ((parameter, default), value) in code.parameters.iter().zip(values) {
            let value = match (value, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.evaluate(default)?,
                (None, None) => Value::undefined(format!("parameter '{parameter}' was not provided")),
            };
            self.scope.set(parameter, value);
        }
        Ok(())
    }

    fn call_function(&mut self, name: &str, given: Given) -> Outcome<Value> {
        match name {
            "range" => range(given),
            "dict" => Value::dict(entries(given)?),
            "namespace" => {
                if self.namespaces.len() >= MAX_NAMESPACES {
                    return fail(format!("more than {MAX_NAMESPACES} namespaces"));
                }
                let mut attributes = attributes::Attributes::new();
                for (key, value) in entries(given)? {
                    attributes.insert(string(&key, name)?.to_owned(), value);
                }
                self.namespaces.push(attributes);
                Ok(Value::Namespace(self.namespaces.len() - 1))
            }
            "cycler" => {
                let items = given.unnamed(name)?;
                if items.is_empty() {
                    return fail("at least one item has to be provided");
                }
                Ok(Value::Cycler(Rc::new(Walk {
                    items: walking::shared(items)?,
                    at: Cell::new(0),
                    fault: None,
                })))
            }
            "joiner" => {
                let [separator] = given.take(name, ["sep"])?;
                let separator = separator.map_or_else(|| Value::text(", "), Ok)?;
                match separator {
                    Value::Str(text) => Ok(Value::Joiner(text, Rc::new(Cell::new(false)))),
                    other => fail(format!("joiner: expected a str, found {}", other.kind())),
                }
            }
            "raise_exception" => {
                let [message] = given.take(name, ["message"])?;
                fail(printing::to_str(&message.unwrap_or(Value::None))?)
            }
            _ => {
                let [format] = given.take(name, ["format"])?;
                let format = needed(format, name, "format")?;
                let Some(date) = self.date else { return Err(no_date("today's date", '\0')) };
                Value::text(date.format(string(&format, name)?)?)
            }
        }
    }

    fn call_method(&mut self, of: &Value, name: &str, given: Given) -> Outcome<Value> {
        match of {
            Value::Str(text) => strings::call(&text.text, name, given),
            Value::Dict(_) => dict_method(of, name, given),
            Value::Loop(state) => loop_method(state, name, given),
            Value::Cycler(walk) => {
                let [] = given.take(name, [])?;
                if name == "reset" {
                    walk.at.set(0);
                    return Ok(Value::None);
                }
                let current = walk.items.items.get(walk.at.get()).cloned();
                walk.at.set((walk.at.get() + 1) % walk.items.items.len().max(1));
                Ok(current.unwrap_or(Value::None))
            }
            Value::Float(number) => {
                let [] = given.take(name, [])?;
                Ok(Value::Bool(number.is_finite() && number.fract() == 0.0))
            }
            Value::List(list) if name == "copy" => {
                let [] = given.take(name, [])?;
                Value::list(list.items.clone())
            }
            sequence => match given.unnamed(name)?.as_slice() {
                [item] => attributes::search(sequence, name, item),
                _ => fail(format!("{name} of a part of a sequence is not supported")),
            },
        }
    }
}

/// Keys and values given to `dict` or `namespace`.
fn entries(given: Given) -> Outcome<Vec<(Value, Value)>> {
    let mut entries = Vec::new();
    match given.positional.as_slice() {
        [] => {}
        [Value::Dict(dict)] => entries.extend(dict.entries.values().cloned()),
        [pairs] => {
            for pair in walking::items(pairs)?.iter() {
                match &*walking::items(pair)? {
                    [key, value] => entries.push((key.clone(), value.clone())),
                    _ => return fail("dict: expected pairs of keys and values"),
                }
            }
        }
        _ => return fail("dict expected at most 1 argument"),
    }
    for (name, value) in given.keywords {
        entries.push((Value::text(name)?, value));
    }
    budget::steps(entries.len())?;
    Ok(entries)
}

fn range(given: Given) -> Outcome<Value> {
    let bounds = given.unnamed("range")?;
    let bound = |value: &Value| match value {
        Value::Undefined(why) => fail(why.to_string()),
        other => integer(other, "range"),
    };
    let range = match bounds.as_slice() {
        [stop] => [0, bound(stop)?, 1],
        [start, stop] => [bound(start)?, bound(stop)?, 1],
        [start, stop, step] => [bound(start)?, bound(stop)?, bound(step)?],
        _ => return fail("range expects 1 to 3 arguments"),
    };
    if range[2] == 0 {
        return fail("range() arg 3 must not be zero");
    }
    // Far from where sums of them could overflow.
    if range.iter().any(|bound| bound.unsigned_abs() > 1 << 62) {
        return fail("range: a bound is too large");
    }
    if super::value::range_length(&range) > MAX_RANGE {
        return fail(format!(
            "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE})."
        ));
    }
    Ok(Value::Range(Rc::new(range)))
}

fn dict_method(value: &Value, name: &str, given: Given) -> Outcome<Value> {
    let Value::Dict(dict) = value else { return fail("expected a dict") };
    if name == "get" {
        let given = given.unnamed(name)?;
        if given.is_empty() || given.len() > 2 {
            return fail(format!("get expects 1 or 2 arguments, {} given", given.len()));
        }
        let mut given = given.into_iter();
        let key = match given.next() {
            // Not the key of anything, though Python can hash it.
            Some(Value::Undefined(_)) | None => None,
            Some(key) => Some(key.key()?),
        };
        let found = key.and_then(|key| dict.entries.get(&key)).map(|(_, value)| value.clone());
        return Ok(found.or(given.next()).unwrap_or(Value::None));
    }
    let [] = given.take(name, [])?;
    budget::steps(dict.entries.len())?;
    let entries = dict.entries.values();
    let (kind, items) = match name {
        "keys" => ("dict_keys", entries.map(|(key, _)| Ok(key.clone())).collect::<Outcome<_>>()?),
        "values" => ("dict_values", entries.map(|(_, value)| Ok(value.clone())).collect::<Outcome<_>>()?),
        "items" => {
            let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
            ("dict_items", entries.map(pair).collect::<Outcome<_>>()?)
        }
        _ => return Ok(value.clone()),
    };
    Ok(Value::View(kind, walking::shared(items)?))
}

fn loop_method(state: &Rc<Loop>, name: &str, given: Given) -> Outcome<Value> {
    let given = given.unnamed(name)?;
    if name == "cycle" {
        if given.is_empty() {
            return fail("no items for cycling given");
        }
        return Ok(given[state.at.get() % given.len()].clone());
    }
    let same = match &*state.last.borrow() {
        Some(last) if last.len() == given.len() => {
            let mut same = true;
            for (a, b) in last.iter().zip(&given) {
                same = same && ops::equal(a, b)?;
            }
            same
        }
        _ => false,
    };
    *state.last.borrow_mut() = Some(given);
    Ok(Value::Bool(!same))
}
