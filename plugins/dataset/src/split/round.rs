//! Controlled rounding: a table of reals becomes integers with given sums of rows and columns, each as near as can be.
//!
//! Minimises the sum of a convex cost of the distances, which makes it a transportation problem: rows are rounded for
//! themselves first, which is optimal without columns, then units are moved along the cheapest path from a column
//! with too many to one with too few (successive shortest paths; Ahuja, Magnanti and Orlin 1993, ch. 9 and 14). With
//! a handful of columns, each path is found by Bellman-Ford on the columns alone.

/// Beyond a distance of 1 the cost is prohibitive, so that it happens only where it must.
const BEYOND: f64 = 1e6;

fn cost(n: i64, wanted: f64) -> f64 {
    let d = (n as f64 - wanted).abs();
    d * d + BEYOND * (d - 1.0).max(0.0).powi(2)
}

/// What one more costs.
fn more(n: i64, wanted: f64) -> f64 {
    cost(n + 1, wanted) - cost(n, wanted)
}

/// What one less costs; there is none below 0.
fn less(n: i64, wanted: f64) -> f64 {
    if n == 0 { f64::INFINITY } else { cost(n - 1, wanted) - cost(n, wanted) }
}

/// Integers near `wanted` (row by row) with these sums. The sums of `rows` and `columns` must agree; where they do
/// not, the columns give way.
pub fn round(wanted: &[Vec<f64>], rows: &[usize], columns: &[usize]) -> Vec<Vec<usize>> {
    let width = columns.len();
    let mut table: Vec<Vec<i64>> = wanted.iter().zip(rows).map(|(w, n)| round_row(w, *n)).collect();
    let mut surplus: Vec<i64> =
        (0..width).map(|c| table.iter().map(|r| r[c]).sum::<i64>() - columns[c] as i64).collect();
    while let Some(path) = cheapest_path(wanted, &table, &surplus) {
        for step in path.windows(2) {
            let (from, to) = (step[0], step[1]);
            let Some((row, _)) = cheapest_move(wanted, &table, from, to) else { break };
            table[row][from] -= 1;
            table[row][to] += 1;
        }
        surplus[path[0]] -= 1;
        surplus[path[path.len() - 1]] += 1;
    }
    table.into_iter().map(|r| r.into_iter().map(|n| n.max(0) as usize).collect()).collect()
}

/// The best integers of one row: a unit at a time to where it costs least.
fn round_row(wanted: &[f64], total: usize) -> Vec<i64> {
    let mut row: Vec<i64> = wanted.iter().map(|w| (w.floor() as i64 - 1).max(0)).collect();
    while row.iter().sum::<i64>() > total as i64 {
        let worst =
            (0..row.len()).min_by(|a, b| less(row[*a], wanted[*a]).total_cmp(&less(row[*b], wanted[*b])));
        row[worst.unwrap_or(0)] -= 1;
    }
    while row.iter().sum::<i64>() < total as i64 {
        let best =
            (0..row.len()).min_by(|a, b| more(row[*a], wanted[*a]).total_cmp(&more(row[*b], wanted[*b])));
        row[best.unwrap_or(0)] += 1;
    }
    row
}

/// The row in which a unit moves at the least cost from one column to another.
fn cheapest_move(wanted: &[Vec<f64>], table: &[Vec<i64>], from: usize, to: usize) -> Option<(usize, f64)> {
    let costs = wanted.iter().zip(table).map(|(w, t)| less(t[from], w[from]) + more(t[to], w[to]));
    costs.enumerate().filter(|(_, c)| c.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1))
}

/// The cheapest way from a column with too many to one with too few.
fn cheapest_path(wanted: &[Vec<f64>], table: &[Vec<i64>], surplus: &[i64]) -> Option<Vec<usize>> {
    let width = surplus.len();
    let start = (0..width).find(|c| surplus[*c] > 0)?;
    let mut distance = vec![f64::INFINITY; width];
    let mut before = vec![usize::MAX; width];
    distance[start] = 0.0;
    for _ in 1..width {
        for from in (0..width).filter(|c| distance[*c].is_finite()).collect::<Vec<_>>() {
            for to in (0..width).filter(|c| *c != from && *c != start) {
                let Some((_, cost)) = cheapest_move(wanted, table, from, to) else { continue };
                if distance[from] + cost < distance[to] - 1e-9 {
                    distance[to] = distance[from] + cost;
                    before[to] = from;
                }
            }
        }
    }
    let needy = (0..width).filter(|c| surplus[*c] < 0 && distance[*c].is_finite());
    let mut at = needy.min_by(|a, b| distance[*a].total_cmp(&distance[*b]))?;
    let mut path = vec![at];
    while at != start && path.len() <= width {
        at = before[at];
        path.push(at);
    }
    path.reverse();
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_kept_and_no_number_is_further_than_one() {
        let wanted = vec![vec![0.7, 0.15, 0.15]; 20];
        let table = round(&wanted, &[1; 20], &[14, 3, 3]);
        let sum = |c: usize| table.iter().map(|r| r[c]).sum::<usize>();
        assert_eq!([sum(0), sum(1), sum(2)], [14, 3, 3]);
        assert!(table.iter().all(|r| r.iter().sum::<usize>() == 1));
    }

    #[test]
    fn what_groups_took_beyond_a_share_comes_from_the_others() {
        // A group took 3 more than this stratum's share of the first part.
        let table = round(&[vec![-3.0, 4.0, 3.0], vec![7.0, 1.5, 1.5]], &[4, 10], &[7, 4, 3]);
        assert_eq!(table.iter().map(|r| r[0]).sum::<usize>(), 7);
        assert_eq!(table[0].iter().sum::<usize>(), 4);
        assert_eq!(table[0][0], 0);
    }
}
