//! The figures of an analysis.

use super::Analysis;
use super::counts::{Attribute, Cross};
use super::look::PhotoFacts;
use crate::figures::charts::{self, Bar, thousands};
use crate::figures::{Drawing, colours};

/// A figure with the name of its files.
#[derive(Debug)]
pub struct Figure {
    /// Without ending: `colour-by-gender`.
    pub name: String,
    /// The figure.
    pub drawing: Drawing,
}

/// A field's name as people say it: `baseColour` is `base colour`.
pub fn spoken(field: &str) -> String {
    let last = field.rsplit('.').next().unwrap_or(field);
    let mut out = String::new();
    for (i, c) in last.chars().enumerate() {
        if c.is_uppercase() && i > 0 && !out.ends_with(' ') {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// A field's name as part of a file's name.
pub fn slug(field: &str) -> String {
    spoken(field).chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
}

/// A number as people write it.
fn number(v: f64) -> String {
    if v >= 1000.0 { thousands(v.round() as usize) } else { format!("{}", (v * 100.0).round() / 100.0) }
}

/// All charts. The photos of grids are in [`super::pictures`].
pub fn charts(a: &Analysis) -> Vec<Figure> {
    let title = &a.source.definition.title;
    let mut out = Vec::new();
    let shown: Vec<&Attribute> = a.attributes.iter().filter(|f| !f.values.is_empty()).collect();
    let bars: Vec<Figure> = shown.iter().map(|f| attribute(a, f)).collect();
    if !bars.is_empty() {
        let note = format!(
            "{} records; each chart counts the records that have a value",
            thousands(a.source.rows.len())
        );
        let drawings: Vec<&Drawing> = bars.iter().map(|f| &f.drawing).collect();
        let drawing = charts::page(&format!("{title}: distributions"), &note, &drawings, 2);
        out.push(Figure { name: "distributions".into(), drawing });
    }
    out.extend(bars);
    for n in a.numbers.iter().filter(|n| !n.values.is_empty()) {
        let said = n.quantiles.map_or(String::new(), |q| {
            format!("; median {}, from {} to {}", number(q[2]), number(q[0]), number(q[4]))
        });
        let note = format!("{} records{said}", thousands(n.values.len()));
        let drawing =
            charts::histogram(&format!("{title} by {}", spoken(&n.field)), &note, &n.values, &n.unit, false);
        out.push(Figure { name: format!("number-{}", slug(&n.field)), drawing });
    }
    out.extend(a.crosses.iter().map(|c| cross(a, c)));
    out.push(missing(a));
    if let Some(look) = &a.look {
        out.extend(photos(a, look));
    }
    out
}

fn bar(a: &Analysis, field: &str, label: &str, count: usize) -> Bar {
    let swatch = if field == a.source.definition.colour { colours::swatch(label) } else { Vec::new() };
    Bar { label: label.into(), count, swatch }
}

fn attribute(a: &Analysis, f: &Attribute) -> Figure {
    let mut values: Vec<&(String, usize)> = f.values.iter().collect();
    // Years and sizes are read in their own order.
    if values.iter().all(|v| v.0.parse::<f64>().is_ok()) {
        values.sort_by(|a, b| a.0.parse::<f64>().unwrap_or(0.0).total_cmp(&b.0.parse().unwrap_or(0.0)));
    }
    let bars: Vec<Bar> = values.iter().map(|(v, n)| bar(a, &f.field, v, *n)).collect();
    let missing =
        if f.missing > 0 { format!(", {} without value", thousands(f.missing)) } else { String::new() };
    let note = format!(
        "records per value; {} values in {} records{missing}",
        f.values.len(),
        thousands(f.present())
    );
    let is_colour = f.field == a.source.definition.colour;
    let drawing = charts::bars(&capital(&spoken(&f.field)), &note, &bars, f.present(), is_colour);
    Figure { name: format!("by-{}", slug(&f.field)), drawing }
}

fn cross(a: &Analysis, c: &Cross) -> Figure {
    let rows: Vec<Bar> =
        c.rows.iter().zip(&c.counts).map(|(v, n)| bar(a, &c.rows_field, v, n.iter().sum())).collect();
    let title = format!("{} by {}", capital(&spoken(&c.rows_field)), spoken(&c.columns_field));
    let dependence = c.dependence.map_or(String::new(), |d| format!("; Cramér's V {:.2}", d.v));
    let note = format!("records; the darker, the larger the share of its row{dependence}");
    let drawing = charts::heat_map(&title, &note, &rows, &c.columns, &c.counts);
    Figure { name: format!("{}-by-{}", slug(&c.rows_field), slug(&c.columns_field)), drawing }
}

fn missing(a: &Analysis) -> Figure {
    let mut bars: Vec<Bar> = a
        .attributes
        .iter()
        .map(|f| Bar { label: spoken(&f.field), count: f.missing, swatch: Vec::new() })
        .collect();
    bars.sort_by_key(|b| std::cmp::Reverse(b.count));
    let total = a.source.rows.len();
    let note = format!("records without a value, of {}", thousands(total));
    Figure {
        name: "missing-values".into(),
        drawing: charts::bars("Missing values", &note, &bars, total, false),
    }
}

fn photos(a: &Analysis, look: &PhotoFacts) -> Vec<Figure> {
    let plain =
        |(label, count): &(String, usize)| Bar { label: label.clone(), count: *count, swatch: Vec::new() };
    let sizes: Vec<Bar> = look.sizes.iter().map(plain).collect();
    let backgrounds: Vec<Bar> = look.backgrounds.iter().map(|(b, n)| plain(&(b.to_string(), *n))).collect();
    let sharpness: Vec<f64> = a.photos.iter().map(|p| p.measures.sharpness).collect();
    let clean: Vec<f64> = a.photos.iter().map(|p| 100.0 * p.measures.clean).collect();
    let note = format!("{} photos, width x height in pixels", thousands(look.photos));
    let figure = |name: &str, drawing| Figure { name: name.into(), drawing };
    vec![
        figure("photo-sizes", charts::bars("Sizes of photos", &note, &sizes, look.photos, false)),
        figure(
            "photo-backgrounds",
            charts::bars(
                "Backgrounds of photos",
                "photos by what their border shows",
                &backgrounds,
                look.photos,
                false,
            ),
        ),
        figure(
            "photo-cleanness",
            charts::histogram(
                "Cleanness of backgrounds",
                "photos",
                &clean,
                "share of the border in one colour, %",
                false,
            ),
        ),
        figure(
            "photo-sharpness",
            charts::histogram(
                "Sharpness of photos",
                "photos; at each photo's own size",
                &sharpness,
                "variance of the Laplacian (log scale)",
                true,
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_people_say_them() {
        assert_eq!(spoken("baseColour"), "base colour");
        assert_eq!(spoken("articleAttributes.Ankle Height"), "ankle height");
        assert_eq!(slug("articleAttributes.Ankle Height"), "ankle-height");
    }
}
