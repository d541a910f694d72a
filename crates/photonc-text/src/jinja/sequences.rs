//! Filters of sequences, as Jinja2 has them. What Jinja2 makes a generator of is one here: it is walked once.

use super::budget::{self, Buffer};
use super::error::{Fault, Outcome, fail};
use super::given::{Given, integer, needed, string};
use super::interpreter::Interpreter;
use super::value::Value;
use super::{attributes, ops, printing, walking};
use std::cmp::Ordering;

impl Interpreter {
    /// `value|name(given)` where that is a filter of sequences.
    pub fn sequence_filter(&mut self, name: &str, value: &Value, given: &Given) -> Outcome<Option<Value>> {
        let given = || Given { positional: given.positional.clone(), keywords: given.keywords.clone() };
        let found = match name {
            "batch" | "slice" => Value::walk(|lists| portions(value, name, given(), lists))?,
            "dictsort" => dictsort(value, given())?,
            "first" => {
                let first = match value {
                    Value::Iter(walk) => walking::next(walk)?,
                    other => walking::items(other)?.first().cloned(),
                };
                first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty."))
            }
            "last" => match value {
                Value::Iter(_) | Value::Namespace(_) => return fail("'generator' object is not reversible"),
                other => {
                    let last = walking::items(other)?.last().cloned();
                    last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty."))
                }
            },
            "items" => Value::walk(|pairs| match value {
                Value::Undefined(_) => Ok(()),
                Value::Dict(dict) => {
                    for (key, value) in dict.entries.values() {
                        pairs.push(Value::tuple(vec![key.clone(), value.clone()])?);
                    }
                    Ok(())
                }
                _ => fail("Can only get item pairs from a mapping."),
            })?,
            "join" => self.join(value, given())?,
            "list" => Value::list(walking::items(value)?.into_owned())?,
            "map" => Value::walk(|mapped| self.map(value, given(), mapped))?,
            "max" | "min" => self.extreme(value, name, given())?,
            "reverse" => reverse(value)?,
            "select" | "reject" | "selectattr" | "rejectattr" => {
                Value::walk(|selected| self.select(value, name, given(), selected))?
            }
            "sort" => self.sort(value, given())?,
            "sum" => self.sum(value, given())?,
            "unique" => Value::walk(|kept| self.unique(value, given(), kept))?,
            _ => return Ok(None),
        };
        Ok(Some(found))
    }

    /// The part of `item` that `attribute` names: `a.0.b`.
    fn part(&self, item: &Value, attribute: &Value) -> Outcome<Value> {
        let path = match attribute {
            Value::Str(path) => &path.text,
            other => return attributes::item(item, other, &self.namespaces),
        };
        let mut found = item.clone();
        for part in path.split('.') {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let key = match part.parse() {
                Ok(at) if digits => Value::Int(at),
                _ => Value::text(part)?,
            };
            found = attributes::item(&found, &key, &self.namespaces)?;
        }
        Ok(found)
    }

    fn join(&mut self, value: &Value, given: Given) -> Outcome<Value> {
        let [between, attribute] = given.take("join", ["d", "attribute"])?;
        let between = between.map_or_else(|| Ok(String::new()), |between| printing::to_str(&between))?;
        let attribute = attribute.filter(|attribute| !matches!(attribute, Value::None));
        let mut out = Buffer::default();
        for (at, item) in walking::items(value)?.iter().enumerate() {
            budget::steps(1)?;
            if at > 0 {
                out.push(&between)?;
            }
            match &attribute {
                Some(attribute) => printing::push_str(&self.part(item, attribute)?, &mut out)?,
                None => printing::push_str(item, &mut out)?,
            }
        }
        Value::text(out.into_string())
    }

    fn map(&mut self, value: &Value, mut given: Given, mapped: &mut Vec<Value>) -> Outcome<()> {
        if !value.is_true() {
            return Ok(());
        }
        if given.positional.is_empty() {
            let [attribute, default] = given.take("map", ["attribute", "default"])?;
            let attribute = needed(attribute, "map", "attribute")?;
            let default = default.filter(|default| !matches!(default, Value::None));
            for item in walking::items(value)?.iter() {
                budget::steps(1)?;
                let part = self.part(item, &attribute)?;
                mapped.push(match (&part, &default) {
                    (Value::Undefined(_), Some(default)) => default.clone(),
                    _ => part,
                });
            }
            return Ok(());
        }
        let name = given.positional.remove(0);
        let name = string(&name, "map")?;
        for item in walking::items(value)?.iter() {
            budget::steps(1)?;
            let given = Given { positional: given.positional.clone(), keywords: given.keywords.clone() };
            mapped.push(self.filter(name, item.clone(), given)?);
        }
        Ok(())
    }

    fn select(
        &mut self,
        value: &Value,
        how: &str,
        mut given: Given,
        selected: &mut Vec<Value>,
    ) -> Outcome<()> {
        if !value.is_true() {
            return Ok(());
        }
        let attribute = if how.ends_with("attr") {
            if given.positional.is_empty() {
                return fail(format!("{how} is missing the attribute"));
            }
            Some(given.positional.remove(0))
        } else {
            None
        };
        let wanted = how.starts_with("select");
        let test = if given.positional.is_empty() { None } else { Some(given.positional.remove(0)) };
        for item in walking::items(value)?.iter() {
            budget::steps(1)?;
            let tested = match &attribute {
                Some(attribute) => self.part(item, attribute)?,
                None => item.clone(),
            };
            let holds = match &test {
                Some(name) => {
                    let given =
                        Given { positional: given.positional.clone(), keywords: given.keywords.clone() };
                    self.test(string(name, how)?, &tested, given)?
                }
                None => tested.is_true(),
            };
            if holds == wanted {
                selected.push(item.clone());
            }
        }
        Ok(())
    }

    /// What an element is compared by: parts of it, and small letters where the case does not count.
    fn sort_key(&self, item: &Value, attribute: &Option<Value>, cased: bool) -> Outcome<Vec<Value>> {
        let parts = match attribute {
            None | Some(Value::None) => vec![item.clone()],
            Some(Value::Str(paths)) => {
                let paths = paths.text.split(',');
                paths.map(|path| self.part(item, &Value::text(path)?)).collect::<Outcome<_>>()?
            }
            Some(other) => vec![self.part(item, other)?],
        };
        parts.into_iter().map(|part| if cased { Ok(part) } else { small(part) }).collect()
    }

    fn sort(&mut self, value: &Value, given: Given) -> Outcome<Value> {
        let [reverse, cased, attribute] = given.take("sort", ["reverse", "case_sensitive", "attribute"])?;
        let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
        let (reverse, cased) = (is_true(reverse), is_true(cased));
        let mut keyed = Vec::new();
        for item in walking::items(value)?.iter() {
            keyed.push((self.sort_key(item, &attribute, cased)?, item.clone()));
        }
        sort_by_keys(&mut keyed, reverse, order_keys)?;
        Value::list(keyed.into_iter().map(|(_, item)| item).collect())
    }

    fn extreme(&mut self, value: &Value, which: &str, given: Given) -> Outcome<Value> {
        let [cased, attribute] = given.take(which, ["case_sensitive", "attribute"])?;
        let cased = cased.is_some_and(|cased| cased.is_true());
        let mut best: Option<(Vec<Value>, Value)> = None;
        let wanted = if which == "max" { Ordering::Greater } else { Ordering::Less };
        for item in walking::items(value)?.iter() {
            let key = match &attribute {
                // Here a comma is part of the name.
                Some(path) => {
                    vec![if cased { self.part(item, path)? } else { small(self.part(item, path)?)? }]
                }
                None => self.sort_key(item, &None, cased)?,
            };
            let better = match &best {
                Some((than, _)) => ops::order(&key[0], &than[0])? == Some(wanted),
                None => true,
            };
            if better {
                best = Some((key, item.clone()));
            }
        }
        let none = || Value::undefined("No aggregated item, sequence was empty.");
        Ok(best.map_or_else(none, |(_, item)| item))
    }

    fn sum(&mut self, value: &Value, given: Given) -> Outcome<Value> {
        let [attribute, start] = given.take("sum", ["attribute", "start"])?;
        let attribute = attribute.filter(|attribute| !matches!(attribute, Value::None));
        let mut sum = start.unwrap_or(Value::Int(0));
        if matches!(sum, Value::Str(_)) {
            return fail("sum() can't sum strings");
        }
        for item in walking::items(value)?.iter() {
            let part = attribute.as_ref().map_or(Ok(item.clone()), |attribute| self.part(item, attribute))?;
            if matches!((&sum, &part), (Value::Float(_), _) | (_, Value::Float(_))) {
                return fail(
                    "a sum of floats is not supported: its rounding differs between versions of Python",
                );
            }
            sum = ops::binary(super::ast::Binary::Add, &sum, &part)?;
        }
        Ok(sum)
    }

    fn unique(&mut self, value: &Value, given: Given, kept: &mut Vec<Value>) -> Outcome<()> {
        let [cased, attribute] = given.take("unique", ["case_sensitive", "attribute"])?;
        let cased = cased.is_some_and(|cased| cased.is_true());
        let mut seen = std::collections::HashSet::new();
        for item in walking::items(value)?.iter() {
            let part = match &attribute {
                None | Some(Value::None) => item.clone(),
                Some(attribute) => self.part(item, attribute)?,
            };
            let key = if cased { part } else { small(part)? };
            if seen.insert(key.key()?) {
                kept.push(item.clone());
            }
        }
        Ok(())
    }
}

fn small(value: Value) -> Outcome<Value> {
    match &value {
        Value::Str(text) => Value::text(text.text.to_lowercase()),
        _ => Ok(value),
    }
}

fn order_keys(a: &[Value], b: &[Value]) -> Outcome<Option<Ordering>> {
    for (a, b) in a.iter().zip(b) {
        if !ops::equal(a, b)? {
            return ops::order(a, b);
        }
    }
    Ok(Some(Ordering::Equal))
}

/// Stable, as Python's; reversed, equal elements keep their order.
fn sort_by_keys(
    keyed: &mut [(Vec<Value>, Value)],
    reverse: bool,
    order: fn(&[Value], &[Value]) -> Outcome<Option<Ordering>>,
) -> Outcome<()> {
    let mut fault: Option<Fault> = None;
    let mut compare = |a: &[Value], b: &[Value]| {
        if fault.is_some() {
            return Ordering::Equal;
        }
        match order(a, b) {
            Ok(Some(order)) => order,
            Ok(None) => {
                fault = Some(Fault::new("a sort of numbers that are none (nan) is not supported"));
                Ordering::Equal
            }
            Err(error) => {
                fault = Some(error);
                Ordering::Equal
            }
        }
    };
    keyed.sort_by(|(a, _), (b, _)| if reverse { compare(b, a) } else { compare(a, b) });
    fault.map_or(Ok(()), Err)
}

fn dictsort(value: &Value, given: Given) -> Outcome<Value> {
    let [cased, by, reverse] = given.take("dictsort", ["case_sensitive", "by", "reverse"])?;
    let Value::Dict(dict) = value else { return fail("dictsort sorts a mapping") };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let by_value = match by {
        None => false,
        Some(by) => match string(&by, "dictsort")? {
            "key" => false,
            "value" => true,
            _ => return fail("You can only sort by either \"key\" or \"value\""),
        },
    };
    let cased = is_true(cased);
    let mut keyed = Vec::new();
    for (key, value) in dict.entries.values() {
        let by = if by_value { value.clone() } else { key.clone() };
        let by = if cased { by } else { small(by)? };
        keyed.push((vec![by], Value::tuple(vec![key.clone(), value.clone()])?));
    }
    sort_by_keys(&mut keyed, is_true(reverse), |a, b| ops::order(&a[0], &b[0]))?;
    Value::list(keyed.into_iter().map(|(_, item)| item).collect())
}

fn reverse(value: &Value) -> Outcome<Value> {
    match value {
        Value::Str(text) => Value::text(text.text.chars().rev().collect::<String>()),
        Value::Iter(_) => {
            let mut items = walking::items(value)?.into_owned();
            items.reverse();
            Value::list(items)
        }
        other => {
            let mut items = walking::items(other)?.into_owned();
            items.reverse();
            Value::walk(|reversed| {
                *reversed = items;
                Ok(())
            })
        }
    }
}

/// `batch` and `slice`
fn portions(value: &Value, how: &str, given: Given, made: &mut Vec<Value>) -> Outcome<()> {
    let names = if how == "batch" { ["linecount", "fill_with"] } else { ["slices", "fill_with"] };
    let [count, fill] = given.take(how, names)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let count = integer(&needed(count, how, names[0])?, how)?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        return fail(format!("{how} needs a number from 1"));
    };
    budget::items_fit(count)?;
    let items = walking::items(value)?;
    let mut lists: Vec<Vec<Value>> = Vec::new();
    if how == "batch" {
        lists.extend(items.chunks(count).map(<[Value]>::to_vec));
        if let (Some(last), Some(fill)) = (lists.last_mut(), &fill) {
            last.resize(count, fill.clone());
        }
    } else {
        let (each, longer) = (items.len() / count, items.len() % count);
        let mut at = 0;
        for slice in 0..count {
            let end = at + each + usize::from(slice < longer);
            let mut list = items[at..end].to_vec();
            if let Some(fill) = fill.as_ref().filter(|_| slice >= longer) {
                list.push(fill.clone());
            }
            lists.push(list);
            at = end;
        }
    }
    budget::steps(lists.len())?;
    for list in lists {
        made.push(Value::list(list)?);
    }
    Ok(())
}
