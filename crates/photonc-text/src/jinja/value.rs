//! Values of templates: Python's, as far as chat templates see them. Owns their making, which counts what they hold, and
//! what they are made of; none can be changed but a namespace's attributes.

use super::ast::{For, Macro};
use super::budget::{self, Held};
use super::error::{Fault, Kind, Outcome, exceeds};
use indexmap::IndexMap;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Levels of lists and dictionaries inside each other.
const MAX_NESTING: usize = 150;

/// Bytes that an entry of a dictionary takes, about.
const ENTRY_BYTES: usize = 160;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, with the reason.
    Undefined(Rc<str>),
    /// `None`
    None,
    /// A truth value.
    Bool(bool),
    /// An integer; Python's have no bound, these refuse what is beyond 128 bits.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Str(Rc<Text>),
    /// A list.
    List(Rc<Items>),
    /// A tuple.
    Tuple(Rc<Items>),
    /// A dictionary.
    Dict(Rc<Dict>),
    /// `dict_keys`, `dict_values` or `dict_items` with what it shows.
    View(&'static str, Rc<Items>),
    /// `range(start, stop, step)`
    Range(Rc<[i128; 3]>),
    /// A generator: what is walked is gone.
    Iter(Rc<Walk>),
    /// A namespace, by its place among those of the run.
    Namespace(usize),
    /// The `loop` of a loop.
    Loop(Rc<Loop>),
    /// A cycler.
    Cycler(Rc<Walk>),
    /// A joiner: its separator, and whether it was called.
    Joiner(Rc<Text>, Rc<Cell<bool>>),
    /// A macro.
    Macro(Rc<Closure>),
    /// A method of a value.
    Method(Rc<Value>, &'static str),
    /// A function that every template has.
    Function(&'static str),
}

/// A string.
#[derive(Debug)]
pub struct Text {
    /// What it says.
    pub text: String,
    _held: Held,
}

/// Elements of a list or tuple.
#[derive(Debug)]
pub struct Items {
    /// The elements.
    pub items: Vec<Value>,
    depth: usize,
    _held: Held,
}

/// A dictionary.
#[derive(Debug)]
pub struct Dict {
    /// Keys and values in their order, by what is equal.
    pub entries: IndexMap<Key, (Value, Value)>,
    depth: usize,
    _held: Held,
}

/// What Python's hashing holds equal: `1`, `1.0` and `True` are one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// `None`
    None,
    /// A number without a fraction.
    Int(i128),
    /// Bits of another.
    Float(u64),
    /// A string.
    Str(String),
    /// A tuple.
    Tuple(Vec<Key>),
}

/// Elements and how many of them have been walked.
#[derive(Debug)]
pub struct Walk {
    /// All of them.
    pub items: Rc<Items>,
    /// The next one.
    pub at: Cell<usize>,
    /// What Python would fail with behind the last of them.
    pub fault: Option<Fault>,
}

/// The state of a loop.
#[derive(Debug)]
pub struct Loop {
    /// What it walks.
    pub items: Vec<Value>,
    /// Where it is, from 0.
    pub at: Cell<usize>,
    /// Loops of the same statement around it.
    pub depth: usize,
    /// What `changed` was given before.
    pub last: RefCell<Option<Vec<Value>>>,
    /// What `loop(..)` walks with, where the loop is recursive.
    pub again: Option<(Rc<For>, Rc<Scope>)>,
}

/// A macro with the variables around it.
#[derive(Debug)]
pub struct Closure {
    /// What it does.
    pub code: Rc<Macro>,
    /// Where it was defined.
    pub scope: Rc<Scope>,
}

/// Variables of a block, before those around it.
#[derive(Debug, Default)]
pub struct Scope {
    /// Its own.
    pub own: RefCell<HashMap<String, Value>>,
    /// Those around it.
    pub outer: Option<Rc<Scope>>,
}

impl Scope {
    /// A scope inside another.
    pub fn inside(outer: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { own: RefCell::default(), outer: Some(Rc::clone(outer)) })
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.own.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.outer.as_deref()?;
        }
    }

    /// Gives a variable of this scope a value.
    pub fn set(&self, name: &str, value: Value) {
        self.own.borrow_mut().insert(name.to_owned(), value);
    }
}

impl Value {
    /// Nothing, because of `why`.
    pub fn undefined(why: impl Into<Rc<str>>) -> Value {
        Value::Undefined(why.into())
    }

    /// A string.
    pub fn text(text: impl Into<String>) -> Outcome<Value> {
        Ok(Value::Str(Rc::new(Text::new(text.into())?)))
    }

    /// A list.
    pub fn list(items: Vec<Value>) -> Outcome<Value> {
        Ok(Value::List(Rc::new(Items::new(items)?)))
    }

    /// A tuple.
    pub fn tuple(items: Vec<Value>) -> Outcome<Value> {
        Ok(Value::Tuple(Rc::new(Items::new(items)?)))
    }

    /// A generator of what `make` adds: where that fails, a walk fails once it comes there, as in Python.
    pub fn walk(make: impl FnOnce(&mut Vec<Value>) -> Outcome<()>) -> Outcome<Value> {
        let mut items = Vec::new();
        let fault = match make(&mut items) {
            Err(fault) if fault.kind != Kind::Runtime => return Err(fault),
            made => made.err(),
        };
        Ok(Value::Iter(Rc::new(Walk { items: Rc::new(Items::new(items)?), at: Cell::new(0), fault })))
    }

    /// A dictionary; of equal keys the first stands, with the last value.
    pub fn dict(entries: impl IntoIterator<Item = (Value, Value)>) -> Outcome<Value> {
        let mut map = IndexMap::new();
        for (key, value) in entries {
            budget::steps(1)?;
            let place = map.entry(key.key()?).or_insert((key, Value::None));
            place.1 = value;
        }
        let depth = map.values().map(|(_, value): &(_, Value)| value.depth()).max().unwrap_or(0) + 1;
        nests(depth)?;
        budget::items_fit(map.len())?;
        let held = Held::take(map.len() * ENTRY_BYTES)?;
        Ok(Value::Dict(Rc::new(Dict { entries: map, depth, _held: held })))
    }

    /// A value of JSON.
    pub fn of_json(json: &serde_json::Value) -> Outcome<Value> {
        match json {
            serde_json::Value::Null => Ok(Value::None),
            serde_json::Value::Bool(truth) => Ok(Value::Bool(*truth)),
            serde_json::Value::Number(number) => of_number(number),
            serde_json::Value::String(text) => Value::text(text.as_str()),
            serde_json::Value::Array(items) => {
                Value::list(items.iter().map(Value::of_json).collect::<Outcome<_>>()?)
            }
            serde_json::Value::Object(map) => {
                let entry = |(key, value): (&String, &serde_json::Value)| {
                    Ok((Value::text(key.as_str())?, Value::of_json(value)?))
                };
                Value::dict(map.iter().map(entry).collect::<Outcome<Vec<_>>>()?)
            }
        }
    }

    fn depth(&self) -> usize {
        match self {
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => items.depth,
            Value::Dict(dict) => dict.depth,
            Value::Iter(walk) | Value::Cycler(walk) => walk.items.depth,
            Value::Method(of, _) => of.depth(),
            // What these hold is as old as they are, or older.
            Value::Loop(looping) => looping.items.iter().map(Value::depth).max().unwrap_or(0) + 1,
            _ => 0,
        }
    }

    /// What the value is as a key of a dictionary.
    pub fn key(&self) -> Outcome<Key> {
        match self {
            Value::None => Ok(Key::None),
            Value::Bool(truth) => Ok(Key::Int(i128::from(*truth))),
            Value::Int(number) => Ok(Key::Int(*number)),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e38 => {
                Ok(Key::Int(*number as i128))
            }
            Value::Float(number) => Ok(Key::Float(number.to_bits())),
            Value::Str(text) => {
                budget::bytes(text.text.len())?;
                Ok(Key::Str(text.text.clone()))
            }
            Value::Tuple(items) => {
                budget::steps(items.items.len())?;
                Ok(Key::Tuple(items.items.iter().map(Value::key).collect::<Outcome<_>>()?))
            }
            Value::List(_) | Value::Dict(_) | Value::View(..) => {
                Err(Fault::new(format!("unhashable type: '{}'", self.kind())))
            }
            other => Err(Fault::new(format!("a key of the type {} is not supported", other.kind()))),
        }
    }

    /// Python's name of the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::View(kind, _) => kind,
            Value::Range(_) => "range",
            Value::Iter(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(..) => "Joiner",
            Value::Macro(_) => "Macro",
            Value::Method(..) => "builtin_function_or_method",
            Value::Function(_) => "function",
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(&text.text),
            _ => None,
        }
    }

    /// The integer, if it is one; truth values are.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Bool(truth) => Some(i128::from(*truth)),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(number) => Some(*number),
            other => other.as_int().map(|number| number as f64),
        }
    }

    /// Python's truth.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(truth) => *truth,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Str(text) => !text.text.is_empty(),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => !items.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Range(range) => range_length(range) > 0,
            _ => true,
        }
    }
}

impl Text {
    /// A string, if it may be so long.
    pub fn new(text: String) -> Outcome<Text> {
        budget::text_fits(text.len())?;
        budget::bytes(text.len())?;
        let held = Held::take(text.capacity() + 64)?;
        Ok(Text { text, _held: held })
    }
}

impl Items {
    /// Elements, if there may be so many.
    pub fn new(items: Vec<Value>) -> Outcome<Items> {
        budget::items_fit(items.len())?;
        budget::steps(items.len() / 8)?;
        let depth = items.iter().map(Value::depth).max().unwrap_or(0) + 1;
        nests(depth)?;
        let held = Held::take(items.capacity() * size_of::<Value>() + 64)?;
        Ok(Items { items, depth, _held: held })
    }
}

fn nests(depth: usize) -> Outcome<()> {
    if depth > MAX_NESTING {
        return exceeds(format!("values nested more than {MAX_NESTING} levels deep"));
    }
    Ok(())
}

/// Elements of a range.
pub fn range_length(range: &[i128; 3]) -> usize {
    let [start, stop, step] = *range;
    let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let steps = step.saturating_abs().max(1);
    usize::try_from((span.max(0).saturating_add(steps - 1)) / steps).unwrap_or(usize::MAX)
}

fn of_number(number: &serde_json::Number) -> Outcome<Value> {
    if let Some(whole) = number.as_i128() {
        return Ok(Value::Int(whole));
    }
    let float = number.as_f64().unwrap_or(f64::INFINITY);
    // The reader of JSON makes floats of integers that it cannot hold; Python does not.
    if !float.is_finite() || (float.fract() == 0.0 && float.abs() >= 18_446_744_073_709_551_615.0) {
        return Err(Fault::new(format!("the number {number} of the messages is too large")));
    }
    Ok(Value::Float(float))
}
