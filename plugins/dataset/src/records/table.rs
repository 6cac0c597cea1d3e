//! A table of text by columns: each value is stored once, rows are numbers.

use super::short::{Recent, Short};
use super::texts::{Dictionary, Texts};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

/// The code of "no value".
pub const MISSING: u32 = 0;

/// A column: a code for each row, a text for each code.
#[derive(Debug, Clone)]
pub struct Column {
    /// The field's name.
    pub name: String,
    /// The text of each row, where most rows have one of their own: codes are then made when they are asked for.
    each: Option<Texts>,
    coded: OnceLock<Coded>,
}

#[derive(Debug, Clone)]
struct Coded {
    codes: Vec<u32>,
    values: Texts,
}

impl Column {
    fn coded(&self) -> &Coded {
        self.coded.get_or_init(|| {
            let mut values = Dictionary::default();
            values.add("");
            let each = self.each.iter().flat_map(Texts::iter);
            let codes = each.map(|text| values.add(text).0).collect();
            Coded { codes, values: values.into_texts() }
        })
    }

    /// The codes of the rows.
    pub fn codes(&self) -> &[u32] {
        &self.coded().codes
    }

    /// The texts of the codes; the first is that of [`MISSING`], which is empty.
    pub fn values(&self) -> &Texts {
        &self.coded().values
    }

    /// The text of a row; empty if it has none.
    pub fn text(&self, row: usize) -> &str {
        match &self.each {
            Some(each) => each.get(row as u32),
            None => self.values().get(self.codes()[row]),
        }
    }

    /// Rows of each code, among `rows`.
    pub fn counts(&self, rows: &[u32]) -> Vec<usize> {
        let Coded { codes, values } = self.coded();
        let mut counts = vec![0; values.len()];
        rows.iter().for_each(|r| counts[codes[*r as usize] as usize] += 1);
        counts
    }
}

/// Rows by which it is judged whether values repeat.
const SAMPLE: usize = 512;

/// Makes a column.
#[derive(Debug)]
pub struct ColumnBuilder {
    name: String,
    codes: Vec<u32>,
    values: Dictionary,
    /// Codes of texts that are kept in another form.
    others: HashMap<Box<str>, u32>,
    /// The text of each row, once it shows that they do not repeat: looking each up would take longer than reading it.
    each: Option<Texts>,
    recent: Recent,
}

impl ColumnBuilder {
    /// An empty column.
    pub fn new(name: &str) -> Self {
        let mut values = Dictionary::default();
        values.add("");
        Self {
            name: name.into(),
            codes: Vec::new(),
            values,
            others: HashMap::new(),
            each: None,
            recent: Recent::default(),
        }
    }

    /// An empty column with memory for so many rows.
    pub fn of(rows: usize) -> Self {
        let mut empty = Self::new("");
        empty.codes.reserve(rows);
        empty
    }

    /// An empty column of so many rows whose values do not repeat.
    pub fn of_each(rows: usize) -> Self {
        let mut each = Texts::default();
        each.reserve(rows, 8 * rows);
        Self { each: Some(each), ..Self::new("") }
    }

    /// The texts of the rows, if their values do not repeat.
    pub fn each(&self) -> Option<&Texts> {
        self.each.as_ref()
    }

    /// Adds a row. White space around the text does not count; `NA` and the like are no value.
    pub fn push(&mut self, text: &str) {
        self.push_cleaned(text, Cow::Borrowed);
    }

    /// Adds a row whose text is kept as `clean` makes it, which is asked once for each text that repeats.
    pub fn push_cleaned<'a>(&mut self, text: &'a str, clean: impl FnOnce(&'a str) -> Cow<'a, str>) {
        if let Some(each) = &mut self.each {
            return each.push(kept(&clean(text)));
        }
        let short = Short::of(text);
        let code = match short.and_then(|short| self.recent.code(short)) {
            Some(code) => code,
            None => {
                let code = self.values.find(text).unwrap_or_else(|| self.learn(text, clean));
                short.into_iter().for_each(|short| self.recent.keep(short, code));
                code
            }
        };
        self.codes.push(code);
        if self.codes.len() == SAMPLE && self.values.texts().len() > SAMPLE / 2 {
            let mut each: Texts = self.rows().collect();
            each.reserve(self.codes.capacity(), 0);
            self.each = Some(each);
        }
    }

    /// The code of a text that is kept in another form, or was not given before.
    fn learn<'a>(&mut self, given: &'a str, clean: impl FnOnce(&'a str) -> Cow<'a, str>) -> u32 {
        if let Some(code) = self.others.get(given) {
            return *code;
        }
        let cleaned = clean(given);
        let kept = kept(&cleaned);
        let code = self.values.add(kept).0;
        if given != kept {
            self.others.insert(given.into(), code);
        }
        code
    }

    /// The texts of the rows that have codes.
    fn rows(&self) -> impl Iterator<Item = &str> {
        self.codes.iter().map(|code| self.values.texts().get(*code))
    }

    /// One column of several, without the rows that are not kept.
    pub fn joined(name: &str, parts: &[(&Self, &[bool])]) -> Column {
        if parts.iter().any(|(part, _)| part.each.is_some()) {
            return Column { name: name.into(), each: Some(joined_texts(parts)), coded: OnceLock::new() };
        }
        let mut all = Self::new(name);
        for (part, kept) in parts {
            all.codes.reserve(kept.len());
            let codes: Vec<u32> = part.values.texts().iter().map(|v| all.values.add(v).0).collect();
            let rows = part.codes.iter().zip(*kept).filter(|(_, kept)| **kept);
            all.codes.extend(rows.map(|(code, _)| codes[*code as usize]));
        }
        let rows = all.codes.len();
        all.finish(rows)
    }

    /// The column, with rows without value up to `rows`.
    pub fn finish(mut self, rows: usize) -> Column {
        self.fill(rows);
        let Self { name, codes, values, each, .. } = self;
        let coded = match each {
            Some(_) => OnceLock::new(),
            None => OnceLock::from(Coded { codes, values: values.into_texts() }),
        };
        Column { name, each, coded }
    }

    /// Rows without value up to `rows`.
    fn fill(&mut self, rows: usize) {
        match &mut self.each {
            Some(each) => (each.len()..rows).for_each(|_| each.push("")),
            None => self.codes.resize(rows, MISSING),
        }
    }

    /// Fills up to a row that has a value.
    pub fn push_at(&mut self, row: usize, text: &str) {
        self.fill(row);
        self.push(text);
    }
}

fn joined_texts(parts: &[(&ColumnBuilder, &[bool])]) -> Texts {
    let mut all = Texts::default();
    let bytes = parts.iter().filter_map(|(part, _)| part.each.as_ref()).map(Texts::bytes).sum();
    all.reserve(parts.iter().map(|(_, kept)| kept.len()).sum(), bytes);
    for (part, kept) in parts {
        match &part.each {
            Some(each) if kept.iter().all(|kept| *kept) => all.append(each),
            Some(each) => each.iter().zip(*kept).filter(|t| *t.1).for_each(|t| all.push(t.0)),
            None => part.rows().zip(*kept).filter(|t| *t.1).for_each(|t| all.push(t.0)),
        }
    }
    all
}

/// What is kept of a text: nothing of one that says that there is no value.
fn kept(text: &str) -> &str {
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_graphic());
    // Nearly every text: without a look at what else counts as white space.
    let is_trimmed = ends(text.as_bytes().first()) && ends(text.as_bytes().last());
    let text = if is_trimmed { text } else { text.trim() };
    if is_missing(text) { "" } else { text }
}

fn is_missing(text: &str) -> bool {
    match text.len() {
        0 => true,
        2..=4 => ["NA", "N/A", "nan", "NaN", "null", "None"].contains(&text),
        _ => false,
    }
}

/// Records.
#[derive(Debug, Default, Clone)]
pub struct Table {
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    ids: Texts,
}

impl Table {
    /// A table of records named by `ids`.
    pub fn new(ids: Texts, columns: Vec<Column>) -> Self {
        let by_name = columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
        Self { columns, by_name, ids }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The name of a record: a plain name, unlike any other's.
    pub fn id(&self, row: usize) -> &str {
        self.ids.get(row as u32)
    }

    /// A column.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.by_name.get(name).map(|i| &self.columns[*i])
    }

    /// All columns, in the order of the source.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The text of a field; empty if it has none.
    pub fn text(&self, row: usize, name: &str) -> &str {
        self.column(name).map_or("", |c| c.text(row))
    }

    /// Adds a column, or replaces the one of that name.
    pub fn add(&mut self, column: Column) {
        match self.by_name.get(&column.name) {
            Some(i) => self.columns[*i] = column,
            None => {
                self.by_name.insert(column.name.clone(), self.columns.len());
                self.columns.push(column);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_stored_once_and_signs_of_nothing_are_no_value() {
        let mut b = ColumnBuilder::new("c");
        ["Red", " Red ", "NA", "", "nan", "Navy"].iter().for_each(|t| b.push(t));
        b.push_at(7, "Red");
        let c = b.finish(9);
        assert_eq!(c.codes(), [1, 1, 0, 0, 0, 2, 0, 1, 0]);
        assert_eq!((c.values().len(), c.text(5), c.text(2)), (3, "Navy", ""));
        assert_eq!(c.counts(&[0, 1, 2, 5]), [1, 2, 1]);
    }

    #[test]
    fn a_column_whose_values_do_not_repeat_reads_as_any_other() {
        let text = |i: usize| if i.is_multiple_of(5) { "NA".to_string() } else { format!(" {} ", i % 2000) };
        let build = |rows: std::ops::Range<usize>| {
            let mut b = ColumnBuilder::new("c");
            rows.for_each(|i| b.push(&text(i)));
            b
        };
        let kept = |i: usize| i % 3 != 1;
        let parts = [build(0..1500), build(1500..1600), build(1600..4000)];
        assert!(parts[0].each.is_some() && parts[1].each.is_none());
        let of_rows = [0..1500, 1500..1600, 1600..4000].map(|r| r.map(kept).collect::<Vec<bool>>());
        let pairs: Vec<_> = parts.iter().zip(of_rows.iter().map(Vec::as_slice)).collect();
        let column = ColumnBuilder::joined("c", &pairs);
        let wanted: Vec<String> = (0..4000).filter(|i| kept(*i)).map(|i| kept_text(&text(i))).collect();
        let found: Vec<&str> = (0..wanted.len()).map(|r| column.text(r)).collect();
        assert_eq!(found, wanted);
        let by_code: Vec<&str> = column.codes().iter().map(|c| column.values().get(*c)).collect();
        assert_eq!(by_code, wanted);
        let counts = column.counts(&(0..wanted.len() as u32).collect::<Vec<u32>>());
        assert_eq!(counts[MISSING as usize], wanted.iter().filter(|t| t.is_empty()).count());
        let whole = build(0..4000).finish(4100);
        assert_eq!((whole.text(3999), whole.text(4099), whole.codes().len()), ("1999", "", 4100));
    }

    fn kept_text(text: &str) -> String {
        super::kept(text).to_string()
    }
}
