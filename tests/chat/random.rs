//! Random templates: statements and expressions of the language over a few variables, whether or not they make sense.

use serde_json::{Value, json};

/// A stream of random numbers.
pub struct Random(u64);

const NAMES: [&str; 8] = ["a", "b", "ns.v", "message", "messages", "tools", "x", "loop"];

const FILTERS: [&str; 34] = [
    "trim",
    "upper",
    "lower",
    "length",
    "tojson",
    "string",
    "list",
    "first",
    "last",
    "join(', ')",
    "default('d')",
    "int",
    "float",
    "abs",
    "sort",
    "reverse",
    "unique",
    "title",
    "capitalize",
    "replace('a', 'bb')",
    "map(attribute='role')",
    "selectattr('role', 'equalto', 'user')",
    "select",
    "reject('none')",
    "items",
    "sum",
    "max",
    "min",
    "indent(2)",
    "tojson(indent=2)",
    "round(1)",
    "batch(2)",
    "dictsort",
    "safe",
];

const METHODS: [&str; 16] = [
    "strip()",
    "upper()",
    "split()",
    "split('a')",
    "startswith('a')",
    "endswith('.')",
    "replace('o', '0')",
    "title()",
    "items()",
    "keys()",
    "values()",
    "get('role')",
    "get('z', 1)",
    "role",
    "content",
    "splitlines()",
];

const TESTS: [&str; 12] = [
    "defined", "none", "string", "mapping", "iterable", "sequence", "number", "odd", "eq 1", "in 'abc'",
    "not none", "true",
];

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one<'v>(&mut self, of: &[&'v str]) -> &'v str {
        of[self.below(of.len())]
    }

    /// A conversation of strings, parts and nothing.
    pub fn messages(&mut self) -> Value {
        let count = self.below(4) + 1;
        let messages: Vec<Value> = (0..count)
            .map(|_| {
                let role = self.one(&["user", "assistant", "system", "tool"]);
                let content = match self.below(6) {
                    0 => Value::Null,
                    1 => json!([{"type": "text", "text": "part"}, 3, 2.5]),
                    2 => json!({"a": [1, 2], "b": false}),
                    3 => json!("  Ünï \n'quoted' \"text\" <b>&🦀\t"),
                    _ => json!("a plain text. "),
                };
                json!({"role": role, "content": content})
            })
            .collect();
        Value::Array(messages)
    }

    /// A template.
    pub fn template(&mut self) -> String {
        let mut out = String::from(
            "{% set ns = namespace(v=1) %}{% set a = messages[0].content %}{% set b = [1, 'b', none] %}\n",
        );
        self.statements(3, &mut out);
        out
    }

    fn statements(&mut self, depth: usize, out: &mut String) {
        for _ in 0..=self.below(4) {
            self.statement(depth, out);
        }
    }

    fn tag(&mut self, inside: &str) -> String {
        let (begin, end) = (self.one(&["{%", "{%", "{%-"]), self.one(&["%}", "%}", "-%}", "%}\n"]));
        format!("{}{begin} {inside} {end}", self.one(&["", "", "  ", "\n", "\n  "]))
    }

    fn statement(&mut self, depth: usize, out: &mut String) {
        let kind = if depth == 0 { self.below(3) } else { self.below(12) };
        match kind {
            0 => out.push_str(self.one(&["text ", "\n", "  \n", "{# comment #}\n", "user: ", "{}", "\r\n"])),
            1 | 2 => {
                let shown = self.expression(3);
                let (begin, end) = (self.one(&["{{ ", "{{- "]), self.one(&[" }}", " -}}", " }}\n"]));
                out.push_str(&format!("{begin}{shown}{end}"));
            }
            3 | 4 => {
                let condition = self.expression(2);
                out.push_str(&self.tag(&format!("if {condition}")));
                self.statements(depth - 1, out);
                if self.below(2) == 0 {
                    out.push_str(&self.tag("else"));
                    self.statements(depth - 1, out);
                }
                out.push_str(&self.tag("endif"));
            }
            5 | 6 => {
                let walked = match self.below(3) {
                    0 => self.expression(1),
                    1 => "range(3)".to_owned(),
                    _ => "messages".to_owned(),
                };
                let target = self.one(&["message", "x", "message", "a, b"]);
                out.push_str(&self.tag(&format!("for {target} in {walked}")));
                self.statements(depth - 1, out);
                if self.below(4) == 0 {
                    let ends = self.one(&[
                        "if loop.first %}{% continue %}{% endif",
                        "if loop.index > 1 %}{% break %}{% endif",
                    ]);
                    out.push_str(&format!("{{% {ends} %}}"));
                }
                self.statements(depth - 1, out);
                if self.below(4) == 0 {
                    out.push_str(&self.tag("else"));
                    self.statements(depth - 1, out);
                }
                out.push_str(&self.tag("endfor"));
            }
            7 | 8 => {
                let (name, value) = (self.one(&["a", "b", "x", "ns.v"]), self.expression(2));
                out.push_str(&self.tag(&format!("set {name} = {value}")));
            }
            9 => {
                out.push_str(&self.tag("set x"));
                self.statements(depth - 1, out);
                out.push_str(&self.tag("endset"));
            }
            10 => {
                let value = self.expression(1);
                out.push_str("{% macro m(a, x='d') %}");
                self.statements(depth - 1, out);
                out.push_str(&format!("{{% endmacro %}}{{{{ m({value}) }}}}"));
            }
            _ => {
                out.push_str(&self.tag("generation"));
                self.statements(depth - 1, out);
                out.push_str(&self.tag("endgeneration"));
            }
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        let kind = if depth == 0 { self.below(4) } else { self.below(14) };
        match kind {
            0 | 1 => self.one(&NAMES).to_owned(),
            2 => self
                .one(&[
                    "0", "1", "2", "-3", "1.5", "true", "none", "[]", "{}", "[1, 2]", "(1, 'a')", "{'k': 1}",
                ])
                .to_owned(),
            3 => self.one(&["'a'", "''", "'a b'", "'é\\n'", "\"it's\"", "'user'"]).to_owned(),
            4 | 5 => {
                let value = self.expression(depth - 1);
                format!("({value})|{}", self.one(&FILTERS))
            }
            6 => {
                let value = self.expression(depth - 1);
                format!("({value}).{}", self.one(&METHODS))
            }
            7 => {
                let (value, key) = (self.expression(depth - 1), self.expression(0));
                format!("({value})[{key}]")
            }
            8 => {
                let value = self.expression(depth - 1);
                format!("{value} is {}", self.one(&TESTS))
            }
            9 => {
                let (a, b, c) = (self.expression(depth - 1), self.expression(0), self.expression(0));
                format!("({a} if {b} else {c})")
            }
            10 => {
                let value = self.expression(depth - 1);
                format!("({value})[{}]", self.one(&["0", "-1", "1:", ":2", "::-1", "'role'", "'content'"]))
            }
            _ => {
                let (left, right) = (self.expression(depth - 1), self.expression(0));
                let how =
                    self.one(&["+", "~", "==", "!=", "and", "or", "in", "%", "*", "<", "not in", "-", "//"]);
                format!("{left} {how} {right}")
            }
        }
    }

    fn name(&mut self) -> &'static str {
        self.one(&["a", "b", "tools", "x", "bos_token"])
    }

    fn known(&mut self) -> String {
        match self.below(10) {
            0..6 => self.name().to_owned(),
            6 | 7 => self.one(&["1", "'s'", "none", "[1, 2]"]).to_owned(),
            8 => format!("({} or {})", self.name(), self.name()),
            _ => format!("({} is defined)", self.name()),
        }
    }

    /// Statements that assign and read a few names, some of which a template is given, in blocks of every kind.
    pub fn scopes(&mut self, depth: usize) -> String {
        (0..=self.below(3)).map(|_| self.scope(depth)).collect()
    }

    fn scope(&mut self, depth: usize) -> String {
        let (name, value) = (self.name(), self.known());
        let kind = if depth == 0 { self.below(5) } else { self.below(14) };
        if kind <= 1 {
            return format!("[{{{{ {value} }}}}]");
        }
        if kind <= 4 {
            return format!("{{% set {name} = {value} %}}");
        }
        let inner = self.scopes(depth - 1);
        match kind {
            5 | 6 => {
                let otherwise = self.scopes(depth - 1);
                format!("{{% if {value} %}}{inner}{{% else %}}{otherwise}{{% endif %}}")
            }
            7 | 8 => {
                let target = self.one(&["x", "a", "i"]);
                let walked = self.one(&["[1, 2]", "messages", "[]", "tools", "a"]);
                let test = self.one(&["", "", "", " if bos_token", " if x"]);
                let otherwise = self.one(&["", "{% else %}{{ tools }}{% set tools = 1 %}"]);
                format!("{{% for {target} in {walked}{test} %}}{inner}{otherwise}{{% endfor %}}")
            }
            9 => format!("{{% with {name} = {value} %}}{inner}{{% endwith %}}"),
            10 => format!("{{% set {name} %}}{inner}{{% endset %}}"),
            11 => {
                let parameters = self.one(&["", "x", "x=a", "a, b=x"]);
                let given = self.one(&["", "1"]);
                format!("{{% macro m({parameters}) %}}{inner}{{% endmacro %}}{{{{ m({given}) }}}}")
            }
            12 => format!("{{% filter replace('1', {value}) %}}{inner}{{% endfilter %}}"),
            _ => format!("{{% generation %}}{inner}{{% endgeneration %}}"),
        }
    }
}
