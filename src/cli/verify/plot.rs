//! A drift as a picture: measures by distance from the prompt, as SVG that needs nothing beside itself.

use crate::runtime::drift::Range;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const PANEL: f64 = 210.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 34.0;
const COLOURS: [&str; 6] = ["#3465a4", "#c4521c", "#4e9a06", "#75507b", "#c4a000", "#555753"];

/// A line of a panel: `None` where nothing was measured.
struct Series {
    name: String,
    values: Vec<Option<f64>>,
}

/// The plot of a drift, one range for each meta-context after the prompts.
pub fn svg(metas: &[Range]) -> String {
    let panels = [
        ("agreement of the most probable token", agreement(metas), Some((0.0, 1.0))),
        ("divergence, nats per token", vec![series("KL", metas, |range| Some(range.kl))], None),
        ("perplexity", perplexities(metas), None),
        ("cosine of reconstruction and encoder state", cosines(metas), Some((0.0, 1.0))),
    ];
    let height = PANEL * panels.len() as f64 + 24.0;
    let ends: Vec<f64> = metas.iter().map(|range| range.last as f64).collect();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (at, (title, lines, bounds)) in panels.iter().enumerate() {
        panel(&mut text, at as f64 * PANEL, title, &ends, lines, *bounds);
    }
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">tokens after the prompt</text>\n</svg>\n",
        (LEFT + WIDTH - RIGHT) / 2.0,
        height - 8.0
    );
    text
}

fn series(name: &str, metas: &[Range], value: impl Fn(&Range) -> Option<f64>) -> Series {
    Series { name: name.to_owned(), values: metas.iter().map(value).collect() }
}

fn agreement(metas: &[Range]) -> Vec<Series> {
    let free = series("drawn", metas, |range| range.free_agreement);
    let forced = series("on the text", metas, |range| Some(range.greedy_agreement));
    if free.values.iter().any(Option::is_some) { vec![forced, free] } else { vec![forced] }
}

fn perplexities(metas: &[Range]) -> Vec<Series> {
    vec![
        series("HierGen", metas, |range| Some(range.perplexity_hiergen)),
        series("RecGen", metas, |range| Some(range.perplexity_recgen)),
    ]
}

fn cosines(metas: &[Range]) -> Vec<Series> {
    let levels = metas.first().map_or(0, |range| range.levels.len());
    let of = |level: usize| {
        let name = |protocol: &str| format!("level {} {protocol}", level + 1);
        let hiergen = series(&name("HierGen"), metas, |range| range.levels.get(level)?.hiergen);
        [hiergen, series(&name("RecGen"), metas, |range| range.levels.get(level)?.recgen)]
    };
    let all = (0..levels).rev().flat_map(of);
    all.filter(|line| line.values.iter().any(Option::is_some)).collect()
}

fn panel(
    text: &mut String,
    top: f64,
    title: &str,
    ends: &[f64],
    lines: &[Series],
    bounds: Option<(f64, f64)>,
) {
    let values = lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let largest = values.clone().fold(0.0, f64::max);
    let smallest = values.fold(0.0, f64::min);
    let (low, high) = match bounds {
        Some((low, high)) => (low.min(smallest), high),
        None => (0.0, if largest > 0.0 { largest * 1.05 } else { 1.0 }),
    };
    let last = ends.last().copied().unwrap_or(1.0);
    let x = |token: f64| LEFT + token / last * (WIDTH - LEFT - RIGHT);
    let (above, below) = (top + TOP, top + PANEL - BOTTOM);
    let y = |value: f64| below - (value - low) / (high - low) * (below - above);
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>", above - 10.0);
    for step in 0..=4 {
        let value = low + (high - low) * f64::from(step) / 4.0;
        let height = y(value);
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            height + 4.0,
            number(value)
        );
        let token = last * f64::from(step) / 4.0;
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{token:.0}</text>",
            x(token),
            below + 16.0
        );
    }
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points = ends.iter().zip(&line.values).filter_map(|(end, value)| Some((x(*end), y((*value)?))));
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let label = above + 12.0 + 16.0 * at as f64;
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{label:.1}\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            WIDTH - RIGHT + 8.0,
            line.name
        );
    }
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        small if small >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}
