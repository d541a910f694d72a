//! Arithmetic, comparison and membership of values, as Python has them.

use super::ast::{Binary, Compare};
use super::budget::{self, Buffer};
use super::error::{Fault, Outcome, fail};
use super::value::{Key, Value, range_length};
use super::{percent, walking};
use std::cmp::Ordering;

/// `left how right`
pub fn binary(how: Binary, left: &Value, right: &Value) -> Outcome<Value> {
    if let (Value::Str(format), Binary::Mod) = (left, how) {
        return Value::text(percent::format(&format.text, right)?);
    }
    match (left, right) {
        (Value::View(..), _) | (_, Value::View(..)) => return unsupported(how, left, right),
        (Value::Undefined(why), _) | (_, Value::Undefined(why)) => return fail(why.to_string()),
        _ => {}
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return integers(how, a, b);
    }
    if let (Some(a), Some(b)) = (left.as_float(), right.as_float()) {
        return floats(how, a, b);
    }
    match (how, left, right) {
        (Binary::Add, Value::Str(a), Value::Str(b)) => {
            let mut out = Buffer::default();
            out.push(&a.text)?;
            out.push(&b.text)?;
            Value::text(out.into_string())
        }
        (Binary::Add, Value::List(a), Value::List(b)) => Value::list(joined(&a.items, &b.items)?),
        (Binary::Add, Value::Tuple(a), Value::Tuple(b)) => Value::tuple(joined(&a.items, &b.items)?),
        (Binary::Mul, sequence, count) if count.as_int().is_some() => repeated(sequence, count),
        (Binary::Mul, count, sequence) if count.as_int().is_some() => repeated(sequence, count),
        _ => unsupported(how, left, right),
    }
}

fn unsupported<T>(how: Binary, left: &Value, right: &Value) -> Outcome<T> {
    let sign = match how {
        Binary::Add => "+",
        Binary::Sub => "-",
        Binary::Mul => "*",
        Binary::Div => "/",
        Binary::FloorDiv => "//",
        Binary::Mod => "%",
        Binary::Pow => "**",
    };
    if matches!(left, Value::View(..)) || matches!(right, Value::View(..)) {
        return fail(format!("`{sign}` of views of dictionaries is not supported"));
    }
    fail(format!("unsupported operand types for {sign}: '{}' and '{}'", left.kind(), right.kind()))
}

fn joined(a: &[Value], b: &[Value]) -> Outcome<Vec<Value>> {
    budget::items_fit(a.len() + b.len())?;
    budget::steps((a.len() + b.len()) / 4)?;
    Ok(a.iter().chain(b).cloned().collect())
}

fn repeated(sequence: &Value, count: &Value) -> Outcome<Value> {
    let count = usize::try_from(count.as_int().unwrap_or(0).max(0)).unwrap_or(usize::MAX);
    let items = |items: &[Value]| {
        let all = items.len().saturating_mul(count);
        budget::items_fit(all)?;
        budget::steps(all / 4)?;
        Ok(std::iter::repeat_n(items, count.min(all)).flatten().cloned().collect())
    };
    match sequence {
        Value::Str(text) => {
            let mut out = Buffer::default();
            out.push_times(&text.text, if text.text.is_empty() { 0 } else { count })?;
            Value::text(out.into_string())
        }
        Value::List(list) => Value::list(items(&list.items)?),
        Value::Tuple(tuple) => Value::tuple(items(&tuple.items)?),
        other => fail(format!("can't multiply {} by an integer", other.kind())),
    }
}

fn integers(how: Binary, a: i128, b: i128) -> Outcome<Value> {
    let divides = || if b == 0 { fail("division by zero") } else { Ok(()) };
    let whole = match how {
        Binary::Add => a.checked_add(b),
        Binary::Sub => a.checked_sub(b),
        Binary::Mul => a.checked_mul(b),
        Binary::Div => {
            divides()?;
            // Python rounds once; so does this where both are floats exactly.
            const EXACT: i128 = 1 << 53;
            if a.abs() > EXACT || b.abs() > EXACT {
                return fail("a division of integers beyond 2^53 is not supported");
            }
            return Ok(Value::Float(a as f64 / b as f64));
        }
        Binary::FloorDiv => {
            divides()?;
            let floor = a.checked_div(b);
            floor.map(|quotient| if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
        }
        Binary::Mod => {
            divides()?;
            let rest = a.checked_rem(b);
            rest.map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        Binary::Pow if b < 0 => return floats(how, a as f64, b as f64),
        Binary::Pow => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (_, Ok(exponent)) => a.checked_pow(exponent),
            _ => None,
        },
    };
    whole.map(Value::Int).ok_or_else(|| Fault::new("an integer beyond 128 bits is not supported"))
}

fn floats(how: Binary, a: f64, b: f64) -> Outcome<Value> {
    let divides = || if b == 0.0 { fail("division by zero") } else { Ok(()) };
    Ok(Value::Float(match how {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => {
            divides()?;
            a / b
        }
        Binary::Mod => {
            divides()?;
            modulo(a, b)
        }
        Binary::FloorDiv => {
            divides()?;
            let quotient = (a - modulo(a, b)) / b;
            let floor = quotient.floor();
            if quotient == 0.0 {
                0.0_f64.copysign(a / b)
            } else if quotient - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        Binary::Pow => {
            let power = a.powf(b);
            if (a == 0.0 && b < 0.0)
                || (a < 0.0 && b.fract() != 0.0)
                || (power.is_infinite() && a.is_finite())
            {
                return fail("a power that is no finite real number is not supported");
            }
            power
        }
    }))
}

fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0.0_f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

/// `-value`, or `+value`.
pub fn signed(value: &Value, negative: bool) -> Outcome<Value> {
    match value {
        Value::Undefined(why) => fail(why.to_string()),
        Value::Float(number) => Ok(Value::Float(if negative { -number } else { *number })),
        other => match other.as_int() {
            Some(number) if negative => integers(Binary::Sub, 0, number),
            Some(number) => Ok(Value::Int(number)),
            None => fail(format!("bad operand type for a sign: '{}'", other.kind())),
        },
    }
}

/// `left how right`
pub fn compare(how: Compare, left: &Value, right: &Value) -> Outcome<bool> {
    match how {
        Compare::Eq => equal(left, right),
        Compare::Ne => Ok(!equal(left, right)?),
        Compare::In => contains(right, left),
        Compare::NotIn => Ok(!contains(right, left)?),
        Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge => {
            let order = order(left, right)?;
            Ok(order.is_some_and(|order| match how {
                Compare::Lt => order == Ordering::Less,
                Compare::Le => order != Ordering::Greater,
                Compare::Gt => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
    }
}

/// `left == right`
pub fn equal(left: &Value, right: &Value) -> Outcome<bool> {
    budget::steps(1)?;
    let items = |a: &[Value], b: &[Value]| {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(b) {
            if !equal(a, b)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => Ok(true),
        (Value::Str(a), Value::Str(b)) => {
            budget::bytes(a.text.len().min(b.text.len()))?;
            Ok(a.text == b.text)
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => items(&a.items, &b.items),
        (Value::Dict(a), Value::Dict(b)) => {
            if a.entries.len() != b.entries.len() {
                return Ok(false);
            }
            for (key, (_, value)) in &a.entries {
                let Some((_, other)) = b.entries.get(key) else { return Ok(false) };
                if !equal(value, other)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Range(a), Value::Range(b)) => {
            let (count, other) = (range_length(a), range_length(b));
            Ok(count == other && (count == 0 || (a[0] == b[0] && (count == 1 || a[2] == b[2]))))
        }
        (Value::View(a, _), Value::View(b, _)) if *a != "dict_values" && *b != "dict_values" => {
            fail("a comparison of views of dictionaries is not supported")
        }
        (Value::Namespace(a), Value::Namespace(b)) => Ok(a == b),
        (Value::Iter(a), Value::Iter(b)) => Ok(std::rc::Rc::ptr_eq(a, b)),
        (Value::Macro(a), Value::Macro(b)) => Ok(std::rc::Rc::ptr_eq(a, b)),
        (Value::Function(a), Value::Function(b)) => Ok(a == b),
        (Value::Method(..), Value::Method(..)) => fail("a comparison of methods is not supported"),
        (a, b) => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => Ok(a == b),
            _ => Ok(match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            }),
        },
    }
}

/// Which comes first; `None` where a number is none.
pub fn order(left: &Value, right: &Value) -> Outcome<Option<Ordering>> {
    budget::steps(1)?;
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (left.as_float(), right.as_float()) {
        return Ok(a.partial_cmp(&b));
    }
    match (left, right) {
        (Value::View(..), _) | (_, Value::View(..)) => {
            fail("a comparison of views of dictionaries is not supported")
        }
        (Value::Undefined(why), _) | (_, Value::Undefined(why)) => fail(why.to_string()),
        (Value::Str(a), Value::Str(b)) => {
            budget::bytes(a.text.len().min(b.text.len()))?;
            // UTF-8 sorts as code points do.
            Ok(Some(a.text.cmp(&b.text)))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(a, b)? {
                    return order(a, b);
                }
            }
            Ok(Some(a.items.len().cmp(&b.items.len())))
        }
        (a, b) => fail(format!("'<' not supported between instances of '{}' and '{}'", a.kind(), b.kind())),
    }
}

/// `item in container`
pub fn contains(container: &Value, item: &Value) -> Outcome<bool> {
    match container {
        Value::Str(text) => match item {
            Value::Str(part) => {
                budget::bytes(text.text.len())?;
                Ok(text.text.contains(part.text.as_str()))
            }
            Value::Undefined(why) => fail(why.to_string()),
            other => fail(format!("'in <string>' requires string as left operand, not {}", other.kind())),
        },
        Value::Dict(dict) => match item {
            Value::Undefined(_) => Ok(false),
            item => Ok(dict.entries.contains_key(&item.key()?)),
        },
        Value::Range(range) => match item.key() {
            Ok(Key::Int(number)) => {
                let [start, _, step] = **range;
                let place = number.checked_sub(start).filter(|offset| offset % step == 0);
                let place = place.and_then(|offset| usize::try_from(offset / step).ok());
                Ok(place.is_some_and(|place| place < range_length(range)))
            }
            _ => Ok(false),
        },
        Value::Iter(walk) => {
            while let Some(next) = walking::next(walk)? {
                if equal(&next, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        other => {
            for candidate in walking::items(other)?.iter() {
                if equal(candidate, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}
