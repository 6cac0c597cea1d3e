//! Bars, histograms and heat maps.

use super::{Anchor, BAR, Colour, Drawing, INK, RULE, SOFT, Shape, Style, font};

const TITLE: f32 = 17.0;
const NOTE: f32 = 11.5;
const LABEL: f32 = 12.0;
const ROW: f32 = 21.0;
const MARGIN: f32 = 18.0;
/// Room for title and note.
const HEAD: f32 = 62.0;

/// A number as people write it: `1,234`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A share in percent, of which small ones keep a digit.
pub fn percent(n: usize, total: usize) -> String {
    let p = 100.0 * n as f64 / total.max(1) as f64;
    match p {
        _ if n == 0 || p >= 9.95 => format!("{p:.0} %"),
        // What is there is not 0.
        _ if p < 0.05 => "<0.1 %".into(),
        _ => format!("{p:.1} %"),
    }
}

fn head(drawing: &mut Drawing, title: &str, note: &str) {
    let room = drawing.width - 2.0 * MARGIN;
    drawing.text(MARGIN, 28.0, Style::new(TITLE).bold(), font::cut(title, TITLE, true, room));
    drawing.text(MARGIN, 46.0, Style::new(NOTE).fill(SOFT), font::cut(note, NOTE, false, room));
}

/// A bar of a chart.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// How many.
    pub count: usize,
    /// The colours of its swatch; none for no swatch.
    pub swatch: Vec<Colour>,
}

/// Bars of what is summed up.
const REST: Colour = [173, 181, 189];
/// Most bars of a chart; what is left is summed up in a last one.
const MOST: usize = 25;

/// Sorted horizontal bars with counts and shares of `total`.
pub fn bars(title: &str, note: &str, bars: &[Bar], total: usize, swatches: bool) -> Drawing {
    let mut bars: Vec<Bar> = bars.to_vec();
    if bars.len() > MOST + 1 {
        let rest = bars.split_off(MOST);
        let count = rest.iter().map(|b| b.count).sum();
        bars.push(Bar { label: format!("{} others", rest.len()), count, swatch: Vec::new() });
    }
    let widest = bars.iter().map(|b| font::width(&b.label, LABEL, false)).fold(40.0, f32::max).min(190.0);
    let left = MARGIN + widest + if swatches { 34.0 } else { 10.0 };
    let (width, room) = (720.0, 720.0 - left - 118.0);
    let mut d = Drawing::new(width, HEAD + ROW * bars.len() as f32 + 16.0, title);
    head(&mut d, title, note);
    let most = bars.iter().map(|b| b.count).max().unwrap_or(1).max(1) as f32;
    for (i, bar) in bars.iter().enumerate() {
        let y = HEAD + ROW * i as f32;
        let base = y + 15.0;
        let label = font::cut(&bar.label, LABEL, false, widest);
        d.text(MARGIN + widest, base, Style::new(LABEL).anchor(Anchor::End), label);
        if swatches {
            swatch(&mut d, left - 25.0, y + 4.0, 14.0, &bar.swatch);
        }
        // One of thousands is still seen, and none is no bar.
        let length = if bar.count == 0 { 0.0 } else { (room * bar.count as f32 / most).max(1.0) };
        // What is summed up is no value.
        let fill = if i == MOST { REST } else { BAR };
        d.rect(left, y + 3.0, length, ROW - 6.0, fill);
        let said = format!("{}  ({})", thousands(bar.count), percent(bar.count, total));
        d.text(left + length + 6.0, base, Style::new(LABEL), said);
    }
    d
}

fn swatch(d: &mut Drawing, x: f32, y: f32, side: f32, colours: &[Colour]) {
    let stripe = side / colours.len().max(1) as f32;
    if colours.len() == 1 {
        d.shapes.push(Shape::Rect { x, y, w: side, h: side, fill: colours[0], edge: Some([173, 181, 189]) });
        return;
    }
    for (i, c) in colours.iter().enumerate() {
        d.rect(x + stripe * i as f32, y, stripe, side, *c);
    }
}

/// A step of a scale: 1, 2 or 5 times a power of 10, so that there are at most `most` steps.
fn nice_step(range: f64, most: f64) -> f64 {
    let rough = (range / most).max(1e-12);
    let power = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|t| t * power >= rough).unwrap_or(10.0);
    times * power
}

fn number(v: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    if step >= 1.0 && v >= 1000.0 { thousands(v.round() as usize) } else { format!("{v:.decimals$}") }
}

/// A histogram of numbers; `unit` names the axis. `log` divides the axis by powers of ten.
pub fn histogram(title: &str, note: &str, values: &[f64], unit: &str, log: bool) -> Drawing {
    let scaled: Vec<f64> =
        values.iter().filter(|v| !log || **v > 0.0).map(|v| if log { v.log10() } else { *v }).collect();
    let (mut low, mut high) =
        scaled.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let (width, height) = (720.0, 340.0);
    let mut d = Drawing::new(width, height, title);
    head(&mut d, title, note);
    if scaled.is_empty() {
        d.text(MARGIN, HEAD + 40.0, Style::new(LABEL).fill(SOFT), "no values");
        return d;
    }
    if high - low < 1e-9 {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let step = if log { 1.0 } else { nice_step(high - low, 8.0) };
    (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
    let bins = (((high - low) / step).round() as usize * if log { 8 } else { 4 }).clamp(4, 48);
    let mut counts = vec![0usize; bins];
    for v in &scaled {
        counts[(((v - low) / (high - low) * bins as f64) as usize).min(bins - 1)] += 1;
    }
    let (left, bottom, top) = (MARGIN + 44.0, height - 48.0, HEAD + 6.0);
    let room = width - left - MARGIN - 14.0;
    let most = counts.iter().max().copied().unwrap_or(1).max(1);
    let up = nice_step(most as f64, 5.0).max(1.0);
    let ceiling = (most as f64 / up).ceil() * up;
    let y = |n: f64| bottom - (bottom - top) * (n / ceiling) as f32;
    for i in 0..=(ceiling / up).round() as usize {
        let n = i as f64 * up;
        d.rect(left, y(n) - 0.5, room, 1.0, RULE);
        d.text(
            left - 6.0,
            y(n) + 4.0,
            Style::new(NOTE).fill(SOFT).anchor(Anchor::End),
            thousands(n as usize),
        );
    }
    let each = room / bins as f32;
    for (i, n) in counts.iter().enumerate().filter(|c| *c.1 > 0) {
        let top = y(*n as f64);
        d.rect(left + each * i as f32 + 0.5, top, each - 1.0, (bottom - top).max(1.0), BAR);
    }
    for v in ticks(low, high, step, log) {
        let x = left + room * ((v - low) / (high - low)) as f32;
        let said = if log { number(10f64.powf(v), 10f64.powf(v.floor()).min(1.0)) } else { number(v, step) };
        d.text(x, bottom + 17.0, Style::new(NOTE).fill(SOFT).anchor(Anchor::Middle), said);
    }
    d.rect(left, bottom - 0.5, room, 1.5, INK);
    d.text(left + room / 2.0, bottom + 36.0, Style::new(LABEL).anchor(Anchor::Middle), unit);
    d
}

/// Where numbers stand on an axis; between few powers of ten also at 2 and 5 times each.
fn ticks(low: f64, high: f64, step: f64, log: bool) -> Vec<f64> {
    let whole = (0..=((high - low) / step).round() as usize).map(|i| low + i as f64 * step);
    let between: &[f64] = if log && high - low < 3.5 { &[0.0, 2f64.log10(), 5f64.log10()] } else { &[0.0] };
    whole.flat_map(|v| between.iter().map(move |b| v + b)).filter(|v| *v < high + 1e-9).collect()
}

/// Most rows and columns of a heat map.
const CELLS: (usize, usize) = (24, 8);
/// Share from which on a cell is so dark that white is read better on it.
const DARK: f32 = 0.42;

/// What of a heat map is not shown; nothing if all is.
fn left_out(rows: usize, columns: usize) -> String {
    let said = |n: usize, most: usize, what: &str| {
        if n > most { format!("; the {most} most common of {n} {what}") } else { String::new() }
    };
    said(rows, CELLS.0, "rows") + &said(columns, CELLS.1, "columns")
}

/// Counts of pairs, rows and columns sorted by their sums; shade is the share of the row.
pub fn heat_map(title: &str, note: &str, rows: &[Bar], columns: &[String], counts: &[Vec<usize>]) -> Drawing {
    let shown_rows = rows.len().min(CELLS.0);
    let shown = columns.len().min(CELLS.1);
    let widest = rows.iter().map(|b| font::width(&b.label, LABEL, false)).fold(60.0, f32::max).min(180.0);
    let swatches = rows.iter().any(|r| !r.swatch.is_empty());
    let left = MARGIN + widest + if swatches { 34.0 } else { 10.0 };
    let cell = ((720.0 - left - MARGIN) / shown.max(1) as f32).min(110.0);
    let (row_height, top) = (26.0, HEAD + 24.0);
    let mut d = Drawing::new(720.0, top + row_height * shown_rows as f32 + 18.0, title);
    head(&mut d, title, &format!("{note}{}", left_out(rows.len(), columns.len())));
    for (c, name) in columns.iter().take(shown).enumerate() {
        let x = left + cell * (c as f32 + 0.5);
        let name = font::cut(name, LABEL, true, cell - 4.0);
        d.text(x, top - 8.0, Style::new(LABEL).bold().anchor(Anchor::Middle), name);
    }
    for (r, row) in rows.iter().take(shown_rows).enumerate() {
        let y = top + row_height * r as f32;
        let label = font::cut(&row.label, LABEL, false, widest);
        d.text(MARGIN + widest, y + 17.0, Style::new(LABEL).anchor(Anchor::End), label);
        if swatches {
            swatch(&mut d, left - 25.0, y + 6.0, 14.0, &row.swatch);
        }
        let sum = counts[r].iter().sum::<usize>().max(1);
        for (c, n) in counts[r].iter().take(shown).enumerate() {
            let share = in_tones(*n as f32 / sum as f32);
            let fill = shade(share);
            d.rect(left + cell * c as f32 + 1.0, y + 1.0, cell - 2.0, row_height - 2.0, fill);
            let ink = if share > DARK {
                [255; 3]
            } else if *n == 0 {
                [173, 181, 189]
            } else {
                INK
            };
            let x = left + cell * (c as f32 + 0.5);
            d.text(x, y + 17.0, Style::new(LABEL).fill(ink).anchor(Anchor::Middle), thousands(*n));
        }
    }
    d
}

/// Tones of a heat map, less the first: about as many as an eye tells apart, and few enough for a small file.
const TONES: f32 = 10.0;

/// The share whose tone stands for a share.
fn in_tones(share: f32) -> f32 {
    ((share.sqrt() * TONES).round() / TONES).powi(2)
}

/// From paper to deep blue.
fn shade(share: f32) -> Colour {
    let deep: Colour = [24, 72, 150];
    std::array::from_fn(|c| (244.0 + (f32::from(deep[c]) - 244.0) * share.sqrt()) as u8)
}

/// Several figures on one page, in columns, each in the column that is shortest so far.
pub fn page(title: &str, note: &str, figures: &[&Drawing], columns: usize) -> Drawing {
    let width = figures.iter().map(|f| f.width).fold(0.0, f32::max);
    let mut tops = vec![HEAD + 4.0; columns];
    let mut places = Vec::new();
    for f in figures {
        let c = (0..columns).min_by(|a, b| tops[*a].total_cmp(&tops[*b])).unwrap_or(0);
        places.push((c as f32 * width, tops[c]));
        tops[c] += f.height + 8.0;
    }
    let mut d = Drawing::new(width * columns as f32, tops.iter().copied().fold(0.0, f32::max), title);
    head(&mut d, title, note);
    figures.iter().zip(places).for_each(|(f, (x, y))| d.place(x, y, f));
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(
            (thousands(7), thousands(1234), thousands(1_234_567)),
            ("7".into(), "1,234".into(), "1,234,567".into())
        );
        assert_eq!(
            (percent(1, 3), percent(5, 100), percent(0, 5)),
            ("33 %".into(), "5.0 %".into(), "0 %".into())
        );
        assert_eq!((percent(1, 2846), percent(2, 2846)), ("<0.1 %".into(), "0.1 %".into()));
        assert_eq!([nice_step(10.0, 5.0), nice_step(7.0, 5.0), nice_step(130.0, 8.0)], [2.0, 2.0, 20.0]);
    }

    #[test]
    fn tones_keep_their_order_and_their_ends() {
        let tones: Vec<f32> = (0..=1000).map(|i| in_tones(i as f32 / 1000.0)).collect();
        assert_eq!((tones[0], tones[1000]), (0.0, 1.0));
        assert!(tones.is_sorted());
        let mut shades: Vec<Colour> = tones.into_iter().map(shade).collect();
        shades.dedup();
        assert_eq!(shades.len(), 11);
    }

    #[test]
    fn what_a_heat_map_leaves_out_is_said() {
        assert_eq!(left_out(24, 8), "");
        assert_eq!(left_out(32, 9), "; the 24 most common of 32 rows; the 8 most common of 9 columns");
    }

    #[test]
    fn a_log_axis_of_one_power_of_ten_has_numbers_in_between() {
        let said: Vec<f64> = ticks(2.0, 3.0, 1.0, true).iter().map(|v| 10f64.powf(*v).round()).collect();
        assert_eq!(said, [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(ticks(0.0, 20.0, 10.0, false), [0.0, 10.0, 20.0]);
    }

    #[test]
    fn no_text_of_a_chart_leaves_its_paper() {
        let long = Bar {
            label: "a label that is much too long to be shown as it is, really".into(),
            count: 123_456,
            swatch: vec![],
        };
        let many: Vec<Bar> =
            (0..40).map(|i| Bar { label: format!("brand {i}"), count: 41 - i, swatch: vec![] }).collect();
        let heat =
            heat_map("t", "n", &many, &vec!["a long name of a column".into(); 12], &vec![vec![1; 12]; 40]);
        let log = histogram("t", "n", &[1.0, 10.0, 5e4], "u", true);
        for d in [
            bars("t", "n", &[long], 123_456, true),
            bars("t", "n", &many, 100, false),
            heat,
            log,
            histogram("t", "n", &[3.0], "u", false),
        ] {
            for s in &d.shapes {
                let Shape::Text { x, y, size, bold, anchor, text, .. } = s else { continue };
                let w = font::width(text, *size, *bold);
                let left = match anchor {
                    Anchor::Start => *x,
                    Anchor::Middle => x - w / 2.0,
                    Anchor::End => x - w,
                };
                assert!(
                    left >= 0.0 && left + w <= d.width && *y <= d.height,
                    "{text} at {left} of {}",
                    d.width
                );
            }
        }
    }
}
