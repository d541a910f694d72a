//! `format % values`: Python's formatting by percent signs.

use super::budget::Buffer;
use super::error::{Outcome, fail};
use super::numbers::{self, MAX_WIDTH};
use super::printing;
use super::value::Value;

/// One conversion: `%-08.3f`.
#[derive(Default)]
struct Conversion {
    left: bool,
    plus: bool,
    blank: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

/// The values that are left.
struct Values<'v> {
    given: &'v Value,
    used: usize,
    by_name: bool,
}

impl Values<'_> {
    fn next(&mut self) -> Outcome<Value> {
        let next = match self.given {
            Value::Tuple(items) => items.items.get(self.used).cloned(),
            other if self.used == 0 => Some(other.clone()),
            _ => None,
        };
        self.used += 1;
        next.map_or_else(|| fail("not enough arguments for format string"), Ok)
    }

    fn named(&mut self, name: &str) -> Outcome<Value> {
        self.by_name = true;
        let Value::Dict(dict) = self.given else { return fail("format requires a mapping") };
        let found = dict.entries.get(&Value::text(name)?.key()?);
        found.map_or_else(|| fail(format!("the format asks for '{name}'")), |(_, value)| Ok(value.clone()))
    }
}

/// `format % given`
pub fn format(format: &str, given: &Value) -> Outcome<String> {
    let mut out = Buffer::default();
    let mut values = Values { given, used: 0, by_name: false };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push(&rest[..at])?;
        rest = &rest[at + 1..];
        let mut named = None;
        if let Some(inside) = rest.strip_prefix('(') {
            let Some(end) = inside.find(')') else { return fail("incomplete format key") };
            if inside[..end].contains('(') {
                return fail("a format key with parentheses is not supported");
            }
            named = Some(values.named(&inside[..end])?);
            rest = &inside[end + 1..];
        }
        let conversion = Conversion::read(&mut rest, &mut values)?;
        let Some(code) = rest.chars().next() else { return fail("incomplete format") };
        rest = &rest[code.len_utf8()..];
        if code == '%' {
            out.push("%")?;
            continue;
        }
        let value = named.map_or_else(|| values.next(), Ok)?;
        conversion.push(code, &value, &mut out)?;
    }
    out.push(rest)?;
    let all = match given {
        Value::Tuple(items) => values.used >= items.items.len(),
        // One value may be a mapping whose names nobody asks for.
        Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) => true,
        _ => values.used > 0 || values.by_name,
    };
    if all { Ok(out.into_string()) } else { fail("not all arguments converted during string formatting") }
}

impl Conversion {
    fn read(rest: &mut &str, values: &mut Values<'_>) -> Outcome<Self> {
        let mut conversion = Conversion::default();
        loop {
            let flag = match rest.as_bytes().first() {
                Some(b'-') => &mut conversion.left,
                Some(b'+') => &mut conversion.plus,
                Some(b' ') => &mut conversion.blank,
                Some(b'0') => &mut conversion.zero,
                Some(b'#') => &mut conversion.alternate,
                _ => break,
            };
            *flag = true;
            *rest = &rest[1..];
        }
        if let Some(width) = count(rest, values)? {
            conversion.left |= width < 0;
            conversion.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        }
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
            let precision = count(rest, values)?.unwrap_or(0).max(0);
            conversion.precision = Some(usize::try_from(precision).unwrap_or(usize::MAX));
        }
        *rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        if conversion.width > MAX_WIDTH || conversion.precision.is_some_and(|most| most > MAX_WIDTH) {
            return fail("a width or precision in a format is too large");
        }
        Ok(conversion)
    }

    fn push(&self, code: char, value: &Value, out: &mut Buffer) -> Outcome<()> {
        match code {
            's' | 'r' | 'a' => {
                let mut text = Buffer::default();
                match code {
                    's' => printing::push_str(value, &mut text)?,
                    'r' => printing::push_repr(value, &mut text)?,
                    _ => return fail("%a is not supported"),
                }
                let text = text.into_string();
                let end = self.precision.and_then(|most| text.char_indices().nth(most));
                self.pad("", end.map_or(&text[..], |(end, _)| &text[..end]), false, out)
            }
            'c' => match (value.as_str(), value.as_int()) {
                (Some(text), _) if text.chars().count() == 1 => self.pad("", text, false, out),
                (_, Some(code)) => {
                    let character = u32::try_from(code).ok().and_then(char::from_u32);
                    let Some(character) = character else { return fail("%c arg not in range") };
                    self.pad("", &character.to_string(), false, out)
                }
                _ => fail("%c requires int or char"),
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => self.integer(code, value, out),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let Some(number) = value.as_float() else {
                    return fail(format!("must be real number, not {}", value.kind()));
                };
                let text = numbers::float(number, code, self.precision.unwrap_or(6), self.alternate)?;
                let (negative, digits) = text.strip_prefix('-').map_or((false, &text[..]), |d| (true, d));
                self.pad(self.sign(negative), digits, true, out)
            }
            other => fail(format!("unsupported format character {other:?}")),
        }
    }

    fn integer(&self, code: char, value: &Value, out: &mut Buffer) -> Outcome<()> {
        let number = match (value.as_int(), value) {
            (Some(number), _) => number,
            (None, Value::Float(number)) if "diu".contains(code) && number.abs() < 1e30 => *number as i128,
            _ => return fail(format!("%{code} format: a number is required, not {}", value.kind())),
        };
        let mut digits = numbers::integer(number, code);
        if let Some(least) = self.precision {
            digits = "0".repeat(least.saturating_sub(digits.len())) + &digits;
        }
        let mut sign = self.sign(number < 0).to_owned();
        if self.alternate && !"diu".contains(code) {
            sign = format!("{sign}0{code}");
        }
        self.pad(&sign, &digits, true, out)
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.blank) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    fn pad(&self, sign: &str, text: &str, number: bool, out: &mut Buffer) -> Outcome<()> {
        let missing = self.width.saturating_sub(sign.chars().count() + text.chars().count());
        let zeros = self.zero && number && !self.left;
        if !self.left && !zeros {
            out.push_times(" ", missing)?;
        }
        out.push(sign)?;
        if zeros {
            out.push_times("0", missing)?;
        }
        out.push(text)?;
        if self.left {
            out.push_times(" ", missing)?;
        }
        Ok(())
    }
}

/// A number or `*`, which takes it from the values.
fn count(rest: &mut &str, values: &mut Values<'_>) -> Outcome<Option<i128>> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        let value = values.next()?;
        return value.as_int().map_or_else(|| fail("* wants int"), |count| Ok(Some(count)));
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let digits = &rest[..end];
    *rest = &rest[end..];
    if digits.len() > 9 {
        return fail("a width or precision in a format is too large");
    }
    Ok(digits.parse().ok())
}
