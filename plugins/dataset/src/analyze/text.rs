//! The words and tables of a report.

use super::Analysis;
use super::counts::{Attribute, Cross, LEARNABLE};
use super::document::Document;
use super::drawings::{slug, spoken};
use super::look::PhotoFacts;
use crate::figures::charts::{percent, thousands};
use crate::images::find::shown;
use crate::issue;

/// Most values of a table.
const TOP: usize = 15;
/// Most examples of a sort of problem.
const EXAMPLES: usize = 5;

/// The report. `figures` are the names of those that were drawn.
pub fn report(a: &Analysis, figures: &[String]) -> Document {
    let mut d = Document::default();
    d.heading(1, a.source.definition.title.clone());
    summary(&mut d, a);
    d.figure("distributions", "Distributions of all fields");
    grids(&mut d, figures);
    subgroups(&mut d, a);
    d.heading(2, "Distributions");
    a.attributes.iter().filter(|f| !f.values.is_empty()).for_each(|f| attribute(&mut d, f));
    numbers(&mut d, a);
    if !a.crosses.is_empty() {
        d.heading(2, "Pairs of fields");
    }
    a.crosses.iter().for_each(|c| cross(&mut d, c));
    missing(&mut d, a);
    if let Some(look) = &a.look {
        photos(&mut d, look);
        unlike(&mut d, a);
        duplicates(&mut d, a, look);
    }
    problems(&mut d, a);
    d
}

fn summary(d: &mut Document, a: &Analysis) {
    let s = &a.source;
    let filter =
        if s.definition.filter.is_empty() { "none".to_string() } else { s.definition.filter.clone() };
    let mut items = vec![
        format!(
            "Records: {} read, {} pass the filter ({filter})",
            thousands(s.table.len()),
            thousands(s.rows.len())
        ),
        match &a.look {
            Some(look) => format!(
                "Photos: {} of {} records have one that can be opened ({})",
                thousands(look.photos),
                thousands(s.rows.len()),
                percent(look.photos, s.rows.len())
            ),
            None => "Photos: none".into(),
        },
    ];
    for f in a.attributes.iter().filter(|f| f.values.len() > 1) {
        let top: Vec<String> =
            f.values.iter().take(4).map(|(v, n)| format!("{v} {}", percent(*n, f.present()))).collect();
        items.push(format!("{}: {} values; {}", capital(&spoken(&f.field)), f.values.len(), top.join(", ")));
    }
    if let Some(look) = &a.look {
        let [white, plain, ..] = look.backgrounds.as_slice() else { return };
        let one_colour = percent(white.1 + plain.1, look.photos);
        items.push(format!(
            "Backgrounds: {} white, {one_colour} of one colour",
            percent(white.1, look.photos)
        ));
        items.push(format!(
            "Same photo more than once: {} groups with {} photos",
            thousands(look.groups),
            thousands(look.in_groups)
        ));
        if let (Some(w), Some(h)) = (look.product_width, look.product_height) {
            items.push(format!(
                "Composition: the product takes {:.0} % of the width and {:.0} % of the height (medians)",
                100.0 * w[2],
                100.0 * h[2]
            ));
        }
    }
    d.list(items);
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
}

fn grids(d: &mut Document, figures: &[String]) {
    for (name, alt) in [
        ("sample-5x5", "25 photos drawn by lot"),
        ("sample-10x10", "100 photos drawn by lot"),
        ("photos-by-colour", "Photos by colour"),
    ] {
        if figures.iter().any(|f| f == name) {
            d.figure(name, alt);
        }
    }
}

fn subgroups(d: &mut Document, a: &Analysis) {
    d.heading(2, "Worth conditioning on");
    d.text(format!(
        "A field is worth it if most records have it, no value dominates, and at least two values have {LEARNABLE} \
         records: fewer are hardly learnt. The effective number of values counts as many as if all were equally common."
    ));
    let row = |f: &Attribute| {
        let worth = if f.verdict.worth { "yes" } else { "no" };
        [f.field.clone(), worth.into(), format!("{:.1}", f.effective), capital(&f.verdict.why)]
    };
    d.table(["field", "worth it", "effective values", "why"], a.attributes.iter().map(row).collect());
    for c in &a.crosses {
        let pairs = c.pairs();
        let large = pairs.iter().filter(|p| p.2 >= LEARNABLE).count();
        let covered: usize = pairs.iter().filter(|p| p.2 >= LEARNABLE).map(|p| p.2).sum();
        let total: usize = pairs.iter().map(|p| p.2).sum();
        d.text(format!(
            "{} x {}: {large} of {} combinations have at least {LEARNABLE} records; together they are {} of all.",
            c.rows_field,
            c.columns_field,
            pairs.len(),
            percent(covered, total)
        ));
        let row =
            |p: &(String, String, usize)| [p.0.clone(), p.1.clone(), thousands(p.2), percent(p.2, total)];
        d.table(
            [&*c.rows_field, &*c.columns_field, "records", "share"],
            pairs.iter().take(10).map(row).collect(),
        );
    }
}

fn attribute(d: &mut Document, f: &Attribute) {
    d.heading(3, capital(&spoken(&f.field)));
    d.figure(&format!("by-{}", slug(&f.field)), &format!("Records by {}", spoken(&f.field)));
    let row = |(v, n): &(String, usize)| [v.clone(), thousands(*n), percent(*n, f.present())];
    let mut rows: Vec<[String; 3]> = f.values.iter().take(TOP).map(row).collect();
    if f.values.len() > TOP {
        let rest: usize = f.values[TOP..].iter().map(|v| v.1).sum();
        rows.push([
            format!("({} others)", f.values.len() - TOP),
            thousands(rest),
            percent(rest, f.present()),
        ]);
    }
    if f.missing > 0 {
        rows.push(["(no value)".into(), thousands(f.missing), String::new()]);
    }
    d.table([&*f.field, "records", "share"], rows);
}

fn numbers(d: &mut Document, a: &Analysis) {
    if a.numbers.is_empty() {
        return;
    }
    d.heading(2, "Numbers");
    let mut rows = Vec::new();
    for n in &a.numbers {
        let q = n.quantiles.map_or([const { String::new() }; 5], |q| q.map(|v| format!("{v:.0}")));
        let [low, q1, median, q3, high] = q;
        rows.push([n.field.clone(), n.unit.clone(), thousands(n.values.len()), low, q1, median, q3, high]);
    }
    d.table(["field", "unit", "records", "lowest", "quarter", "median", "three quarters", "highest"], rows);
    for n in a.numbers.iter().filter(|n| !n.values.is_empty()) {
        d.figure(&format!("number-{}", slug(&n.field)), &format!("Records by {}", spoken(&n.field)));
    }
}

fn cross(d: &mut Document, c: &Cross) {
    d.heading(3, format!("{} by {}", capital(&spoken(&c.rows_field)), spoken(&c.columns_field)));
    d.figure(&format!("{}-by-{}", slug(&c.rows_field), slug(&c.columns_field)), "Counts of pairs");
    if let Some(t) = &c.dependence {
        let strength = match t.v {
            v if v < 0.1 => "hardly depend on each other",
            v if v < 0.3 => "depend on each other a little",
            _ => "depend on each other",
        };
        d.text(format!(
            "The fields {strength}: Cramér's V {:.2} (chi-square {:.1}, {} degrees of freedom, p {}).",
            t.v,
            t.chi2,
            t.df,
            probability(t.p)
        ));
    }
}

/// A probability as people write it.
pub fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

fn missing(d: &mut Document, a: &Analysis) {
    d.heading(2, "Missing values");
    d.figure("missing-values", "Records without a value");
    let row = |f: &Attribute| [f.field.clone(), thousands(f.missing), percent(f.missing, f.records)];
    d.table(["field", "records without value", "share"], a.attributes.iter().map(row).collect());
}

fn photos(d: &mut Document, look: &PhotoFacts) {
    d.heading(2, "Photos");
    d.figure("photo-sizes", "Photos by size");
    let row = |(v, n): &(String, usize)| [v.clone(), thousands(*n), percent(*n, look.photos)];
    d.table(["size", "photos", "share"], look.sizes.iter().take(TOP).map(row).collect());
    d.table(["width to height", "photos", "share"], look.aspects.iter().take(TOP).map(row).collect());
    d.table(["format", "photos", "share"], look.formats.iter().map(row).collect());
    d.heading(3, "Backgrounds");
    d.text(
        "White and plain: at least 90 % of the outermost pixels are of one colour. Gradient: the border changes smoothly. \
         Busy: a scene, or a product that reaches the border.",
    );
    d.figure("photo-backgrounds", "Photos by background");
    let row = |(v, n): &(&str, usize)| [v.to_string(), thousands(*n), percent(*n, look.photos)];
    d.table(["background", "photos", "share"], look.backgrounds.iter().map(row).collect());
    d.figure("photo-cleanness", "Photos by share of the border in one colour");
    d.heading(3, "Sharpness and composition");
    d.figure("photo-sharpness", "Photos by variance of the Laplacian");
    d.text("The variance of the Laplacian grows with the detail that a photo has at its own size: compare photos of one size only.");
    let row = |(size, n, v): &(String, usize, f64)| [size.clone(), thousands(*n), format!("{v:.0}")];
    d.table(["size", "photos", "median sharpness"], look.sharpness_by_size.iter().map(row).collect());
    let share = |name: &str, q: Option<[f64; 5]>| {
        q.map(|q| {
            let [low, q1, median, q3, high] = q.map(|v| format!("{:.0} %", 100.0 * v));
            [name.to_string(), low, q1, median, q3, high]
        })
    };
    let rows = [
        share("product, of the width", look.product_width),
        share("product, of the height", look.product_height),
        share("product off centre, of the width", look.off_centre),
        share("border in one colour", look.clean),
    ];
    d.table(
        ["share", "lowest", "quarter", "median", "three quarters", "highest"],
        rows.into_iter().flatten().collect(),
    );
}

fn unlike(d: &mut Document, a: &Analysis) {
    if a.unlike.is_empty() {
        return;
    }
    d.heading(2, "Photos unlike the rest");
    d.text(
        "Something else among the products, a person who wears them, a photo cut or lit in another way: the outline of \
         such a photo is far from that of the ten photos most like it. This is a place to look, no verdict: nothing is \
         left out for it. The distance is in multiples of the median photo's.",
    );
    d.figure("photos-unlike-the-rest", "The 25 photos most unlike the rest");
    let row = |u: &crate::images::unlike::Unlike| {
        let photo = &a.photos[u.place];
        let id = a.source.table.id(photo.row as usize);
        [id.to_string(), shown(&photo.path), format!("{:.1}", u.times)]
    };
    d.table(["id", "photo", "distance"], a.unlike.iter().take(TOP).map(row).collect());
}

fn duplicates(d: &mut Document, a: &Analysis, look: &PhotoFacts) {
    d.heading(2, "Duplicates");
    let rules = &a.source.definition.images;
    d.text(format!(
        "{} pairs of photos are the same file; {} pairs show the same in different files: their difference hashes \
         (256 bits) differ in at most {} and their colours, where the product is, by at most {} of 255 on average. They form {} groups with {} \
         photos, the largest of {}. No split tears a group apart.",
        thousands(look.exact_pairs),
        thousands(look.near_pairs),
        rules.near_bits,
        rules.near_colour,
        thousands(look.groups),
        thousands(look.in_groups),
        look.largest_group
    ));
    let row = |p: &crate::images::duplicates::Pair| {
        let kind = if p.exact { "same file" } else { "same picture" };
        [shown(&a.photos[p.a].path), shown(&a.photos[p.b].path), kind.to_string()]
    };
    if !a.pairs.is_empty() {
        d.table(["photo", "photo", "how"], a.pairs.iter().take(TOP).map(row).collect());
        if a.pairs.len() > TOP {
            d.text(format!("{} more pairs are in report.json.", thousands(a.pairs.len() - TOP)));
        }
    }
}

fn problems(d: &mut Document, a: &Analysis) {
    d.heading(2, "Problems");
    if a.source.issues.is_empty() {
        return d.text("None was found.");
    }
    d.text("Every one of them is in issues.csv, with its reason.");
    let counts = issue::count(&a.source.issues);
    let row = |(kind, n): (&issue::IssueKind, &usize)| {
        let out = if kind.excludes() { "left out" } else { "kept" };
        [kind.title().to_string(), thousands(*n), out.into()]
    };
    d.table(["problem", "count", "what becomes of it"], counts.iter().map(row).collect());
    for kind in counts.keys() {
        let of_kind = a.source.issues.iter().filter(|i| i.kind == *kind);
        let items: Vec<String> =
            of_kind.take(EXAMPLES).map(|i| format!("{}: {}", i.what, i.reason)).collect();
        d.heading(3, capital(kind.title()));
        d.list(items);
    }
}
