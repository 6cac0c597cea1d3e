//! One CSV file with a header.

use super::table::{ColumnBuilder, Table};
use super::{html, text};
use crate::definition::is_plain_name;
use crate::issue::{Issue, IssueKind};
use ::csv::{ReaderBuilder, StringRecord};
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::Path;

/// Largest file that is read.
const MAX_FILE: u64 = 2 << 30;

/// Reads records; `id` is the column that names them.
///
/// # Errors
/// The file cannot be read, is empty, or has no such column.
pub fn read(path: &Path, id: &str, issues: &mut Vec<Issue>) -> Result<Table> {
    let bytes = read_file(path)?;
    let decoded = text::decode(&bytes);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let other = decoded.other_lines.iter();
    issues.extend(other.map(|n| Issue::new(IssueKind::Encoding, format!("{name}:{n}"), "line is not UTF-8")));
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(decoded.text.as_bytes());
    let damaged = || format!("{} is not a CSV table", path.display());
    let header: Vec<String> =
        reader.headers().kind(ErrorKind::Corrupt, damaged)?.iter().map(|h| h.trim().to_string()).collect();
    let id_at = header.iter().position(|h| h == id).ok_or_else(|| no_column(path, id, &header))?;
    let mut rows =
        Rows { name: &name, width: header.len(), id_at, seen: HashSet::new(), kept: Vec::new(), issues };
    for record in reader.into_records() {
        match record {
            Ok(record) => rows.add(record),
            Err(e) => rows.issues.push(Issue::new(IssueKind::BadRecord, name.clone(), e.to_string())),
        }
    }
    Ok(table(header, id_at, rows.kept))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let say = || format!("cannot read the records {}", path.display());
    let found = std::fs::metadata(path).map_err(|e| Error::io(say(), e))?;
    if !found.is_file() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the records {} are not a file", path.display()),
        )
        .hint("a data set of style documents has `layout: {kind: myntra-json}`"));
    }
    if found.len() > MAX_FILE {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} has {} bytes", path.display(), found.len()),
        )
        .hint(format!("at most {MAX_FILE} are read")));
    }
    if found.len() == 0 {
        return Err(Error::new(ErrorKind::Corrupt, format!("the records {} are empty", path.display())));
    }
    std::fs::read(path).map_err(|e| Error::io(say(), e))
}

fn no_column(path: &Path, id: &str, header: &[String]) -> Error {
    let e = Error::new(ErrorKind::Corrupt, format!("{} has no column `{id}`", path.display()));
    let e = match nearest(id, header.iter().map(String::as_str)) {
        Some(near) => e.hint(format!("did you mean `{near}`? set `layout.id` in the definition")),
        None => e,
    };
    e.hint(format!("it has: {}", header.join(", ")))
}

struct Rows<'a> {
    name: &'a str,
    width: usize,
    id_at: usize,
    seen: HashSet<String>,
    kept: Vec<StringRecord>,
    issues: &'a mut Vec<Issue>,
}

impl Rows<'_> {
    fn add(&mut self, record: StringRecord) {
        let line = record.position().map_or(0, ::csv::Position::line);
        let at = format!("{}:{line}", self.name);
        if record.len() != self.width {
            let why = format!("{} cells where the header has {}", record.len(), self.width);
            return self.issues.push(Issue::new(IssueKind::BadRecord, at, why));
        }
        let id = record[self.id_at].trim();
        if !is_plain_name(id) {
            let why = format!("id {id:?} is no plain name of up to 64 letters, digits, `-`, `_` and `.`");
            return self.issues.push(Issue::new(IssueKind::UnsafeName, at, why));
        }
        if self.seen.contains(id) {
            let why = format!("id {id} came before; the first record counts");
            return self.issues.push(Issue::new(IssueKind::DuplicateId, at, why));
        }
        for cell in record.iter() {
            self.look(&at, id, cell);
        }
        self.seen.insert(id.to_string());
        self.kept.push(record);
    }

    /// Notes what does not keep a record out.
    fn look(&mut self, at: &str, id: &str, cell: &str) {
        if is_formula(cell) {
            let why = format!("record {id}: {:?}; it is written with a ' before it", brief(cell));
            self.issues.push(Issue::new(IssueKind::Formula, at, why));
        }
        if cell.bytes().any(|b| b == b'<' || b == b'&') && html::is_markup(cell) {
            let why = format!("record {id}: {:?}", brief(cell));
            self.issues.push(Issue::new(IssueKind::Markup, at, why));
        }
    }
}

/// The beginning of a text, for messages.
pub fn brief(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}

/// Whether a spreadsheet would run a cell (CSV injection): it starts with `=`, `@`, tab or return, or with a sign
/// and is no number.
pub fn is_formula(cell: &str) -> bool {
    match cell.as_bytes().first() {
        Some(b'=' | b'@' | b'\t' | b'\r') => true,
        Some(b'+' | b'-') => cell.parse::<f64>().is_err(),
        _ => false,
    }
}

/// A cell that a spreadsheet shows and does not run.
pub fn defused(cell: &str) -> String {
    if is_formula(cell) { format!("'{cell}") } else { cell.to_string() }
}

/// The columns are independent: each is made on its own.
fn table(header: Vec<String>, id_at: usize, rows: Vec<StringRecord>) -> Table {
    let ids = rows.iter().map(|r| r[id_at].trim().to_string()).collect();
    let named = header.into_par_iter().enumerate().filter(|(_, name)| !name.is_empty());
    let columns = named.map(|(i, name)| {
        let mut column = ColumnBuilder::new(&name);
        rows.iter().for_each(|r| column.push(&html::clean(&r[i])));
        column.finish(rows.len())
    });
    let columns = columns.collect();
    Table::new(ids, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(bytes: &[u8]) -> (Result<Table>, Vec<Issue>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("styles.csv");
        std::fs::write(&path, bytes).unwrap();
        let mut issues = Vec::new();
        (read(&path, "id", &mut issues), issues)
    }

    #[test]
    fn good_rows_are_read_and_every_bad_one_is_listed_with_its_line() {
        let (table, issues) = read_text(
            b"\xef\xbb\xbfid,name\n1,\"a, b\"\n2,caf\xe9\n../3,c\n/etc/4,d\n1,again\n5,e,f\n6,=SUM(A1)\n7,<b>Nice</b> &amp; new\n",
        );
        let table = table.unwrap();
        let names: Vec<_> = (0..table.len()).map(|r| table.text(r, "name")).collect();
        assert_eq!(names, ["a, b", "café", "=SUM(A1)", "Nice & new"]);
        let found: Vec<_> = issues.iter().map(|i| (i.kind, i.what.as_str())).collect();
        assert_eq!(
            found,
            [
                (IssueKind::Encoding, "styles.csv:3"),
                (IssueKind::UnsafeName, "styles.csv:4"),
                (IssueKind::UnsafeName, "styles.csv:5"),
                (IssueKind::DuplicateId, "styles.csv:6"),
                (IssueKind::BadRecord, "styles.csv:7"),
                (IssueKind::Formula, "styles.csv:8"),
                (IssueKind::Markup, "styles.csv:9"),
            ]
        );
    }

    #[test]
    fn a_file_without_the_column_of_ids_is_refused_with_the_columns_it_has() {
        let e = read_text(b"Id,name\n1,a\n").0.unwrap_err();
        assert!(e.message().contains("no column `id`") && e.hints().join(" ").contains("`Id`"), "{e:?}");
        assert!(read_text(b"").0.unwrap_err().message().contains("empty"));
    }

    #[test]
    fn cells_that_a_spreadsheet_would_run_are_written_as_text() {
        for cell in ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1"] {
            assert_eq!(defused(cell), format!("'{cell}"));
        }
        for cell in ["-2.5", "+3", "a=b", "", "2-1"] {
            assert_eq!(defused(cell), cell);
        }
    }
}
