//! Regular expressions of tokenizers: those of Oniguruma, which the `tokenizers` library is used with everywhere else, written
//! so that `fancy-regex` means the same. Owns what is known to be the same; refuses the rest, which would cut a text into
//! other tokens.

mod classes;
mod sets;

use classes::{WORD, alone, class_of_escape};
use std::fmt::Write as _;

/// Groups inside each other.
const MAX_DEPTH: usize = 100;

/// Sequences that some single character is the other case of.
const FOLDED: [&str; 5] = ["ss", "ff", "fi", "fl", "st"];

/// A pattern of Oniguruma as one of `fancy-regex`.
///
/// # Errors
/// What means something else there, or nothing, in words.
pub fn translate(pattern: &str) -> Result<String, String> {
    let mut reader = Reader { rest: pattern, out: String::new(), folds: false, run: String::new(), depth: 0 };
    reader.alternatives()?;
    match reader.rest.chars().next() {
        Some(found) => Err(format!("an unexpected `{found}`")),
        None => Ok(reader.out),
    }
}

struct Reader<'p> {
    rest: &'p str,
    out: String,
    /// Whether upper and lower case are one.
    folds: bool,
    /// Literal characters up to here.
    run: String,
    depth: usize,
}

type Done = Result<(), String>;

fn unsupported<T>(what: &str) -> Result<T, String> {
    Err(format!("{what} is not supported: it is not known to mean the same as in Oniguruma"))
}

impl Reader<'_> {
    fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn push(&mut self, text: &str) {
        self.run.clear();
        self.out.push_str(text);
    }

    /// Up to the end of a group.
    fn alternatives(&mut self) -> Done {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("groups nested more than {MAX_DEPTH} levels deep"));
        }
        // `(?i)` in the middle counts up to the end of the group, all alternatives behind it included.
        let (mut opened, folds) = (0, self.folds);
        while let Some(next) = self.rest.chars().next() {
            match next {
                ')' => break,
                '|' => {
                    self.take();
                    self.push("|");
                }
                _ => {
                    if self.options()? {
                        opened += 1;
                        continue;
                    }
                    self.repeated()?;
                }
            }
        }
        self.push(&")".repeat(opened));
        self.folds = folds;
        self.depth -= 1;
        Ok(())
    }

    /// `(?i)` without a colon: opens a group of its own.
    fn options(&mut self) -> Result<bool, String> {
        let Some(inside) = self.rest.strip_prefix("(?") else { return Ok(false) };
        let Some(end) = inside.find(|c: char| !"imx-".contains(c)) else { return Ok(false) };
        if end == 0 || !inside[end..].starts_with(')') {
            return Ok(false);
        }
        self.flags(&inside[..end])?;
        self.rest = &inside[end + 1..];
        Ok(true)
    }

    /// Opens a group with flags such as `i` or `m-i`.
    fn flags(&mut self, flags: &str) -> Done {
        let mut on = true;
        let mut ours = String::new();
        for flag in flags.chars() {
            match flag {
                '-' if on => {
                    on = false;
                    ours.push('-');
                }
                'i' => {
                    self.folds = on;
                    ours.push('i');
                }
                // Oniguruma's name for a dot that is any character.
                'm' => ours.push('s'),
                _ => return unsupported(&format!("the option `{flags}`")),
            }
        }
        self.push(&format!("(?{ours}:"));
        Ok(())
    }

    /// One element and how often it stands there.
    fn repeated(&mut self) -> Done {
        let start = self.out.len();
        let literal = self.element()?;
        let counted = self.rest.starts_with('{') && self.interval().is_some();
        let mut quantifier = String::new();
        match self.rest.chars().next() {
            Some(sign @ ('*' | '+' | '?')) => {
                self.take();
                quantifier.push(sign);
                if let Some(more) = self.rest.chars().next().filter(|more| "?+".contains(*more)) {
                    self.take();
                    quantifier.push(more);
                }
            }
            Some('{') if counted => {
                let (length, text) = self.interval().unwrap_or_default();
                self.rest = &self.rest[length..];
                quantifier = text;
                // In Oniguruma these are repeats of repeats, and `{n}?` is optional.
                if self.rest.starts_with(['?', '+']) {
                    return unsupported("a `?` or `+` after a number of times");
                }
            }
            _ => {}
        }
        if quantifier.is_empty() {
            return Ok(());
        }
        if self.rest.starts_with(['*', '+', '?']) || self.interval().is_some() {
            return unsupported("a repeat of a repeat");
        }
        if !literal {
            let element = self.out.split_off(start);
            let _infallible = write!(self.out, "(?:{element})");
        }
        self.push(&quantifier);
        Ok(())
    }

    /// Length and form of `{n}`, `{n,}`, `{,m}` or `{n,m}` if that is next.
    fn interval(&self) -> Option<(usize, String)> {
        let inside = self.rest.strip_prefix('{')?;
        let end = inside.find('}')?;
        let (least, most) = inside[..end].split_once(',').unwrap_or((&inside[..end], &inside[..end]));
        let is_count = |text: &str| text.len() < 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_count(least) || !is_count(most) || (least.is_empty() && most.is_empty()) {
            return None;
        }
        let least = if least.is_empty() { "0" } else { least };
        Some((end + 2, format!("{{{least},{most}}}")))
    }

    /// One element; whether it is a single unit that a quantifier may follow.
    fn element(&mut self) -> Result<bool, String> {
        let Some(next) = self.take() else { return Ok(true) };
        match next {
            '(' => self.group().map(|()| true),
            '[' => {
                let set = self.set(0)?;
                self.push(&set);
                Ok(true)
            }
            '\\' => self.escape(),
            '^' => self.anchor(r"(?:\A|(?<=\n)(?!\z))"),
            '$' => self.anchor(r"(?=\n|\z)"),
            '.' => {
                // Under `m` the flag `s` makes it any character; otherwise all but the end of a line, as here.
                self.push(".");
                Ok(true)
            }
            '*' | '+' | '?' => Err(format!("`{next}` repeats nothing")),
            literal => self.literal(literal),
        }
    }

    fn anchor(&mut self, anchor: &str) -> Result<bool, String> {
        self.push(anchor);
        if self.rest.starts_with(['*', '+', '?']) || self.interval().is_some() {
            return unsupported("a repeat of an anchor");
        }
        Ok(false)
    }

    fn literal(&mut self, literal: char) -> Result<bool, String> {
        if self.folds {
            if !literal.is_ascii() {
                return unsupported(&format!("{literal:?} where cases are one"));
            }
            self.run.push(literal.to_ascii_lowercase());
            if FOLDED.iter().any(|folded| self.run.ends_with(folded)) {
                return unsupported(&format!("`{}` where cases are one", self.run));
            }
        }
        self.out.push_str(&classes::escaped(literal));
        Ok(true)
    }

    fn group(&mut self) -> Done {
        let folds = self.folds;
        let same = ["?:", "?=", "?!", "?>", "?<=", "?<!"];
        if self.takes("?#") {
            let Some(end) = self.rest.find(')') else { return Err("a comment without its end".to_owned()) };
            if self.rest[..end].contains('\\') {
                return unsupported("an escape in a comment");
            }
            self.rest = &self.rest[end + 1..];
            self.push("(?:)");
            return Ok(());
        }
        if let Some(begin) = same.into_iter().find(|begin| self.takes(begin)) {
            self.push(&format!("({begin}"));
        } else if self.takes("?<") {
            let name = self.rest.find('>').filter(|end| *end > 0);
            let Some(end) = name else { return Err("a group without a name".to_owned()) };
            if !self.rest[..end].chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return unsupported("this name of a group");
            }
            self.rest = &self.rest[end + 1..];
            self.push("(?:");
        } else if self.takes("?") {
            let end = self.rest.find(|c: char| !"imx-".contains(c)).unwrap_or(self.rest.len());
            if end == 0 || !self.rest[end..].starts_with(':') {
                return unsupported("this kind of group");
            }
            let flags = &self.rest[..end];
            self.rest = &self.rest[end + 1..];
            self.flags(flags)?;
        } else {
            // What a group has matched is never asked for: nothing refers back.
            self.push("(?:");
        }
        self.alternatives()?;
        if !self.takes(")") {
            return Err("a group without its end".to_owned());
        }
        self.push(")");
        self.folds = folds;
        Ok(())
    }

    fn escape(&mut self) -> Result<bool, String> {
        let Some(escape) = self.take() else { return Err("a lone backslash at the end".to_owned()) };
        let boundary = |sides: [&str; 2]| {
            let [a, b] = sides;
            format!("(?:(?<={WORD})(?{a}{WORD})|(?<!{WORD})(?{b}{WORD}))")
        };
        match escape {
            'A' => self.anchor(r"\A"),
            'z' => self.anchor(r"\z"),
            'Z' => self.anchor(r"(?=\n?\z)"),
            'b' => self.anchor(&boundary(["!", "="])),
            'B' => self.anchor(&boundary(["=", "!"])),
            'R' => {
                self.push(r"(?>\r\n|[\n-\r\x{85}\x{2028}\x{2029}])");
                Ok(true)
            }
            'N' => {
                self.push(r"[^\n]");
                Ok(true)
            }
            'O' => {
                self.push(r"(?s:.)");
                Ok(true)
            }
            'p' | 'P' => {
                let class = self.property(escape == 'P')?;
                self.push(&alone(class));
                Ok(true)
            }
            _ => match class_of_escape(escape) {
                Some(class) => {
                    if self.folds && "wW".contains(escape) {
                        return unsupported("`\\w` where cases are one");
                    }
                    self.push(&alone(class));
                    Ok(true)
                }
                None => {
                    let literal = self.character(escape)?;
                    self.literal(literal)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::translate;
    use tokenizers::utils::SysRegex;

    #[test]
    fn what_means_the_same_is_written_anew() {
        for (pattern, expected) in [
            ("(?i:'s|'t)|a+?", "(?i:'s|'t)|a+?"),
            ("a(?i)b|c", "a(?i:b|c)"),
            (r"\s+$", r"\p{White_Space}+(?=\n|\z)"),
            ("[[:alpha:]x-]+", r"[[\p{Alphabetic}]x\-]+"),
            ("(a)(?<n>b){,3}", "(?:a)(?:b){0,3}"),
            ("a--b~~&&", r"a\-\-b\~\~\&\&"),
        ] {
            let translated = translate(pattern).expect(pattern);
            let plain = translated.replace("[\\p{White_Space}]", "\\p{White_Space}");
            assert_eq!(plain, expected, "{pattern}");
        }
    }

    /// Where Oniguruma asks for one kind of character it reads ISO 8859-1's table, in brackets Unicode's.
    #[test]
    fn superscripts_and_fractions_are_words_outside_of_brackets_only() {
        let matches = |pattern: &str, text: &str| {
            let pattern = SysRegex::new(&translate(pattern).expect(pattern)).expect(pattern);
            pattern.find_iter(text).count()
        };
        for one in ["²", "³", "¹", "¼", "½", "¾"] {
            for within in [r"\w", r"\p{Word}", r"[^\w]", r"[\W]", r"[^\p{word}]", "[[:^word:]]"] {
                assert_eq!(matches(within, one), 1, "{within} {one}");
            }
            for without in [r"\W", r"\P{word}", r"\p{^word}", r"[\w]", r"[a\p{word}]", "[[:word:]]"] {
                assert_eq!(matches(without, one), 0, "{without} {one}");
            }
            assert_eq!(
                (matches(r"\b", &format!("a{one}")), matches(r"a\B", &format!("a{one}"))),
                (2, 1),
                "{one}"
            );
        }
        assert_eq!((matches(r"\w", "①²Ⅷª"), matches(r"\p{No}", "①²Ⅷª")), (3, 2));
    }

    #[test]
    fn what_does_not_is_refused() {
        for pattern in [
            "(",
            ")",
            "[",
            "[a",
            "a**",
            "*a",
            r"\1",
            r"(a)\k<n>",
            "(?i)ss",
            "(?i)ß",
            r"(?i)\p{Lu}",
            "[a&&b]",
            r"\p{Nothing}",
            r"\pL",
            "(?x)a b",
            "a{1}?",
            "a{1,2}+",
            r"\X",
            r"\K",
            r"\G",
            "(?~a)",
            "(?P<n>a)",
            "(?s).",
            r"[a-\d]",
            r"[\d-z]",
            "[b-a]",
            r"\x{110000}",
            r"\ud800",
            r"\",
            "(?#",
        ] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
        assert!(translate(&"(".repeat(100_000)).is_err() && translate(&"[".repeat(100_000)).is_err());
    }
}
