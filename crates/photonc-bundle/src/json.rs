//! JSON of checkpoints, as Python writes it: with a byte-order mark or the bare words NaN and Infinity, which JSON has not.
//! Owns how those are read: a mark is skipped, and a number that is none becomes its name as a string, so that whoever reads
//! the key refuses it and whoever does not never sees it.

use std::borrow::Cow;

/// What some editors put before UTF-8 text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A text without a byte-order mark before it.
#[must_use]
pub fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A value of JSON.
///
/// # Errors
/// What is no JSON for Python either.
pub fn parse(bytes: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
    // Most files are plain.
    serde_json::from_slice(bytes).or_else(|error| match plain(bytes) {
        Cow::Owned(bytes) => serde_json::from_slice(&bytes),
        Cow::Borrowed(rest) if rest.len() < bytes.len() => serde_json::from_slice(rest),
        Cow::Borrowed(_) => Err(error),
    })
}

/// The same JSON without a mark and without bare words that JSON has not.
#[must_use]
pub fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [(&[u8], &[u8]); 3] =
        [(b"NaN", b"\"NaN\""), (b"Infinity", b"\"Infinity\""), (b"-Infinity", b"\"-Infinity\"")];
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied, mut inside) = (0, 0, false);
    while let Some(byte) = bytes.get(at) {
        if inside {
            match byte {
                b'"' => inside = false,
                b'\\' => at += 1,
                _ => {}
            }
        } else if *byte == b'"' {
            inside = true;
        } else if let Some((word, string)) = WORDS.iter().find(|(word, _)| bytes[at..].starts_with(word)) {
            let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len() + 64));
            out.extend_from_slice(&bytes[copied..at]);
            out.extend_from_slice(string);
            at += word.len();
            copied = at;
            continue;
        }
        at += 1;
    }
    match out {
        Some(mut out) => {
            out.extend_from_slice(&bytes[copied..]);
            Cow::Owned(out)
        }
        None => Cow::Borrowed(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use serde_json::json;

    #[test]
    fn what_python_writes_is_read() {
        let text = "\u{feff}{\"a\": [NaN, -Infinity, Infinity, 1], \"NaN \\\" NaN\": \"Infinity\"}";
        let expected = json!({"a": ["NaN", "-Infinity", "Infinity", 1], "NaN \" NaN": "Infinity"});
        assert_eq!(parse(text.as_bytes()).expect("reads"), expected);
        assert_eq!(parse(b"\xef\xbb\xbf{}").expect("reads"), json!({}));
    }

    #[test]
    fn what_is_none_stays_refused() {
        for text in
            ["", "{", "{\"a\": nan}", "{\"a\": +Infinity}", "{NaN: 1}x", "[1 NaN]", "{\"a\": \"NaN}", "\"\\"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
