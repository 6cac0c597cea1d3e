//! Curves as a picture.

use std::fmt::Write as _;

/// A named curve.
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Room for the legend.
const RIGHT: f64 = 250.0;
/// Told apart by people who see colours otherwise, too (Okabe and Ito 2008).
const COLOURS: [&str; 8] =
    ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00"];

/// A line chart as SVG.
pub fn svg(title: &str, x_title: &str, y_title: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|c| &c.points).filter(|p| p.0.is_finite() && p.1.is_finite());
    let (x0, x1) = bounds(points().map(|p| p.0));
    let (y0, y1) = bounds(points().map(|p| p.1));
    let x = |v: f64| LEFT + (v - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"18\">{}</text>\n",
        escaped(title)
    );
    // Writing to a text does not fail.
    for (from, to, at, horizontal) in [(x0, x1, HEIGHT - BOTTOM, true), (y0, y1, LEFT, false)] {
        for tick in ticks(from, to) {
            let label = number(tick);
            let _ = if horizontal {
                writeln!(
                    out,
                    "<text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\">{label}</text>",
                    x(tick),
                    at + 20.0
                )
            } else {
                let (right, at_y) = (WIDTH - RIGHT, y(tick));
                writeln!(
                    out,
                    "<path d=\"M{at} {at_y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                    at - 8.0,
                    at_y + 4.0
                )
            };
        }
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n<text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 18.0,
        escaped(x_title),
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escaped(y_title)
    );
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let finite = curve.points.iter().filter(|p| p.1.is_finite());
        let line: Vec<String> = finite.map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let row = TOP + 10.0 + 20.0 * i as f64;
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <path d=\"M{} {row}h22\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"{}\">{}</text>",
            line.join(" "),
            WIDTH - RIGHT + 15.0,
            WIDTH - RIGHT + 44.0,
            row + 4.0,
            escaped(&curve.name)
        );
    }
    out + "</svg>\n"
}

/// Smallest and largest, never the same.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
    match (low, high) {
        (low, high) if low > high => (0.0, 1.0),
        (low, high) if high - low < 1e-12 => (low - 0.5, high + 0.5),
        both => both,
    }
}

/// Round numbers from one bound to the other.
fn ticks(from: f64, to: f64) -> Vec<f64> {
    let rough = (to - from) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(10.0 * power);
    let first = (from / step).ceil() as i64;
    let last = (to / step).floor() as i64;
    (first..=last.min(first + 20)).map(|n| n as f64 * step).collect()
}

fn number(v: f64) -> String {
    let text = format!("{v:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_bounds() {
        assert_eq!(ticks(0.0, 100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let close = ticks(0.1234, 0.1239);
        assert!(
            close.len() > 3 && close.iter().all(|t| (0.1234 - 1e-9..=0.1239 + 1e-9).contains(t)),
            "{close:?}"
        );
    }

    #[test]
    fn no_points_and_equal_points_make_a_picture_all_the_same() {
        for points in [vec![], vec![(1.0, 2.0)], vec![(0.0, f64::NAN), (1.0, 1.0)]] {
            let text = svg("<a>", "x", "y", &[Curve { name: "a&b".into(), points }]);
            assert!(text.ends_with("</svg>\n") && !text.contains("NaN"), "{text}");
            assert!(text.contains("a&amp;b") && text.contains("&lt;a&gt;"));
        }
    }
}
