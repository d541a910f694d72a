//! `format.format(values)`: Python's formatting by braces, without the attributes and parts of what is formatted.

use super::budget::Buffer;
use super::error::{Outcome, fail};
use super::given::Given;
use super::numbers::{self, MAX_WIDTH};
use super::printing;
use super::value::Value;

/// `format.format(given)`
pub fn format(format: &str, given: &Given) -> Outcome<String> {
    let mut out = Buffer::default();
    let mut next = Some(0);
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push(brace)?;
            rest = after;
            continue;
        }
        let Some(end) = rest.find(['{', '}']).filter(|_| brace == "{") else {
            return fail(format!("single '{brace}' encountered in format string"));
        };
        if rest[end..].starts_with('{') {
            return fail("a format inside a format is not supported");
        }
        field(&rest[..end], given, &mut next, &mut out)?;
        rest = &rest[end + 1..];
    }
    out.push(rest)?;
    Ok(out.into_string())
}

/// Writes `name!conversion:spec`. `next` is the value that a field without a name takes; `None` once one had a number.
fn field(field: &str, given: &Given, next: &mut Option<usize>, out: &mut Buffer) -> Outcome<()> {
    let (head, spec) = field.split_once(':').unwrap_or((field, ""));
    let (name, conversion) = head.split_once('!').map_or((head, None), |(name, how)| (name, Some(how)));
    let numbered = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let found = if name.is_empty() || numbered {
        let at = match (name.parse::<usize>().ok(), *next) {
            (None, Some(at)) => {
                *next = Some(at + 1);
                at
            }
            (Some(at), None | Some(0)) => {
                *next = None;
                at
            }
            _ => return fail("fields of a format are numbered by hand or by place, not both"),
        };
        given.positional.get(at)
    } else if name.contains(['.', '[']) {
        return fail(format!("the attribute or part in the format field '{name}' is not supported"));
    } else {
        given.keywords.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    };
    let Some(value) = found else { return fail(format!("the format asks for '{name}'")) };
    match conversion {
        None => formatted(value, spec, out),
        Some("s") => formatted(&Value::text(printing::to_str(value)?)?, spec, out),
        Some("r") => {
            let mut text = Buffer::default();
            printing::push_repr(value, &mut text)?;
            formatted(&Value::text(text.into_string())?, spec, out)
        }
        Some(other) => fail(format!("the conversion '!{other}' is not supported")),
    }
}

/// `[[fill]align][sign][#][0][width][,][.precision][type]`
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    code: Option<char>,
}

fn formatted(value: &Value, spec: &str, out: &mut Buffer) -> Outcome<()> {
    if spec.is_empty() {
        return printing::push_str(value, out);
    }
    let spec = Spec::read(spec)?;
    match value {
        Value::Str(text) if matches!(spec.code, None | Some('s')) => {
            if spec.sign.is_some() || spec.group.is_some() || spec.alternate || spec.align == Some('=') {
                return fail("a format of numbers for a string");
            }
            let end = spec.precision.and_then(|most| text.text.char_indices().nth(most));
            spec.pad("", end.map_or(&text.text[..], |(end, _)| &text.text[..end]), '<', out)
        }
        Value::Int(_) | Value::Bool(_) if matches!(spec.code, Some('b' | 'd' | 'o' | 'x' | 'X')) => {
            spec.integer(value.as_int().unwrap_or_default(), out)
        }
        Value::Int(number) if spec.code.is_none() => spec.integer(*number, out),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
            let number = value.as_float().unwrap_or_default();
            let (number, code, after) = match spec.code {
                Some('%') => (number * 100.0, 'f', "%"),
                Some(code @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')) => (number, code, ""),
                _ => return fail("this format of a number is not supported"),
            };
            let text = numbers::float(number, code, spec.precision.unwrap_or(6), spec.alternate)?;
            let (negative, digits) = text.strip_prefix('-').map_or((false, &text[..]), |d| (true, d));
            let digits = spec.group.map_or_else(|| digits.to_owned(), |by| numbers::grouped(digits, by));
            spec.pad(spec.signed(negative), &(digits + after), '>', out)
        }
        other => fail(format!("unsupported format string passed to {}.__format__", other.kind())),
    }
}

impl Spec {
    fn read(text: &str) -> Outcome<Spec> {
        let mut spec = Spec::default();
        let mut rest = text;
        let is_align = |c: &char| "<>=^".contains(*c);
        let mut begin = text.chars();
        let (first, second) = (begin.next(), begin.next());
        if let (Some(fill), Some(align)) = (first, second.filter(is_align)) {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            rest = begin.as_str();
        } else if let Some(align) = first.filter(is_align) {
            spec.align = Some(align);
            rest = &text[1..];
        }
        if let Some(sign) = rest.chars().next().filter(|c| "+- ".contains(*c)) {
            spec.sign = Some(sign);
            rest = &rest[1..];
        }
        if let Some(after) = rest.strip_prefix('#') {
            spec.alternate = true;
            rest = after;
        }
        if let Some(after) = rest.strip_prefix('0') {
            spec.fill = spec.fill.or(Some('0'));
            spec.align = spec.align.or(Some('='));
            rest = after;
        }
        spec.width = leading_number(&mut rest)?.unwrap_or(0);
        if let Some(group) = rest.chars().next().filter(|c| ",_".contains(*c)) {
            spec.group = Some(group);
            rest = &rest[1..];
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            spec.precision = leading_number(&mut rest)?;
            if spec.precision.is_none() {
                return fail("format specifier missing precision");
            }
        }
        let mut rest = rest.chars();
        spec.code = rest.next();
        if rest.next().is_some() || (spec.group.is_some() && spec.align == Some('=')) {
            return fail(format!("the format '{text}' is not supported"));
        }
        Ok(spec)
    }

    fn integer(&self, number: i128, out: &mut Buffer) -> Outcome<()> {
        let code = self.code.unwrap_or('d');
        if self.precision.is_some() || (self.group.is_some() && code != 'd') {
            return fail("this format of an integer is not supported");
        }
        let digits = numbers::integer(number, code);
        let digits = self.group.map_or_else(|| digits.clone(), |by| numbers::grouped(&digits, by));
        let sign = self.signed(number < 0);
        let prefix = if self.alternate && code != 'd' { format!("{sign}0{code}") } else { sign.to_owned() };
        self.pad(&prefix, &digits, '>', out)
    }

    fn signed(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (_, Some('+')) => "+",
            (_, Some(' ')) => " ",
            _ => "",
        }
    }

    fn pad(&self, sign: &str, text: &str, default: char, out: &mut Buffer) -> Outcome<()> {
        let missing = self.width.saturating_sub(sign.chars().count() + text.chars().count());
        let fill = self.fill.unwrap_or(' ').to_string();
        let align = self.align.unwrap_or(default);
        let before = match align {
            '<' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        if align != '=' {
            out.push_times(&fill, before)?;
        }
        out.push(sign)?;
        if align == '=' {
            out.push_times(&fill, before)?;
        }
        out.push(text)?;
        out.push_times(&fill, missing - before)
    }
}

fn leading_number(rest: &mut &str) -> Outcome<Option<usize>> {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let digits = &rest[..end];
    *rest = &rest[end..];
    match digits.parse() {
        Ok(number) if number > MAX_WIDTH => fail("a width or precision in a format is too large"),
        Ok(number) => Ok(Some(number)),
        Err(_) if digits.is_empty() => Ok(None),
        Err(_) => fail("a width or precision in a format is too large"),
    }
}
