//! A table of text by columns: each value is stored once, rows are numbers.

use super::codes::Codes;
use super::pieces::Pieces;
use super::short::{Recent, Short};
use super::texts::{Dictionary, Texts};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The code of "no value".
pub const MISSING: u32 = 0;

/// A column: a code for each row, a text for each code.
#[derive(Debug, Clone)]
pub struct Column {
    /// The field's name.
    pub name: String,
    /// The text of each row, where most rows have one of their own: codes are then made when they are asked for.
    each: Option<Arc<Pieces>>,
    coded: OnceLock<Coded>,
}

#[derive(Debug, Clone)]
struct Coded {
    codes: Codes,
    values: Texts,
}

impl Column {
    /// A column of texts that do not repeat.
    pub fn of_each(name: &str, each: Arc<Pieces>) -> Self {
        Self { name: name.into(), each: Some(each), coded: OnceLock::new() }
    }

    fn coded(&self) -> &Coded {
        self.coded.get_or_init(|| {
            let mut values = Dictionary::default();
            values.add("");
            let each = self.each.iter().flat_map(|each| each.iter());
            let mut codes = Codes::of(self.each.as_ref().map_or(0, |each| each.len()));
            each.for_each(|text| codes.push(values.add(text).0));
            Coded { codes, values: values.into_texts() }
        })
    }

    /// The codes of the rows.
    pub fn codes(&self) -> &Codes {
        &self.coded().codes
    }

    /// The texts of the codes; the first is that of [`MISSING`], which is empty.
    pub fn values(&self) -> &Texts {
        &self.coded().values
    }

    /// The text of a row; empty if it has none.
    pub fn text(&self, row: usize) -> &str {
        match &self.each {
            Some(each) => each.get(row),
            None => self.values().get(self.codes().get(row)),
        }
    }

    /// Rows of each code, among `rows`.
    pub fn counts(&self, rows: &[u32]) -> Vec<usize> {
        let Coded { codes, values } = self.coded();
        let mut counts = vec![0; values.len()];
        rows.iter().for_each(|r| counts[codes.get(*r as usize) as usize] += 1);
        counts
    }
}

/// Rows by which it is judged whether values repeat.
const SAMPLE: usize = 512;

/// Makes a column.
#[derive(Debug)]
pub struct ColumnBuilder {
    name: String,
    /// The longer text that most texts are of.
    source: Arc<String>,
    codes: Codes,
    values: Dictionary,
    /// Codes of texts that are kept in another form.
    others: HashMap<Box<str>, u32>,
    /// The text of each row, once it shows that they do not repeat: looking each up would take longer than reading it.
    each: Option<Pieces>,
    is_judged: bool,
    recent: Recent,
}

impl ColumnBuilder {
    /// An empty column.
    pub fn new(name: &str) -> Self {
        let mut values = Dictionary::default();
        values.add("");
        Self {
            name: name.into(),
            source: Arc::default(),
            codes: Codes::of(0),
            values,
            others: HashMap::new(),
            each: None,
            is_judged: false,
            recent: Recent::default(),
        }
    }

    /// An empty column with memory for so many rows, whose texts are of a longer one.
    pub fn of(rows: usize, source: &Arc<String>) -> Self {
        Self { source: source.clone(), codes: Codes::of(rows), ..Self::new("") }
    }

    /// Adds a row. White space around the text does not count; `NA` and the like are no value.
    pub fn push(&mut self, text: &str) {
        if !self.push_recent(Short::of(text)) {
            self.push_cleaned(text, Cow::Borrowed);
        }
    }

    /// Adds a row whose text was seen lately; gives whether it was.
    #[inline]
    pub fn push_recent(&mut self, text: Option<Short>) -> bool {
        let Some(code) = text.and_then(|text| self.recent.code(text)) else { return false };
        self.codes.push(code);
        true
    }

    /// Adds a row whose text is kept as `clean` makes it, which is asked once for each text that repeats.
    pub fn push_cleaned<'a>(&mut self, text: &'a str, clean: impl FnOnce(&'a str) -> Cow<'a, str>) {
        if !self.is_judged && self.codes.len() >= SAMPLE {
            self.judge();
        }
        if let Some(each) = &mut self.each {
            return each.push(kept(&clean(text)));
        }
        let code = self.values.find(text).unwrap_or_else(|| self.learn(text, clean));
        Short::of(text).into_iter().for_each(|short| self.recent.keep(short, code));
        self.codes.push(code);
    }

    /// Keeps the texts themselves from here on, if most were new so far.
    fn judge(&mut self) {
        self.is_judged = true;
        if self.values.texts().len() > self.codes.len() / 2 {
            let mut each = Pieces::of(&self.source, self.codes.capacity());
            self.rows().for_each(|text| each.push(text));
            self.each = Some(each);
            self.recent = Recent::default();
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
        self.codes.iter().map(|code| self.values.texts().get(code))
    }

    /// One column of several, without the rows that are not kept.
    pub fn joined(name: &str, parts: &[(&Self, Option<&[bool]>)]) -> Column {
        if parts.iter().any(|(part, _)| part.each.is_some()) {
            return Column::of_each(name, Arc::new(joined_texts(parts)));
        }
        let mut all = Self::new(name);
        all.codes = Codes::of(parts.iter().map(|(part, _)| part.codes.len()).sum());
        for (part, kept) in parts {
            let codes: Vec<u32> = part.values.texts().iter().map(|v| all.values.add(v).0).collect();
            match kept {
                None => all.codes.append(&part.codes, &codes),
                Some(kept) => {
                    let rows = part.codes.iter().zip(*kept).filter(|(_, kept)| **kept);
                    rows.for_each(|(code, _)| all.codes.push(codes[code as usize]));
                }
            }
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
        Column { name, each: each.map(Arc::new), coded }
    }

    /// Rows without value up to `rows`.
    fn fill(&mut self, rows: usize) {
        match &mut self.each {
            Some(each) => (each.len()..rows).for_each(|_| each.push("")),
            None => self.codes.fill(rows, MISSING),
        }
    }

    /// Fills up to a row that has a value.
    pub fn push_at(&mut self, row: usize, text: &str) {
        self.fill(row);
        self.push(text);
    }
}

fn joined_texts(parts: &[(&ColumnBuilder, Option<&[bool]>)]) -> Pieces {
    let source = parts.iter().map(|(part, _)| &part.source).next();
    let rows = parts.iter().map(|(part, _)| part.each.as_ref().map_or(part.codes.len(), Pieces::len)).sum();
    let mut all = source.map_or_else(Pieces::default, |source| Pieces::of(source, rows));
    for (part, kept) in parts {
        match &part.each {
            Some(each) => all.append(each, *kept),
            None => all.append(&part.rows().collect(), *kept),
        }
    }
    all
}

/// What is kept of a text: nothing of one that says that there is no value.
fn kept(text: &str) -> &str {
    let text = trimmed(text);
    if is_missing(text) { "" } else { text }
}

/// A text without white space at its ends: nearly every one is so, and seen to be without a look at what else counts as
/// white space.
pub fn trimmed(text: &str) -> &str {
    let is_plain = |b: Option<&u8>| b.is_some_and(u8::is_ascii_graphic);
    let is_trimmed = is_plain(text.as_bytes().first()) && is_plain(text.as_bytes().last());
    if is_trimmed { text } else { text.trim() }
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
    ids: Arc<Pieces>,
}

impl Table {
    /// A table of records named by `ids`.
    pub fn new(ids: Pieces, columns: Vec<Column>) -> Self {
        Self::of(Arc::new(ids), columns)
    }

    /// A table of records named by `ids`, which a column may hold as well.
    pub fn of(ids: Arc<Pieces>, columns: Vec<Column>) -> Self {
        let by_name = columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
        Self { columns, by_name, ids }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The name of a record: a plain name, unlike any other's.
    pub fn id(&self, row: usize) -> &str {
        self.ids.get(row)
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
        assert_eq!(c.codes().iter().collect::<Vec<_>>(), [1, 1, 0, 0, 0, 2, 0, 1, 0]);
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
        let pairs: Vec<_> = parts.iter().zip(of_rows.iter().map(|kept| Some(kept.as_slice()))).collect();
        let column = ColumnBuilder::joined("c", &pairs);
        let wanted: Vec<String> = (0..4000).filter(|i| kept(*i)).map(|i| kept_text(&text(i))).collect();
        let found: Vec<&str> = (0..wanted.len()).map(|r| column.text(r)).collect();
        assert_eq!(found, wanted);
        let by_code: Vec<&str> = column.codes().iter().map(|c| column.values().get(c)).collect();
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
