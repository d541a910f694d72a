//! Methods of strings, as Python has them.

use super::budget::{self, Buffer};
use super::characters::{self, CASED_MARK, Class, DECIMAL, LETTER, WORD, is_space};
use super::error::{Outcome, fail};
use super::given::{Given, integer, needed, string};
use super::value::Value;
use super::{cutting, formatting, walking};

/// `text.name(given)`
pub fn call(text: &str, name: &str, given: Given) -> Outcome<Value> {
    budget::bytes(text.len())?;
    match name {
        "split" | "rsplit" => return cutting::split(text, name == "rsplit", given),
        "splitlines" => {
            let [keep] = given.take(name, ["keepends"])?;
            let keep = keep.is_some_and(|keep| keep.is_true());
            return Value::list(
                characters::lines(text, keep).into_iter().map(Value::text).collect::<Outcome<_>>()?,
            );
        }
        "format" => return Value::text(formatting::format(text, &given)?),
        "replace" => {
            let [old, new, count] = given.take(name, ["", "", "count"])?;
            let (old, new) = (needed(old, name, "old")?, needed(new, name, "new")?);
            let count = count.map(|count| integer(&count, name)).transpose()?;
            return replace(text, string(&old, name)?, string(&new, name)?, count);
        }
        _ => {}
    }
    let given = given.unnamed(name)?;
    let count = given.len();
    let most = match name {
        "center" | "ljust" | "rjust" => 2,
        "startswith" | "endswith" | "find" | "rfind" | "index" | "rindex" | "count" => 3,
        "join" | "strip" | "lstrip" | "rstrip" | "zfill" | "removeprefix" | "removesuffix" | "partition"
        | "rpartition" => 1,
        _ => 0,
    };
    if count > most {
        return fail(format!("{name} takes at most {most} arguments, {count} given"));
    }
    let mut given = given.into_iter();
    let [first, second, third] = [given.next(), given.next(), given.next()];
    match name {
        "strip" | "lstrip" | "rstrip" => {
            Value::text(stripped(text, first.as_ref(), name != "rstrip", name != "lstrip")?)
        }
        "startswith" | "endswith" => ends(text, name, &needed(first, name, "prefix")?, second, third),
        "find" | "rfind" | "index" | "rindex" | "count" => {
            cutting::find(text, name, &needed(first, name, "sub")?, second, third)
        }
        "partition" | "rpartition" => {
            cutting::partition(text, string(&needed(first, name, "sep")?, name)?, name == "rpartition")
        }
        "removeprefix" | "removesuffix" => {
            let part = needed(first, name, "part")?;
            let part = string(&part, name)?;
            let cut = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::text(cut.unwrap_or(text))
        }
        "join" => join(text, &needed(first, name, "iterable")?),
        "center" | "ljust" | "rjust" | "zfill" => {
            let width = integer(&needed(first, name, "width")?, name)?;
            Value::text(padded(text, name, width, second)?)
        }
        _ => plain(text, name),
    }
}

/// Methods without arguments.
fn plain(text: &str, name: &str) -> Outcome<Value> {
    let all = |test: fn(char) -> bool| Ok(Value::Bool(!text.is_empty() && text.chars().all(test)));
    match name {
        "upper" => Value::text(text.to_uppercase()),
        "lower" => Value::text(text.to_lowercase()),
        "title" => Value::text(characters::title(text)?),
        "capitalize" => Value::text(characters::capitalize(text)?),
        "swapcase" if text.is_ascii() => Value::text(
            text.chars()
                .map(|c| if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
                .collect::<String>(),
        ),
        "isascii" => Ok(Value::Bool(text.is_ascii())),
        "isspace" => all(is_space),
        "isalpha" => all(|c| is_of(&LETTER, c)),
        "isdecimal" => all(|c| is_of(&DECIMAL, c)),
        "isdigit" | "isnumeric" => all_numeric(text, name),
        "isalnum" => {
            let exact = text.chars().all(|c| is_of(&LETTER, c) || is_of(&DECIMAL, c));
            if !exact && text.chars().all(|c| is_of(&WORD, c) || !c.is_ascii()) {
                return fail("isalnum of numbers that are no decimal digits is not supported");
            }
            Ok(Value::Bool(exact && !text.is_empty()))
        }
        "isupper" | "islower" => Ok(Value::Bool(has_case(text, name == "isupper")?)),
        "istitle" => {
            let cased = text.chars().any(characters::is_cased);
            Ok(Value::Bool(cased && characters::title(text)? == text))
        }
        _ => fail(format!("the method `{name}` of strings is not supported for this text")),
    }
}

fn is_of(class: &Class, character: char) -> bool {
    if character.is_ascii() && !std::ptr::eq(class, &raw const WORD) {
        return if std::ptr::eq(class, &raw const LETTER) {
            character.is_ascii_alphabetic()
        } else {
            character.is_ascii_digit()
        };
    }
    class.has(character)
}

fn all_numeric(text: &str, name: &str) -> Outcome<Value> {
    if text.chars().all(|c| is_of(&DECIMAL, c)) {
        return Ok(Value::Bool(!text.is_empty()));
    }
    // Superscripts, fractions and numerals are told apart by properties that are not at hand.
    let doubtful = |c: char| !c.is_ascii() && !is_of(&DECIMAL, c) && (c.is_numeric() || is_of(&LETTER, c));
    if text.chars().all(|c| is_of(&DECIMAL, c) || doubtful(c)) {
        return fail(format!("{name} of numbers that are no decimal digits is not supported"));
    }
    Ok(Value::Bool(false))
}

/// `isupper` and `islower`
pub fn has_case(text: &str, upper: bool) -> Outcome<bool> {
    budget::bytes(text.len())?;
    let mut found = false;
    for character in text.chars() {
        if !character.is_ascii() && CASED_MARK.has(character) {
            return fail(format!("the case of {character:?} is not supported"));
        }
        if characters::is_cased(character) {
            if character.is_uppercase() != upper || character.is_lowercase() == upper {
                return Ok(false);
            }
            found = true;
        }
    }
    Ok(found)
}

/// `strip` of white space or of the characters given.
pub fn stripped<'t>(text: &'t str, characters: Option<&Value>, left: bool, right: bool) -> Outcome<&'t str> {
    let set = match characters {
        None | Some(Value::None) => None,
        Some(set) => Some(string(set, "strip")?),
    };
    budget::bytes(text.len().saturating_mul(set.map_or(1, |set| set.len().div_ceil(64).max(1))))?;
    let goes = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text })
}

fn ends(text: &str, name: &str, parts: &Value, start: Option<Value>, stop: Option<Value>) -> Outcome<Value> {
    let Some((_, text)) = cutting::window(text, name, start, stop)? else { return Ok(Value::Bool(false)) };
    let is = |part: &str| if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) };
    let one = match parts {
        Value::Tuple(parts) => {
            for part in &parts.items {
                if is(string(part, name)?) {
                    return Ok(Value::Bool(true));
                }
            }
            false
        }
        part => is(string(part, name)?),
    };
    Ok(Value::Bool(one))
}

/// `text.replace(old, new, count)`
pub fn replace(text: &str, old: &str, new: &str, count: Option<i128>) -> Outcome<Value> {
    let most = count.filter(|count| *count >= 0).map_or(usize::MAX, |count| count as usize);
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let found = found.min(most);
    budget::bytes(text.len())?;
    let grown = new.len().saturating_sub(old.len()).saturating_mul(found);
    budget::text_fits(text.len().saturating_add(grown))?;
    budget::bytes(grown)?;
    budget::steps(found / 16)?;
    Value::text(text.replacen(old, new, found))
}

fn join(separator: &str, parts: &Value) -> Outcome<Value> {
    let mut out = Buffer::default();
    for (at, part) in walking::items(parts)?.iter().enumerate() {
        let Value::Str(part) = part else {
            return fail(format!("sequence item {at}: expected str instance, {} found", part.kind()));
        };
        if at > 0 {
            out.push(separator)?;
        }
        out.push(&part.text)?;
    }
    Value::text(out.into_string())
}

/// `center`, `ljust`, `rjust` and `zfill`
pub fn padded(text: &str, how: &str, width: i128, fill: Option<Value>) -> Outcome<String> {
    let fill = match &fill {
        Some(fill) => string(fill, how)?,
        None if how == "zfill" => "0",
        None => " ",
    };
    if fill.chars().count() != 1 {
        return fail("The fill character must be exactly one character long");
    }
    let length = text.chars().count();
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let missing = width.saturating_sub(length);
    let left = match how {
        "center" => missing / 2 + (missing & width & 1),
        "ljust" => 0,
        _ => missing,
    };
    let mut out = Buffer::default();
    let (sign, text) = match text.as_bytes().first() {
        Some(b'+' | b'-') if how == "zfill" => text.split_at(1),
        _ => ("", text),
    };
    out.push(sign)?;
    out.push_times(fill, left)?;
    out.push(text)?;
    out.push_times(fill, missing - left)?;
    Ok(out.into_string())
}
