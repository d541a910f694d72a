//! `value.name` and `value[key]`: what is found where, in the order that Jinja2 looks. Owns the lists of methods; those of
//! Python that are missing here are refused, not taken for something undefined.

use super::error::{Outcome, fail};
use super::value::{Loop, Value};
use super::{ops, walking};
use std::rc::Rc;

const STR: &[&str] = &[
    "capitalize",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

const DICT: &[&str] = &["copy", "get", "items", "keys", "values"];

const SEQUENCE: &[&str] = &["count", "index"];

/// Attributes that Python's values have and these do not.
const MISSING: &[(&str, &[&str])] = &[
    (
        "str",
        &[
            "casefold",
            "encode",
            "expandtabs",
            "format_map",
            "isidentifier",
            "isprintable",
            "maketrans",
            "translate",
        ],
    ),
    (
        "int",
        &[
            "as_integer_ratio",
            "bit_count",
            "bit_length",
            "conjugate",
            "denominator",
            "from_bytes",
            "imag",
            "numerator",
            "real",
            "to_bytes",
            "is_integer",
        ],
    ),
    ("float", &["as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "real"]),
    ("dict", &["fromkeys"]),
    ("range", &["start", "stop", "step"]),
    ("dict_keys", &["isdisjoint", "mapping"]),
    ("dict_values", &["mapping"]),
    ("dict_items", &["isdisjoint", "mapping"]),
    ("generator", &["close", "send", "throw", "gi_frame"]),
    ("Macro", &["arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller"]),
];

/// Methods that change a value: the sandbox of transformers has none of them.
const CHANGING: &[&str] = &[
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

/// `value.name`; `None` where it has no such attribute.
fn attribute(value: &Value, name: &str) -> Outcome<Option<Value>> {
    let methods = match value {
        Value::Str(_) => STR,
        Value::Dict(_) => DICT,
        Value::List(_) if name == "copy" => &["copy"],
        Value::List(_) | Value::Tuple(_) | Value::Range(_) => SEQUENCE,
        Value::Float(_) => &["is_integer"],
        Value::Cycler(walk) if name == "current" => {
            return Ok(walk.items.items.get(walk.at.get()).cloned());
        }
        Value::Cycler(_) => &["next", "reset"],
        Value::Loop(looping) => return Ok(of_loop(value, looping, name)),
        Value::Macro(closure) if name == "name" => return Value::text(closure.code.name.as_str()).map(Some),
        _ => &[],
    };
    if let Some(method) = methods.iter().find(|method| **method == name) {
        return Ok(Some(Value::Method(Rc::new(value.clone()), method)));
    }
    let kind = if matches!(value, Value::Bool(_)) { "int" } else { value.kind() };
    if MISSING.iter().any(|(of, names)| *of == kind && names.contains(&name)) {
        return fail(format!("the attribute `{name}` of a {kind} is not supported"));
    }
    Ok(None)
}

fn of_loop(value: &Value, looping: &Rc<Loop>, name: &str) -> Option<Value> {
    let (at, length) = (looping.at.get(), looping.items.len());
    let int = |number: usize| Some(Value::Int(number as i128));
    let neighbour = |at: Option<usize>, which: &str| {
        let found = at.and_then(|at| looping.items.get(at)).cloned();
        Some(found.unwrap_or_else(|| Value::undefined(format!("there is no {which} item"))))
    };
    match name {
        "index" => int(at + 1),
        "index0" => int(at),
        "revindex" => int(length - at),
        "revindex0" => int(length - at - 1),
        "first" => Some(Value::Bool(at == 0)),
        "last" => Some(Value::Bool(at + 1 == length)),
        "length" => int(length),
        "depth" => int(looping.depth + 1),
        "depth0" => int(looping.depth),
        "previtem" => neighbour(at.checked_sub(1), "previous"),
        "nextitem" => neighbour(Some(at + 1), "next"),
        "cycle" => Some(Value::Method(Rc::new(value.clone()), "cycle")),
        "changed" => Some(Value::Method(Rc::new(value.clone()), "changed")),
        _ => None,
    }
}

/// Whether the sandbox hides an attribute that Python has.
fn is_hidden(value: &Value, name: &str) -> bool {
    name.starts_with("__")
        || (CHANGING.contains(&name)
            && match value {
                Value::List(_) => !["popitem", "setdefault", "update"].contains(&name),
                Value::Dict(_) => ["clear", "pop", "popitem", "setdefault", "update"].contains(&name),
                _ => false,
            })
}

fn nothing(value: &Value, what: &str) -> Value {
    Value::undefined(format!("'{} object' has no attribute '{what}'", value.kind()))
}

fn of_key(value: &Value, key: &Value) -> Outcome<Option<Value>> {
    match value {
        // A key that cannot be one is none.
        Value::Dict(dict) => Ok(match key.key() {
            Ok(key) => dict.entries.get(&key).map(|(_, value)| value.clone()),
            Err(_) => None,
        }),
        other => key.as_int().map_or(Ok(None), |at| walking::part(other, at)),
    }
}

/// `value.name`: an attribute, otherwise the part of that key.
pub fn get(value: &Value, name: &str, namespaces: &[Attributes]) -> Outcome<Value> {
    match value {
        Value::Undefined(why) => return fail(why.to_string()),
        Value::Namespace(at) => return Ok(of_namespace(value, *at, name, namespaces)),
        _ => {}
    }
    if is_hidden(value, name) {
        return Ok(Value::undefined(format!(
            "access to attribute '{name}' of '{}' object is unsafe",
            value.kind()
        )));
    }
    if let Some(found) = attribute(value, name)? {
        return Ok(found);
    }
    let found = if matches!(value, Value::Dict(_)) { of_key(value, &Value::text(name)?)? } else { None };
    Ok(found.unwrap_or_else(|| nothing(value, name)))
}

/// `value[key]`: the part of that key, otherwise the attribute of that name.
pub fn item(value: &Value, key: &Value, namespaces: &[Attributes]) -> Outcome<Value> {
    match (value, key) {
        (Value::Undefined(why), _) => return fail(why.to_string()),
        (Value::Namespace(at), Value::Str(name)) => {
            return Ok(of_namespace(value, *at, &name.text, namespaces));
        }
        _ => {}
    }
    if let Some(found) = of_key(value, key)? {
        return Ok(found);
    }
    let Some(name) = key.as_str() else {
        let what = key.as_int().map_or_else(|| key.kind().to_owned(), |at| at.to_string());
        return Ok(nothing(value, &what));
    };
    if !is_hidden(value, name)
        && let Some(found) = attribute(value, name)?
    {
        return Ok(found);
    }
    Ok(nothing(value, name))
}

/// `value|attr(name)`: an attribute and nothing else.
pub fn only(value: &Value, name: &str, namespaces: &[Attributes]) -> Outcome<Value> {
    match value {
        Value::Undefined(why) => fail(why.to_string()),
        Value::Namespace(at) => Ok(of_namespace(value, *at, name, namespaces)),
        _ if is_hidden(value, name) => Ok(nothing(value, name)),
        _ => Ok(attribute(value, name)?.unwrap_or_else(|| nothing(value, name))),
    }
}

/// Attributes of a namespace.
pub type Attributes = indexmap::IndexMap<String, Value>;

fn of_namespace(value: &Value, at: usize, name: &str, namespaces: &[Attributes]) -> Value {
    let found = namespaces.get(at).and_then(|attributes| attributes.get(name));
    found.cloned().unwrap_or_else(|| nothing(value, name))
}

/// `value[start:stop:step]`
///
/// What Python cannot slice is an error while a template runs and nothing where Jinja2 works a constant out beforehand:
/// both are refused.
pub fn slice(value: &Value, bounds: &[Value; 3]) -> Outcome<Value> {
    if let Value::Undefined(why) = value {
        return fail(why.to_string());
    }
    let bound = |bound: &Value| match bound {
        Value::None => Ok(None),
        other => match other.as_int() {
            Some(bound) => Ok(Some(bound)),
            None => fail(format!("a slice from or to a {} is not supported", other.kind())),
        },
    };
    let [start, stop, step] = bounds.each_ref().map(bound);
    let found = walking::slice(value, [start?, stop?, step?])?;
    found.map_or_else(|| fail(format!("a slice of a {} is not supported", value.kind())), Ok)
}

/// `sequence.index(item)` and `sequence.count(item)`.
pub fn search(sequence: &Value, method: &str, item: &Value) -> Outcome<Value> {
    let mut count = 0;
    for (at, candidate) in walking::items(sequence)?.iter().enumerate() {
        if ops::equal(candidate, item)? {
            if method == "index" {
                return Ok(Value::Int(at as i128));
            }
            count += 1;
        }
    }
    if method == "index" { fail("the value is not in the list") } else { Ok(Value::Int(count)) }
}
