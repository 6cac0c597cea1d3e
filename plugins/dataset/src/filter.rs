//! Filter expressions: which records count.
//!
//! ```text
//! articleType == "Casual Shoes" and gender in ("Men", "Women") and not (year < 2012 or brandName ~ "puma")
//! baseColour is present and price between 500 and 4000
//! ```
//! `==`, `!=`, `in` compare exactly; `~` looks for a part of the text, whatever its case; `<`, `<=`, `>`, `>=` and
//! `between` compare numbers and are false for what is none. A field without value equals `""`.

mod parse;

use crate::records::codes::Codes;
use crate::records::csv::listed;
use crate::records::table::{Column, MISSING, Table};
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Result};

/// A test of one field.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `==` or `in`.
    In(Vec<String>),
    /// `~`.
    Contains(String),
    /// Between two numbers; whether each end belongs to it.
    Range { low: f64, low_in: bool, high: f64, high_in: bool },
    /// `is present`.
    Present,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// One of them.
    Or(Vec<Expr>),
    /// Not it.
    Not(Box<Expr>),
    /// A test of a field.
    Test(String, Test),
}

/// A filter; without expression, everything passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(Option<Expr>);

impl Filter {
    /// Reads an expression; an empty text lets everything pass.
    ///
    /// # Errors
    /// What is wrong, and at which character.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        parse::parse(text).map(|e| Self(Some(e)))
    }

    /// The rows that pass, in order.
    ///
    /// # Errors
    /// A field that the table does not have, or nothing passes; with the nearest names.
    pub fn rows(&self, table: &Table) -> Result<Vec<u32>> {
        let all = table.len() as u32;
        let Some(expr) = &self.0 else { return Ok((0..all).collect()) };
        let passes = compile(expr, table)?;
        let rows: Vec<u32> = (0..all).filter(|r| passes.of(*r as usize)).collect();
        if rows.is_empty() { Err(self.nothing(expr, table)) } else { Ok(rows) }
    }

    fn nothing(&self, expr: &Expr, table: &Table) -> Error {
        let e = Error::new(ErrorKind::NotFound, "no record passes the filter");
        let mut hints = Vec::new();
        suggest(expr, table, &mut hints);
        hints.into_iter().fold(e, Error::hint)
    }
}

/// A compiled expression: each test is decided once for every distinct value.
enum Passes<'a> {
    And(Vec<Passes<'a>>),
    Or(Vec<Passes<'a>>),
    Not(Box<Passes<'a>>),
    Test(&'a Codes, Vec<bool>),
}

impl Passes<'_> {
    fn of(&self, row: usize) -> bool {
        match self {
            Self::And(all) => all.iter().all(|p| p.of(row)),
            Self::Or(any) => any.iter().any(|p| p.of(row)),
            Self::Not(p) => !p.of(row),
            Self::Test(codes, passes) => passes[codes.get(row) as usize],
        }
    }
}

fn compile<'a>(expr: &Expr, table: &'a Table) -> Result<Passes<'a>> {
    let all = |list: &[Expr]| list.iter().map(|e| compile(e, table)).collect::<Result<Vec<_>>>();
    Ok(match expr {
        Expr::And(list) => Passes::And(all(list)?),
        Expr::Or(list) => Passes::Or(all(list)?),
        Expr::Not(inner) => Passes::Not(Box::new(compile(inner, table)?)),
        Expr::Test(field, test) => {
            let column = table.column(field).ok_or_else(|| no_field(field, table))?;
            let passes = column.values().iter().map(|v| test.of(v)).collect();
            Passes::Test(column.codes(), passes)
        }
    })
}

/// The error for a field that the records do not have.
pub fn no_field(field: &str, table: &Table) -> Error {
    let names: Vec<&str> = table.columns().iter().map(|c| c.name.as_str()).collect();
    let e = Error::new(ErrorKind::NotFound, format!("the records have no field `{field}`"));
    let e = match nearest(field, names.iter().copied()) {
        Some(near) => e.hint(format!("did you mean `{}`?", listed(&[near]))),
        None => e,
    };
    e.hint(format!("they have: {}", listed(&names)))
}

impl Test {
    fn of(&self, value: &str) -> bool {
        match self {
            Self::In(list) => list.iter().any(|v| v == value),
            Self::Contains(part) => value.to_lowercase().contains(&part.to_lowercase()),
            Self::Present => !value.is_empty(),
            Self::Range { low, low_in, high, high_in } => value
                .parse::<f64>()
                .is_ok_and(|v| (v > *low || *low_in && v == *low) && (v < *high || *high_in && v == *high)),
        }
    }
}

/// For each test that no record passes: the nearest values that records have.
fn suggest(expr: &Expr, table: &Table, hints: &mut Vec<String>) {
    match expr {
        Expr::And(list) | Expr::Or(list) => list.iter().for_each(|e| suggest(e, table, hints)),
        Expr::Not(inner) => suggest(inner, table, hints),
        Expr::Test(field, Test::In(wanted)) => {
            let Some(column) = table.column(field) else { return };
            for value in wanted.iter().filter(|w| !column.values().iter().any(|v| v == **w)) {
                hints.push(format!(
                    "no record has {field} \"{value}\"; the nearest are {}",
                    nearest_values(value, column)
                ));
            }
        }
        Expr::Test(..) => {}
    }
}

/// The values of a column most like `wanted`, with their counts.
fn nearest_values(wanted: &str, column: &Column) -> String {
    let rows: Vec<u32> = (0..column.codes().len() as u32).collect();
    let counts = column.counts(&rows);
    let mut left: Vec<usize> = (1..counts.len()).filter(|c| *c != MISSING as usize).collect();
    let mut found = Vec::new();
    let lower = wanted.to_lowercase();
    let related = |c: &usize| {
        let value = column.values().get(*c as u32).to_lowercase();
        value.contains(&lower) || lower.contains(&value)
    };
    left.sort_by_key(|c| (!related(c), std::cmp::Reverse(counts[*c])));
    if let Some(near) = nearest(wanted, left.iter().map(|c| column.values().get(*c as u32))) {
        found
            .extend(left.iter().position(|c| column.values().get(*c as u32) == near).map(|i| left.remove(i)));
    }
    found.extend(left);
    let shown =
        found.iter().take(5).map(|c| format!("\"{}\" ({})", column.values().get(*c as u32), counts[*c]));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::table::ColumnBuilder;

    fn table() -> Table {
        let column = |name: &str, texts: [&str; 5]| {
            let mut b = ColumnBuilder::new(name);
            texts.iter().for_each(|t| b.push(t));
            b.finish(5)
        };
        let ids = ["1", "2", "3", "4", "5"].into_iter().collect();
        let columns = vec![
            column("articleType", ["Casual Shoes", "Tshirts", "Casual Shoes", "Shirts", "Casual Shoes"]),
            column("gender", ["Men", "Women", "Women", "", "Boys"]),
            column("year", ["2010", "2012", "2014", "x", "2016"]),
            column("articleAttributes.Ankle Height", ["High", "", "", "Low", ""]),
        ];
        Table::new(ids, columns)
    }

    fn rows(text: &str) -> Vec<u32> {
        Filter::parse(text).unwrap().rows(&table()).unwrap()
    }

    #[test]
    fn expressions_select_what_they_say() {
        for (text, expected) in [
            ("", vec![0, 1, 2, 3, 4]),
            ("articleType == \"Casual Shoes\"", vec![0, 2, 4]),
            ("articleType = 'Casual Shoes' and year >= 2014", vec![2, 4]),
            ("gender in ('Men', \"Boys\") or articleType == Shirts", vec![0, 3, 4]),
            ("not (gender == Men or gender == Women)", vec![3, 4]),
            ("gender is missing", vec![3]),
            ("gender is present && !(year < 2013)", vec![2, 4]),
            ("gender not in (Men, Women) and gender != ''", vec![4]),
            ("year between 2010 and 2012", vec![0, 1]),
            ("year > 2010 and year < 2014 || year > 2014", vec![1, 4]),
            ("articleType ~ shoe", vec![0, 2, 4]),
            ("`articleAttributes.Ankle Height` == Low", vec![3]),
            ("gender == Men or gender == Women and year == 2014", vec![0, 2]),
        ] {
            assert_eq!(rows(text), expected, "{text}");
        }
    }

    #[test]
    fn a_category_that_matches_nothing_names_the_nearest() {
        let f = Filter::parse("articleType == \"Casual Shoe\"").unwrap();
        let e = f.rows(&table()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(e.hints()[0].contains("the nearest are \"Casual Shoes\" (3)"), "{e:?}");
        let e = Filter::parse("artcleType == a").unwrap().rows(&table()).unwrap_err();
        assert!(e.hints()[0].contains("`articleType`"), "{e:?}");
    }
}
