//! Filters, tests and arguments of calls as they stand in templates. Owns what may follow a value behind `|`, `is` and `(`.

use super::ast::{Applied, Args, Expr, ExprKind};
use super::error::Outcome;
use super::lexer::Tok;
use super::parser::Parser;

impl Parser {
    /// Filters, tests and calls behind a value.
    pub(super) fn filters(&mut self, mut value: Expr) -> Outcome<Expr> {
        loop {
            let line = value.line;
            if self.takes_op("|") {
                let filter = self.applied_filter()?;
                let depth = value.depth.max(filter.args.depth());
                value = self.node(line, depth, ExprKind::Filter(Box::new(value), Box::new(filter)))?;
            } else if self.takes_name("is") {
                value = self.test(value)?;
            } else if self.is_op("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn dotted_name(&mut self) -> Outcome<String> {
        let mut name = self.expect_name()?;
        while self.takes_op(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        Ok(name)
    }

    /// A filter behind its `|`.
    pub(super) fn applied_filter(&mut self) -> Outcome<Applied> {
        let line = self.line();
        let name = self.dotted_name()?;
        let args = if self.is_op("(") { self.arguments()? } else { Args::default() };
        Ok(Applied { name, args, line })
    }

    fn test(&mut self, value: Expr) -> Outcome<Expr> {
        let line = self.line();
        let negated = self.takes_name("not");
        let name = self.dotted_name()?;
        let mut args = Args::default();
        let begins_argument = match self.peek() {
            Tok::Name(name) => !["else", "or", "and"].contains(&name.as_str()),
            Tok::Str(_) | Tok::Int(_) | Tok::Float(_) | Tok::Op("[" | "{") => true,
            _ => false,
        };
        if self.is_op("(") {
            args = self.arguments()?;
        } else if begins_argument {
            if self.is_name("is") {
                return self.fault("tests with `is` cannot be chained");
            }
            let argument = self.deeper(Parser::primary)?;
            args.positional.push(self.postfix(argument)?);
        }
        let depth = value.depth.max(args.depth());
        let test = Applied { name, args, line };
        let tested = self.node(value.line, depth, ExprKind::Test(Box::new(value), Box::new(test)))?;
        if negated { self.node(line, tested.depth, ExprKind::Not(Box::new(tested))) } else { Ok(tested) }
    }

    /// Arguments of a call, from its `(`.
    pub(super) fn arguments(&mut self) -> Outcome<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        let mut first = true;
        while !self.takes_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.takes_op(")") {
                    break;
                }
            }
            first = false;
            let after_names = !args.keywords.is_empty() || args.double_star.is_some();
            if self.takes_op("*") && args.star.is_none() && args.double_star.is_none() {
                args.star = Some(self.expression()?);
            } else if self.takes_op("**") && args.double_star.is_none() {
                args.double_star = Some(self.expression()?);
            } else if matches!((self.peek(), self.ahead(1)), (Tok::Name(_), Tok::Op("=")))
                && args.double_star.is_none()
            {
                let name = self.expect_name()?;
                self.take();
                args.keywords.push((name, self.expression()?));
            } else if after_names || args.star.is_some() {
                return self.fault("arguments by place stand before those by name");
            } else {
                args.positional.push(self.expression()?);
            }
        }
        Ok(args)
    }
}

impl Args {
    /// Nodes of the deepest argument.
    pub(super) fn depth(&self) -> usize {
        let given = self.positional.iter().chain(self.keywords.iter().map(|(_, value)| value));
        given.chain(&self.star).chain(&self.double_star).map(|value| value.depth).max().unwrap_or(0)
    }
}
