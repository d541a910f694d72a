//! Text for terminals: characters that steer one are shown and not sent. Names, paths and keys come from files of strangers.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with its control characters shown, as in `\u{1b}[31m`; ends of lines and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !steers(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_command(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// A JSON document with the control characters in its strings escaped, which JSON allows to stand for themselves.
pub fn visible_json(document: &str) -> Cow<'_, str> {
    if !steers(document) {
        return Cow::Borrowed(document);
    }
    let mut shown = String::with_capacity(document.len() + 16);
    for character in document.chars() {
        if is_command(character) {
            // Writing to a string cannot fail; all of them have one unit of UTF-16.
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Whether a text would steer a terminal.
pub fn steers(text: &str) -> bool {
    text.chars().any(is_command)
}

/// Whether a terminal takes a character as a command, or shows what follows in another order.
fn is_command(character: char) -> bool {
    let order =
        matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    order || character.is_control() && character != '\n' && character != '\t'
}

#[cfg(test)]
mod tests {
    use super::{visible, visible_json};

    #[test]
    fn control_characters_are_shown_and_text_is_not_touched() {
        assert_eq!(visible("a\u{1b}[31mb\r\u{7}"), "a\\u{1b}[31mb\\u{d}\\u{7}");
        assert_eq!(visible("\u{9b}2J \u{202e}x"), "\\u{9b}2J \\u{202e}x");
        let text = "zwei Zeilen\n\tÄ 日本 🦀\n";
        assert!(matches!(visible(text), std::borrow::Cow::Borrowed(same) if same == text));
    }

    // JSON escapes what is below a space by itself, and neither delete nor what turns the order of characters.
    #[test]
    fn a_document_stays_one() {
        let text = "a\u{7f}b\u{9b}2J\u{202e}\u{1b}c";
        let document = serde_json::to_string(text).expect("JSON");
        let shown = visible_json(&document);
        assert_eq!(shown, r#""a\u007fb\u009b2J\u202e\u001bc""#);
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
    }
}
