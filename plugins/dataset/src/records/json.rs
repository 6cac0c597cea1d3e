//! Style documents of the Myntra catalogue: `<id>.json` holds `{"notification": .., "meta": .., "data": {..}}`.
//!
//! Of `data` the facts about the product are read: texts and numbers, the `typeName` of categories, all
//! `articleAttributes` (as `articleAttributes.<name>`), and the text of `productDescriptors` (`description`, ...).

use super::csv::brief;
use super::table::{ColumnBuilder, Table};
use super::{html, text};
use crate::definition::is_plain_name;
use crate::issue::{Issue, IssueKind};
use atelier_sdk::{Error, ErrorKind, Result};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Largest document that is read; real ones have about 20 KB.
const MAX_FILE: u64 = 4 << 20;

#[derive(Deserialize)]
struct Document {
    data: Option<Data>,
}

/// The parts of a style that describe the product.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    id: Option<Value>,
    price: Option<Value>,
    discounted_price: Option<Value>,
    product_display_name: Option<Value>,
    variant_name: Option<Value>,
    brand_name: Option<Value>,
    age_group: Option<Value>,
    gender: Option<Value>,
    base_colour: Option<Value>,
    colour1: Option<Value>,
    colour2: Option<Value>,
    fashion_type: Option<Value>,
    season: Option<Value>,
    year: Option<Value>,
    usage: Option<Value>,
    display_categories: Option<Value>,
    master_category: Option<Value>,
    sub_category: Option<Value>,
    article_type: Option<Value>,
    #[serde(default)]
    article_attributes: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    product_descriptors: Option<BTreeMap<String, Value>>,
}

/// The fields of a record, in the order of the columns.
type Fields = Vec<(String, String)>;

impl Data {
    fn fields(self) -> Fields {
        let plain = [
            ("price", self.price),
            ("discountedPrice", self.discounted_price),
            ("productDisplayName", self.product_display_name),
            ("variantName", self.variant_name),
            ("brandName", self.brand_name),
            ("ageGroup", self.age_group),
            ("gender", self.gender),
            ("baseColour", self.base_colour),
            ("colour1", self.colour1),
            ("colour2", self.colour2),
            ("fashionType", self.fashion_type),
            ("season", self.season),
            ("year", self.year),
            ("usage", self.usage),
            ("displayCategories", self.display_categories),
            ("masterCategory", self.master_category),
            ("subCategory", self.sub_category),
            ("articleType", self.article_type),
        ];
        let mut fields: Fields =
            plain.into_iter().map(|(k, v)| (k.to_string(), v.map_or(String::new(), flat))).collect();
        let attributes = self.article_attributes.into_iter().flatten();
        fields.extend(attributes.map(|(k, v)| (format!("articleAttributes.{k}"), flat(v))));
        fields.extend(self.product_descriptors.into_iter().flatten().map(|(k, v)| (k, flat(v))));
        fields
    }
}

/// The text of a value: of a mapping its name or value; of a list its items.
fn flat(value: Value) -> String {
    match value {
        Value::String(s) => s,
        Value::Null => String::new(),
        Value::Object(mut map) => {
            let inner = ["typeName", "value", "name"].iter().find_map(|k| map.remove(*k));
            inner.map_or(String::new(), flat)
        }
        Value::Array(list) => list.into_iter().map(flat).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A document that was read.
struct Style {
    id: String,
    fields: Fields,
    issues: Vec<Issue>,
}

/// Reads a folder of style documents, in the order of their names; numbers as numbers.
///
/// # Errors
/// The folder cannot be read, or holds no document.
pub fn read(folder: &Path, issues: &mut Vec<Issue>) -> Result<Table> {
    let files = documents(folder)?;
    let mut styles: Vec<Style> = Vec::with_capacity(files.len());
    let mut seen = HashMap::new();
    for (file, style) in files.par_iter().map(|f| (name_of(f), read_style(f))).collect::<Vec<_>>() {
        match style {
            Err(issue) => issues.push(issue),
            Ok(style) => match seen.insert(style.id.clone(), file.clone()) {
                Some(before) => {
                    let why = format!("id {} is in {before} as well; the first counts", style.id);
                    issues.push(Issue::new(IssueKind::DuplicateId, file, why));
                }
                None => styles.push(style),
            },
        }
    }
    issues.extend(styles.iter_mut().flat_map(|s| std::mem::take(&mut s.issues)));
    Ok(table(&styles))
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn documents(folder: &Path) -> Result<Vec<PathBuf>> {
    let say = |e| Error::io(format!("cannot read the folder of records {}", folder.display()), e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(say)? {
        let path = entry.map_err(say)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no .json file in {}", folder.display()),
        )
        .hint("`layout.records` (or the parameter `records`) names the folder of <id>.json files"));
    }
    let number =
        |p: &PathBuf| p.file_stem().and_then(|s| s.to_str()?.parse::<u64>().ok()).unwrap_or(u64::MAX);
    files.sort_by(|a, b| number(a).cmp(&number(b)).then_with(|| a.cmp(b)));
    Ok(files)
}

fn read_style(file: &Path) -> Result<Style, Issue> {
    let name = name_of(file);
    let bad = |why: String| Issue::new(IssueKind::BadRecord, name.clone(), why);
    let length = std::fs::metadata(file).map_err(|e| bad(e.to_string()))?.len();
    if length == 0 {
        return Err(bad("the file is empty".into()));
    }
    if length > MAX_FILE {
        return Err(bad(format!("the file has {length} bytes; at most {MAX_FILE} are read")));
    }
    let bytes = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
    let decoded = text::decode(bytes);
    let document: Document = serde_json::from_str(&decoded.text).map_err(|e| {
        let cut = if e.is_eof() { "the file is cut off: " } else { "" };
        bad(format!("{cut}{e}"))
    })?;
    let data = document.data.ok_or_else(|| bad("there is no `data`".into()))?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let id = data.id.clone().map_or(stem.to_string(), flat);
    if !is_plain_name(&id) {
        return Err(Issue::new(IssueKind::UnsafeName, name, format!("id {id:?} is no plain name")));
    }
    let mut issues = Vec::new();
    if id != stem {
        let why = format!("the id inside is {id}, which is not the file's name; the id inside counts");
        issues.push(Issue::new(IssueKind::OtherName, name.clone(), why));
    }
    if !decoded.other_lines.is_empty() {
        let lines = decoded.other_lines.len();
        issues.push(Issue::new(IssueKind::Encoding, name.clone(), format!("{lines} lines are not UTF-8")));
    }
    let fields = cleaned(data.fields(), &name, &mut issues);
    Ok(Style { id, fields, issues })
}

/// Descriptions are markup by nature; elsewhere it is worth a note.
fn cleaned(fields: Fields, name: &str, issues: &mut Vec<Issue>) -> Fields {
    let clean = |(key, value): (String, String)| {
        let prose = key.ends_with("_desc") || key == "description" || key == "style_note";
        if !prose && value.contains(['<', '&']) && html::is_markup(&value) {
            issues.push(Issue::new(IssueKind::Markup, name, format!("`{key}`: {:?}", brief(&value))));
        }
        let value = html::clean(&value).into_owned();
        (key, value)
    };
    fields.into_iter().map(clean).collect()
}

fn table(styles: &[Style]) -> Table {
    let mut order: Vec<&str> = Vec::new();
    let mut builders: HashMap<&str, ColumnBuilder> = HashMap::new();
    for (row, style) in styles.iter().enumerate() {
        for (key, value) in style.fields.iter().filter(|f| !f.1.is_empty()) {
            let builder = builders.entry(key).or_insert_with(|| {
                order.push(key);
                ColumnBuilder::new(key)
            });
            builder.push_at(row, value);
        }
    }
    let columns = order.iter().filter_map(|k| Some(builders.remove(k)?.finish(styles.len()))).collect();
    Table::new(styles.iter().map(|s| &s.id).collect(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_become_rows_and_bad_ones_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let style = |id: &str, rest: &str| {
            format!(
                r#"{{"notification":{{}},"meta":{{"code":200}},"data":{{"id":{id},"price":3499,"year":"2010","gender":"Men",
                "articleType":{{"id":1,"typeName":"Casual Shoes"}},"colours":{{"x":[1,{{}}]}}{rest}}}}}"#
            )
        };
        let files = [
            ("10.json", style("10", r#","articleAttributes":{"Material":"Canvas"},"baseColour":"NA""#)),
            (
                "9.json",
                style("9", r#","productDescriptors":{"description":{"value":"<p>Soft<br>sole</p>"}}"#),
            ),
            ("11.json", style("11", "")[..60].to_string()),
            ("12.json", String::new()),
            ("13.json", r#"{"meta":{"code":404}}"#.into()),
            ("14.json", style(r#""../../14""#, "")),
            ("15.json", style("9", "")),
            ("16.json", style("16", r#","brandName":"<b>Puma</b>""#)),
        ];
        for (name, text) in &files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut issues = Vec::new();
        let t = read(dir.path(), &mut issues).unwrap();
        let ids: Vec<_> = (0..t.len()).map(|r| t.id(r)).collect();
        assert_eq!(ids, ["9", "10", "16"]);
        assert_eq!((t.text(0, "description"), t.text(0, "price")), ("Soft sole", "3499"));
        assert_eq!((t.text(1, "articleAttributes.Material"), t.text(1, "baseColour")), ("Canvas", ""));
        assert_eq!((t.text(2, "brandName"), t.text(2, "articleType")), ("Puma", "Casual Shoes"));
        let found: Vec<_> = issues.iter().map(|i| (i.kind, i.what.as_str())).collect();
        let bad = IssueKind::BadRecord;
        assert_eq!(
            found,
            [
                (bad, "11.json"),
                (bad, "12.json"),
                (bad, "13.json"),
                (IssueKind::UnsafeName, "14.json"),
                (IssueKind::DuplicateId, "15.json"),
                (IssueKind::Markup, "16.json"),
            ]
        );
        assert!(issues[0].reason.contains("cut off"), "{:?}", issues[0]);
    }

    #[test]
    fn a_folder_without_documents_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path(), &mut Vec::new()).unwrap_err().message().contains("no .json"));
        assert_eq!(read(&dir.path().join("x"), &mut Vec::new()).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
