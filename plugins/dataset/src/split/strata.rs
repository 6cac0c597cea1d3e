//! Strata: combinations of values, of which the thin ones are pooled.
//!
//! The rule: a combination with fewer than `pool_below` records loses its last field and joins the other thin ones
//! that agree in the fields that are left. Pools that are still too thin lose the next field, and so on; what is thin
//! without any field is one last pool. A combination that is large enough is never touched.

use crate::records::table::Table;
use std::collections::BTreeMap;

/// Strata and whose record is in which.
#[derive(Debug)]
pub struct Strata {
    /// A name for each, such as `Black, Men, Summer` or `Black, Women, *`.
    pub names: Vec<String>,
    /// The stratum of each of the rows given.
    pub of: Vec<usize>,
    /// How many are pools.
    pub pooled: usize,
}

/// What stands for a field that was given up.
const ANY: &str = "*";
/// What stands for no value.
const NONE: &str = "(none)";

/// The strata of rows by fields.
pub fn strata(table: &Table, rows: &[u32], fields: &[String], pool_below: usize) -> Strata {
    let mut keys: Vec<Vec<&str>> = rows.iter().map(|r| key(table, *r as usize, fields)).collect();
    for depth in (0..fields.len()).rev() {
        let mut counts: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        keys.iter().for_each(|k| *counts.entry(k.clone()).or_default() += 1);
        for key in &mut keys {
            // Only what gave up all later fields may give up this one: anything else was large enough as it was.
            if counts[key] < pool_below && key[depth + 1..].iter().all(|k| *k == ANY) {
                key[depth] = ANY;
            }
        }
    }
    let order: BTreeMap<&Vec<&str>, usize> = keys.iter().map(|k| (k, 0)).collect();
    let place: BTreeMap<&Vec<&str>, usize> = order.into_keys().enumerate().map(|(i, k)| (k, i)).collect();
    Strata {
        names: place.keys().map(|k| k.join(", ")).collect(),
        pooled: place.keys().filter(|k| k.contains(&ANY)).count(),
        of: keys.iter().map(|k| place[k]).collect(),
    }
}

fn key<'a>(table: &'a Table, row: usize, fields: &[String]) -> Vec<&'a str> {
    let of = |f: &String| Some(table.text(row, f)).filter(|t| !t.is_empty()).unwrap_or(NONE);
    fields.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::table::ColumnBuilder;

    #[test]
    fn thin_combinations_give_up_their_last_fields_and_large_ones_stay() {
        let groups = [
            (10, "Black", "Men", "Summer"),
            (3, "Black", "Men", "Fall"),
            (5, "Black", "Men", "Winter"),
            (2, "Black", "Women", "Fall"),
            (6, "Black", "Boys", ""),
            (1, "Pink", "Girls", "Fall"),
            (2, "Teal", "Men", "Fall"),
        ];
        let mut columns = ["c", "g", "s"].map(ColumnBuilder::new);
        for (n, c, g, s) in groups {
            for _ in 0..n {
                columns.iter_mut().zip([c, g, s]).for_each(|(b, t)| b.push(t));
            }
        }
        let n = groups.iter().map(|g| g.0).sum::<usize>();
        let columns = columns.into_iter().map(|b| b.finish(n)).collect();
        let table = Table::new((0..n).map(|i| i.to_string()).collect(), columns);
        let rows: Vec<u32> = (0..n as u32).collect();
        let strata = strata(&table, &rows, &["c", "g", "s"].map(String::from), 7);
        let count = |name: &str| {
            let i = strata.names.iter().position(|n| n == name);
            i.map_or(0, |i| strata.of.iter().filter(|s| **s == i).count())
        };
        assert_eq!(count("Black, Men, Summer"), 10);
        assert_eq!(count("Black, Men, *"), 8);
        assert_eq!(count("Black, *, *"), 8);
        assert_eq!(count("*, *, *"), 3);
        assert_eq!((strata.names.len(), strata.pooled), (4, 3));
    }
}
