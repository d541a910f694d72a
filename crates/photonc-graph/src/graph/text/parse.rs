//! Parsing. Owns the grammar and the errors with line and column; types are inferred by the graph as it grows.
//! After a broken line it goes on with the next, and uses of the value that is not there are passed over silently.

use super::line::{Line, Wrong};
use crate::graph::{Graph, NodeId, Scope};
use crate::ir::op::{Op, OpKind};
use crate::ir::shape::Type;
use std::collections::HashMap;
use std::fmt;

/// One error of a text and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Errors that are looked for: a text of garbage has as many as lines.
const MAX_ERRORS: usize = 100;

/// The errors found in a text, in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("graph text is not valid:{}", list(.0))]
pub struct ParseErrors(pub Vec<ParseError>);

fn list(errors: &[ParseError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

/// The graph of a text. It is typed, but not verified.
///
/// # Errors
/// Every line that does not parse, does not type, or names what is not there, at most 100 of them.
pub fn parse(text: &str) -> Result<Graph, ParseErrors> {
    let mut parser = Parser {
        graph: Graph::new(""),
        place: Place::Before,
        scope: Scope::new(""),
        values: HashMap::new(),
        delays: Vec::new(),
        errors: Vec::new(),
    };
    let mut last = 0;
    for (index, text) in text.lines().enumerate() {
        last = index;
        let mut line = Line::new(text);
        if line.is_empty() {
            continue;
        }
        if let Err(wrong) = parser.line(index, &mut line) {
            parser.report(index, wrong);
            if parser.errors.len() == MAX_ERRORS {
                return Err(ParseErrors(parser.errors));
            }
        }
    }
    parser.finish(last)
}

/// Where in the text the parser is.
#[derive(PartialEq)]
enum Place {
    Before,
    Inside,
    After,
}

/// A delay whose next state may stand below it.
struct Pending {
    delay: NodeId,
    next: Reference,
    line: usize,
}

/// Number of a value within its scope, and the column it stands at.
struct Reference {
    scope: Scope,
    number: usize,
    column: usize,
}

struct Parser {
    graph: Graph,
    place: Place,
    scope: Scope,
    /// Values by scope and number; `None` for one whose line is broken.
    values: HashMap<(Scope, usize), Option<NodeId>>,
    delays: Vec<Pending>,
    errors: Vec<ParseError>,
}

impl Parser {
    fn report(&mut self, line: usize, wrong: Wrong) {
        self.errors.push(ParseError { line: line + 1, column: wrong.column + 1, message: wrong.message });
    }

    fn line(&mut self, index: usize, line: &mut Line<'_>) -> Result<(), Wrong> {
        match self.place {
            Place::Before => {
                // A broken header still opens the graph, or every line below would be an error too.
                self.place = Place::Inside;
                self.header(line)
            }
            Place::Inside if line.eat("@") => self.enter(line),
            Place::Inside if line.eat("output") => self.output(line),
            Place::Inside if line.eat("}") => {
                self.place = Place::After;
                line.end()
            }
            Place::Inside => self.node(index, line),
            Place::After => Err(line.wrong("the end of the text")),
        }
    }

    fn header(&mut self, line: &mut Line<'_>) -> Result<(), Wrong> {
        line.expect("graph")?;
        let name = line.word("the name of the graph", |c| c.is_ascii_alphanumeric() || "_-.".contains(c))?;
        self.graph.set_name(name);
        line.expect("{")?;
        line.end()
    }

    fn enter(&mut self, line: &mut Line<'_>) -> Result<(), Wrong> {
        self.scope = if line.is_empty() {
            Scope::new("")
        } else {
            Scope::new(line.word("a scope of letters, digits, `_` and `.`", in_scope)?)
        };
        line.end()
    }

    fn output(&mut self, line: &mut Line<'_>) -> Result<(), Wrong> {
        let column = line.column();
        let name = line.quoted("the name of the output in quotes")?;
        line.expect("=")?;
        let reference = self.reference(line)?;
        line.end()?;
        if self.graph.output(name).is_some() {
            return Err(Wrong { column, message: format!("two outputs are called `{name}`") });
        }
        if let Some(node) = self.resolve(&reference)? {
            self.graph.set_output(name, node);
        }
        Ok(())
    }

    /// A node's line; its name is known afterwards, whether the rest is right or not.
    fn node(&mut self, index: usize, line: &mut Line<'_>) -> Result<(), Wrong> {
        let start = line.column();
        if !line.rest().starts_with('%') {
            return Err(line.wrong("a value `%..`, `@scope`, `output` or `}`"));
        }
        let name = self.reference(line)?;
        if name.scope != self.scope {
            let message = format!("found a value of scope `{}` below `@{}`", name.scope, self.scope);
            return Err(Wrong { column: start, message });
        }
        let key = (name.scope, name.number);
        if self.values.contains_key(&key) {
            return Err(Wrong { column: start, message: format!("value `%{}` is defined twice", key.1) });
        }
        let node = self.definition(index, line);
        // Only now, so that a value reading itself is told so.
        self.values.insert(key, node.as_ref().ok().copied().flatten());
        node.map(|_| ())
    }

    /// `= op{..} operands : type #label`; nothing if an operand's own line is broken.
    fn definition(&mut self, index: usize, line: &mut Line<'_>) -> Result<Option<NodeId>, Wrong> {
        line.expect("=")?;
        let column = line.column();
        let op = self.op(line)?;
        let node = match &op {
            Op::Delay { name, ty } => {
                line.expect("next")?;
                let next = self.reference(line)?;
                let delay = self.graph.add_delay(name, ty.clone(), &self.scope);
                self.delays.push(Pending { delay, next, line: index });
                Some(delay)
            }
            _ => match self.operands(line)? {
                Some(operands) => Some(self.graph.add(op, &operands, &self.scope).map_err(|error| {
                    Wrong { column, message: format!("`{}`: {}", error.op, error.source) }
                })?),
                None => None,
            },
        };
        self.declared_type(line, node)?;
        if line.eat("#") {
            let label = line.word("a label", |c| c.is_ascii_graphic())?;
            if let Some(node) = node {
                self.graph.set_label(node, label);
            }
        }
        line.end()?;
        Ok(node)
    }

    fn op(&self, line: &mut Line<'_>) -> Result<Op, Wrong> {
        let column = line.column();
        let name = line.word("the name of an operation", |c| c.is_ascii_alphanumeric() || c == '_')?;
        let Some(kind) = OpKind::from_name(name) else {
            let message = format!("found `{name}`, expected the name of an operation{}", nearest(name));
            return Err(Wrong { column, message });
        };
        let attributes = attributes(line, kind)?;
        let get =
            |wanted: &str| attributes.iter().find(|(name, _, _)| *name == wanted).map(|(_, text, _)| *text);
        Op::from_attributes(kind, get).map_err(|bad| {
            match attributes.iter().find(|(name, _, _)| *name == bad) {
                Some((_, text, column)) => {
                    Wrong { column: *column, message: format!("found `{text}`, expected a value of `{bad}`") }
                }
                None => Wrong { column, message: format!("`{name}` lacks its attribute `{bad}`") },
            }
        })
    }

    fn operands(&self, line: &mut Line<'_>) -> Result<Option<Vec<NodeId>>, Wrong> {
        let mut operands = Some(Vec::new());
        if !line.rest().starts_with('%') {
            return Ok(operands);
        }
        loop {
            let reference = self.reference(line)?;
            match self.resolve(&reference)? {
                Some(node) => operands.iter_mut().for_each(|operands| operands.push(node)),
                None => operands = None,
            }
            if !line.eat(",") {
                return Ok(operands);
            }
        }
    }

    fn declared_type(&self, line: &mut Line<'_>, node: Option<NodeId>) -> Result<(), Wrong> {
        if !line.eat(":") {
            return Ok(());
        }
        let column = line.column();
        let text = line.until(|c| c == '#');
        let Some(ty) = Type::parse(text) else {
            return Err(Wrong {
                column,
                message: format!("found `{text}`, expected a type like f32[batch, 4]"),
            });
        };
        match node {
            Some(node) if self.graph.ty(node) != &ty => {
                let message =
                    format!("found type {ty}, expected {}, which the operands give", self.graph.ty(node));
                Err(Wrong { column, message })
            }
            _ => Ok(()),
        }
    }

    /// `%3` of the scope at hand, or `%scope:3`.
    fn reference(&self, line: &mut Line<'_>) -> Result<Reference, Wrong> {
        let column = line.column();
        let wrong = |line: &Line<'_>| line.wrong("a value `%number` or `%scope:number`");
        if !line.eat("%") {
            return Err(wrong(line));
        }
        let text = line.word("a number or `scope:number`", |c| in_scope(c) || c == ':')?;
        let (scope, number) = match text.rsplit_once(':') {
            Some((scope, number)) => (Scope::new(scope), number),
            None => (self.scope.clone(), text),
        };
        match number.parse() {
            Ok(number) => Ok(Reference { scope, number, column }),
            Err(_) => Err(Wrong {
                column,
                message: format!("found `%{text}`, expected a value `%number` or `%scope:number`"),
            }),
        }
    }

    /// The node of a reference; nothing if its line is broken.
    fn resolve(&self, reference: &Reference) -> Result<Option<NodeId>, Wrong> {
        let Reference { scope, number, column } = reference;
        self.values.get(&(scope.clone(), *number)).copied().ok_or_else(|| Wrong {
            column: *column,
            message: format!("value `%{scope}:{number}` is not defined above"),
        })
    }

    fn finish(mut self, last: usize) -> Result<Graph, ParseErrors> {
        for Pending { delay, next, line } in std::mem::take(&mut self.delays) {
            let set = match self.resolve(&next) {
                Ok(Some(node)) => self.graph.set_next(delay, node).map_err(|error| Wrong {
                    column: next.column,
                    message: format!("`{}`: {}", error.op, error.source),
                }),
                Ok(None) => Ok(()),
                Err(_) => Err(Wrong {
                    column: next.column,
                    message: format!("value `%{}:{}` is not defined", next.scope, next.number),
                }),
            };
            if let Err(wrong) = set {
                self.report(line, wrong);
            }
        }
        let missing = match self.place {
            Place::Before => Some("`graph name {`"),
            Place::Inside => Some("`}`"),
            Place::After => None,
        };
        if let Some(expected) = missing {
            let message = format!("found the end of the text, expected {expected}");
            self.report(last, Wrong { column: 0, message });
        }
        if self.errors.is_empty() {
            return Ok(self.graph);
        }
        self.errors.sort_by_key(|error| (error.line, error.column));
        Err(ParseErrors(self.errors))
    }
}

fn in_scope(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// Names, texts and columns of `{name=text, ..}`; none if there are no braces.
fn attributes<'t>(line: &mut Line<'t>, kind: OpKind) -> Result<Vec<(&'t str, &'t str, usize)>, Wrong> {
    let mut found: Vec<(&str, &str, usize)> = Vec::new();
    if !line.eat("{") {
        return Ok(found);
    }
    while !line.eat("}") {
        if !found.is_empty() {
            line.expect(",")?;
        }
        let column = line.column();
        let name = line.word("the name of an attribute or `}`", |c| c.is_ascii_alphanumeric() || c == '_')?;
        let def = kind.def().name;
        if !kind.attribute_names().contains(&name) {
            let message = match kind.attribute_names() {
                [] => format!("`{def}` has no attributes, found `{name}`"),
                names => format!("`{def}` has no attribute `{name}`, expected {}", names.join(", ")),
            };
            return Err(Wrong { column, message });
        }
        if found.iter().any(|(other, _, _)| *other == name) {
            return Err(Wrong { column, message: format!("attribute `{name}` is given twice") });
        }
        line.expect("=")?;
        let column = line.column();
        found.push((name, line.until(|c| c == ',' || c == '}'), column));
    }
    Ok(found)
}

/// `, perhaps x` for a misspelt operation.
fn nearest(name: &str) -> String {
    let best = OpKind::ALL
        .iter()
        .map(|kind| kind.def().name)
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| distance * 2 < known.len());
    best.map(|(_, known)| format!(", perhaps `{known}`")).unwrap_or_default()
}
