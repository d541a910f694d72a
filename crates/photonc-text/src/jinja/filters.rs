//! Filters of one value, as Jinja2 has them; those of sequences are in `sequences.rs`. Refuses those whose results are
//! marked up, random or meant for web pages.

use super::budget::{self, Buffer};
use super::characters::{self, WORD};
use super::error::{Outcome, fail};
use super::given::{Given, integer, needed, string};
use super::interpreter::Interpreter;
use super::json::Style;
use super::value::Value;
use super::{attributes, ops, percent, printing, strings, walking};

impl Interpreter {
    /// `value|name(given)`
    pub fn filter(&mut self, name: &str, value: Value, given: Given) -> Outcome<Value> {
        budget::steps(1)?;
        if let Some(found) = self.sequence_filter(name, &value, &given)? {
            return Ok(found);
        }
        match name {
            "abs" => absolute(&value),
            "attr" => {
                let [attribute] = given.take(name, ["name"])?;
                attributes::only(&value, string(&needed(attribute, name, "name")?, name)?, &self.namespaces)
            }
            "d" | "default" => {
                let [default, boolean] = given.take(name, ["default_value", "boolean"])?;
                let boolean = boolean.is_some_and(|boolean| boolean.is_true());
                let gone = matches!(value, Value::Undefined(_)) || (boolean && !value.is_true());
                if gone { default.map_or_else(|| Value::text(""), Ok) } else { Ok(value) }
            }
            "float" => {
                let [default] = given.take(name, ["default"])?;
                Ok(to_float(&value)?.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "int" => to_int(&value, given),
            "count" | "length" => {
                let [] = given.take(name, [])?;
                Ok(Value::Int(walking::length(&value)? as i128))
            }
            "round" => round(&value, given),
            "string" => Value::text(printing::to_str(&value)?),
            "tojson" => to_json(&value, given),
            "safe" => fail("`safe` other than at the end of an output is not supported"),
            "e" | "escape" | "forceescape" | "striptags" | "urlize" | "xmlattr" | "urlencode" | "pprint"
            | "random" | "filesizeformat" | "wordwrap" | "groupby" => {
                fail(format!("the filter `{name}` is not supported in chat templates"))
            }
            _ if TEXT.contains(&name) => {
                if ["indent", "truncate"].contains(&name) && value.as_str().is_none() {
                    return fail(format!("the filter `{name}` of a {} is not supported", value.kind()));
                }
                let text = printing::to_str(&value)?;
                of_text(name, &text, given)
            }
            _ => fail(format!("no filter named '{name}'")),
        }
    }
}

/// Filters that take whatever it is as a text.
const TEXT: [&str; 11] = [
    "capitalize",
    "center",
    "format",
    "indent",
    "lower",
    "replace",
    "title",
    "trim",
    "truncate",
    "upper",
    "wordcount",
];

/// Names of all filters, for the test `filter`.
pub fn is_filter(name: &str) -> bool {
    const OTHER: &[&str] = &[
        "abs",
        "attr",
        "batch",
        "count",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "filesizeformat",
        "first",
        "float",
        "forceescape",
        "groupby",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "map",
        "max",
        "min",
        "pprint",
        "random",
        "reject",
        "rejectattr",
        "reverse",
        "round",
        "safe",
        "select",
        "selectattr",
        "slice",
        "sort",
        "string",
        "striptags",
        "sum",
        "tojson",
        "unique",
        "urlencode",
        "urlize",
        "wordwrap",
        "xmlattr",
    ];
    TEXT.contains(&name) || OTHER.contains(&name)
}

fn of_text(name: &str, text: &str, given: Given) -> Outcome<Value> {
    budget::bytes(text.len())?;
    match name {
        "lower" => Value::text(text.to_lowercase()),
        "upper" => Value::text(text.to_uppercase()),
        "capitalize" => Value::text(characters::capitalize(text)?),
        "title" => title(text),
        "trim" => {
            let [characters] = given.take(name, ["chars"])?;
            Value::text(strings::stripped(text, characters.as_ref(), true, true)?)
        }
        "center" => {
            let [width] = given.take(name, ["width"])?;
            let width = width.map_or(Ok(80), |width| integer(&width, name))?;
            Value::text(strings::padded(text, name, width, None)?)
        }
        "format" => {
            let values = if given.keywords.is_empty() {
                Value::tuple(given.positional)?
            } else if given.positional.is_empty() {
                let named = given.keywords.into_iter().map(|(name, value)| Ok((Value::text(name)?, value)));
                Value::dict(named.collect::<Outcome<Vec<_>>>()?)?
            } else {
                return fail("format takes values by place or by name, not both");
            };
            Value::text(percent::format(text, &values)?)
        }
        "indent" => indent(text, given),
        "replace" => {
            let [old, new, count] = given.take(name, ["old", "new", "count"])?;
            let text_of = |value: Option<Value>| match value {
                Some(value) => printing::to_str(&value),
                None => fail("replace needs what is replaced and by what"),
            };
            let count = count.filter(|count| !matches!(count, Value::None));
            let count = count.map(|count| integer(&count, name)).transpose()?;
            strings::replace(text, &text_of(old)?, &text_of(new)?, count)
        }
        "truncate" => truncate(text, given),
        _ => {
            let mut words = 0;
            let mut inside = false;
            for character in text.chars() {
                let is_word = character == '_' || WORD.has(character);
                words += i128::from(is_word && !inside);
                inside = is_word;
            }
            budget::steps(text.len() / 16)?;
            Ok(Value::Int(words))
        }
    }
}

fn absolute(value: &Value) -> Outcome<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        other => match other.as_int() {
            Some(number) if number < 0 => ops::signed(other, true),
            Some(number) => Ok(Value::Int(number)),
            None => fail(format!("bad operand type for abs(): '{}'", other.kind())),
        },
    }
}

/// Words begin after blanks and hyphens; what follows is small.
fn title(text: &str) -> Outcome<Value> {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    let between = |c: char| characters::is_space(c) || "-({[<".contains(c);
    for character in text.chars() {
        if between(character) {
            out.push_str(&small_after_first(&word));
            word.clear();
            out.push(character);
        } else {
            word.push(character);
        }
    }
    out.push_str(&small_after_first(&word));
    Value::text(out)
}

fn small_after_first(word: &str) -> String {
    let Some(first) = word.chars().next() else { return String::new() };
    first.to_uppercase().collect::<String>() + &word[first.len_utf8()..].to_lowercase()
}

fn indent(text: &str, given: Given) -> Outcome<Value> {
    let [width, first, blank] = given.take("indent", ["width", "first", "blank"])?;
    let indentation = match &width {
        Some(Value::Str(text)) => text.text.clone(),
        None => "    ".to_owned(),
        Some(width) => {
            let mut out = Buffer::default();
            out.push_times(" ", usize::try_from(integer(width, "indent")?.max(0)).unwrap_or(usize::MAX))?;
            out.into_string()
        }
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (is_true(first), is_true(blank));
    let with_end = format!("{text}\n");
    let mut out = Buffer::default();
    for (at, line) in characters::lines(&with_end, false).into_iter().enumerate() {
        if at > 0 {
            out.push("\n")?;
        }
        if if at == 0 { first } else { blank || !line.is_empty() } {
            out.push(&indentation)?;
        }
        out.push(line)?;
    }
    Value::text(out.into_string())
}

fn truncate(text: &str, given: Given) -> Outcome<Value> {
    let [length, kill, end, leeway] = given.take("truncate", ["length", "killwords", "end", "leeway"])?;
    let count = |value: Option<Value>, default: i128| {
        value.filter(|v| !matches!(v, Value::None)).map_or(Ok(default), |v| integer(&v, "truncate"))
    };
    let (length, leeway) = (count(length, 255)?, count(leeway, 5)?);
    let end = end.map_or_else(|| Ok("...".to_owned()), |end| string(&end, "truncate").map(str::to_owned))?;
    let kept = length - end.chars().count() as i128;
    if kept < 0 || leeway < 0 {
        return fail(format!("truncate: expected length >= {}, found {length}", end.chars().count()));
    }
    if text.chars().count() as i128 <= length + leeway {
        return Value::text(text);
    }
    let byte = text.char_indices().nth(kept as usize).map_or(text.len(), |(byte, _)| byte);
    let cut = &text[..byte];
    let whole =
        if kill.is_some_and(|kill| kill.is_true()) { cut } else { cut.rsplit_once(' ').map_or(cut, |c| c.0) };
    Value::text(format!("{whole}{end}"))
}

/// Python's `float(value)`; `None` where there is none.
fn to_float(value: &Value) -> Outcome<Option<f64>> {
    match value {
        Value::Undefined(why) => fail(why.to_string()),
        Value::Str(text) => {
            let text = text.text.trim_matches(characters::is_space);
            if text.contains('_') || !text.is_ascii() {
                return fail("a float with underscores or digits beyond ASCII is not supported");
            }
            Ok(text.parse().ok())
        }
        other => Ok(other.as_float()),
    }
}

fn to_int(value: &Value, given: Given) -> Outcome<Value> {
    let [default, base] = given.take("int", ["default", "base"])?;
    let base = base.map_or(Ok(10), |base| integer(&base, "int"))?;
    let whole = match value {
        Value::Undefined(why) => return fail(why.to_string()),
        Value::Str(text) => {
            let text = text.text.trim_matches(characters::is_space);
            if text.contains('_') || !text.is_ascii() {
                return fail("an integer with underscores or digits beyond ASCII is not supported");
            }
            let Some(base) = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)) else {
                return fail("int: the base is from 2 to 36");
            };
            let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
            let lower = digits.to_ascii_lowercase();
            let prefix = [(16, "0x"), (8, "0o"), (2, "0b")].into_iter().find(|(of, _)| *of == base);
            let digits = prefix.and_then(|(_, prefix)| lower.strip_prefix(prefix)).unwrap_or(&lower);
            let doubled = sign == "-" && digits.starts_with(['+', '-']);
            i128::from_str_radix(&format!("{sign}{digits}"), base).ok().filter(|_| !doubled)
        }
        other => other.as_int(),
    };
    if let Some(whole) = whole {
        return Ok(Value::Int(whole));
    }
    match to_float(value)? {
        Some(number) if number.abs() < 1e38 => Ok(Value::Int(number as i128)),
        Some(number) if number.is_finite() => fail("an integer beyond 128 bits is not supported"),
        _ => Ok(default.unwrap_or(Value::Int(0))),
    }
}

fn round(value: &Value, given: Given) -> Outcome<Value> {
    let [precision, method] = given.take("round", ["precision", "method"])?;
    let precision = precision.map_or(Ok(0), |precision| integer(&precision, "round"))?;
    let method =
        method.map_or_else(|| Ok("common".to_owned()), |m| string(&m, "round").map(str::to_owned))?;
    if !(0..=300).contains(&precision) {
        return fail("round: a precision below 0 or above 300 is not supported");
    }
    let digits = precision as usize;
    let Some(number) = value.as_float() else {
        return fail(format!("round: expected a number, found {}", value.kind()));
    };
    match method.as_str() {
        "common" => match value.as_int() {
            Some(whole) => Ok(Value::Int(whole)),
            None => Ok(Value::Float(format!("{number:.digits$}").parse().unwrap_or(number))),
        },
        "ceil" | "floor" => {
            let scale = 10_f64.powi(digits as i32);
            let scaled = number * scale;
            // An integer in Python, which has no negative zero.
            let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() } + 0.0;
            Ok(Value::Float(whole / scale))
        }
        _ => fail("round: the method must be common, ceil or floor"),
    }
}

fn to_json(value: &Value, given: Given) -> Outcome<Value> {
    let [ascii, indent, separators, sorted] =
        given.take("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.text.clone()),
        Some(width) => {
            let mut out = Buffer::default();
            out.push_times(" ", usize::try_from(integer(&width, "tojson")?.max(0)).unwrap_or(usize::MAX))?;
            Some(out.into_string())
        }
    };
    let separators = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => match &*walking::items(&pair)? {
            [between, after] => (string(between, "tojson")?.to_owned(), string(after, "tojson")?.to_owned()),
            _ => return fail("tojson: separators are two strings"),
        },
    };
    let style = Style { ascii: is_true(ascii), indent, separators, sorted: is_true(sorted) };
    let mut out = Buffer::default();
    style.push(value, 0, &mut out)?;
    Value::text(out.into_string())
}
