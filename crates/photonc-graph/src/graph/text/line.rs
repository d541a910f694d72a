//! One line of graph text. Owns cutting it into words and attributes, with columns; knows nothing of graphs.

/// What is wrong at a column (from 0, in characters) of a line.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) column: usize,
    pub(super) message: String,
}

/// A cursor over a line without its comment.
pub(super) struct Line<'t> {
    text: &'t str,
    /// Bytes consumed.
    at: usize,
}

impl<'t> Line<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut line = Line { text: &text[..comment_start(text)], at: 0 };
        line.skip_blanks();
        line
    }

    /// What is left, without the blanks around it.
    pub(super) fn rest(&self) -> &'t str {
        self.text[self.at..].trim_end()
    }

    pub(super) fn column(&self) -> usize {
        self.text[..self.at].chars().count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Consumes `token` if it comes next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.advance(token.len());
        }
        found
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), Wrong> {
        if self.eat(token) { Ok(()) } else { Err(self.wrong(&format!("`{token}`"))) }
    }

    /// Consumes characters while `belongs` holds; at least one.
    pub(super) fn word(&mut self, what: &str, belongs: fn(char) -> bool) -> Result<&'t str, Wrong> {
        let rest = self.rest();
        let len = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.wrong(what));
        }
        self.advance(len);
        Ok(&rest[..len])
    }

    /// Consumes `"text"`.
    pub(super) fn quoted(&mut self, what: &str) -> Result<&'t str, Wrong> {
        let rest = self.rest();
        let inner = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')).map(|(inner, _)| inner);
        match inner {
            Some(inner) if !inner.is_empty() => {
                self.advance(inner.len() + 2);
                Ok(inner)
            }
            _ => Err(self.wrong(what)),
        }
    }

    /// Consumes text up to a top-level character that `ends` it or the end of the line; brackets, parentheses and
    /// quotes hide what is in them.
    pub(super) fn until(&mut self, ends: fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let (mut depth, mut quoted) = (0usize, false);
        let mut len = rest.len();
        for (at, c) in rest.char_indices() {
            match c {
                '"' => quoted = !quoted,
                _ if quoted => {}
                '[' | '(' => depth += 1,
                ']' | ')' => depth = depth.saturating_sub(1),
                c if depth == 0 && ends(c) => {
                    len = at;
                    break;
                }
                _ => {}
            }
        }
        self.advance(len);
        rest[..len].trim_end()
    }

    pub(super) fn end(&self) -> Result<(), Wrong> {
        if self.is_empty() { Ok(()) } else { Err(self.wrong("the end of the line")) }
    }

    /// An error at the cursor: what is there, and what should be.
    pub(super) fn wrong(&self, expected: &str) -> Wrong {
        let rest = self.rest();
        let found = match rest.split_whitespace().next() {
            Some(word) => format!("`{}`", word.chars().take(40).collect::<String>()),
            None => "the end of the line".to_owned(),
        };
        Wrong { column: self.column(), message: format!("found {found}, expected {expected}") }
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.skip_blanks();
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }
}

/// The byte where a comment starts, or the line's length.
fn comment_start(text: &str) -> usize {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '/' if !quoted && text[at..].starts_with("//") => return at,
            _ => {}
        }
    }
    text.len()
}
