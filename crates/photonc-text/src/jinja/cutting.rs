//! Strings cut into parts and parts found in strings.

use super::budget;
use super::characters::is_space;
use super::error::{Outcome, fail};
use super::given::{Given, integer, string};
use super::value::Value;

/// `split` and `rsplit`
pub fn split(text: &str, from_right: bool, given: Given) -> Outcome<Value> {
    let [separator, most] = given.take("split", ["sep", "maxsplit"])?;
    let most = most.map_or(Ok(-1), |most| integer(&most, "split"))?;
    let most = if most < 0 { usize::MAX } else { usize::try_from(most).unwrap_or(usize::MAX) };
    let parts = match &separator {
        None | Some(Value::None) => split_space(text, most, from_right)?,
        Some(separator) => {
            let separator = string(separator, "split")?;
            if separator.is_empty() {
                return fail("empty separator");
            }
            budget::items_fit(text.matches(separator).take(most).count() + 1)?;
            let all = most.saturating_add(1);
            if from_right {
                let mut parts: Vec<&str> = text.rsplitn(all, separator).collect();
                parts.reverse();
                parts
            } else {
                text.splitn(all, separator).collect()
            }
        }
    };
    budget::steps(parts.len())?;
    Value::list(parts.into_iter().map(Value::text).collect::<Outcome<_>>()?)
}

/// Words, by white space. What is left after `most` cuts keeps the white space at its other end.
fn split_space(text: &str, most: usize, from_right: bool) -> Outcome<Vec<&str>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        rest = if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        if rest.is_empty() {
            break;
        }
        budget::items_fit(parts.len())?;
        let found = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = found.filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        let blank = rest[at..].chars().next().map_or(1, char::len_utf8);
        let (before, after) = (&rest[..at], &rest[at + blank..]);
        parts.push(if from_right { after } else { before });
        rest = if from_right { before } else { after };
    }
    if from_right {
        parts.reverse();
    }
    Ok(parts)
}

/// `partition` and `rpartition`
pub fn partition(text: &str, separator: &str, from_right: bool) -> Outcome<Value> {
    if separator.is_empty() {
        return fail("empty separator");
    }
    let cut = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match cut {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Value::tuple(parts.into_iter().map(Value::text).collect::<Outcome<_>>()?)
}

/// The part of a text between two places in characters, and where it begins in bytes; `None` where they lie beyond it.
pub fn window<'t>(
    text: &'t str,
    name: &str,
    start: Option<Value>,
    stop: Option<Value>,
) -> Outcome<Option<(usize, &'t str)>> {
    let bound = |value: Option<Value>| match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => integer(&value, name).map(Some),
    };
    let (start, stop) = (bound(start)?, bound(stop)?);
    if start.is_none() && stop.is_none() {
        return Ok(Some((0, text)));
    }
    let length = text.chars().count() as i128;
    let place = |bound: i128| if bound < 0 { bound.saturating_add(length).max(0) } else { bound };
    let (start, stop) = (start.map_or(0, place), stop.map_or(length, place).min(length));
    if start > length || start > stop {
        return Ok(None);
    }
    let byte = |at: i128| {
        let at = usize::try_from(at).unwrap_or(0);
        text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
    };
    let from = byte(start);
    Ok(Some((from, &text[from..byte(stop)])))
}

/// `find`, `rfind`, `index`, `rindex` and `count`
pub fn find(
    text: &str,
    name: &str,
    part: &Value,
    start: Option<Value>,
    stop: Option<Value>,
) -> Outcome<Value> {
    let part = string(part, name)?;
    let inner = window(text, name, start, stop)?;
    if name == "count" {
        let count = inner.map_or(0, |(_, inner)| inner.matches(part).count());
        return Ok(Value::Int(count as i128));
    }
    let found = inner.and_then(|(from, inner)| {
        let at = if name.starts_with('r') { inner.rfind(part) } else { inner.find(part) };
        at.map(|at| at + from)
    });
    match found {
        Some(at) => Ok(Value::Int(text[..at].chars().count() as i128)),
        None if name.ends_with("index") => fail("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}
