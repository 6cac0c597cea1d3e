//! A table of text by columns: each value is stored once, rows are numbers.

use std::collections::HashMap;

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
    known: HashMap<Box<str>, u32>,
}

impl ColumnBuilder {
    /// An empty column.
    pub fn new(name: &str) -> Self {
        let column = Column { name: name.into(), codes: Vec::new(), values: vec!["".into()] };
        Self { column, known: HashMap::new() }
    }

    /// Adds a row. White space around the text does not count; `NA` and the like are no value.
    pub fn push(&mut self, text: &str) {
        let text = text.trim();
        let code = if is_missing(text) { MISSING } else { self.code(text) };
        self.column.codes.push(code);
    }

    fn code(&mut self, text: &str) -> u32 {
        if let Some(code) = self.known.get(text) {
            return *code;
        }
        let code = self.column.values.len() as u32;
        self.column.values.push(text.into());
        self.known.insert(text.into(), code);
        code
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
