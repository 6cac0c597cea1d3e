//! The few statistics that reports and checks need.

/// Pearson's test of a table of counts: statistic, degrees of freedom, probability of as much by chance.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ChiSquare {
    /// The statistic.
    pub chi2: f64,
    /// Degrees of freedom.
    pub df: usize,
    /// Probability of at least this under independence.
    pub p: f64,
    /// Cramér's V: 0 for independence, 1 for full dependence.
    pub v: f64,
    /// Rows whose expected counts were too small, taken as one.
    pub pooled: usize,
}

/// Smallest expected count for which the approximation holds (Cochran 1954).
const MIN_EXPECTED: f64 = 5.0;

/// Tests whether the rows of a table are distributed alike. Rows with an expected count below [`MIN_EXPECTED`] are
/// taken as one. None if fewer than two rows or columns are left.
pub fn chi_square(table: &[Vec<usize>]) -> Option<ChiSquare> {
    let width = table.first()?.len();
    let columns: Vec<f64> = (0..width).map(|c| table.iter().map(|r| r[c] as f64).sum()).collect();
    let total: f64 = columns.iter().sum();
    let used: Vec<usize> = (0..width).filter(|c| columns[*c] > 0.0).collect();
    let smallest = used.iter().map(|c| columns[*c]).fold(f64::INFINITY, f64::min);
    let (mut rows, mut pool, mut pooled) = (Vec::new(), vec![0.0; width], 0);
    for row in table {
        let row: Vec<f64> = row.iter().map(|n| *n as f64).collect();
        let sum: f64 = row.iter().sum();
        if sum * smallest / total >= MIN_EXPECTED {
            rows.push(row);
        } else if sum > 0.0 {
            pooled += 1;
            pool.iter_mut().zip(&row).for_each(|(p, n)| *p += n);
        }
    }
    if pooled > 0 {
        rows.push(pool);
    }
    if rows.len() < 2 || used.len() < 2 {
        return None;
    }
    let term = |row: &Vec<f64>| {
        let sum: f64 = row.iter().sum();
        used.iter()
            .map(|c| (row[*c] - sum * columns[*c] / total).powi(2) / (sum * columns[*c] / total))
            .sum::<f64>()
    };
    let chi2: f64 = rows.iter().map(term).sum();
    let df = (rows.len() - 1) * (used.len() - 1);
    let v = (chi2 / (total * (rows.len().min(used.len()) - 1) as f64)).sqrt();
    Some(ChiSquare { chi2, df, p: upper_gamma(df as f64 / 2.0, chi2 / 2.0), v, pooled })
}

/// The table with the columns that have less than `share` of all counts taken as one.
pub fn pool_columns(table: &[Vec<usize>], share: f64) -> Vec<Vec<usize>> {
    let width = table.first().map_or(0, Vec::len);
    let sums: Vec<usize> = (0..width).map(|c| table.iter().map(|r| r[c]).sum()).collect();
    let least = share * sums.iter().sum::<usize>() as f64;
    let (whole, thin): (Vec<usize>, Vec<usize>) = (0..width).partition(|c| sums[*c] as f64 >= least);
    let pooled = |row: &Vec<usize>| {
        let rest: usize = thin.iter().map(|c| row[*c]).sum();
        whole.iter().map(|c| row[*c]).chain((!thin.is_empty()).then_some(rest)).collect()
    };
    table.iter().map(pooled).collect()
}

/// The regularised upper incomplete gamma function, by its series or its continued fraction (Abramowitz and Stegun
/// 6.5.29, 6.5.31).
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        while term > sum * 1e-15 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return (1.0 - sum * scale).clamp(0.0, 1.0);
    }
    // Modified Lentz.
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1e300, 1.0 / b);
    let mut h = d;
    for i in 1..1000 {
        let an = -f64::from(i) * (f64::from(i) - a);
        b += 2.0;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        let delta = c * d;
        h *= delta;
        if (delta - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (h * scale).clamp(0.0, 1.0)
}

/// Lanczos' approximation with g = 7 and 9 terms, for positive numbers.
fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = C[1..].iter().enumerate().fold(C[0], |s, (i, c)| s + c / (x + i as f64 + 1.0));
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Entropy of counts as a number of equally common values.
pub fn effective_values(counts: &[usize]) -> f64 {
    let total = counts.iter().sum::<usize>().max(1) as f64;
    let share = |n: &usize| *n as f64 / total;
    counts.iter().filter(|n| **n > 0).map(|n| -share(n) * share(n).ln()).sum::<f64>().exp()
}

/// Lowest, quartiles and highest of numbers, by linear interpolation; none of no numbers.
pub fn quantiles(numbers: &mut [f64]) -> Option<[f64; 5]> {
    numbers.sort_by(f64::total_cmp);
    let last = numbers.len().checked_sub(1)?;
    let at = |q: f64| {
        let place = q * last as f64;
        let (low, share) = (place.floor() as usize, place.fract());
        numbers[low] + (numbers[(low + 1).min(last)] - numbers[low]) * share
    };
    Some([at(0.0), at(0.25), at(0.5), at(0.75), at(1.0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the statistic; for 2 and 1 degrees of freedom the probability has a closed form,
    /// `exp(-x/2)` and `erfc(sqrt(x/2))`.
    #[test]
    fn chi_square_is_that_of_its_definition() {
        let t = chi_square(&[vec![10, 20, 30], vec![6, 9, 17]]).unwrap();
        assert!((t.chi2 - 0.27157465150403504).abs() < 1e-9 && t.df == 2, "{t:?}");
        assert!((t.p - 0.873028283380073).abs() < 1e-9, "{t:?}");
        let t = chi_square(&[vec![200, 100], vec![100, 200]]).unwrap();
        assert!((t.chi2 - 66.666_666_666_666_67).abs() < 1e-9 && t.p < 1e-14 && t.v > 0.33, "{t:?}");
    }

    #[test]
    fn thin_rows_are_taken_as_one_and_nothing_can_be_said_of_one_row() {
        let t = chi_square(&[vec![70, 15, 15], vec![3, 1, 0], vec![2, 0, 1], vec![140, 30, 30]]).unwrap();
        assert_eq!((t.pooled, t.df), (2, 4));
        assert_eq!(chi_square(&[vec![5, 6]]), None);
        assert_eq!(chi_square(&[]), None);
        assert_eq!(chi_square(&[vec![9, 0], vec![8, 0]]), None);
    }

    #[test]
    fn thin_columns_are_taken_as_one() {
        assert_eq!(pool_columns(&[vec![90, 1, 9, 2], vec![90, 0, 8, 0]], 0.05), [[90, 9, 3], [90, 8, 0]]);
        assert_eq!(pool_columns(&[vec![5, 5]], 0.05), [[5, 5]]);
    }

    #[test]
    fn quantiles_and_entropy() {
        assert_eq!(quantiles(&mut [4.0, 1.0, 3.0, 2.0]), Some([1.0, 1.75, 2.5, 3.25, 4.0]));
        assert_eq!(quantiles(&mut []), None);
        assert!((effective_values(&[5, 5, 0, 5]) - 3.0).abs() < 1e-12);
    }
}
