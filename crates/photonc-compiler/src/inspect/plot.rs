//! A curve as SVG: one quantity over another, both on logarithmic axes, because batches double. Owns ticks and layout;
//! every number it draws is the caller's.

use super::units::si;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// A curve and its words.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot<'p> {
    /// Above the plot.
    pub title: &'p str,
    /// Below the horizontal axis.
    pub x_name: &'p str,
    /// Beside the vertical axis.
    pub y_name: &'p str,
    /// Positive pairs, in the order of the curve; others are left out.
    pub points: &'p [(f64, f64)],
}

/// A logarithmic axis from a tick to a tick.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// The powers of `base` around the values.
    fn around(values: impl Iterator<Item = f64>, base: f64) -> Self {
        let (low, high) =
            values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let power = |value: f64| value.ln() / base.ln();
        let low = base.powf((power(low) + 1e-9).floor());
        let high = base.powf((power(high) - 1e-9).ceil());
        Axis { low, high: if high > low { high } else { low * base } }
    }

    /// Where a value lies, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    fn ticks(&self, base: f64) -> Vec<f64> {
        let mut ticks = vec![self.low];
        while let Some(last) = ticks.last().filter(|last| **last * base <= self.high * 1.000_1) {
            ticks.push(last * base);
        }
        ticks
    }
}

impl Plot<'_> {
    /// The document. Without a point there are no axes.
    #[must_use]
    pub fn svg(&self) -> String {
        let points: Vec<(f64, f64)> =
            self.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0 && y.is_finite()).collect();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let (middle_x, middle_y) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let mut text = |x: f64, y: f64, rest: &str, words: &str| {
            let _infallible =
                writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {rest}>{}</text>", escaped(words));
        };
        text(middle_x, 22.0, "text-anchor=\"middle\" font-size=\"14\"", self.title);
        text(middle_x, HEIGHT - 12.0, "text-anchor=\"middle\"", self.x_name);
        let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 16 {middle_y:.1})\"");
        text(16.0, middle_y, &turned, self.y_name);
        if !points.is_empty() {
            let x_axis = Axis::around(points.iter().map(|point| point.0), 2.0);
            let y_axis = Axis::around(points.iter().map(|point| point.1), 10.0);
            draw(&mut svg, &x_axis, &y_axis, &points);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn draw(svg: &mut String, x_axis: &Axis, y_axis: &Axis, points: &[(f64, f64)]) {
    let x = |value: f64| LEFT + x_axis.at(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - y_axis.at(value) * (HEIGHT - TOP - BOTTOM);
    let (top, bottom, right) = (TOP, HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in x_axis.ticks(2.0) {
        let at = x(tick);
        let _infallible = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            si(tick)
        );
    }
    for tick in y_axis.ticks(10.0) {
        let at = y(tick);
        let _infallible = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            si(tick)
        );
    }
    let line: Vec<String> =
        points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
    let _infallible = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for point in points {
        let _infallible = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#06c\"><title>{}: {}</title></circle>",
            x(point.0),
            y(point.1),
            si(point.0),
            si(point.1)
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::Plot;

    fn plot(points: &[(f64, f64)]) -> String {
        Plot { title: "a < b", x_name: "batch", y_name: "tokens/s", points }.svg()
    }

    #[test]
    fn points_lie_where_their_logarithms_do() {
        let svg = plot(&[(1.0, 10.0), (2.0, 100.0), (4.0, 1000.0)]);
        // The middle point halves both axes.
        assert!(svg.contains("points=\"80.0,350.0 350.0,195.0 620.0,40.0\""), "{svg}");
        assert!(svg.contains(">a &lt; b<") && svg.contains(">1.00 K<"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn one_point_or_none_is_a_plot_too() {
        assert_eq!(plot(&[(64.0, 250.0)]).matches("<circle").count(), 1);
        assert_eq!(plot(&[(0.0, 1.0), (1.0, f64::NAN)]).matches("<circle").count(), 0);
        assert!(plot(&[]).ends_with("</svg>\n"));
    }
}
