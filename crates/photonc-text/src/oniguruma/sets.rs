//! Classes of characters and single characters as Oniguruma writes them: `[a-z]`, `[[:alpha:]]`, `\p{L}`, `\x{41}`.

use super::classes::{self, class_of_escape, property};
use super::{Done, MAX_DEPTH, Reader, unsupported};

impl Reader<'_> {
    /// `\p{name}` behind its `p`.
    pub(super) fn property(&mut self, negated: bool) -> Result<String, String> {
        let inside = self.rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((name, rest)) = inside else { return unsupported("`\\p` without a name in braces") };
        if self.folds {
            return unsupported("a property where cases are one");
        }
        self.rest = rest;
        let (name, inverted) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        match property(name) {
            Some(class) if negated != inverted => Ok(format!("[^{class}]")),
            Some(class) => Ok(format!("[{class}]")),
            None => unsupported(&format!("the property `{name}`")),
        }
    }

    /// The character that an escape stands for.
    pub(super) fn character(&mut self, escape: char) -> Result<char, String> {
        let code = match escape {
            't' => return Ok('\t'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            'f' => return Ok('\x0c'),
            'v' => return Ok('\x0b'),
            'a' => return Ok('\x07'),
            'e' => return Ok('\x1b'),
            'x' if self.rest.starts_with('{') => {
                let inside = self.rest[1..].split_once('}');
                let Some((digits, rest)) = inside else { return Err("`\\x{` without its end".to_owned()) };
                self.rest = rest;
                u32::from_str_radix(digits, 16).ok()
            }
            'x' => self.digits(2).filter(|code| *code < 0x80),
            'u' => self.digits(4),
            _ if escape.is_ascii_alphanumeric() || !escape.is_ascii() => {
                return unsupported(&format!("the escape `\\{escape}`"));
            }
            _ => return Ok(escape),
        };
        code.and_then(char::from_u32).ok_or_else(|| format!("the escape `\\{escape}` is no character"))
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let digits = self.rest.get(..count)?;
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        self.rest = &self.rest[count..];
        Some(code)
    }

    /// A class, behind its `[`.
    pub(super) fn set(&mut self, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err(format!("classes nested more than {MAX_DEPTH} levels deep"));
        }
        let mut out = String::from(if self.takes("^") { "[^" } else { "[" });
        let mut first = true;
        loop {
            let Some(next) = self.take() else { return Err("a class without its end".to_owned()) };
            match next {
                ']' if !first => break,
                '[' if self.rest.starts_with(':') => out.push_str(&self.posix()?),
                '[' => out.push_str(&self.set(depth + 1)?),
                '&' if self.takes("&") => return unsupported("`&&` in a class"),
                '\\' => {
                    let Some(escape) = self.take() else { return Err("a class without its end".to_owned()) };
                    if "pP".contains(escape) {
                        out.push_str(&self.property(escape == 'P')?);
                    } else if escape == 'b' {
                        self.range('\x08', &mut out)?;
                    } else if let Some(class) = class_of_escape(escape) {
                        if self.folds && "wW".contains(escape) {
                            return unsupported("`\\w` where cases are one");
                        }
                        out.push_str(&class);
                        if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                            return unsupported("a range that begins with a class");
                        }
                    } else {
                        let begin = self.character(escape)?;
                        self.range(begin, &mut out)?;
                    }
                }
                begin => self.range(begin, &mut out)?,
            }
            first = false;
        }
        out.push(']');
        Ok(out)
    }

    /// `[:name:]` behind its `[`.
    fn posix(&mut self) -> Result<String, String> {
        let inside = self.rest[1..].split_once(":]");
        let Some((name, rest)) = inside else { return unsupported("`[:` in a class") };
        let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        let Some(class) = classes::posix(name) else {
            return unsupported(&format!("the class `[:{name}:]`"));
        };
        if self.folds {
            return unsupported("a named class where cases are one");
        }
        self.rest = rest;
        Ok(format!("[{}{class}]", if negated { "^" } else { "" }))
    }

    /// A character of a class, or a range that begins with it.
    fn range(&mut self, begin: char, out: &mut String) -> Done {
        let mut end = begin;
        if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
            self.take();
            end = match self.take() {
                Some('\\') => {
                    let escape = self.take().unwrap_or(' ');
                    if "pPbRXN".contains(escape) || class_of_escape(escape).is_some() {
                        return unsupported("a range that ends with a class");
                    }
                    self.character(escape)?
                }
                Some('[') | None => return unsupported("a range that ends with a class"),
                Some(end) => end,
            };
            if end < begin {
                return Err("an empty range in a class".to_owned());
            }
        }
        if self.folds && !end.is_ascii() {
            return unsupported("a class beyond ASCII where cases are one");
        }
        out.push_str(&classes::escaped(begin));
        if end != begin {
            out.push('-');
            out.push_str(&classes::escaped(end));
        }
        Ok(())
    }
}
