//! Counts of values, of numbers, and of pairs of values.

use crate::definition::Number;
use crate::records::table::{Column, MISSING, Table};
use crate::stats::{self, ChiSquare};
use atelier_sdk::{Error, Result};
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
        attribute.values =
            present.map(|(code, n)| (column.values().get(code as u32).to_string(), *n)).collect();
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
    ///
    /// # Errors
    /// There are too many combinations: a field of names or numbers, which no table can show.
    pub fn count(table: &Table, rows: &[u32], a: &str, b: &str) -> Result<Option<Self>> {
        let (Some(first), Some(second)) = (table.column(a), table.column(b)) else { return Ok(None) };
        let (row_codes, column_codes) = (present(first, rows), present(second, rows));
        let (height, width) = (row_codes.len(), column_codes.len());
        if height * width > COMBINATIONS {
            let e = Error::invalid(format!(
                "dataset definition: `cross` of {a} and {b} has {height} x {width} values"
            ));
            return Err(
                e.hint(format!("fields of at most {COMBINATIONS} combinations can be counted together"))
            );
        }
        let flat = pair_counts(rows, (first, &row_codes), (second, &column_codes));
        let row_sum = |r: usize| flat[r * width..(r + 1) * width].iter().sum::<usize>();
        let column_sum = |c: usize| flat.iter().skip(c).step_by(width).sum::<usize>();
        let row_order = by_size(first, &row_codes, (0..height).map(row_sum).collect());
        let column_order = by_size(second, &column_codes, (0..width).map(column_sum).collect());
        let counts: Vec<Vec<usize>> =
            row_order.iter().map(|r| column_order.iter().map(|c| flat[r * width + c]).collect()).collect();
        Ok(Some(Self {
            rows_field: a.into(),
            columns_field: b.into(),
            rows: row_order.iter().map(|r| first.values().get(row_codes[*r]).to_string()).collect(),
            columns: column_order.iter().map(|c| second.values().get(column_codes[*c]).to_string()).collect(),
            dependence: stats::chi_square(&stats::pool_columns(&counts, THIN)),
            counts,
        }))
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

/// Most combinations of values of two fields.
const COMBINATIONS: usize = 1_000_000;

/// The codes that some of the rows have, without that of "no value".
fn present(column: &Column, rows: &[u32]) -> Vec<u32> {
    let counts = column.counts(rows);
    (1..counts.len()).filter(|c| counts[*c] > 0).map(|c| c as u32).collect()
}

/// Rows of each pair of codes that are present, one line of the second's for each of the first's.
fn pair_counts(rows: &[u32], first: (&Column, &[u32]), second: (&Column, &[u32])) -> Vec<usize> {
    let places = |(column, codes): (&Column, &[u32])| {
        let mut places = vec![usize::MAX; column.values().len()];
        codes.iter().enumerate().for_each(|(i, code)| places[*code as usize] = i);
        places
    };
    let (down, across) = (places(first), places(second));
    let mut flat = vec![0; first.1.len() * second.1.len()];
    let (firsts, seconds) = (first.0.codes(), second.0.codes());
    for r in rows {
        let row = *r as usize;
        let (r, c) = (down[firsts.get(row) as usize], across[seconds.get(row) as usize]);
        if r != usize::MAX && c != usize::MAX {
            flat[r * second.1.len() + c] += 1;
        }
    }
    flat
}

/// The places of codes that have a sum, the largest first.
fn by_size(column: &Column, codes: &[u32], sums: Vec<usize>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sums.len()).filter(|i| sums[*i] > 0).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(sums[*i]), column.values().get(codes[*i])));
    order
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
        let cross = Cross::count(&table, &rows, "colour", "gender").unwrap().unwrap();
        assert_eq!(
            (cross.columns.as_slice(), cross.rows.len()),
            (["Women".to_string(), "Men".into()].as_slice(), 3)
        );
        assert_eq!(cross.pairs()[0], ("Black".into(), "Men".into(), 75));
        assert!((cross.dependence.unwrap().v - 1.0).abs() < 1e-9);
        assert!(Cross::count(&table, &rows, "colour", "none").unwrap().is_none());
    }

    #[test]
    fn fields_with_too_many_combinations_are_refused_before_memory_is_taken_for_them() {
        let mut names = ["a", "b"].map(ColumnBuilder::new);
        for i in 0..1001 {
            names.iter_mut().for_each(|c| c.push(&i.to_string()));
        }
        let columns = names.into_iter().map(|c| c.finish(1001)).collect();
        let table = Table::new((0..1001).map(|i| i.to_string()).collect(), columns);
        let all: Vec<u32> = (0..1001).collect();
        let e = Cross::count(&table, &all, "a", "b").unwrap_err();
        assert!(e.message().contains("1001 x 1001"), "{e:?}");
        assert_eq!(Cross::count(&table, &all[..3], "a", "b").unwrap().unwrap().pairs().len(), 3);
    }
}
