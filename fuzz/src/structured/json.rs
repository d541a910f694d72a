//! Changes of a JSON document: values lost, repeated, moved, of another type, at the edges of their type.

use super::random::Random;
use serde_json::{Map, Value, json};

/// Whole numbers at which something wraps, or is more than anyone has.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    3,
    16,
    255,
    256,
    65_536,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 32,
    1 << 53,
    (1 << 63) - 1,
    u64::MAX,
];
const FLOATS: [f64; 9] = [0.5, -0.0, -1.0, 1e-320, 1e19, -1e19, 1e39, 1e308, -1e308];
const TEXTS: [&str; 12] =
    ["", " ", "x", "0", "../x", "/dev/zero", "\0", "\u{1b}[2J", "\u{202e}", "\u{1f980}", "a.b.c", "{}"];
/// How often a value is repeated, and how deep it is wrapped.
const TIMES: [usize; 4] = [1, 2, 17, 90];

/// The document with one change, or none where it is no document.
pub fn changed(input: &[u8], words: &str, random: &mut Random) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(input).ok()?;
    change(&mut document, words, random);
    if !random.one_in(16) {
        return serde_json::to_vec(&document).ok();
    }
    // Text that no value has: a key twice, a number beyond floats, a word that is no JSON.
    let text = serde_json::to_string(&document).ok()?;
    let from = random.one_of(&["{", ":", "[", ","]);
    let to = random.one_of(&["{\"a\":1,\"a\":2,", ":1e400,\"b\":", "[NaN,", ",-0,", ":-Infinity,\"c\":"]);
    Some(text.replacen(from, to, 1).into_bytes())
}

fn change(document: &mut Value, words: &str, random: &mut Random) {
    let nodes = count(document);
    let other = nth(document, &mut random.below(nodes)).cloned().unwrap_or_default();
    let Some(place) = nth_mut(document, &mut random.below(nodes)) else { return };
    match random.below(9) {
        0 => lose(place, random),
        1 => *place = other,
        2 => *place = edge(random),
        3 => *place = word(words, random),
        4 => nudge(place, random),
        5 => swap(place, random),
        6 => repeat(place, random),
        7 => *place = wrapped(place.take(), words, random),
        _ => insert(place, words, other, random),
    }
}

/// Values of a document, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(values) => values.values().map(count).sum(),
        _ => 0,
    }
}

/// The value at an index into all of them in order, which becomes the rest of it.
fn nth<'v>(value: &'v Value, index: &mut usize) -> Option<&'v Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Array(values) => values.iter().find_map(|value| nth(value, index)),
        Value::Object(values) => values.values().find_map(|value| nth(value, index)),
        _ => None,
    }
}

fn nth_mut<'v>(value: &'v mut Value, index: &mut usize) -> Option<&'v mut Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Array(values) => values.iter_mut().find_map(|value| nth_mut(value, index)),
        Value::Object(values) => values.values_mut().find_map(|value| nth_mut(value, index)),
        _ => None,
    }
}

fn edge(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => Value::Bool(random.one_in(2)),
        2 => json!([]),
        3 => json!({}),
        4 => json!(random.one_of(&FLOATS)),
        5 => json!(random.one_of(&TEXTS)),
        6 => json!((random.one_of(&EDGES) as i64).wrapping_neg()),
        _ => json!(random.one_of(&EDGES)),
    }
}

/// A word as the value that it is the text of, else as text.
fn word(words: &str, random: &mut Random) -> Value {
    let word = random.line(words);
    serde_json::from_str(word).unwrap_or_else(|_| word.into())
}

/// Takes one value out of a list or object.
fn lose(place: &mut Value, random: &mut Random) {
    match place {
        Value::Array(values) => drop(random.index(values.len()).map(|at| values.remove(at))),
        Value::Object(values) => {
            let key = random.index(values.len()).and_then(|at| values.keys().nth(at).cloned());
            key.map(|key| values.shift_remove(&key));
        }
        _ => *place = Value::Null,
    }
}

/// Changes a number or a text a little.
fn nudge(place: &mut Value, random: &mut Random) {
    match place {
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => {
            let moved = number.as_i64().map(|number| match random.below(5) {
                0 => json!(number.wrapping_add(1)),
                1 => json!(number.wrapping_sub(1)),
                2 => json!(number.wrapping_mul(2)),
                3 => json!(number.wrapping_neg()),
                _ => json!(number as f64 + 0.5),
            });
            *place = moved.unwrap_or_else(|| edge(random));
        }
        Value::String(text) => {
            let at =
                (0..=random.below(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            match random.below(3) {
                0 => text.truncate(at),
                1 => text.insert_str(at, random.one_of(&TEXTS)),
                _ => *text = text.repeat(random.one_of(&TIMES)),
            }
        }
        _ => *place = edge(random),
    }
}

/// Exchanges two values of a list or object.
fn swap(place: &mut Value, random: &mut Random) {
    match place {
        Value::Array(values) if values.len() > 1 => {
            let (one, other) = (random.below(values.len()), random.below(values.len()));
            values.swap(one, other);
        }
        Value::Object(values) if values.len() > 1 => {
            let (one, other) = (random.below(values.len()), random.below(values.len()));
            let of = |at: usize| values.values().nth(at).cloned().unwrap_or_default();
            for (at, value) in [(one, of(other)), (other, of(one))] {
                values.values_mut().skip(at).take(1).for_each(|place| *place = value.clone());
            }
        }
        _ => *place = edge(random),
    }
}

/// Repeats a value of a list, or one of an object under other names.
fn repeat(place: &mut Value, random: &mut Random) {
    let times = random.one_of(&TIMES);
    match place {
        Value::Array(values) => {
            if let Some(value) = random.index(values.len()).map(|at| values[at].clone()) {
                let at = random.below(values.len() + 1);
                values.splice(at..at, std::iter::repeat_n(value, times));
            }
        }
        Value::Object(values) => {
            let pair = random.index(values.len()).and_then(|at| values.iter().nth(at));
            if let Some((key, value)) = pair.map(|(key, value)| (key.clone(), value.clone())) {
                values.extend((0..times).map(|time| (format!("{key}{time}"), value.clone())));
            }
        }
        _ => *place = Value::Array(vec![place.take(); times]),
    }
}

fn wrapped(value: Value, words: &str, random: &mut Random) -> Value {
    let (times, list, key) = (random.one_of(&TIMES), random.one_in(2), random.line(words));
    let wrap =
        |value| if list { json!([value]) } else { Value::Object(Map::from_iter([(key.to_owned(), value)])) };
    (0..times).fold(value, |value, _| wrap(value))
}

/// Puts a value beside those of a list or object.
fn insert(place: &mut Value, words: &str, other: Value, random: &mut Random) {
    let value = match random.below(3) {
        0 => other,
        1 => edge(random),
        _ => word(words, random),
    };
    match place {
        Value::Array(values) => values.insert(random.below(values.len() + 1), value),
        Value::Object(values) => drop(values.insert(random.line(words).to_owned(), value)),
        _ => *place = value,
    }
}
