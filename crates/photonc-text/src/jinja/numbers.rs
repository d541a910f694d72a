//! Numbers as text, as Python's format codes write them.

use super::error::{Outcome, fail};

/// Precision and width beyond which nothing sensible is asked for.
pub const MAX_WIDTH: usize = 10_000;

/// `e`, `f` and `g`, upper case for upper-case letters; `alternate` keeps the point and trailing zeros.
pub fn float(number: f64, code: char, precision: usize, alternate: bool) -> Outcome<String> {
    if precision > MAX_WIDTH {
        return fail(format!("a precision of {precision} is too large"));
    }
    let lower = code.to_ascii_lowercase();
    let mut text = if !number.is_finite() {
        if number.is_nan() { "nan" } else { "inf" }.to_owned()
    } else {
        let number = number.abs();
        match lower {
            'f' => fixed(number, precision, alternate),
            'e' => exponential(number, precision, alternate),
            _ => general(number, precision.max(1), alternate),
        }
    };
    if code.is_ascii_uppercase() {
        text.make_ascii_uppercase();
    }
    if number.is_sign_negative() && !number.is_nan() {
        text.insert(0, '-');
    }
    Ok(text)
}

fn fixed(number: f64, precision: usize, alternate: bool) -> String {
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{number:.precision$}{point}")
}

fn exponential(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |small| ('-', small));
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{sign}{exponent:0>2}")
}

/// The shorter of both forms with `precision` digits.
fn general(number: f64, precision: usize, alternate: bool) -> String {
    let text = exponential(number, precision - 1, false);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') && !alternate {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", trimmed(digits));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&fixed(number, decimals, alternate))
}

/// An integer in base 2, 8, 10 or 16 by its code, without its sign.
pub fn integer(number: i128, code: char) -> String {
    let size = number.unsigned_abs();
    match code {
        'b' => format!("{size:b}"),
        'o' => format!("{size:o}"),
        'x' => format!("{size:x}"),
        'X' => format!("{size:X}"),
        _ => size.to_string(),
    }
}

/// Digits with `separator` between groups of three.
pub fn grouped(digits: &str, separator: char) -> String {
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let mut out = String::new();
    for (at, digit) in digits[..end].chars().enumerate() {
        if at > 0 && (end - at) % 3 == 0 {
            out.push(separator);
        }
        out.push(digit);
    }
    out + &digits[end..]
}
