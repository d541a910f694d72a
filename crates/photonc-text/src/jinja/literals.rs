//! Numbers and strings of templates, as Python writes them.

/// Length of digits with single underscores between them.
fn digits(text: &str) -> usize {
    let mut length = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => length = at + 1,
            b'_' if at > 0 && length == at => {}
            _ => break,
        }
    }
    length
}

/// Length of a float at the start of `text`, if one is there.
pub fn float_length(text: &str) -> Option<usize> {
    let whole = digits(text);
    let fraction = text[whole..].strip_prefix('.').map(digits).filter(|length| *length > 0);
    let before = whole + fraction.map_or(0, |length| length + 1);
    let exponent = text[before..].strip_prefix(['e', 'E']).and_then(|rest| {
        let sign = usize::from(rest.starts_with(['+', '-']));
        let length = digits(&rest[sign..]);
        (length > 0).then_some(1 + sign + length)
    });
    (fraction.is_some() || exponent.is_some()).then_some(before + exponent.unwrap_or(0))
}

/// Radix, length of the prefix and digits of an integer.
pub fn integer_parts(text: &str) -> (u32, usize, &str) {
    let lower = text.get(..2).unwrap_or_default().to_ascii_lowercase();
    let radix = match lower.as_str() {
        "0x" => 16,
        "0o" => 8,
        "0b" => 2,
        _ => 10,
    };
    if radix != 10 {
        let rest = &text[2..];
        let end = rest.find(|c: char| !c.is_digit(radix) && c != '_').unwrap_or(rest.len());
        return (radix, 2, rest[..end].trim_end_matches('_'));
    }
    let mut length = digits(text);
    if text.starts_with('0') {
        length = text[..length].find(|c: char| c != '0' && c != '_').unwrap_or(length);
    }
    (10, 0, &text[..length])
}

/// Python's `unicode-escape`.
pub fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else { break };
        let after = &rest[kind.len_utf8()..];
        let simple = match kind {
            '\n' => Some(""),
            '\\' => Some("\\"),
            '\'' => Some("'"),
            '"' => Some("\""),
            'a' => Some("\x07"),
            'b' => Some("\x08"),
            'f' => Some("\x0c"),
            'n' => Some("\n"),
            'r' => Some("\r"),
            't' => Some("\t"),
            'v' => Some("\x0b"),
            _ => None,
        };
        if let Some(simple) = simple {
            out.push_str(simple);
            rest = after;
            continue;
        }
        let (radix, length, digits) = match kind {
            '0'..='7' => (8, 3, rest),
            'x' => (16, 2, after),
            'u' => (16, 4, after),
            'U' => (16, 8, after),
            'N' => return Err("a character by its name, \\N{..}, is not supported".to_owned()),
            _ if !kind.is_ascii() => return Err(format!("a backslash before {kind:?} is not supported")),
            _ => {
                out.push('\\');
                continue;
            }
        };
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len()).min(length);
        let code = u32::from_str_radix(&digits[..end], radix).ok().filter(|_| radix == 8 || end == length);
        let Some(character) = code.and_then(char::from_u32) else {
            return Err(format!("the escape \\{kind}{} is no character", &digits[..end]));
        };
        out.push(character);
        rest = &digits[end..];
    }
    out.push_str(rest);
    Ok(out)
}
