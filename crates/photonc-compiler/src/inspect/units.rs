//! Numbers for people: three digits and a unit, decimal (1 KB is 1000 bytes).

/// A count with a decimal prefix: `1.29 G`.
pub(super) fn si(value: f64) -> String {
    const PREFIXES: [(f64, &str); 5] = [(1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " K")];
    match PREFIXES.iter().find(|(scale, _)| value.abs() >= scale * 0.9995) {
        Some((scale, prefix)) => format!("{}{prefix}", three_digits(value / scale)),
        None if value.fract() == 0.0 => format!("{value}"),
        None => three_digits(value),
    }
}

/// A duration: `0.42 ms`.
pub(super) fn seconds(value: f64) -> String {
    match value {
        _ if value == 0.0 => "0".to_owned(),
        _ if value >= 1.0 => format!("{} s", three_digits(value)),
        _ if value >= 0.999_5e-4 => format!("{} ms", three_digits(value * 1e3)),
        _ => format!("{} us", three_digits(value * 1e6)),
    }
}

fn three_digits(value: f64) -> String {
    match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Columns aligned: the first to the left, the others to the right, two blanks between; no blanks at line ends.
pub(super) fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{seconds, si};

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(
            [si(0.0), si(999.0), si(1000.0), si(1_290_000_000.0), si(62.5)],
            ["0", "999", "1.00 K", "1.29 G", "62.5"]
        );
        assert_eq!([seconds(0.000_42), seconds(0.000_000_5), seconds(2.0)], ["0.42 ms", "0.50 us", "2.00 s"]);
    }
}
