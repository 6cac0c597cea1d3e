//! The text files of a prepared set: captions and metadata.

use super::plan::{Choice, Entry, Plan};
use crate::analyze::write::issues_csv;
use crate::images::find::shown;
use crate::records::csv::defused;
use atelier_sdk::{Result, ResultExt};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Files by their place below the set's folder.
pub type Texts = BTreeMap<String, Vec<u8>>;

/// All text files but the manifest.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn texts(plan: &Plan, choice: &Choice, txt: bool) -> Result<Texts> {
    let mut out = Texts::new();
    let mut parts: BTreeMap<&str, Vec<&Entry>> =
        plan.parts.iter().map(|p| (p.0.as_str(), Vec::new())).collect();
    plan.entries.iter().for_each(|e| parts.entry(e.part.as_str()).or_default().push(e));
    for (part, entries) in &parts {
        for (i, locale) in choice.locales.iter().enumerate() {
            let ending = if i == 0 { String::new() } else { format!(".{locale}") };
            out.insert(format!("captions_{part}{ending}.json"), pretty(&captions(entries, i))?);
        }
        out.insert(format!("{part}/metadata.jsonl"), lines(plan, entries)?);
        if txt {
            let captions =
                entries.iter().map(|e| (format!("{part}/{}.txt", e.id), first(e).as_bytes().to_vec()));
            out.extend(captions);
        }
    }
    out.insert("metadata.json".into(), pretty(&metadata(plan, choice))?);
    out.insert("metadata.csv".into(), table(plan)?);
    out.insert("rejected.csv".into(), issues_csv(&plan.source.issues)?);
    Ok(out)
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).internal("metadata that is no JSON")?;
    text.push(b'\n');
    Ok(text)
}

fn first(entry: &Entry) -> &str {
    entry.captions.first().map_or("", String::as_str)
}

fn captions(entries: &[&Entry], locale: usize) -> Value {
    let of = |e: &&Entry| json!({"id": e.id, "image": e.file(), "caption": e.captions.get(locale)});
    Value::Array(entries.iter().map(of).collect())
}

/// The fields of a record that the definition reports; those without value are null.
fn fields(plan: &Plan, entry: &Entry) -> Map<String, Value> {
    let d = &plan.source.definition;
    // What the split was made by is there for the check.
    let names = d.attributes.iter().chain(&d.split.stratify).chain(d.numbers.iter().map(|n| &n.field));
    let value = |name: &String| match plan.source.table.text(entry.row as usize, name) {
        "" => Value::Null,
        text => text.into(),
    };
    names.map(|n| (n.clone(), value(n))).collect()
}

/// As the image folders of Hugging Face's `datasets` have it: `file_name` beside each image, and columns.
fn lines(plan: &Plan, entries: &[&Entry]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for e in entries {
        let mut line = Map::new();
        line.insert("file_name".into(), format!("{}.png", e.id).into());
        line.insert("text".into(), first(e).into());
        line.extend(fields(plan, e));
        serde_json::to_writer(&mut out, &Value::Object(line)).internal("metadata that is no JSON")?;
        out.push(b'\n');
    }
    Ok(out)
}

fn metadata(plan: &Plan, choice: &Choice) -> Value {
    let s = &plan.source;
    let record = |e: &Entry| {
        let mut record = Map::new();
        record.insert("id".into(), e.id.as_str().into());
        record.insert("split".into(), e.part.as_str().into());
        record.insert("file".into(), e.file().into());
        record.insert("source".into(), shown(&e.source).into());
        record.insert("stratum".into(), plan.strata[e.stratum].0.as_str().into());
        record.insert("same_as".into(), if e.group == e.id { Value::Null } else { e.group.as_str().into() });
        record.insert(
            "background".into(),
            if e.background.is_empty() { Value::Null } else { e.background.into() },
        );
        record.insert("caption".into(), first(e).into());
        record.insert("attributes".into(), Value::Object(fields(plan, e)));
        Value::Object(record)
    };
    let names: Vec<&str> = plan.parts.iter().map(|p| p.0.as_str()).collect();
    json!({
        "schema_version": 1,
        "title": s.definition.title,
        "filter": s.definition.filter,
        "seed": choice.seed,
        "size": plan.size,
        "frame": s.definition.images.frame,
        "margin": s.definition.images.margin,
        "pad": s.definition.images.pad,
        "locales": choice.locales,
        "records": {"read": s.table.len(), "selected": s.rows.len(), "used": plan.parts.iter().map(|p| p.1).sum::<usize>()},
        "splits": plan.parts.iter().map(|(name, n)| json!({"name": name, "images": n})).collect::<Vec<_>>(),
        "stratified_by": s.definition.split.stratify,
        "strata": plan.strata.iter().map(|(name, counts)| json!({"name": name, "counts": counts})).collect::<Vec<_>>(),
        "strata_columns": names,
        "pooled_below": s.definition.split.pool_below,
        "largest_deviation": plan.deviation,
        "groups": plan.groups,
        "balance": plan.balance,
        "images": plan.entries.iter().map(record).collect::<Vec<_>>(),
    })
}

/// One row for each image, in cells that no spreadsheet runs.
fn table(plan: &Plan) -> Result<Vec<u8>> {
    let what = "writing a table";
    let d = &plan.source.definition;
    let names: Vec<&String> = d.attributes.iter().chain(d.numbers.iter().map(|n| &n.field)).collect();
    let mut out = ::csv::Writer::from_writer(Vec::new());
    let head = ["id", "split", "file"].into_iter().chain(names.iter().map(|n| n.as_str())).chain(["caption"]);
    out.write_record(head.map(defused)).internal(what)?;
    for e in &plan.entries {
        let values = names.iter().map(|n| defused(plan.source.table.text(e.row as usize, n)));
        let row =
            [e.id.clone(), e.part.clone(), e.file()].into_iter().chain(values).chain([defused(first(e))]);
        out.write_record(row).internal(what)?;
    }
    out.into_inner().internal(what)
}
