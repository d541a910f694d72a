//! Statements of templates. Owns which tags there are; what they hold is `expressions.rs`' affair, what they
//! name that of `definitions.rs`. Refuses tags that need other templates.

use super::ast::{Applied, Block, For, Stmt};
use super::error::{Fault, Outcome};
use super::lexer::{self, Tok, Token};
use super::symbols;
use std::rc::Rc;

/// Levels of expressions and statements inside each other, and links of a chain such as `a + b + c`.
pub const MAX_DEPTH: usize = 200;

/// A template as its tokens are read.
pub struct Parser {
    tokens: Vec<Token>,
    at: usize,
    pub(super) depth: usize,
    /// Loops around, within the same macro.
    loops: usize,
    /// Loops around, macros left out of account.
    pub(super) heads: usize,
    /// Whether names that bodies of macros have are first read or first assigned, innermost macro last.
    pub(super) special: Vec<[Option<bool>; 3]>,
}

/// Names that a macro is given when its body has them.
pub(super) const SPECIAL: [&str; 3] = ["caller", "kwargs", "varargs"];

/// Reads a template.
pub fn parse(source: &str) -> Outcome<Block> {
    let tokens = lexer::tokens(source)?;
    let mut parser = Parser { tokens, at: 0, depth: 0, loops: 0, heads: 0, special: Vec::new() };
    let mut body = Block::from(parser.statements(&[])?);
    if *parser.peek() != Tok::End {
        return parser.unexpected("the end of the template");
    }
    symbols::hide(&mut body)?;
    Ok(body)
}

impl Parser {
    pub(super) fn peek(&self) -> &Tok {
        self.ahead(0)
    }

    pub(super) fn ahead(&self, count: usize) -> &Tok {
        self.tokens.get(self.at + count).map_or(&Tok::End, |token| &token.tok)
    }

    pub(super) fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    pub(super) fn take(&mut self) -> Tok {
        let tok = self.peek().clone();
        self.at += 1;
        tok
    }

    /// Puts the last token back.
    pub(super) fn back(&mut self) {
        self.at -= 1;
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Tok::Op(found) if *found == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Tok::Name(found) if found == name)
    }

    pub(super) fn takes_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn takes_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Outcome<()> {
        if self.takes_op(op) { Ok(()) } else { self.unexpected(&format!("`{op}`")) }
    }

    pub(super) fn expect_name(&mut self) -> Outcome<String> {
        match self.take() {
            Tok::Name(name) => Ok(name),
            _ => {
                self.back();
                self.unexpected("a name")
            }
        }
    }

    pub(super) fn fault<T>(&self, message: impl Into<String>) -> Outcome<T> {
        Err(Fault::syntax(self.line(), message))
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Outcome<T> {
        let found = match self.peek() {
            Tok::Data(_) => "text".to_owned(),
            Tok::VariableBegin => "`{{`".to_owned(),
            Tok::VariableEnd => "`}}`".to_owned(),
            Tok::BlockBegin => "`{%`".to_owned(),
            Tok::BlockEnd => "`%}`".to_owned(),
            Tok::Name(name) => format!("`{name}`"),
            Tok::Str(_) => "a string".to_owned(),
            Tok::Int(_) | Tok::Float(_) => "a number".to_owned(),
            Tok::Op(op) => format!("`{op}`"),
            Tok::End => "the end of the template".to_owned(),
        };
        self.fault(format!("found {found}, expected {expected}"))
    }

    /// One level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fault(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Notes names that decide which arguments a macro takes, and whether they are read or assigned here.
    pub(super) fn named(&mut self, name: &str, read: bool) {
        if let Some(place) = SPECIAL.iter().position(|special| *special == name) {
            // A macro inside asks its own caller, and so does the one around.
            for special in &mut self.special {
                special[place].get_or_insert(read);
            }
        }
    }

    /// Statements up to a tag with one of `ends`, whose name is left to be read.
    fn statements(&mut self, ends: &[&str]) -> Outcome<Vec<Stmt>> {
        let mut body = Vec::new();
        loop {
            match self.peek().clone() {
                Tok::Data(text) => {
                    self.at += 1;
                    body.push(Stmt::Text(text));
                }
                Tok::VariableBegin => {
                    self.at += 1;
                    let shown = self.tuple_or_one(true, None)?;
                    body.push(Stmt::Output(shown));
                    match self.peek() {
                        Tok::VariableEnd => self.at += 1,
                        _ => return self.unexpected("`}}`"),
                    }
                }
                Tok::BlockBegin => {
                    self.at += 1;
                    if matches!(self.peek(), Tok::Name(name) if ends.contains(&name.as_str())) {
                        return Ok(body);
                    }
                    let statement = self.deeper(Parser::statement)?;
                    body.extend(statement);
                    self.end_tag()?;
                }
                Tok::End if ends.is_empty() => return Ok(body),
                _ => return self.unexpected(&format!("`{{% {} %}}`", ends.join(" %}` or `{% "))),
            }
        }
    }

    fn end_tag(&mut self) -> Outcome<()> {
        match self.peek() {
            Tok::BlockEnd => {
                self.at += 1;
                Ok(())
            }
            _ => self.unexpected("`%}`"),
        }
    }

    /// The body up to the tag `end`.
    pub(super) fn body(&mut self, end: &str) -> Outcome<Block> {
        self.takes_op(":");
        self.end_tag()?;
        let body = self.statements(&[end])?;
        self.at += 1;
        Ok(body.into())
    }

    fn statement(&mut self) -> Outcome<Vec<Stmt>> {
        let tag = self.expect_name()?;
        let one = match tag.as_str() {
            "for" => self.for_loop()?,
            "if" => self.conditional()?,
            "set" => self.set()?,
            "macro" => self.macro_block()?,
            "call" => self.call_block()?,
            "filter" => {
                let chain = self.filter_chain()?;
                Stmt::Filter(chain, self.body("endfilter")?)
            }
            "with" => self.with()?,
            // Its body is a function of its own, as that of a call.
            "generation" => Stmt::Scoped(self.alone(|parser| parser.body("endgeneration"))?),
            "print" => return self.print(),
            "break" | "continue" if self.loops == 0 => {
                return self.fault(format!("`{tag}` outside a loop"));
            }
            "break" => Stmt::Break,
            "continue" => Stmt::Continue,
            "include" | "import" | "from" | "extends" | "block" | "autoescape" | "trans" | "do" => {
                return self.fault(format!("the tag `{tag}` is not supported in chat templates"));
            }
            _ => return self.fault(format!("unknown tag `{tag}`")),
        };
        Ok(vec![one])
    }

    /// Reads what is a function of its own in Jinja2: loops around it cannot be left from within.
    pub(super) fn alone<T>(&mut self, read: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        let loops = std::mem::take(&mut self.loops);
        let read = read(self);
        self.loops = loops;
        read
    }

    fn print(&mut self) -> Outcome<Vec<Stmt>> {
        let mut shown = Vec::new();
        while !matches!(self.peek(), Tok::BlockEnd) {
            if !shown.is_empty() {
                self.expect_op(",")?;
            }
            shown.push(Stmt::Output(self.expression()?));
        }
        Ok(shown)
    }

    fn for_loop(&mut self) -> Outcome<Stmt> {
        self.heads += 1;
        let target = self.free_target(false, Some("in"))?;
        if !self.takes_name("in") {
            return self.unexpected("`in`");
        }
        let iter = self.tuple_or_one(false, Some("recursive"))?;
        let test = if self.takes_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.takes_name("recursive");
        self.takes_op(":");
        self.end_tag()?;
        self.loops += 1;
        let body = self.statements(&["endfor", "else"])?;
        self.loops -= 1;
        let mut otherwise = Vec::new();
        if self.takes_name("else") {
            self.takes_op(":");
            self.end_tag()?;
            otherwise = self.statements(&["endfor"])?;
        }
        self.at += 1;
        self.heads -= 1;
        let (body, otherwise) = (body.into(), otherwise.into());
        Ok(Stmt::For(Rc::new(For { target, iter, test, recursive, body, otherwise })))
    }

    fn conditional(&mut self) -> Outcome<Stmt> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.tuple_or_one(false, None)?;
            self.takes_op(":");
            self.end_tag()?;
            let body = self.statements(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            if self.takes_name("elif") {
                continue;
            }
            if self.takes_name("else") {
                self.takes_op(":");
                self.end_tag()?;
                otherwise = self.statements(&["endif"])?;
            }
            self.at += 1;
            return Ok(Stmt::If(branches, otherwise));
        }
    }

    fn set(&mut self) -> Outcome<Stmt> {
        let target = self.free_target(true, None)?;
        if self.takes_op("=") {
            return Ok(Stmt::Set(target, self.tuple_or_one(true, None)?));
        }
        let chain = if self.takes_op("|") { self.filter_chain()? } else { Vec::new() };
        Ok(Stmt::SetBlock(target, chain, self.body("endset")?))
    }

    /// `a|b(c)|d` without the value and its `|`.
    fn filter_chain(&mut self) -> Outcome<Vec<Applied>> {
        let mut chain = vec![self.applied_filter()?];
        while self.takes_op("|") {
            chain.push(self.applied_filter()?);
        }
        Ok(chain)
    }

    fn with(&mut self) -> Outcome<Stmt> {
        let mut given = Vec::new();
        while !matches!(self.peek(), Tok::BlockEnd) {
            if !given.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(false, None)?;
            self.expect_op("=")?;
            given.push((target, self.expression()?));
        }
        Ok(Stmt::With(given, self.body("endwith")?))
    }
}
