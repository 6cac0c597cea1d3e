//! Counts of values, of numbers, and of pairs of values.

use crate::definition::Number;
use crate::records::table::{MISSING, Table};
use crate::stats::{self, ChiSquare};
use serde::Serialize;

/// A field with values.
#[derive(Debug, Serialize)]
pub struct Attribute {
    /// Its name.
    pub field: String,
    /// Values with counts, the most common first.
    pub values: Vec<(String, usize)>,
    /// Records without value.
    pub missing: usize,
    /// Records in all.
    pub records: usize,
    /// Entropy, as a number of equally common values.
    pub effective: f64,
    /// Whether it is worth conditioning on, and why.
    pub verdict: Verdict,
}

/// Whether a field is worth conditioning on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether.
    pub worth: bool,
    /// Why.
    pub why: String,
}

/// Least share of records with a value.
const COVERED: f64 = 0.6;
/// Largest share of one value.
const ONE_SIDED: f64 = 0.95;
/// Fewest records of a value that a network can learn it from.
pub const LEARNABLE: usize = 50;

impl Attribute {
    /// Counts a field; one that no record has is missing everywhere.
    pub fn count(table: &Table, rows: &[u32], field: &str) -> Self {
        let mut attribute = Self {
            field: field.into(),
            values: Vec::new(),
            missing: rows.len(),
            records: rows.len(),
            effective: 0.0,
            verdict: Verdict { worth: false, why: "no record has it".into() },
        };
        let Some(column) = table.column(field) else { return attribute };
        let counts = column.counts(rows);
        attribute.missing = counts[MISSING as usize];
        let present = counts.iter().enumerate().skip(1).filter(|c| *c.1 > 0);
        attribute.values = present.map(|(code, n)| (column.values()[code].to_string(), *n)).collect();
        attribute.values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        attribute.effective = stats::effective_values(&counts[1..]);
        attribute.verdict = attribute.judge();
        attribute
    }

    /// Records with a value.
    pub fn present(&self) -> usize {
        self.records - self.missing
    }

    fn judge(&self) -> Verdict {
        let verdict = |worth, why: String| Verdict { worth, why };
        let covered = self.present() as f64 / self.records.max(1) as f64;
        let learnable = self.values.iter().filter(|v| v.1 >= LEARNABLE).count();
        let top = self.values.first().map_or(0.0, |v| v.1 as f64 / self.present().max(1) as f64);
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        match self.values.len() {
            0 => verdict(false, "no record has it".into()),
            1 => verdict(false, "all records have the same value".into()),
            n if n * 2 > self.present() => {
                verdict(false, "nearly every record has a value of its own".into())
            }
            _ if covered < COVERED => {
                verdict(false, format!("only {} of the records have it", percent(covered)))
            }
            _ if top > ONE_SIDED => verdict(false, format!("{} have the same value", percent(top))),
            _ if learnable < 2 => verdict(false, format!("fewer than 2 values have {LEARNABLE} records")),
            n => verdict(
                true,
                format!(
                    "{learnable} of {n} values have at least {LEARNABLE} records, {} have it",
                    percent(covered)
                ),
            ),
        }
    }
}

/// A field with numbers.
#[derive(Debug, Serialize)]
pub struct Numbers {
    /// Its name.
    pub field: String,
    /// Its unit.
    pub unit: String,
    /// The numbers, sorted.
    #[serde(skip)]
    pub values: Vec<f64>,
    /// Records whose value is missing or no number.
    pub missing: usize,
    /// Lowest, quartiles, highest.
    pub quantiles: Option<[f64; 5]>,
}

impl Numbers {
    /// Collects a field.
    pub fn of(table: &Table, rows: &[u32], number: &Number) -> Self {
        let text = |r: &u32| table.text(*r as usize, &number.field);
        let parse = |t: &str| t.parse::<f64>().ok().filter(|v| v.is_finite());
        let mut values: Vec<f64> = rows.iter().filter_map(|r| parse(text(r))).collect();
        let quantiles = stats::quantiles(&mut values);
        let missing = rows.len() - values.len();
        Self { field: number.field.clone(), unit: number.unit.clone(), values, missing, quantiles }
    }
}

/// Two fields counted together.
#[derive(Debug, Serialize)]
pub struct Cross {
    /// The field of the rows.
    pub rows_field: String,
    /// The field of the columns.
    pub columns_field: String,
    /// Values of the rows, the most common first.
    pub rows: Vec<String>,
    /// Values of the columns, the most common first.
    pub columns: Vec<String>,
    /// Counts.
    pub counts: Vec<Vec<usize>>,
    /// How much the fields depend on each other.
    pub dependence: Option<ChiSquare>,
}

/// Columns with less than this share of the records are taken as one for the test.
const THIN: f64 = 0.05;

impl Cross {
    /// Counts the pairs of records that have both; none if a field is in no record.
    pub fn count(table: &Table, rows: &[u32], a: &str, b: &str) -> Option<Self> {
        let (first, second) = (table.column(a)?, table.column(b)?);
        let width = second.values().len();
        let mut flat = vec![0usize; first.values().len() * width];
        for r in rows {
            flat[first.codes()[*r as usize] as usize * width + second.codes()[*r as usize] as usize] += 1;
        }
        let at = |r: usize, c: usize| flat[r * width + c];
        let mut row_order: Vec<usize> = (1..first.values().len()).collect();
        let mut column_order: Vec<usize> = (1..width).collect();
        let row_sum = |r: usize| (1..width).map(|c| at(r, c)).sum::<usize>();
        let column_sum = |c: usize| (1..first.values().len()).map(|r| at(r, c)).sum::<usize>();
        row_order.retain(|r| row_sum(*r) > 0);
        column_order.retain(|c| column_sum(*c) > 0);
        row_order.sort_by_key(|r| (std::cmp::Reverse(row_sum(*r)), first.values()[*r].clone()));
        column_order.sort_by_key(|c| (std::cmp::Reverse(column_sum(*c)), second.values()[*c].clone()));
        let counts: Vec<Vec<usize>> =
            row_order.iter().map(|r| column_order.iter().map(|c| at(*r, *c)).collect()).collect();
        Some(Self {
            rows_field: a.into(),
            columns_field: b.into(),
            rows: row_order.iter().map(|r| first.values()[*r].to_string()).collect(),
            columns: column_order.iter().map(|c| second.values()[*c].to_string()).collect(),
            dependence: stats::chi_square(&stats::pool_columns(&counts, THIN)),
            counts,
        })
    }

    /// Pairs with counts, the most common first.
    pub fn pairs(&self) -> Vec<(String, String, usize)> {
        let mut pairs = Vec::new();
        for (row, counts) in self.rows.iter().zip(&self.counts) {
            pairs
                .extend(self.columns.iter().zip(counts).map(|(column, n)| (row.clone(), column.clone(), *n)));
        }
        pairs.retain(|p| p.2 > 0);
        pairs.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.cmp(b)));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::table::ColumnBuilder;

    fn table() -> Table {
        let mut columns = ["colour", "gender", "price"].map(ColumnBuilder::new);
        for i in 0..300 {
            let colour = ["Black", "White", "Red", ""][i % 4];
            let gender = if i % 4 == 0 { "Men" } else { "Women" };
            columns.iter_mut().zip([colour, gender, &i.to_string()]).for_each(|(c, t)| c.push(t));
        }
        let columns = columns.into_iter().map(|c| c.finish(300)).collect();
        Table::new((0..300).map(|i| i.to_string()).collect(), columns)
    }

    #[test]
    fn values_are_counted_sorted_and_judged() {
        let (table, rows) = (table(), (0..300).collect::<Vec<u32>>());
        let a = Attribute::count(&table, &rows, "colour");
        assert_eq!(a.values, [("Black".into(), 75), ("Red".into(), 75), ("White".into(), 75)]);
        assert_eq!((a.missing, a.verdict.worth), (75, true));
        assert!((a.effective - 3.0).abs() < 1e-9);
        assert!(Attribute::count(&table, &rows, "price").verdict.why.contains("of its own"));
        assert!(Attribute::count(&table, &rows, "none").verdict.why.contains("no record"));
        let q = Numbers::of(&table, &rows, &Number { field: "price".into(), unit: "INR".into() }).quantiles;
        assert_eq!(q, Some([0.0, 74.75, 149.5, 224.25, 299.0]));
    }

    #[test]
    fn pairs_are_counted_and_their_dependence_measured() {
        let (table, rows) = (table(), (0..300).collect::<Vec<u32>>());
        let cross = Cross::count(&table, &rows, "colour", "gender").unwrap();
        assert_eq!(
            (cross.columns.as_slice(), cross.rows.len()),
            (["Women".to_string(), "Men".into()].as_slice(), 3)
        );
        assert_eq!(cross.pairs()[0], ("Black".into(), "Men".into(), 75));
        assert!((cross.dependence.unwrap().v - 1.0).abs() < 1e-9);
        assert!(Cross::count(&table, &rows, "colour", "none").is_none());
    }
}
