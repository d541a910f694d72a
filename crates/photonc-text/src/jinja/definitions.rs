//! Names that statements give: targets of assignments, macros, and bodies of calls. Owns which names may be given.

use super::ast::{Expr, ExprKind, Macro, Stmt, Target};
use super::error::Outcome;
use super::parser::{Parser, SPECIAL};
use std::rc::Rc;

impl Parser {
    fn parameters(&mut self) -> Outcome<Vec<(String, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(String, Option<Expr>)> = Vec::new();
        while !self.takes_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            self.named(&name, false);
            if parameters.iter().any(|(before, _)| *before == name) {
                return self.fault(format!("two parameters `{name}`"));
            }
            let default = if self.takes_op("=") {
                Some(self.expression()?)
            } else if parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fault("a parameter without a default after one with a default");
            } else {
                None
            };
            parameters.push((name, default));
        }
        Ok(parameters)
    }

    fn macro_of(
        &mut self,
        name: String,
        parameters: Vec<(String, Option<Expr>)>,
        end: &str,
    ) -> Outcome<Rc<Macro>> {
        self.special.push([None; 3]);
        let body = self.alone(|parser| parser.body(end));
        let named = self.special.pop().unwrap_or_default();
        // A parameter of that name is a parameter.
        let [uses_caller, uses_kwargs, uses_varargs] = std::array::from_fn(|at| {
            named[at] == Some(true) && !parameters.iter().any(|(parameter, _)| parameter == SPECIAL[at])
        });
        Ok(Rc::new(Macro { name, parameters, body: body?, uses_caller, uses_kwargs, uses_varargs }))
    }

    /// `{% macro %}`, behind its name.
    pub(super) fn macro_block(&mut self) -> Outcome<Stmt> {
        let name = self.expect_name()?;
        let parameters = self.parameters()?;
        Ok(Stmt::Macro(self.macro_of(name, parameters, "endmacro")?))
    }

    /// `{% call %}`, behind its name.
    pub(super) fn call_block(&mut self) -> Outcome<Stmt> {
        let parameters = if self.is_op("(") { self.parameters()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call.kind, ExprKind::Call(..)) {
            return self.fault("expected a call");
        }
        Ok(Stmt::Call(self.macro_of("caller".to_owned(), parameters, "endcall")?, call))
    }

    /// What a loop or `set` assigns to: inside a loop, `loop` is taken.
    pub(super) fn free_target(&mut self, namespace: bool, end: Option<&str>) -> Outcome<Target> {
        let target = self.target(namespace, end)?;
        if self.heads > 0 && target.names().contains(&"loop") {
            return self.fault("cannot assign to `loop` in a loop");
        }
        Ok(target)
    }

    /// What something is assigned to; `end` is the keyword that may end a list of names.
    pub(super) fn target(&mut self, namespace: bool, end: Option<&str>) -> Outcome<Target> {
        let mut parts = Vec::new();
        let mut tuple = false;
        loop {
            let ended = end.is_some_and(|end| self.is_name(end));
            if !parts.is_empty() && (ended || self.is_op("=") || self.is_op(")")) {
                break;
            }
            parts.push(self.one_target(namespace)?);
            if !self.takes_op(",") {
                break;
            }
            tuple = true;
        }
        match parts.pop() {
            Some(only) if parts.is_empty() && !tuple => Ok(only),
            last => {
                parts.extend(last);
                Ok(Target::Tuple(parts))
            }
        }
    }

    fn one_target(&mut self, namespace: bool) -> Outcome<Target> {
        if self.takes_op("(") {
            let inner = self.deeper(|parser| parser.target(namespace, None))?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.expect_name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&name.as_str()) {
            return self.fault(format!("cannot assign to `{name}`"));
        }
        if namespace && self.takes_op(".") {
            return Ok(Target::Attr(name, self.expect_name()?));
        }
        self.named(&name, false);
        Ok(Target::Name(name))
    }
}
