//! Expressions of templates, with Jinja2's precedence.

use super::ast::{Binary, Compare, Expr, ExprKind};
use super::error::Outcome;
use super::lexer::Tok;
use super::parser::{MAX_DEPTH, Parser};

type Read = fn(&mut Parser) -> Outcome<Expr>;

impl Parser {
    pub(super) fn node(&self, line: usize, deepest: usize, kind: ExprKind) -> Outcome<Expr> {
        if deepest >= MAX_DEPTH {
            return self.fault(format!("an expression of more than {MAX_DEPTH} links or levels"));
        }
        Ok(Expr { kind, line, depth: deepest + 1 })
    }

    fn pair(&self, left: Expr, right: Expr, kind: fn(Box<Expr>, Box<Expr>) -> ExprKind) -> Outcome<Expr> {
        let (line, depth) = (left.line, left.depth.max(right.depth));
        self.node(line, depth, kind(Box::new(left), Box::new(right)))
    }

    /// An expression, conditional ones included.
    pub(super) fn expression(&mut self) -> Outcome<Expr> {
        self.deeper(|parser| {
            let mut value = parser.or()?;
            while parser.takes_name("if") {
                let condition = parser.or()?;
                let otherwise = if parser.takes_name("else") { Some(parser.expression()?) } else { None };
                let line = value.line;
                let depth = value.depth.max(condition.depth).max(otherwise.as_ref().map_or(0, |e| e.depth));
                let kind = ExprKind::Cond(Box::new([condition, value]), otherwise.map(Box::new));
                value = parser.node(line, depth, kind)?;
            }
            Ok(value)
        })
    }

    /// One expression, or several with commas between them. Without `conditional`, `if` ends it, as in the head of a loop.
    pub(super) fn tuple_or_one(&mut self, conditional: bool, end: Option<&str>) -> Outcome<Expr> {
        match self.tuple(conditional, end)? {
            Some(value) => Ok(value),
            None => self.unexpected("an expression"),
        }
    }

    fn tuple(&mut self, conditional: bool, end: Option<&str>) -> Outcome<Option<Expr>> {
        let line = self.line();
        let mut parts = Vec::new();
        let mut tuple = false;
        loop {
            let ended = matches!(self.peek(), Tok::VariableEnd | Tok::BlockEnd) || self.is_op(")");
            if ended || end.is_some_and(|end| self.is_name(end)) {
                break;
            }
            let part = if conditional { self.expression() } else { self.deeper(Parser::or) };
            parts.push(part?);
            if !self.takes_op(",") {
                break;
            }
            tuple = true;
        }
        if !tuple {
            return Ok(parts.pop());
        }
        let depth = deepest(&parts);
        self.node(line, depth, ExprKind::Tuple(parts)).map(Some)
    }

    fn or(&mut self) -> Outcome<Expr> {
        let mut left = self.and()?;
        while self.takes_name("or") {
            let right = self.and()?;
            left = self.pair(left, right, ExprKind::Or)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Outcome<Expr> {
        let mut left = self.not()?;
        while self.takes_name("and") {
            let right = self.not()?;
            left = self.pair(left, right, ExprKind::And)?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Outcome<Expr> {
        let line = self.line();
        if self.takes_name("not") {
            let value = self.deeper(Parser::not)?;
            return self.node(line, value.depth, ExprKind::Not(Box::new(value)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Outcome<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let how = match self.peek() {
                Tok::Op("==") => Compare::Eq,
                Tok::Op("!=") => Compare::Ne,
                Tok::Op("<") => Compare::Lt,
                Tok::Op("<=") => Compare::Le,
                Tok::Op(">") => Compare::Gt,
                Tok::Op(">=") => Compare::Ge,
                Tok::Name(name) if name == "in" => Compare::In,
                Tok::Name(name) if name == "not" && matches!(self.ahead(1), Tok::Name(n) if n == "in") => {
                    self.take();
                    Compare::NotIn
                }
                _ => break,
            };
            self.take();
            rest.push((how, self.sum()?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let depth = rest.iter().map(|(_, value)| value.depth).max().unwrap_or(0).max(first.depth);
        self.node(first.line, depth, ExprKind::Compare(Box::new(first), rest))
    }

    fn chain(&mut self, operators: &[(&str, Binary)], read: Read) -> Outcome<Expr> {
        let mut left = read(self)?;
        while let Some((_, how)) = operators.iter().find(|(operator, _)| self.is_op(operator)) {
            self.take();
            let right = read(self)?;
            let (line, depth) = (left.line, left.depth.max(right.depth));
            left = self.node(line, depth, ExprKind::Binary(*how, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Outcome<Expr> {
        self.chain(&[("+", Binary::Add), ("-", Binary::Sub)], Parser::concat)
    }

    fn concat(&mut self) -> Outcome<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let line = first.line;
        let mut parts = vec![first];
        while self.takes_op("~") {
            parts.push(self.product()?);
        }
        let depth = deepest(&parts);
        self.node(line, depth, ExprKind::Concat(parts))
    }

    fn product(&mut self) -> Outcome<Expr> {
        const PRODUCTS: [(&str, Binary); 4] =
            [("*", Binary::Mul), ("/", Binary::Div), ("//", Binary::FloorDiv), ("%", Binary::Mod)];
        self.chain(&PRODUCTS, Parser::power)
    }

    fn power(&mut self) -> Outcome<Expr> {
        self.chain(&[("**", Binary::Pow)], |parser| parser.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Outcome<Expr> {
        self.deeper(|parser| {
            let line = parser.line();
            let value = if parser.takes_op("-") {
                let value = parser.unary(false)?;
                parser.node(line, value.depth, ExprKind::Neg(Box::new(value)))?
            } else if parser.takes_op("+") {
                let value = parser.unary(false)?;
                parser.node(line, value.depth, ExprKind::Pos(Box::new(value)))?
            } else {
                parser.primary()?
            };
            let value = parser.postfix(value)?;
            if with_filters { parser.filters(value) } else { Ok(value) }
        })
    }

    pub(super) fn primary(&mut self) -> Outcome<Expr> {
        let line = self.line();
        let kind = match self.take() {
            Tok::Name(name) => match name.as_str() {
                "true" | "True" => ExprKind::Bool(true),
                "false" | "False" => ExprKind::Bool(false),
                "none" | "None" => ExprKind::None,
                _ => {
                    self.named(&name, true);
                    ExprKind::Name(name)
                }
            },
            Tok::Str(mut text) => {
                while let Tok::Str(more) = self.peek() {
                    text.push_str(more);
                    self.take();
                }
                ExprKind::Str(text)
            }
            Tok::Int(number) => ExprKind::Int(number),
            Tok::Float(number) => ExprKind::Float(number),
            Tok::Op("(") => {
                let inner = self.tuple(true, None)?;
                self.expect_op(")")?;
                return inner.map_or_else(|| self.node(line, 0, ExprKind::Tuple(Vec::new())), Ok);
            }
            Tok::Op("[") => {
                let parts = self.several("]", Parser::expression)?;
                let depth = deepest(&parts);
                return self.node(line, depth, ExprKind::List(parts));
            }
            Tok::Op("{") => {
                let entries = self.several("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expression()?))
                })?;
                let depth = entries.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0);
                return self.node(line, depth, ExprKind::Dict(entries));
            }
            _ => {
                self.back();
                return self.unexpected("an expression");
            }
        };
        self.node(line, 0, kind)
    }

    /// Parts with commas between them, up to `end`.
    fn several<T>(&mut self, end: &str, read: fn(&mut Parser) -> Outcome<T>) -> Outcome<Vec<T>> {
        let mut parts = Vec::new();
        while !self.takes_op(end) {
            if !parts.is_empty() {
                self.expect_op(",")?;
                if self.takes_op(end) {
                    break;
                }
            }
            parts.push(read(self)?);
        }
        Ok(parts)
    }

    pub(super) fn postfix(&mut self, mut value: Expr) -> Outcome<Expr> {
        loop {
            let line = self.line();
            if self.takes_op(".") {
                value = match self.take() {
                    Tok::Name(name) => {
                        let depth = value.depth;
                        self.node(line, depth, ExprKind::Attr(Box::new(value), name))?
                    }
                    Tok::Int(index) => {
                        let index = self.node(line, 0, ExprKind::Int(index))?;
                        self.pair(value, index, ExprKind::Item)?
                    }
                    _ => {
                        self.back();
                        return self.unexpected("a name after the dot");
                    }
                };
            } else if self.takes_op("[") {
                value = self.subscript(value)?;
            } else if self.is_op("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    pub(super) fn call(&mut self, callee: Expr) -> Outcome<Expr> {
        let line = callee.line;
        let args = self.arguments()?;
        let depth = callee.depth.max(args.depth());
        self.node(line, depth, ExprKind::Call(Box::new(callee), Box::new(args)))
    }

    fn subscript(&mut self, value: Expr) -> Outcome<Expr> {
        let line = value.line;
        let first = if self.is_op(":") { None } else { Some(self.expression()?) };
        if !self.is_op(":") {
            let Some(first) = first else { return self.unexpected("an index") };
            if self.is_op(",") {
                return self.fault("an index of several values is not supported");
            }
            self.expect_op("]")?;
            return self.pair(value, first, ExprKind::Item);
        }
        let mut parts = [first, None, None];
        for part in &mut parts[1..] {
            if !self.takes_op(":") {
                break;
            }
            if !self.is_op(":") && !self.is_op("]") {
                *part = Some(self.expression()?);
            }
        }
        self.expect_op("]")?;
        let depth = parts.iter().flatten().map(|part| part.depth).max().unwrap_or(0).max(value.depth);
        self.node(line, depth, ExprKind::Slice(Box::new(value), Box::new(parts)))
    }
}

fn deepest(parts: &[Expr]) -> usize {
    parts.iter().map(|part| part.depth).max().unwrap_or(0)
}
