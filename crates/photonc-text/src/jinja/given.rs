//! Arguments of a call as values, and how functions that are not macros take them.

use super::error::{Outcome, fail};
use super::value::Value;

/// Values by place and by name.
#[derive(Debug, Default)]
pub struct Given {
    /// By place.
    pub positional: Vec<Value>,
    /// By name.
    pub keywords: Vec<(String, Value)>,
}

impl Given {
    /// Values in the order of `names`; `None` where one was not given.
    pub fn take<const N: usize>(self, function: &str, names: [&str; N]) -> Outcome<[Option<Value>; N]> {
        if self.positional.len() > N {
            return fail(format!("{function} takes at most {N} arguments, {} given", self.positional.len()));
        }
        let mut taken: [Option<Value>; N] = std::array::from_fn(|_| None);
        for (place, value) in taken.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.keywords {
            let place = names.iter().position(|known| *known == name);
            match place.and_then(|at| taken.get_mut(at)) {
                Some(place @ None) => *place = Some(value),
                Some(_) => return fail(format!("{function} got multiple values for argument '{name}'")),
                None => return fail(format!("{function} got an unexpected keyword argument '{name}'")),
            }
        }
        Ok(taken)
    }

    /// Values of a function that takes no names.
    pub fn unnamed(self, function: &str) -> Outcome<Vec<Value>> {
        match self.keywords.first() {
            Some((name, _)) => fail(format!("{function} got an unexpected keyword argument '{name}'")),
            None => Ok(self.positional),
        }
    }
}

/// What has to be given.
pub fn needed(value: Option<Value>, function: &str, name: &str) -> Outcome<Value> {
    match value {
        Some(Value::Undefined(why)) => fail(why.to_string()),
        Some(value) => Ok(value),
        None => fail(format!("{function} is missing the argument '{name}'")),
    }
}

/// A string that has to be one.
pub fn string<'v>(value: &'v Value, function: &str) -> Outcome<&'v str> {
    match value {
        Value::Str(text) => Ok(&text.text),
        other => fail(format!("{function}: expected a str, found {}", other.kind())),
    }
}

/// An integer that has to be one.
pub fn integer(value: &Value, function: &str) -> Outcome<i128> {
    match (value.as_int(), value) {
        (Some(number), _) => Ok(number),
        (None, other) => fail(format!("{function}: expected an integer, found {}", other.kind())),
    }
}
