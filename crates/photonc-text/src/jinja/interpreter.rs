//! Runs a template: statements, scopes and output. Expressions are `evaluate.rs`', calls `calls.rs`' affair.

use super::ast::{Applied, Block, Expr, ExprKind, For, Macro, Stmt, Target};
use super::attributes::Attributes;
use super::budget::{self, Buffer};
use super::date::Date;
use super::error::{Outcome, exceeds, fail};
use super::printing;
use super::value::{Closure, Loop, Scope, Value};
use super::walking;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Evaluations inside each other, calls of macros included.
const MAX_DEPTH: usize = 1500;

/// Steps that a scope of its own counts as.
const SCOPE_STEPS: usize = 8;

/// A run of a template.
pub struct Interpreter {
    /// Attributes of every namespace.
    pub namespaces: Vec<Attributes>,
    /// What `strftime_now` says.
    pub date: Option<Date>,
    pub(super) scope: Rc<Scope>,
    out: Buffer,
    depth: usize,
    /// Scopes that hold macros, which hold scopes: taken apart at the end.
    circular: Vec<Rc<Scope>>,
}

/// How statements end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Interpreter {
    /// A run with these variables.
    pub fn new(variables: Vec<(String, Value)>, date: Option<Date>) -> Self {
        let scope = Rc::new(Scope::default());
        for (name, value) in variables {
            scope.set(&name, value);
        }
        Interpreter {
            namespaces: Vec::new(),
            date,
            scope,
            out: Buffer::default(),
            depth: 0,
            circular: Vec::new(),
        }
    }

    /// What a template writes.
    pub fn render(&mut self, template: &Block) -> Outcome<String> {
        let done = self.block(template);
        for scope in self.circular.drain(..) {
            scope.own.borrow_mut().clear();
        }
        done?;
        Ok(std::mem::take(&mut self.out).into_string())
    }

    /// One level deeper, if that is allowed.
    pub(super) fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        budget::steps(1)?;
        if self.depth >= MAX_DEPTH {
            return exceeds("calls or expressions are nested too deeply: the template may never end");
        }
        self.depth += 1;
        let outcome = run(self);
        self.depth -= 1;
        outcome
    }

    /// Runs with variables of their own inside `outer`.
    pub(super) fn scoped<T>(
        &mut self,
        outer: &Rc<Scope>,
        run: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<T> {
        budget::steps(SCOPE_STEPS)?;
        let before = std::mem::replace(&mut self.scope, Scope::inside(outer));
        let outcome = run(self);
        self.scope = before;
        outcome
    }

    fn inside<T>(&mut self, run: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        let outer = Rc::clone(&self.scope);
        self.scoped(&outer, run)
    }

    /// What `run` writes, as a text, and how it ended.
    fn captured<T>(&mut self, run: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<(T, String)> {
        let before = std::mem::take(&mut self.out);
        let outcome = run(self);
        let written = std::mem::replace(&mut self.out, before).into_string();
        Ok((outcome?, written))
    }

    /// Runs what has the innermost variables for its own.
    fn block(&mut self, block: &Block) -> Outcome<Flow> {
        for name in &block.hidden {
            self.scope.set(name, unknown(name));
        }
        self.statements(&block.statements)
    }

    fn statements(&mut self, statements: &[Stmt]) -> Outcome<Flow> {
        for statement in statements {
            let flow = self.deeper(|run| run.statement(statement))?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &Stmt) -> Outcome<Flow> {
        match statement {
            Stmt::Text(text) => self.out.push(text)?,
            Stmt::Output(shown) => self.output(shown)?,
            Stmt::For(looping) => return self.for_statement(looping),
            Stmt::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.evaluate(condition)?.is_true() {
                        return self.statements(body);
                    }
                }
                return self.statements(otherwise);
            }
            Stmt::Set(target, value) => {
                let line = value.line;
                let value = self.evaluate(value)?;
                self.assign(target, value).map_err(|fault| fault.at(line))?;
            }
            Stmt::SetBlock(target, chain, body) => {
                let (flow, value) = self.inside(|run| run.filtered_block(chain, body))?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                self.assign(target, value)?;
            }
            Stmt::Macro(code) => {
                let closure = Closure { code: Rc::clone(code), scope: Rc::clone(&self.scope) };
                self.scope.set(&code.name, Value::Macro(Rc::new(closure)));
                if !self.circular.iter().any(|scope| Rc::ptr_eq(scope, &self.scope)) {
                    self.circular.push(Rc::clone(&self.scope));
                }
                budget::steps(self.circular.len())?;
            }
            Stmt::Call(body, call) => {
                let closure = Closure { code: Rc::clone(body), scope: Rc::clone(&self.scope) };
                let written = self.call_with(call, Value::Macro(Rc::new(closure)))?;
                printing::push_str(&written, &mut self.out)?;
            }
            Stmt::Filter(chain, body) => {
                let (flow, value) = self.inside(|run| run.filtered_block(chain, body))?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                printing::push_str(&value, &mut self.out)?;
            }
            Stmt::With(given, body) => return self.with(given, body),
            Stmt::Scoped(body) => return self.inside(|run| run.block(body)),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// `{{ shown }}`: marks of what is safe to show mean nothing here.
    fn output(&mut self, shown: &Expr) -> Outcome<()> {
        let mut value = shown;
        while let ExprKind::Filter(inner, filter) = &value.kind {
            if filter.name != "safe" {
                break;
            }
            value = inner;
        }
        let value = self.evaluate(value)?;
        printing::push_str(&value, &mut self.out).map_err(|fault| fault.at(shown.line))
    }

    fn with(&mut self, given: &[(Target, Expr)], body: &Block) -> Outcome<Flow> {
        // Values see the variables around, not each other.
        let values = given.iter().map(|(_, value)| self.evaluate(value)).collect::<Outcome<Vec<_>>>()?;
        self.inside(|run| {
            for ((target, _), value) in given.iter().zip(values) {
                run.assign(target, value)?;
            }
            run.block(body)
        })
    }

    /// What a block writes, after filters that see the block's variables.
    fn filtered_block(&mut self, chain: &[Applied], body: &Block) -> Outcome<(Flow, Value)> {
        let (flow, text) = self.captured(|run| run.block(body))?;
        if flow != Flow::On {
            return Ok((flow, Value::None));
        }
        Ok((flow, self.filtered(Value::text(text)?, chain)?))
    }

    fn filtered(&mut self, mut value: Value, chain: &[Applied]) -> Outcome<Value> {
        for filter in chain {
            let given = self.arguments(&filter.args)?;
            value = self.filter(&filter.name, value, given).map_err(|fault| fault.at(filter.line))?;
        }
        Ok(value)
    }

    fn assign(&mut self, target: &Target, value: Value) -> Outcome<()> {
        match target {
            Target::Name(name) => self.scope.set(name, value),
            Target::Attr(name, attribute) => {
                let Some(Value::Namespace(at)) = self.scope.get(name) else {
                    return fail("cannot assign attribute on non-namespace object");
                };
                if let Some(attributes) = self.namespaces.get_mut(at) {
                    attributes.insert(attribute.clone(), value);
                }
            }
            Target::Tuple(parts) => {
                let values = walking::items(&value)?;
                if values.len() != parts.len() {
                    return fail(format!("{} values for {} names", values.len(), parts.len()));
                }
                for (part, value) in parts.iter().zip(values.iter()) {
                    self.assign(part, value.clone())?;
                }
            }
        }
        Ok(())
    }

    fn for_statement(&mut self, looping: &Rc<For>) -> Outcome<Flow> {
        let walked = self.evaluate(&looping.iter)?;
        let scope = Rc::clone(&self.scope);
        self.walk(looping, &scope, &walked, 0).map_err(|fault| fault.at(looping.iter.line))
    }

    /// Walks a loop whose statement stands in `scope`.
    fn walk(&mut self, looping: &Rc<For>, scope: &Rc<Scope>, walked: &Value, depth: usize) -> Outcome<Flow> {
        let mut items = walking::items(walked)?.into_owned();
        if let Some(test) = &looping.test {
            let mut kept = Vec::new();
            for item in items {
                let holds = self.scoped(scope, |run| {
                    run.assign(&looping.target, item.clone())?;
                    run.evaluate(test)
                })?;
                if holds.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        budget::items_fit(items.len())?;
        let again = looping.recursive.then(|| (Rc::clone(looping), Rc::clone(scope)));
        let (at, last) = (Cell::new(0), RefCell::new(None));
        let state = Rc::new(Loop { items, at, depth, last, again });
        let mut finished = false;
        for at in 0..state.items.len() {
            state.at.set(at);
            let flow = self.scoped(scope, |run| {
                run.assign(&looping.target, state.items[at].clone())?;
                run.scope.set("loop", Value::Loop(Rc::clone(&state)));
                run.block(&looping.body)
            })?;
            match flow {
                Flow::On => finished = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        if finished || looping.otherwise.statements.is_empty() {
            return Ok(Flow::On);
        }
        // Python's `else` here is for loops none of whose rounds came to its end.
        self.scoped(scope, |run| run.block(&looping.otherwise))
    }

    /// `loop(walked)`
    pub(super) fn walk_again(&mut self, state: &Rc<Loop>, walked: &Value) -> Outcome<Value> {
        let Some((looping, scope)) = &state.again else {
            return fail("The loop must have the 'recursive' marker to be called recursively.");
        };
        let (_, written) = self.captured(|run| run.walk(looping, scope, walked, state.depth + 1))?;
        Value::text(written)
    }

    /// What a macro writes, given its parameters.
    pub(super) fn run_macro(
        &mut self,
        closure: &Closure,
        bind: impl FnOnce(&mut Self, &Macro) -> Outcome<()>,
    ) -> Outcome<Value> {
        let code = Rc::clone(&closure.code);
        let (_, written) = self.captured(|run| {
            run.scoped(&closure.scope, |run| {
                bind(run, &code)?;
                run.block(&code.body)
            })
        })?;
        Value::text(written)
    }
}

/// Why a variable has no value.
pub(super) fn unknown(name: &str) -> Value {
    Value::undefined(format!("'{name}' is undefined"))
}
