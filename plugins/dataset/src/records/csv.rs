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
    let (head, header) = header(path, &decoded.text)?;
    let id_at = header.iter().position(|h| h == id).ok_or_else(|| no_column(path, id, &header))?;
    let chunks = chunks(&decoded.text[head..], 1 + decoded.text[..head].matches('\n').count());
    let parts: Vec<Part> =
        chunks.into_par_iter().map(|c| Part::read(c, &name, header.len(), id_at)).collect();
    Ok(joined(parts, &name, header, issues))
}

/// The names of the columns, and where the records begin.
fn header(path: &Path, text: &str) -> Result<(usize, Vec<String>)> {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut record = StringRecord::new();
    let damaged = || format!("{} is not a CSV table", path.display());
    reader.read_record(&mut record).kind(ErrorKind::Corrupt, damaged)?;
    let names = record.iter().map(|h| h.trim().to_string()).collect();
    Ok(((reader.position().byte() as usize).min(text.len()), names))
}

/// A part of the text that begins and ends between records, with the number of its first line.
type Chunk<'a> = (&'a str, usize);

/// Smallest chunk that is worth a thread.
const CHUNK: usize = 256 << 10;

/// Cuts the text where a line ends outside of quotes.
fn chunks(text: &str, first_line: usize) -> Vec<Chunk<'_>> {
    let (mut out, mut from, mut line, mut lines, mut quoted) = (Vec::new(), 0, first_line, first_line, false);
    for (i, b) in text.bytes().enumerate() {
        quoted ^= b == b'"';
        if b == b'\n' {
            lines += 1;
            if !quoted && i + 1 - from >= CHUNK {
                out.push((&text[from..=i], line));
                (from, line) = (i + 1, lines);
            }
        }
    }
    out.push((&text[from..], line));
    out
}

/// The records of one chunk.
struct Part {
    columns: Vec<ColumnBuilder>,
    ids: Vec<String>,
    /// The lines of the records.
    lines: Vec<u64>,
    issues: Vec<Issue>,
}

impl Part {
    fn read((text, first_line): Chunk<'_>, name: &str, width: usize, id_at: usize) -> Self {
        let columns = (0..width).map(|_| ColumnBuilder::new("")).collect();
        let mut part = Self { columns, ids: Vec::new(), lines: Vec::new(), issues: Vec::new() };
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let mut record = StringRecord::new();
        loop {
            match reader.read_record(&mut record) {
                Ok(false) => return part,
                Ok(true) => {
                    let line = record.position().map_or(0, ::csv::Position::line) + first_line as u64 - 1;
                    part.add(&record, name, line, id_at);
                }
                // The text is UTF-8 and any number of cells is taken: nothing else can be wrong.
                Err(e) => {
                    part.issues.push(Issue::new(IssueKind::BadRecord, name, e.to_string()));
                    return part;
                }
            }
        }
    }

    fn add(&mut self, record: &StringRecord, name: &str, line: u64, id_at: usize) {
        let id = record.get(id_at).unwrap_or_default().trim();
        if let Some((kind, why)) = refusal(record, id, self.columns.len()) {
            return self.issues.push(Issue::new(kind, format!("{name}:{line}"), why));
        }
        // Looked at as a whole first: nearly every record is plain.
        // Without an early end, which lets the compiler look at many bytes at once.
        let marked = record.as_slice().bytes().fold(false, |found, b| found | (b == b'<') | (b == b'&'));
        if marked || record.iter().any(is_formula) {
            record.iter().for_each(|cell| self.look(&format!("{name}:{line}"), id, cell));
        }
        for (column, cell) in self.columns.iter_mut().zip(record) {
            column.push_cleaned(cell, html::clean);
        }
        self.ids.push(id.to_string());
        self.lines.push(line);
    }

    /// Notes what does not keep a record out.
    fn look(&mut self, at: &str, id: &str, cell: &str) {
        if is_formula(cell) {
            let why = format!("record {id}: {:?}; it is written with a ' before it", brief(cell));
            self.issues.push(Issue::new(IssueKind::Formula, at, why));
        }
        if html::is_markup(cell) {
            let why = format!("record {id}: {:?}", brief(cell));
            self.issues.push(Issue::new(IssueKind::Markup, at, why));
        }
    }
}

/// Why a record does not count.
fn refusal(record: &StringRecord, id: &str, width: usize) -> Option<(IssueKind, String)> {
    if record.len() != width {
        return Some((IssueKind::BadRecord, format!("{} cells where the header has {width}", record.len())));
    }
    let why = || format!("id {id:?} is no plain name of up to 64 letters, digits, `-`, `_` and `.`");
    (!is_plain_name(id)).then(|| (IssueKind::UnsafeName, why()))
}

/// One table of all parts, without the records whose id came before.
fn joined(mut parts: Vec<Part>, name: &str, header: Vec<String>, issues: &mut Vec<Issue>) -> Table {
    let mut seen: HashSet<&str> = HashSet::with_capacity(parts.iter().map(|p| p.ids.len()).sum());
    let mut kept: Vec<Vec<bool>> = Vec::with_capacity(parts.len());
    for part in &parts {
        kept.push(part.ids.iter().map(|id| seen.insert(id)).collect());
        let again =
            kept.last().into_iter().flatten().zip(&part.ids).zip(&part.lines).filter(|((k, _), _)| !**k);
        issues.extend(again.map(|((_, id), line)| {
            let why = format!("id {id} came before; the first record counts");
            Issue::new(IssueKind::DuplicateId, format!("{name}:{line}"), why)
        }));
    }
    issues.extend(parts.iter_mut().flat_map(|p| std::mem::take(&mut p.issues)));
    let join = |(i, name): (usize, &String)| {
        let of_part = parts.iter().zip(&kept).map(|(p, kept)| (&p.columns[i], kept.as_slice()));
        ColumnBuilder::joined(name, of_part)
    };
    let columns = header.par_iter().enumerate().filter(|(_, name)| !name.is_empty()).map(join).collect();
    let ids =
        parts.into_iter().zip(&kept).flat_map(|(p, kept)| p.ids.into_iter().zip(kept).filter(|(_, k)| **k));
    Table::new(ids.map(|(id, _)| id).collect(), columns)
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
        let (table, mut issues) = read_text(
            b"\xef\xbb\xbfid,name\n1,\"a, b\"\n2,caf\xe9\n../3,c\n/etc/4,d\n1,again\n5,e,f\n6,=SUM(A1)\n7,<b>Nice</b> &amp; new\n",
        );
        let table = table.unwrap();
        let names: Vec<_> = (0..table.len()).map(|r| table.text(r, "name")).collect();
        assert_eq!(names, ["a, b", "café", "=SUM(A1)", "Nice & new"]);
        issues.sort_by(|a, b| a.what.cmp(&b.what));
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
    fn a_large_table_is_read_in_parts_as_if_in_one() {
        let row = |i: usize| format!("{i},\"name {}, with\na line\",x{}\n", i % 50, i);
        let body: String = (0..40_000).map(row).collect();
        let text = format!("id,name,other\n{body}7,again,x\n");
        assert!(chunks(&text, 1).len() > 2);
        let (table, issues) = read_text(text.as_bytes());
        let table = table.unwrap();
        assert_eq!(
            (table.len(), table.id(39_999), table.text(123, "name")),
            (40_000, "39999", "name 23, with a line")
        );
        assert_eq!(
            (table.text(39_999, "other"), table.column("name").unwrap().values().len()),
            ("x39999", 52)
        );
        assert_eq!(issues.iter().map(|i| i.what.as_str()).collect::<Vec<_>>(), ["styles.csv:80002"]);
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
