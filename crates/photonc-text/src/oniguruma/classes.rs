//! Classes of characters by the names that Oniguruma has for them, as parts of a class of the `regex` crate.

/// `\w` and `[:word:]` in brackets: not what joins words invisibly, which belongs to them elsewhere.
const IN_WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";

/// `\w` outside of brackets, and what `\b` is the edge of: superscripts and fractions of Latin-1 are in it too, because
/// Oniguruma looks characters below 256 up in the table of ISO 8859-1 there.
pub const WORD: &str = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}]";

/// Names of classes and what is in them.
const NAMED: [(&str, &str); 14] = [
    ("alnum", r"\p{Alphabetic}\p{Nd}"),
    ("alpha", r"\p{Alphabetic}"),
    ("ascii", r"\x{0}-\x{7f}"),
    ("blank", r"\t\p{Zs}"),
    ("cntrl", r"\p{Cc}"),
    ("digit", r"\p{Nd}"),
    ("graph", r"[^\p{White_Space}\p{Cc}\p{Cn}]"),
    ("lower", r"\p{Lowercase}"),
    ("print", r"[^\p{Cc}\p{Cn}&&[^\p{Zs}]]"),
    ("punct", r"\p{P}\p{S}"),
    ("space", r"\p{White_Space}"),
    ("upper", r"\p{Uppercase}"),
    ("word", IN_WORD),
    ("xdigit", "0-9A-Fa-f"),
];

/// General categories, short and long.
const CATEGORIES: [(&str, &str); 36] = [
    ("l", "letter"),
    ("lu", "uppercaseletter"),
    ("ll", "lowercaseletter"),
    ("lt", "titlecaseletter"),
    ("lm", "modifierletter"),
    ("lo", "otherletter"),
    ("m", "mark"),
    ("mn", "nonspacingmark"),
    ("mc", "spacingmark"),
    ("me", "enclosingmark"),
    ("n", "number"),
    ("nd", "decimalnumber"),
    ("nl", "letternumber"),
    ("no", "othernumber"),
    ("p", "punctuation"),
    ("pc", "connectorpunctuation"),
    ("pd", "dashpunctuation"),
    ("ps", "openpunctuation"),
    ("pe", "closepunctuation"),
    ("pi", "initialpunctuation"),
    ("pf", "finalpunctuation"),
    ("po", "otherpunctuation"),
    ("s", "symbol"),
    ("sm", "mathsymbol"),
    ("sc", "currencysymbol"),
    ("sk", "modifiersymbol"),
    ("so", "othersymbol"),
    ("z", "separator"),
    ("zs", "spaceseparator"),
    ("zl", "lineseparator"),
    ("zp", "paragraphseparator"),
    ("cc", "control"),
    ("cf", "format"),
    ("co", "privateuse"),
    ("alphabetic", "alphabetic"),
    ("whitespace", "whitespace"),
];

/// Scripts that are no longer growing, or slowly.
const SCRIPTS: [&str; 31] = [
    "arabic",
    "armenian",
    "bengali",
    "bopomofo",
    "cyrillic",
    "devanagari",
    "ethiopic",
    "georgian",
    "greek",
    "gujarati",
    "gurmukhi",
    "han",
    "hangul",
    "hebrew",
    "hiragana",
    "kannada",
    "katakana",
    "khmer",
    "lao",
    "latin",
    "malayalam",
    "mongolian",
    "myanmar",
    "oriya",
    "sinhala",
    "syriac",
    "tamil",
    "telugu",
    "thaana",
    "thai",
    "tibetan",
];

/// The class `[:name:]`.
pub fn posix(name: &str) -> Option<&'static str> {
    NAMED.iter().find(|(known, _)| *known == name).map(|(_, class)| *class)
}

/// The class `\p{name}`.
pub fn property(name: &str) -> Option<String> {
    let plain: String = name.chars().filter(|c| !" _-".contains(*c)).collect::<String>().to_ascii_lowercase();
    if let Some(class) = posix(&plain).filter(|_| plain != "punct") {
        return Some(class.to_owned());
    }
    let category = CATEGORIES.iter().find(|(short, long)| *short == plain || *long == plain);
    match category {
        Some(("alphabetic", _)) => Some(r"\p{Alphabetic}".to_owned()),
        Some(("whitespace", _)) => Some(r"\p{White_Space}".to_owned()),
        Some((short, _)) => Some(format!(r"\p{{{short}}}")),
        None => {
            SCRIPTS.iter().find(|script| **script == plain).map(|script| format!(r"\p{{Script={script}}}"))
        }
    }
}

/// The class that an escape such as `\d` stands for.
pub fn class_of_escape(escape: char) -> Option<String> {
    let name = match escape.to_ascii_lowercase() {
        'd' => "digit",
        's' => "space",
        'w' => "word",
        'h' => "xdigit",
        _ => return None,
    };
    posix(name).map(|class| format!("[{}{class}]", if escape.is_ascii_uppercase() { "^" } else { "" }))
}

/// A class in brackets of its own as it is outside of others, where words have more characters.
pub fn alone(class: String) -> String {
    match class.as_str().strip_prefix('[').and_then(|inside| inside.strip_suffix(']')) {
        Some(inside) if inside == IN_WORD => WORD.to_owned(),
        Some(inside) if inside.strip_prefix('^') == Some(IN_WORD) => WORD.replacen('[', "[^", 1),
        _ => class,
    }
}

/// A character that stands for itself, inside a class and outside.
pub fn escaped(character: char) -> String {
    match character {
        _ if character.is_ascii_alphanumeric() || !character.is_ascii() => character.to_string(),
        ' ' | '\'' | '"' | '_' | '/' | ':' | ';' | ',' | '<' | '>' | '=' | '@' | '!' | '%' | '`' => {
            character.to_string()
        }
        '\n' => r"\n".to_owned(),
        '\r' => r"\r".to_owned(),
        '\t' => r"\t".to_owned(),
        _ if character.is_ascii_control() => format!(r"\x{{{:x}}}", u32::from(character)),
        _ => format!(r"\{character}"),
    }
}
