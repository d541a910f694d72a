//! Templates as trees. Every node knows its line; no tree is deeper than the parser allows.

use std::rc::Rc;

/// An expression.
#[derive(Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Line of the template, from 1.
    pub line: usize,
    /// Nodes from here to the deepest leaf.
    pub depth: usize,
}

/// Kinds of expressions.
#[derive(Debug)]
pub enum ExprKind {
    /// `none`
    None,
    /// `true`, `false`
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Str(String),
    /// A variable.
    Name(String),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `(a, b)`
    Tuple(Vec<Expr>),
    /// `{a: b}`
    Dict(Vec<(Expr, Expr)>),
    /// `a.b`
    Attr(Box<Expr>, String),
    /// `a[b]`
    Item(Box<Expr>, Box<Expr>),
    /// `a[b:c:d]`
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    /// `a(b)`
    Call(Box<Expr>, Box<Args>),
    /// `a|b(c)`
    Filter(Box<Expr>, Box<Applied>),
    /// `a is b(c)`
    Test(Box<Expr>, Box<Applied>),
    /// `not a`
    Not(Box<Expr>),
    /// `-a`
    Neg(Box<Expr>),
    /// `+a`
    Pos(Box<Expr>),
    /// `a and b`
    And(Box<Expr>, Box<Expr>),
    /// `a or b`
    Or(Box<Expr>, Box<Expr>),
    /// Arithmetic.
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// `a ~ b ~ c`
    Concat(Vec<Expr>),
    /// `a < b <= c`
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    /// `a if b else c`
    Cond(Box<[Expr; 2]>, Option<Box<Expr>>),
}

/// Arithmetic of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `//`
    FloorDiv,
    /// `%`
    Mod,
    /// `**`
    Pow,
}

/// Comparisons of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `in`
    In,
    /// `not in`
    NotIn,
}

/// Arguments of a call.
#[derive(Debug, Default)]
pub struct Args {
    /// By place.
    pub positional: Vec<Expr>,
    /// By name.
    pub keywords: Vec<(String, Expr)>,
    /// `*args`
    pub star: Option<Expr>,
    /// `**kwargs`
    pub double_star: Option<Expr>,
}

/// A filter or a test by its name.
#[derive(Debug)]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// What it is given beside the value.
    pub args: Args,
    /// Line of the template.
    pub line: usize,
}

/// What a value is assigned to.
#[derive(Debug)]
pub enum Target {
    /// A variable.
    Name(String),
    /// An attribute of a namespace.
    Attr(String, String),
    /// Several of them.
    Tuple(Vec<Target>),
}

impl Target {
    /// The variables that are assigned.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Target::Name(name) => vec![name],
            Target::Attr(..) => Vec::new(),
            Target::Tuple(parts) => parts.iter().flat_map(Target::names).collect(),
        }
    }
}

/// Statements with variables of their own.
#[derive(Debug)]
pub struct Block {
    /// What runs.
    pub statements: Vec<Stmt>,
    /// Variables that are nothing until they are assigned, whatever the template is given by that name.
    pub hidden: Vec<String>,
}

impl From<Vec<Stmt>> for Block {
    fn from(statements: Vec<Stmt>) -> Block {
        Block { statements, hidden: Vec::new() }
    }
}

/// A statement.
#[derive(Debug)]
pub enum Stmt {
    /// Text as it stands.
    Text(String),
    /// `{{ a }}`
    Output(Expr),
    /// `{% for %}`
    For(Rc<For>),
    /// `{% if %}`: conditions with what they guard, and what is left.
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    /// `{% set a = b %}`
    Set(Target, Expr),
    /// `{% set a %}..{% endset %}`
    SetBlock(Target, Vec<Applied>, Block),
    /// `{% macro %}`
    Macro(Rc<Macro>),
    /// `{% call(a) b() %}`: the body as a macro, and the call.
    Call(Rc<Macro>, Expr),
    /// `{% filter a %}`
    Filter(Vec<Applied>, Block),
    /// `{% with a = b %}`
    With(Vec<(Target, Expr)>, Block),
    /// `{% generation %}`: a scope of its own.
    Scoped(Block),
    /// `{% break %}`
    Break,
    /// `{% continue %}`
    Continue,
}

/// A loop.
#[derive(Debug)]
pub struct For {
    /// What each element is assigned to.
    pub target: Target,
    /// What is walked.
    pub iter: Expr,
    /// Which elements count.
    pub test: Option<Expr>,
    /// Whether `loop(..)` walks deeper.
    pub recursive: bool,
    /// For each element.
    pub body: Block,
    /// Where no element came to the end of the body.
    pub otherwise: Block,
}

/// A macro, or the body of a call.
#[derive(Debug)]
pub struct Macro {
    /// Its name; of the body of a call, `caller`.
    pub name: String,
    /// Parameters with their defaults.
    pub parameters: Vec<(String, Option<Expr>)>,
    /// What it writes.
    pub body: Block,
    /// Whether its body names `caller`.
    pub uses_caller: bool,
    /// Whether its body names `kwargs`.
    pub uses_kwargs: bool,
    /// Whether its body names `varargs`.
    pub uses_varargs: bool,
}
