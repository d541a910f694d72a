//! Walking values: what `for`, `list` and filters see of them, their lengths and their parts.

use super::budget;
use super::error::{Outcome, fail};
use super::value::{Items, Value, Walk, range_length};
use std::borrow::Cow;
use std::rc::Rc;

/// The next element of a generator, if it has one.
pub fn next(walk: &Rc<Walk>) -> Outcome<Option<Value>> {
    let value = walk.items.items.get(walk.at.get()).cloned();
    match (&value, &walk.fault) {
        (None, Some(fault)) => return Err(fault.clone()),
        (None, None) => {}
        (Some(_), _) => walk.at.set(walk.at.get() + 1),
    }
    Ok(value)
}

/// What a walk over `value` meets. A generator is empty afterwards.
pub fn items(value: &Value) -> Outcome<Cow<'_, [Value]>> {
    match value {
        Value::Undefined(_) => Ok(Cow::Borrowed(&[])),
        Value::List(items) | Value::Tuple(items) | Value::View(_, items) => Ok(Cow::Borrowed(&items.items)),
        Value::Dict(dict) => {
            budget::steps(dict.entries.len())?;
            Ok(dict.entries.values().map(|(key, _)| key.clone()).collect::<Vec<_>>().into())
        }
        Value::Str(text) => {
            budget::items_fit(text.text.chars().count())?;
            let characters = text.text.chars().map(|c| Value::text(c.to_string()));
            Ok(characters.collect::<Outcome<Vec<_>>>()?.into())
        }
        Value::Range(range) => {
            let count = range_length(range);
            budget::items_fit(count)?;
            budget::steps(count)?;
            let [start, _, step] = **range;
            Ok((0..count as i128).map(|at| Value::Int(start + at * step)).collect::<Vec<_>>().into())
        }
        Value::Iter(walk) => {
            let rest = walk.items.items.get(walk.at.get()..).unwrap_or_default().to_vec();
            walk.at.set(walk.items.items.len());
            budget::steps(rest.len())?;
            walk.fault.clone().map_or(Ok(()), Err)?;
            Ok(rest.into())
        }
        Value::Loop(_) => fail("a walk over `loop` is not supported"),
        other => fail(format!("'{}' object is not iterable", other.kind())),
    }
}

/// `len`
pub fn length(value: &Value) -> Outcome<usize> {
    match value {
        Value::Undefined(_) => Ok(0),
        Value::Str(text) => {
            budget::bytes(text.text.len())?;
            Ok(text.text.chars().count())
        }
        Value::List(items) | Value::Tuple(items) | Value::View(_, items) => Ok(items.items.len()),
        Value::Dict(dict) => Ok(dict.entries.len()),
        Value::Range(range) => Ok(range_length(range)),
        Value::Loop(looping) => Ok(looping.items.len()),
        other => fail(format!("object of type '{}' has no len()", other.kind())),
    }
}

/// `value[at]` where it is a sequence and has such a part.
pub fn part(value: &Value, at: i128) -> Outcome<Option<Value>> {
    let place = |length: usize| {
        let from = if at < 0 { at + length as i128 } else { at };
        usize::try_from(from).ok().filter(|from| *from < length)
    };
    match value {
        Value::List(items) | Value::Tuple(items) => {
            Ok(place(items.items.len()).and_then(|at| items.items.get(at).cloned()))
        }
        Value::Str(text) => {
            budget::bytes(text.text.len())?;
            let at = if at >= 0 { usize::try_from(at).ok() } else { place(text.text.chars().count()) };
            at.and_then(|at| text.text.chars().nth(at)).map(|c| Value::text(c.to_string())).transpose()
        }
        Value::Range(range) => {
            Ok(place(range_length(range)).map(|at| Value::Int(range[0] + at as i128 * range[2])))
        }
        _ => Ok(None),
    }
}

/// `value[start:stop:step]`; `None` where it cannot be cut.
pub fn slice(value: &Value, bounds: [Option<i128>; 3]) -> Outcome<Option<Value>> {
    let [start, stop, step] = bounds;
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail("slice step cannot be zero");
    }
    match value {
        Value::List(items) => Ok(Some(Value::list(picked(&items.items, start, stop, step)?)?)),
        Value::Tuple(items) => Ok(Some(Value::tuple(picked(&items.items, start, stop, step)?)?)),
        Value::Str(text) if step == 1 => {
            budget::bytes(text.text.len())?;
            let length = text.text.chars().count();
            let (from, to) = bounds_of(length, start, stop, 1);
            let byte = |at: i128| {
                let at = usize::try_from(at).unwrap_or(0);
                text.text.char_indices().nth(at).map_or(text.text.len(), |(byte, _)| byte)
            };
            Value::text(if from < to { &text.text[byte(from)..byte(to)] } else { "" }).map(Some)
        }
        Value::Str(text) => {
            budget::items_fit(text.text.len())?;
            let characters: Vec<char> = text.text.chars().collect();
            Value::text(picked(&characters, start, stop, step)?.into_iter().collect::<String>()).map(Some)
        }
        Value::Range(_) => fail("a slice of a range is not supported"),
        _ => Ok(None),
    }
}

/// Python's `slice.indices`.
fn bounds_of(length: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> (i128, i128) {
    let length = length as i128;
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clip = |bound: i128| {
        let bound = if bound < 0 { bound.saturating_add(length) } else { bound };
        bound.clamp(low, high)
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    (start.map_or(first, clip), stop.map_or(last, clip))
}

fn picked<T: Clone>(items: &[T], start: Option<i128>, stop: Option<i128>, step: i128) -> Outcome<Vec<T>> {
    let (mut at, to) = bounds_of(items.len(), start, stop, step);
    budget::steps(items.len() / 4)?;
    let mut picked = Vec::new();
    while if step > 0 { at < to } else { at > to } {
        picked.extend(usize::try_from(at).ok().and_then(|at| items.get(at)).cloned());
        at = at.saturating_add(step);
    }
    Ok(picked)
}

/// Elements as the parts of a value of their own.
pub fn shared(items: Vec<Value>) -> Outcome<Rc<Items>> {
    Ok(Rc::new(Items::new(items)?))
}
