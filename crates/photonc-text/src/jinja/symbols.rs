//! Which variables are nothing until they are assigned. Jinja2 decides before a template runs where each name lives: a block
//! with variables of its own in which a name is assigned before it is read, and around which nobody knows the name, has that
//! name for itself from its beginning. Whatever the template is given by that name is out of sight there, blocks inside
//! included, even before the assignment.

use super::ast::{Applied, Args, Block, Expr, ExprKind, For, Macro, Stmt, Target};
use super::error::{Fault, Outcome};
use std::collections::HashSet;
use std::rc::Rc;

/// Notes in a template and all its blocks which variables are hidden.
pub fn hide(template: &mut Block) -> Outcome<()> {
    let mut symbols = Symbols { blocks: Vec::new(), hidden: Vec::new() };
    symbols.block(template, &[], |_| {})
}

/// Names that blocks know, innermost block last.
struct Symbols {
    blocks: Vec<HashSet<String>>,
    /// Hidden names of the innermost block.
    hidden: Vec<String>,
}

impl Symbols {
    fn knows(&self, name: &str) -> bool {
        self.blocks.iter().any(|block| block.contains(name))
    }

    fn load(&mut self, name: &str) {
        if !self.knows(name) {
            self.declare(name);
        }
    }

    fn declare(&mut self, name: &str) {
        if let Some(block) = self.blocks.last_mut() {
            block.insert(name.to_owned());
        }
    }

    /// An assignment; one that may not happen begins with what is given.
    fn store(&mut self, name: &str, certain: bool) {
        if certain && !self.knows(name) {
            self.hidden.push(name.to_owned());
        }
        self.declare(name);
    }

    fn target(&mut self, target: &Target, certain: bool) {
        match target {
            Target::Name(name) => self.store(name, certain),
            Target::Attr(name, _) => self.load(name),
            Target::Tuple(parts) => parts.iter().for_each(|part| self.target(part, certain)),
        }
    }

    fn read(&mut self, expr: &Expr) {
        names(expr, &mut |name| self.load(name));
    }

    fn chain(&mut self, chain: &[Applied]) {
        for filter in chain {
            names_of(&filter.args, &mut |name| self.load(name));
        }
    }

    /// A block with its parameters, what its head reads, and the blocks inside it.
    fn block(&mut self, block: &mut Block, parameters: &[&str], tail: impl FnOnce(&mut Self)) -> Outcome<()> {
        self.blocks.push(HashSet::new());
        self.hidden.clear();
        parameters.iter().for_each(|name| self.declare(name));
        self.statements(&block.statements, true);
        tail(self);
        block.hidden = std::mem::take(&mut self.hidden);
        let done = self.inner(&mut block.statements);
        self.blocks.pop();
        done
    }

    /// What the statements of one block know, blocks inside it left out.
    fn statements(&mut self, statements: &[Stmt], certain: bool) {
        for statement in statements {
            match statement {
                Stmt::Output(shown) => self.read(shown),
                Stmt::For(looping) => self.read(&looping.iter),
                Stmt::If(branches, otherwise) => {
                    for (condition, body) in branches {
                        self.read(condition);
                        self.statements(body, false);
                    }
                    self.statements(otherwise, false);
                }
                Stmt::Set(target, value) => {
                    self.read(value);
                    self.target(target, certain);
                }
                Stmt::SetBlock(target, ..) => self.target(target, certain),
                Stmt::Macro(code) => self.store(&code.name, certain),
                Stmt::Call(_, call) => self.read(call),
                Stmt::Filter(chain, _) => self.chain(chain),
                Stmt::With(given, _) => given.iter().for_each(|(_, value)| self.read(value)),
                Stmt::Text(_) | Stmt::Scoped(_) | Stmt::Break | Stmt::Continue => {}
            }
        }
    }

    fn inner(&mut self, statements: &mut [Stmt]) -> Outcome<()> {
        for statement in statements {
            match statement {
                Stmt::If(branches, otherwise) => {
                    for (_, body) in branches {
                        self.inner(body)?;
                    }
                    self.inner(otherwise)?;
                }
                Stmt::For(looping) => self.looping(looping)?,
                Stmt::SetBlock(_, chain, body) => self.set_block(chain, body)?,
                Stmt::Macro(code) | Stmt::Call(code, _) => self.code(code)?,
                Stmt::Filter(chain, body) => self.block(body, &[], |inside| inside.chain(chain))?,
                Stmt::With(given, body) => {
                    let given: Vec<&str> = given.iter().flat_map(|(target, _)| target.names()).collect();
                    self.block(body, &given, |_| {})?;
                }
                Stmt::Scoped(body) => self.block(body, &[], |_| {})?,
                Stmt::Text(_) | Stmt::Output(_) | Stmt::Set(..) | Stmt::Break | Stmt::Continue => {}
            }
        }
        Ok(())
    }

    fn looping(&mut self, looping: &mut Rc<For>) -> Outcome<()> {
        let Some(For { target, body, otherwise, .. }) = Rc::get_mut(looping) else { return Ok(()) };
        let mut given = target.names();
        given.push("loop");
        self.block(body, &given, |_| {})?;
        self.block(otherwise, &[], |_| {})
    }

    fn code(&mut self, code: &mut Rc<Macro>) -> Outcome<()> {
        let Some(Macro { parameters, body, uses_caller, uses_kwargs, uses_varargs, .. }) = Rc::get_mut(code)
        else {
            return Ok(());
        };
        let mut given: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        let special = [(*uses_caller, "caller"), (*uses_kwargs, "kwargs"), (*uses_varargs, "varargs")];
        given.extend(special.into_iter().filter(|(used, _)| *used).map(|(_, name)| name));
        let defaults: Vec<String> = {
            let mut read = Vec::new();
            for default in parameters.iter().filter_map(|(_, default)| default.as_ref()) {
                names(default, &mut |name| read.push(name.to_owned()));
            }
            read
        };
        // Defaults are read inside, before the body: names that nobody around knows are the macro's own.
        given.extend(defaults.iter().map(String::as_str).filter(|name| !self.knows(name)));
        self.block(body, &given, |_| {})
    }

    /// Jinja2 looks for what the filters of a set block are given where only the block's own names are known.
    fn set_block(&mut self, chain: &[Applied], body: &mut Block) -> Outcome<()> {
        let mut unknown = None;
        self.block(body, &[], |inside| {
            for filter in chain {
                names_of(&filter.args, &mut |name| {
                    if !inside.knows(name) {
                        unknown.get_or_insert((filter.line, name.to_owned()));
                    }
                });
            }
        })?;
        match unknown {
            Some((line, name)) => {
                let message = format!("`{name}` is not known to the filters of a set block; name it before");
                Err(Fault::syntax(line, message))
            }
            None => Ok(()),
        }
    }
}

/// Calls `see` with every variable that an expression reads, in its order.
fn names(expr: &Expr, see: &mut dyn FnMut(&str)) {
    match &expr.kind {
        ExprKind::None | ExprKind::Bool(_) | ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) => {}
        ExprKind::Name(name) => see(name),
        ExprKind::List(parts) | ExprKind::Tuple(parts) | ExprKind::Concat(parts) => {
            parts.iter().for_each(|part| names(part, see));
        }
        ExprKind::Dict(entries) => {
            for (key, value) in entries {
                names(key, see);
                names(value, see);
            }
        }
        ExprKind::Attr(value, _) | ExprKind::Not(value) | ExprKind::Neg(value) | ExprKind::Pos(value) => {
            names(value, see);
        }
        ExprKind::Item(left, right)
        | ExprKind::And(left, right)
        | ExprKind::Or(left, right)
        | ExprKind::Binary(_, left, right) => {
            names(left, see);
            names(right, see);
        }
        ExprKind::Slice(value, bounds) => {
            names(value, see);
            bounds.iter().flatten().for_each(|bound| names(bound, see));
        }
        ExprKind::Call(value, args) => {
            names(value, see);
            names_of(args, see);
        }
        ExprKind::Filter(value, applied) | ExprKind::Test(value, applied) => {
            names(value, see);
            names_of(&applied.args, see);
        }
        ExprKind::Compare(first, rest) => {
            names(first, see);
            rest.iter().for_each(|(_, value)| names(value, see));
        }
        ExprKind::Cond(parts, otherwise) => {
            parts.iter().for_each(|part| names(part, see));
            if let Some(otherwise) = otherwise {
                names(otherwise, see);
            }
        }
    }
}

fn names_of(args: &Args, see: &mut dyn FnMut(&str)) {
    args.positional.iter().for_each(|value| names(value, see));
    args.keywords.iter().for_each(|(_, value)| names(value, see));
    args.star.iter().chain(&args.double_star).for_each(|value| names(value, see));
}
