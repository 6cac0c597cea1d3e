//! A table of text by columns: each value is stored once, rows are numbers.

use super::texts::{Dictionary, Texts};
use std::borrow::Cow;
use std::collections::HashMap;

/// The code of "no value".
pub const MISSING: u32 = 0;

/// A column: a code for each row, a text for each code.
#[derive(Debug, Clone)]
pub struct Column {
    /// The field's name.
    pub name: String,
    codes: Vec<u32>,
    values: Texts,
}

impl Column {
    /// The codes of the rows.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// The texts of the codes; the first is that of [`MISSING`], which is empty.
    pub fn values(&self) -> &Texts {
        &self.values
    }

    /// The text of a row; empty if it has none.
    pub fn text(&self, row: usize) -> &str {
        self.values.get(self.codes[row])
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
    name: String,
    codes: Vec<u32>,
    values: Dictionary,
    /// Codes of texts that are kept in another form.
    others: HashMap<Box<str>, u32>,
}

impl ColumnBuilder {
    /// An empty column.
    pub fn new(name: &str) -> Self {
        let mut values = Dictionary::default();
        values.add("");
        Self { name: name.into(), codes: Vec::new(), values, others: HashMap::new() }
    }

    /// Adds a row. White space around the text does not count; `NA` and the like are no value.
    pub fn push(&mut self, text: &str) {
        self.push_cleaned(text, Cow::Borrowed);
    }

    /// Adds a row whose text is kept as `clean` makes it, which is asked once for each text.
    pub fn push_cleaned<'a>(&mut self, text: &'a str, clean: impl FnOnce(&'a str) -> Cow<'a, str>) {
        let code = match self.values.find(text) {
            Some(code) => code,
            None => self.learn(text, clean),
        };
        self.codes.push(code);
    }

    /// The code of a text that is not kept as it is, or was not given before.
    fn learn<'a>(&mut self, given: &'a str, clean: impl FnOnce(&'a str) -> Cow<'a, str>) -> u32 {
        if let Some(code) = self.others.get(given) {
            return *code;
        }
        let kept = clean(given);
        let kept = kept.trim();
        let code = if is_missing(kept) { MISSING } else { self.values.add(kept).0 };
        if given != kept || code == MISSING {
            self.others.insert(given.into(), code);
        }
        code
    }

    /// One column of several, without the rows that are not kept.
    pub fn joined<'a>(name: &str, parts: impl Iterator<Item = (&'a Self, &'a [bool])>) -> Column {
        let mut all = Self::new(name);
        for (part, kept) in parts {
            all.codes.reserve(kept.len());
            let codes: Vec<u32> = part.values.texts().iter().map(|v| all.values.add(v).0).collect();
            let rows = part.codes.iter().zip(kept).filter(|(_, kept)| **kept);
            all.codes.extend(rows.map(|(code, _)| codes[*code as usize]));
        }
        let rows = all.codes.len();
        all.finish(rows)
    }

    /// The column, with rows without value up to `rows`.
    pub fn finish(mut self, rows: usize) -> Column {
        self.codes.resize(rows, MISSING);
        Column { name: self.name, codes: self.codes, values: self.values.into_texts() }
    }

    /// Fills up to a row that has a value.
    pub fn push_at(&mut self, row: usize, text: &str) {
        self.codes.resize(row, MISSING);
        self.push(text);
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
}
