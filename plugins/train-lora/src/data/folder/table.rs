//! Tables of captions: JSON, lines of JSON, CSV.

use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Hugging Face's table as lines of JSON.
pub const JSONL: &str = "metadata.jsonl";
/// Hugging Face's table as CSV.
pub const CSV: &str = "metadata.csv";
/// Columns that hold the caption; the first that a row has counts.
const CAPTIONS: [&str; 2] = ["text", "caption"];
const FILE: &str = "file_name";
/// Largest table that is read.
const MAX_FILE: u64 = 1 << 30;

/// A row: an image, its caption, and all other columns with a value.
#[derive(Debug, Default, PartialEq)]
pub struct TableRow {
    pub file: String,
    pub caption: String,
    pub attributes: BTreeMap<String, String>,
}

/// Rows with the lines they begin at; of bad ones, why.
pub type Rows = Vec<(usize, Result<TableRow, String>)>;

fn read(path: &Path) -> Result<String> {
    let failed = |e| Error::io(format!("cannot read {}", path.display()), e);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(Error::invalid(format!(
            "{} has {length} bytes; at most {MAX_FILE} are read",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let text =
        String::from_utf8(bytes).kind(ErrorKind::Corrupt, || format!("{} is not UTF-8", path.display()));
    let text = text.map_err(|e| e.hint("save it as UTF-8"))?;
    Ok(text.trim_start_matches('\u{feff}').to_string())
}

/// A file of JSON.
pub fn json(path: &Path) -> Result<Value> {
    let what = || format!("{} is damaged: it is not JSON", path.display());
    serde_json::from_str(&read(path)?)
        .kind(ErrorKind::Corrupt, what)
        .map_err(|e| e.hint("make or copy the set again"))
}

/// A value as text; nothing for null, lists and objects.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.trim().to_string()).filter(|s| !s.is_empty()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// Lines of JSON.
pub fn jsonl(path: &Path) -> Result<Rows> {
    let text = read(path)?;
    let lines = text.lines().enumerate().filter(|l| !l.1.trim().is_empty());
    Ok(lines.map(|(i, line)| (i + 1, json_row(line))).collect())
}

fn json_row(line: &str) -> Result<TableRow, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => row(fields.iter().filter_map(|(k, v)| Some((k.as_str(), text_of(v)?)))),
        Ok(_) => Err("it is not an object".into()),
        Err(e) => Err(format!("it is not JSON: {e}")),
    }
}

fn row<'a>(fields: impl Iterator<Item = (&'a str, String)>) -> Result<TableRow, String> {
    let mut attributes: BTreeMap<String, String> = fields.map(|(k, v)| (k.to_string(), v)).collect();
    let file = attributes.remove(FILE).ok_or_else(|| format!("it has no {FILE}"))?;
    let captions = CAPTIONS.map(|name| attributes.remove(name));
    let caption = captions.into_iter().flatten().next().unwrap_or_default();
    Ok(TableRow { file, caption, attributes })
}

/// Comma-separated values with a head.
pub fn csv(path: &Path) -> Result<Rows> {
    let text = read(path)?;
    let mut records = records(&text).into_iter();
    let head = records.next().map_or(Vec::new(), |r| r.1);
    if !head.iter().any(|h| h.trim() == FILE) {
        return Err(Error::new(ErrorKind::Corrupt, format!("{} has no column {FILE}", path.display()))
            .hint(format!("its first line names the columns: {FILE},text")));
    }
    let of = |cells: Vec<String>| match cells.len() == head.len() {
        false => Err(format!("it has {} cells and not {}", cells.len(), head.len())),
        true => {
            let cells = cells.into_iter().map(|c| c.trim().to_string());
            row(head.iter().map(|h| h.trim()).zip(cells).filter(|c| !c.1.is_empty()))
        }
    };
    Ok(records.map(|(line, cells)| (line, of(cells))).collect())
}

/// The records of a CSV text (RFC 4180) with the lines they begin at; empty lines are none.
fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut out, mut cells, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begin, mut quoted) = (1, 1, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            c if quoted => cell.push(c),
            ',' => cells.push(std::mem::take(&mut cell)),
            '\r' if chars.peek().is_none_or(|c| *c == '\n') => {}
            '\n' => {
                cells.push(std::mem::take(&mut cell));
                out.push((begin, std::mem::take(&mut cells)));
                begin = line;
            }
            c => cell.push(c),
        }
    }
    if !cell.is_empty() || !cells.is_empty() {
        cells.push(cell);
        out.push((begin, cells));
    }
    out.retain(|r| r.1 != [""]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Dir;

    #[test]
    fn cells_may_hold_commas_quotes_and_lines() {
        let text = "a,b\r\n\"x, \"\"y\"\"\nz\",\n\n1,\"2\"";
        let cells = |of: &[&str]| of.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(
            records(text),
            [(1, cells(&["a", "b"])), (2, cells(&["x, \"y\"\nz", ""])), (5, cells(&["1", "2"]))]
        );
        assert_eq!(records("a,\"never closed").len(), 1);
        assert!(records("").is_empty());
    }

    #[test]
    fn a_row_is_a_file_a_caption_and_the_rest() {
        let good =
            json_row(r#"{"file_name":"a.png","caption":"c","text":"t","n":1.5,"x":null,"l":[1]}"#).unwrap();
        assert_eq!((good.file.as_str(), good.caption.as_str()), ("a.png", "t"));
        assert_eq!(good.attributes, BTreeMap::from([("n".to_string(), "1.5".to_string())]));
        for bad in ["[]", "{", r#"{"text":"t"}"#] {
            assert!(json_row(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_that_is_none_is_an_error_with_a_hint() {
        let dir = Dir::new();
        dir.put("a.csv", "name,text\n");
        dir.put("b.csv", b"file_name\xff");
        for file in ["a.csv", "b.csv"] {
            let e = csv(&dir.path().join(file)).unwrap_err();
            assert!(e.kind() == ErrorKind::Corrupt && !e.hints().is_empty(), "{e:?}");
        }
    }
}
