//! Writes an analysis: reports as Markdown, text, JSON and HTML; figures as SVG and PNG; problems as CSV.

use super::document::Document;
use super::drawings::{self, Figure};
use super::{Analysis, pictures, text};
use crate::figures::{raster, svg};
use crate::images::find::shown;
use crate::issue::{self, Issue};
use crate::records::csv::defused;
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::{Error, Result, ResultExt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::Sender;

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
    written_meanwhile(|files| {
        let mut figures = drawings::charts(a);
        figures.extend(pictures::grids(a, seed)?);
        let drawn = figures.par_iter().map(|f| draw(f, &folder, files)).collect::<Result<_>>()?;
        let names: Vec<String> = figures.into_iter().map(|f| f.name).collect();
        let document = text::report(a, &names);
        let report = |ending: &str| out.join(format!("report.{ending}"));
        files.add(report("html"), html(a, &document, &drawn).into());
        files.add(report("md"), document.markdown().into());
        files.add(report("txt"), document.plain().into());
        let value = serde_json::to_vec_pretty(&value(a, &names)).internal("a report that is no JSON")?;
        files.add(report("json"), value);
        files.add(out.join("issues.csv"), issues_csv(&a.source.issues)?);
        Ok(names)
    })
}

/// Files that are to be written.
struct Files(Sender<(PathBuf, Vec<u8>)>);

impl Files {
    fn add(&self, path: PathBuf, content: Vec<u8>) {
        // Nobody takes them any more after one could not be written, which is the error then.
        let _ = self.0.send((path, content));
    }
}

/// Files that are written at one time: a disk makes sure of several in hardly more time than of one.
const WRITERS: usize = 8;

/// Writes the files that `work` adds while it works: each is made sure of on the disk, and waiting for that takes no
/// processor.
fn written_meanwhile<T>(work: impl FnOnce(&Files) -> Result<T>) -> Result<T> {
    let (files, to_write) = std::sync::mpsc::channel::<(PathBuf, Vec<u8>)>();
    let to_write = Mutex::new(to_write);
    let next = || to_write.lock().ok()?.recv().ok();
    let write = || {
        while let Some((path, content)) = next() {
            write_atomic(&path, &content)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        let done = work(&Files(files));
        let panicked = || Err(Error::internal("a writer of files panicked"));
        let written = writers.into_iter().map(|writer| writer.join().unwrap_or_else(|_| panicked()));
        // All are waited for before the first that failed is told.
        written.fold(Ok(()), Result::and).and(done)
    })
}

fn draw(figure: &Figure, folder: &Path, files: &Files) -> Result<(String, Vec<u8>)> {
    let file = |ending: &str| folder.join(format!("{}.{ending}", figure.name));
    files.add(file("svg"), svg::write(&figure.drawing)?.into());
    let png = raster::png(&figure.drawing, SCALE)?;
    files.add(file("png"), png.clone());
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
