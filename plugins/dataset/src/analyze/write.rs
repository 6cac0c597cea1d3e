//! Writes an analysis: reports as Markdown, text, JSON and HTML; figures as SVG and PNG; problems as CSV.

use super::document::Document;
use super::drawings::{self, Figure};
use super::{Analysis, pictures, text};
use crate::figures::{raster, svg};
use crate::images::find::shown;
use crate::images::png_file;
use crate::issue::{self, Issue};
use crate::records::csv::defused;
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::{Result, ResultExt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Pixels of a figure's point.
const SCALE: f32 = 2.0;

const STYLE: &str = "body{font:16px/1.5 Roboto,Helvetica,Arial,sans-serif;color:#212529;max-width:1200px;margin:2em auto;\
padding:0 1em}h2{margin-top:2em;border-bottom:1px solid #dee2e6}table{border-collapse:collapse;margin:1em 0}\
th,td{padding:.25em .8em;border-bottom:1px solid #dee2e6;text-align:left;vertical-align:top}th{font-weight:500}\
.n{text-align:right;font-variant-numeric:tabular-nums}figure{margin:1em 0}img{max-width:100%;height:auto}";

/// Writes everything below `out`. Returns the names of the figures.
///
/// # Errors
/// The folder is not writable, the disk is full.
pub fn write(a: &Analysis, out: &Path, seed: u64) -> Result<Vec<String>> {
    let folder = out.join("figures");
    std::fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, e))?;
    let mut figures = drawings::charts(a);
    figures.extend(pictures::grids(a, seed)?);
    let drawn: Vec<Result<(String, Vec<u8>)>> = figures.par_iter().map(|f| draw(f, &folder)).collect();
    let drawn: BTreeMap<String, Vec<u8>> = drawn.into_iter().collect::<Result<_>>()?;
    let names: Vec<String> = figures.into_iter().map(|f| f.name).collect();
    let document = text::report(a, &names);
    write_atomic(&out.join("report.md"), document.markdown().as_bytes())?;
    write_atomic(&out.join("report.txt"), document.plain().as_bytes())?;
    write_atomic(&out.join("report.html"), html(a, &document, &drawn).as_bytes())?;
    let value = serde_json::to_vec_pretty(&value(a, &names)).internal("a report that is no JSON")?;
    write_atomic(&out.join("report.json"), &value)?;
    write_atomic(&out.join("issues.csv"), &issues_csv(&a.source.issues)?)?;
    Ok(names)
}

fn draw(figure: &Figure, folder: &Path) -> Result<(String, Vec<u8>)> {
    let svg = svg::write(&figure.drawing)?;
    write_atomic(&folder.join(format!("{}.svg", figure.name)), svg.as_bytes())?;
    let png = png_file::encode_drawing(&raster::draw(&figure.drawing, SCALE)?)?;
    write_atomic(&folder.join(format!("{}.png", figure.name)), &png)?;
    Ok((figure.name.clone(), png))
}

/// One page with everything inside.
fn html(a: &Analysis, document: &Document, drawn: &BTreeMap<String, Vec<u8>>) -> String {
    let figure = |name: &str| {
        let png = drawn.get(name).map_or(String::new(), |png| STANDARD.encode(png));
        format!("data:image/png;base64,{png}")
    };
    let title = svg::escape(&a.source.definition.title);
    let body = document.html(&figure);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

fn value(a: &Analysis, figures: &[String]) -> Value {
    let pair = |p: &crate::images::duplicates::Pair| json!({"a": shown(&a.photos[p.a].path), "b": shown(&a.photos[p.b].path), "exact": p.exact});
    let unlike = |u: &crate::images::unlike::Unlike| json!({"photo": shown(&a.photos[u.place].path), "times": u.times});
    json!({
        "schema_version": 1,
        "title": a.source.definition.title,
        "filter": a.source.definition.filter,
        "records": {"read": a.source.table.len(), "selected": a.source.rows.len()},
        "attributes": a.attributes,
        "numbers": a.numbers,
        "crosses": a.crosses,
        "photos": a.look,
        "duplicates": a.pairs.iter().map(pair).collect::<Vec<_>>(),
        "unlike": a.unlike.iter().take(100).map(unlike).collect::<Vec<_>>(),
        "issues": {"counts": issue::count(&a.source.issues), "all": a.source.issues},
        "figures": figures,
    })
}

/// Problems as a table that no spreadsheet runs.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn issues_csv(issues: &[Issue]) -> Result<Vec<u8>> {
    let mut table = ::csv::Writer::from_writer(Vec::new());
    let what = "writing a table";
    table.write_record(["problem", "what", "reason"]).internal(what)?;
    for i in issues {
        table
            .write_record([i.kind.title().to_string(), defused(&i.what), defused(&i.reason)])
            .internal(what)?;
    }
    table.into_inner().internal(what)
}
