//! A table of text by columns: each value is stored once, rows are numbers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The code of "no value".
pub const MISSING: u32 = 0;

/// A column: a code for each row, a text for each code.
#[derive(Debug, Clone)]
pub struct Column {
    /// The field's name.
    pub name: String,
    codes: Vec<u32>,
    values: Vec<Box<str>>,
}

impl Column {
    /// The codes of the rows.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// The texts of the codes; the first is that of [`MISSING`], which is empty.
    pub fn values(&self) -> &[Box<str>] {
        &self.values
    }

    /// The text of a row; empty if it has none.
    pub fn text(&self, row: usize) -> &str {
        &self.values[self.codes[row] as usize]
    }

    /// Rows of each code, among `rows`.
    pub fn counts(&self, rows: &[u32]) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        rows.iter().for_each(|r| counts[self.codes[*r as usize] as usize] += 1);
        counts
    }
}

/// Makes a column.
#[derive(Debug)]
pub struct ColumnBuilder {
    column: Column,
    /// The code of a text as it is kept, by the text's hash: the text itself is in the column.
    by_hash: HashMap<u64, u32, BuildHasherDefault<Same>>,
    /// Codes of texts that are kept in another form, or whose hash another text has.
    others: HashMap<Box<str>, u32>,
}

impl ColumnBuilder {
    /// An empty column.
    pub fn new(name: &str) -> Self {
        let column = Column { name: name.into(), codes: Vec::new(), values: vec!["".into()] };
        let mut builder = Self { column, by_hash: HashMap::default(), others: HashMap::new() };
        builder.by_hash.insert(hash(""), MISSING);
        builder
    }

    /// Adds a row. White space around the text does not count; `NA` and the like are no value.
    pub fn push(&mut self, text: &str) {
        self.push_cleaned(text, Cow::Borrowed);
    }

    /// Adds a row whose text is kept as `clean` makes it, which is asked once for each text.
    pub fn push_cleaned<'a>(&mut self, text: &'a str, clean: impl FnOnce(&'a str) -> Cow<'a, str>) {
        let code = match self.find(text, hash(text)) {
            Some(code) => code,
            None => self.learn(text, clean(text).trim()),
        };
        self.column.codes.push(code);
    }

    fn find(&self, text: &str, hash: u64) -> Option<u32> {
        match self.by_hash.get(&hash) {
            Some(code) if *self.column.values[*code as usize] == *text => Some(*code),
            _ if self.others.is_empty() => None,
            _ => self.others.get(text).copied(),
        }
    }

    /// The code of a text that was not given before.
    fn learn(&mut self, given: &str, kept: &str) -> u32 {
        let hash = hash(kept);
        let code = match self.find(kept, hash) {
            Some(code) => code,
            None if is_missing(kept) => MISSING,
            None => {
                let code = self.column.values.len() as u32;
                self.column.values.push(kept.into());
                if *self.by_hash.entry(hash).or_insert(code) != code {
                    self.others.insert(kept.into(), code);
                }
                code
            }
        };
        if given != kept {
            self.others.insert(given.into(), code);
        }
        code
    }

    /// One column of several, without the rows that are not kept.
    pub fn joined<'a>(name: &str, parts: impl Iterator<Item = (&'a Self, &'a [bool])>) -> Column {
        let mut all = Self::new(name);
        for (part, kept) in parts {
            all.column.codes.reserve(kept.len());
            let values = part.column.values.iter();
            let codes: Vec<u32> =
                values.map(|v| if v.is_empty() { MISSING } else { all.learn(v, v) }).collect();
            let rows = part.column.codes.iter().zip(kept).filter(|(_, kept)| **kept);
            all.column.codes.extend(rows.map(|(code, _)| codes[*code as usize]));
        }
        all.column
    }

    /// The column, with rows without value up to `rows`.
    pub fn finish(mut self, rows: usize) -> Column {
        self.column.codes.resize(rows, MISSING);
        self.column
    }

    /// Fills up to a row that has a value.
    pub fn push_at(&mut self, row: usize, text: &str) {
        self.column.codes.resize(row, MISSING);
        self.push(text);
    }
}

/// A hash for short texts: eight bytes at a time, multiplied and turned (after Fowler, Noll and Vo). A table that is
/// made to collide would be slow to read, and no more.
fn hash(text: &str) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b));
    let words = text.as_bytes().chunks_exact(8);
    let last = word(words.remainder());
    let hash = mix(words.fold(text.len() as u64, |hash, bytes| mix(hash, word(bytes))), last);
    // The map looks at the highest and the lowest bits.
    hash ^ (hash >> 32)
}

/// For what is a hash already.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
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
    ids: Vec<String>,
}

impl Table {
    /// A table of records named by `ids`.
    pub fn new(ids: Vec<String>, columns: Vec<Column>) -> Self {
        let by_name = columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
        Self { columns, by_name, ids }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The name of a record: a plain name, unlike any other's.
    pub fn id(&self, row: usize) -> &str {
        &self.ids[row]
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
}
