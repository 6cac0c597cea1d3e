//! One CSV file with a header.

use super::cells::{Cells, Records, parts};
use super::pieces::Pieces;
use super::table::{Column, ColumnBuilder, Table, trimmed};
use super::texts::Dictionary;
use super::{html, text};
use crate::definition::is_plain_name;
use crate::issue::{Issue, IssueKind};
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Result};
use rayon::prelude::*;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// Largest file that is read.
const MAX_FILE: u64 = 2 << 30;

/// Reads records; `id` is the column that names them.
///
/// # Errors
/// The file cannot be read, is empty, or has no such column.
pub fn read(path: &Path, id: &str, issues: &mut Vec<Issue>) -> Result<Table> {
    let bytes = read_file(path)?;
    let decoded = text::decode(bytes);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let other = decoded.other_lines.iter();
    issues.extend(other.map(|n| Issue::new(IssueKind::Encoding, format!("{name}:{n}"), "line is not UTF-8")));
    let source = Arc::new(decoded.text);
    let (header, rest, line) = header(path, &source)?;
    let id_at = header.iter().position(|h| h == id).ok_or_else(|| no_column(path, id, &header))?;
    let common = Common { source: &source, header, id_at };
    let least = LEAST.max(rest.len() / (PARTS * rayon::current_num_threads()));
    let parts: Vec<Part> = parts(rest, least).into_par_iter().map(|text| Part::read(text, &common)).collect();
    Ok(joined(&parts, &common, (&name, line), issues))
}

/// What the parts of a table have in common.
struct Common<'t> {
    /// The text of the file.
    source: &'t Arc<String>,
    /// The names of the columns.
    header: Vec<String>,
    /// The column of the ids.
    id_at: usize,
}

/// Smallest part, in bytes, that is worth a thread.
const LEAST: usize = 256 << 10;
/// Parts for each thread: one that is busy with something else takes fewer.
const PARTS: usize = 4;

/// The names of the columns, the text of the records, and the line that it begins in.
fn header<'t>(path: &Path, text: &'t str) -> Result<(Vec<String>, &'t str, usize)> {
    let (mut records, mut cells) = (Records::of(text), Cells::of(text));
    if records.next_into(&mut cells).is_none() {
        return Err(Error::new(ErrorKind::Corrupt, format!("{} has no line", path.display())));
    }
    let names = cells.iter().map(|h| h.trim().to_string()).collect();
    Ok((names, &text[records.at()..], 1 + records.line()))
}

/// The records of a part of a table; lines are counted from its beginning.
struct Part {
    /// That of the ids stays empty.
    columns: Vec<ColumnBuilder>,
    ids: Pieces,
    /// The lines of the records: in a file of this size there are no more than fit.
    lines: Vec<u32>,
    issues: Vec<(IssueKind, usize, String)>,
    /// Line ends.
    length: usize,
}

impl Part {
    fn read(text: &str, common: &Common<'_>) -> Self {
        // As many as there would be if all were as long as the first.
        let rows = text.len() / text.find('\n').unwrap_or(text.len()).max(1) + 1;
        let memory = |i| if i == common.id_at { 0 } else { rows };
        let column = |i| ColumnBuilder::of(memory(i), common.source);
        let mut part = Self {
            columns: (0..common.header.len()).map(column).collect(),
            ids: Pieces::of(common.source, rows),
            lines: Vec::with_capacity(rows),
            issues: Vec::new(),
            length: 0,
        };
        let (mut records, mut cells, mut from) = (Records::of(text), Cells::of(text), 0);
        while let Some(line) = records.next_into(&mut cells) {
            if records.unclosed() {
                let below = text[from..].trim_start().lines().count().saturating_sub(1);
                let why = format!(
                    "a quote is opened and never closed: this and the {below} lines below are one record"
                );
                part.issues.push((IssueKind::BadRecord, line, why));
                break;
            }
            part.add(&cells, common.id_at, line, records.is_odd());
            from = records.at();
        }
        part.length = records.line();
        part
    }

    /// Adds a record. One that is not odd has neither formulas nor markup, nor anything else to clean up.
    fn add(&mut self, cells: &Cells<'_>, id_at: usize, line: usize, is_odd: bool) {
        let id = trimmed(cells.get(id_at));
        if let Some((kind, why)) = refusal(cells.len(), id, self.columns.len()) {
            return self.issues.push((kind, line, why));
        }
        if is_odd {
            cells.iter().for_each(|cell| self.look(line, id, cell));
        }
        let clean = |text| if is_odd { html::clean(text) } else { Cow::Borrowed(text) };
        for (i, column) in self.columns.iter_mut().enumerate() {
            if i != id_at && !column.push_recent(cells.short(i)) {
                column.push_cleaned(cells.get(i), clean);
            }
        }
        self.ids.push(id);
        self.lines.push(line as u32);
    }

    /// Notes what does not keep a record out.
    fn look(&mut self, line: usize, id: &str, cell: &str) {
        if is_formula(cell) {
            let why = format!("record {id}: {:?}; it is written with a ' before it", brief(cell));
            self.issues.push((IssueKind::Formula, line, why));
        }
        if html::is_markup(cell) {
            self.issues.push((IssueKind::Markup, line, format!("record {id}: {:?}", brief(cell))));
        }
    }
}

/// Why a record does not count.
fn refusal(cells: usize, id: &str, width: usize) -> Option<(IssueKind, String)> {
    if cells != width {
        return Some((IssueKind::BadRecord, format!("{cells} cells where the header has {width}")));
    }
    let why = || format!("id {id:?} is no plain name of up to 64 letters, digits, `-`, `_` and `.`");
    (!is_plain_name(id)).then(|| (IssueKind::UnsafeName, why()))
}

/// One table of all parts, without the records whose id came before. `at` is the file's name, and the line that the
/// first part begins in.
fn joined(parts: &[Part], common: &Common<'_>, at: (&str, usize), issues: &mut Vec<Issue>) -> Table {
    let (name, mut first) = at;
    let kept = firsts(parts);
    for (part, kept) in parts.iter().zip(&kept) {
        let mut issue =
            |kind, line, why| issues.push(Issue::new(kind, format!("{name}:{}", first + line), why));
        for i in kept.iter().flat_map(|kept| (0..kept.len()).filter(|i| !kept[*i])) {
            let why = format!("id {} came before; the first record counts", part.ids.get(i));
            issue(IssueKind::DuplicateId, part.lines[i] as usize, why);
        }
        part.issues.iter().for_each(|(kind, line, why)| issue(*kind, *line, why.clone()));
        first += part.length;
    }
    let of_parts = || parts.iter().zip(kept.iter().map(Option::as_deref));
    let mut ids = Pieces::of(common.source, parts.iter().map(|part| part.ids.len()).sum());
    of_parts().for_each(|(part, kept)| ids.append(&part.ids, kept));
    let ids = Arc::new(ids);
    let join = |(i, name): (usize, &String)| {
        if i == common.id_at {
            return Column::of_each(name, ids.clone());
        }
        let of_column = of_parts().map(|(part, kept)| (&part.columns[i], kept));
        ColumnBuilder::joined(name, &of_column.collect::<Vec<_>>())
    };
    let columns: Vec<Column> =
        common.header.par_iter().enumerate().filter(|(_, name)| !name.is_empty()).map(join).collect();
    Table::of(ids, columns)
}

/// Of each part's records: whether its id is the first of its kind; nothing if all are.
fn firsts(parts: &[Part]) -> Vec<Option<Vec<bool>>> {
    let ids = || parts.iter().flat_map(|part| part.ids.iter());
    // In most tables they ascend, and are all different then.
    if ids().is_sorted_by(|a, b| (a.len(), a) < (b.len(), b)) {
        return parts.iter().map(|_| None).collect();
    }
    let mut known = Dictionary::of(ids().count());
    parts.iter().map(|part| Some(part.ids.iter().map(|id| known.add(id).1).collect())).collect()
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
    let e = match (header, nearest(id, header.iter().map(String::as_str))) {
        ([one], _) if one.contains([';', '\t', '|']) => {
            e.hint("its cells seem to be separated by something else: save it with commas")
        }
        (_, Some(near)) => {
            e.hint(format!("did you mean `{}`? set `layout.id` in the definition", listed(&[near])))
        }
        _ => e,
    };
    e.hint(format!("it has: {}", listed(header)))
}

/// Names for a message: not too many, and none that a terminal would run.
pub fn listed<S: AsRef<str>>(names: &[S]) -> String {
    const MOST: usize = 40;
    let shown = names.iter().take(MOST).map(|n| brief(n.as_ref()).escape_debug().to_string());
    let shown = shown.collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
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
        assert!(text.len() > 3 * LEAST);
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
    fn an_id_that_reads_as_no_value_is_an_id() {
        let (table, issues) = read_text(b"id,name\nNA,a\nnan,NA\n");
        let table = table.unwrap();
        assert_eq!((table.id(0), table.id(1), issues.len()), ("NA", "nan", 0));
        assert_eq!((table.text(0, "id"), table.text(1, "id"), table.text(1, "name")), ("NA", "nan", ""));
    }

    #[test]
    fn a_file_without_the_column_of_ids_is_refused_with_the_columns_it_has() {
        let e = read_text(b"Id,name\n1,a\n").0.unwrap_err();
        assert!(e.message().contains("no column `id`") && e.hints().join(" ").contains("`Id`"), "{e:?}");
        assert!(read_text(b"").0.unwrap_err().message().contains("empty"));
    }

    #[test]
    fn a_quote_that_is_never_closed_is_listed_with_what_it_swallows() {
        let (table, issues) = read_text(b"id,name\n1,a\n2,\"b\n3,c\n4,d\n");
        assert_eq!(table.unwrap().len(), 1);
        assert_eq!(
            (issues.len(), issues[0].kind, &*issues[0].what),
            (1, IssueKind::BadRecord, "styles.csv:3")
        );
        assert!(issues[0].reason.contains("the 2 lines below"), "{issues:?}");
    }

    #[test]
    fn a_table_with_other_separators_is_told_so_and_nothing_of_it_reaches_the_terminal_raw() {
        let e = read_text(b"id;na\x1b[2Jme\n1;a\n").0.unwrap_err();
        assert!(e.hints()[0].contains("commas"), "{e:?}");
        assert!(e.hints()[1].contains("id;na\\u{1b}[2Jme"), "{e:?}");
        let many: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
        assert!(listed(&many).ends_with("c39 and 60 more"));
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
