//! What Python's `str` says of characters: white space, line ends, cases, categories.

use super::error::{Outcome, fail};
use regex::Regex;
use std::sync::LazyLock;

/// A class of characters by its pattern.
pub struct Class(LazyLock<Option<Regex>>);

macro_rules! class {
    ($(#[$doc:meta])* $name:ident, $pattern:literal) => {
        $(#[$doc])*
        pub static $name: Class = Class(LazyLock::new(|| Regex::new(concat!(r"\A", $pattern, r"\z")).ok()));
    };
}

class!(
    /// `str.isalpha`
    LETTER,
    r"\p{L}"
);
class!(
    /// `str.isdecimal`
    DECIMAL,
    r"\p{Nd}"
);
class!(
    /// Letters and numbers, of which `\w` is made together with `_`.
    WORD,
    r"[\p{L}\p{N}]"
);
class!(
    /// What `repr` escapes, but for the blank.
    UNPRINTABLE,
    r"[\p{C}\p{Z}]"
);
class!(
    /// Letters written as one that are upper and lower case at once.
    TITLE,
    r"\p{Lt}"
);
class!(
    /// Marks and signs that have a case of their own.
    CASED_MARK,
    r"[\p{Other_Uppercase}\p{Other_Lowercase}]"
);

impl Class {
    /// Whether a character is of it.
    pub fn has(&self, character: char) -> bool {
        let mut bytes = [0; 4];
        let text = character.encode_utf8(&mut bytes);
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// Python's white space, which `strip`, `split` and the tags of templates go by.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

/// Ends of lines for `splitlines`.
pub fn ends_line(character: char) -> bool {
    matches!(character, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Lines of a text, with their ends where `keep`.
pub fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((at, end)) = rest.char_indices().find(|(_, c)| ends_line(*c)) {
        let length = if rest[at..].starts_with("\r\n") { 2 } else { end.len_utf8() };
        lines.push(&rest[..if keep { at + length } else { at }]);
        rest = &rest[at + length..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// A character at the beginning of a word, as `title` and `capitalize` write it.
pub fn titled(character: char) -> Outcome<String> {
    // Letters written as one have a form of their own for this.
    let special = match character {
        'ß' => Some("Ss"),
        'Ǆ' | 'ǅ' | 'ǆ' => Some("ǅ"),
        'Ǉ' | 'ǈ' | 'ǉ' => Some("ǈ"),
        'Ǌ' | 'ǋ' | 'ǌ' => Some("ǋ"),
        'Ǳ' | 'ǲ' | 'ǳ' => Some("ǲ"),
        _ => None,
    };
    if let Some(special) = special {
        return Ok(special.to_owned());
    }
    if matches!(character, '\u{10d0}'..='\u{10ff}') {
        return Ok(character.to_string());
    }
    let upper: String = character.to_uppercase().collect();
    if upper.chars().count() > 1 || TITLE.has(character) {
        return fail(format!("the title case of {character:?} is not supported"));
    }
    Ok(upper)
}

/// Whether a character has a case.
pub fn is_cased(character: char) -> bool {
    character.is_uppercase() || character.is_lowercase() || TITLE.has(character)
}

/// The small form of this letter depends on what is around it.
fn sigma(text: &str) -> Outcome<()> {
    if text.contains('Σ') {
        fail("the title case of words with a large sigma is not supported")
    } else {
        Ok(())
    }
}

/// A text with the first letter of each word large.
pub fn title(text: &str) -> Outcome<String> {
    sigma(text)?;
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.push_str(&titled(character)?);
        }
        inside = is_cased(character);
    }
    Ok(out)
}

/// A text with its first letter large and the others small.
pub fn capitalize(text: &str) -> Outcome<String> {
    sigma(text)?;
    let Some(first) = text.chars().next() else { return Ok(String::new()) };
    Ok(titled(first)? + &text[first.len_utf8()..].to_lowercase())
}
