//! The best approximation of a matrix by one of low rank.
//!
//! The range of the matrix is found by its products with random vectors, with two power iterations ("Finding structure
//! with randomness", Halko, Martinsson and Tropp 2011, algorithm 4.4); what is left is a small symmetric eigenproblem,
//! solved by Jacobi's rotations. All in f64.

use candle_core::{DType, Device, Result, Tensor};

/// Random vectors beyond the rank.
const OVERSAMPLING: usize = 10;
const POWER_ITERATIONS: usize = 2;

/// Factors of an approximation.
pub struct LowRank {
    /// (rows, rank): the left singular vectors times the roots of the singular values.
    pub left: Tensor,
    /// (rank, columns): the roots times the right singular vectors.
    pub right: Tensor,
    /// Squares of the singular values that are kept, over those of all.
    pub energy: f64,
}

/// Approximates a matrix (rows, columns) by one of `rank`, or of its smaller side if that is less.
///
/// # Errors
/// A tensor that is no matrix.
pub fn low_rank(matrix: &Tensor, rank: usize, seed: u64) -> Result<LowRank> {
    let matrix = matrix.to_dtype(DType::F64)?;
    let (rows, columns) = matrix.dims2()?;
    let rank = rank.min(rows).min(columns);
    let width = (rank + OVERSAMPLING).min(rows).min(columns);
    let transposed = matrix.t()?.contiguous()?;
    let mut basis = orthonormal(&matrix.matmul(&random(columns, width, seed)?)?)?;
    for _ in 0..POWER_ITERATIONS {
        basis = orthonormal(&matrix.matmul(&orthonormal(&transposed.matmul(&basis)?)?)?)?;
    }
    // Rows of the small matrix: basisᵀ matrix = V sqrt(values) Wᵀ.
    let small = basis.t()?.contiguous()?.matmul(&matrix)?;
    let gram = small.matmul(&small.t()?.contiguous()?)?.to_vec2::<f64>()?;
    let (values, vectors) = eigen(gram);
    let total = matrix.sqr()?.sum_all()?.to_scalar::<f64>()?;
    let kept: f64 = values.iter().take(rank).sum();
    let (mut outer, mut inner) = (Vec::new(), Vec::new());
    for (value, vector) in values.iter().zip(&vectors).take(rank) {
        // σ = sqrt(value): each factor gets sqrt(σ).
        let root = value.max(0.0).sqrt().sqrt();
        outer.extend(vector.iter().map(|v| v * root));
        inner.extend(vector.iter().map(|v| if root > 0.0 { v / root } else { 0.0 }));
    }
    let outer = Tensor::from_vec(outer, (rank, width), &Device::Cpu)?;
    let inner = Tensor::from_vec(inner, (rank, width), &Device::Cpu)?;
    Ok(LowRank {
        left: basis.matmul(&outer.t()?.contiguous()?)?.to_dtype(DType::F32)?,
        right: inner.matmul(&small)?.to_dtype(DType::F32)?,
        energy: if total > 0.0 { (kept / total).min(1.0) } else { 1.0 },
    })
}

/// Numbers of mean 0, the same for the same seed: SplitMix64 (Steele, Lea and Flood 2014).
fn random(rows: usize, columns: usize, seed: u64) -> Result<Tensor> {
    let number = |i: usize| {
        let z = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    Tensor::from_vec((0..rows * columns).map(number).collect(), (rows, columns), &Device::Cpu)
}

/// An orthonormal basis of the columns, by Gram and Schmidt, twice. Columns that depend on others become 0.
fn orthonormal(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let mut basis: Vec<Vec<f64>> = matrix.t()?.contiguous()?.to_vec2()?;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    for i in 0..columns {
        let (done, rest) = basis.split_at_mut(i);
        let Some(column) = rest.first_mut() else { break };
        let before = dot(column, column).sqrt();
        for _ in 0..2 {
            for other in done.iter() {
                let along = dot(column, other);
                column.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let length = dot(column, column).sqrt();
        let scale = if length > before * 1e-12 { 1.0 / length } else { 0.0 };
        column.iter_mut().for_each(|x| *x *= scale);
    }
    Tensor::from_vec(basis.concat(), (columns, rows), &Device::Cpu)?.t()?.contiguous()
}

/// Eigenvalues of a symmetric matrix, largest first, and their vectors, by Jacobi's rotations.
fn eigen(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    const SWEEPS: usize = 30;
    let n = a.len();
    // Vectors in rows.
    let mut v: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect();
    for _ in 0..SWEEPS {
        let mut turned = false;
        for p in 0..n {
            for q in p + 1..n {
                turned |= rotate(&mut a, &mut v, p, q);
            }
        }
        if !turned {
            break;
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| a[*j][*j].total_cmp(&a[*i][*i]));
    (order.iter().map(|i| a[*i][*i].max(0.0)).collect(), order.iter().map(|i| v[*i].clone()).collect())
}

/// Makes the entry (p, q) zero. Gives whether there was something to do.
fn rotate(a: &mut [Vec<f64>], v: &mut [Vec<f64>], p: usize, q: usize) -> bool {
    let off = a[p][q];
    if off.abs() <= 1e-15 * (a[p][p] * a[q][q]).abs().sqrt() || off == 0.0 {
        return false;
    }
    let theta = (a[q][q] - a[p][p]) / (2.0 * off);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for row in a.iter_mut() {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    turn_rows(a, p, q, c, s);
    turn_rows(v, p, q, c, s);
    true
}

fn turn_rows(m: &mut [Vec<f64>], p: usize, q: usize, c: f64, s: f64) {
    let (above, below) = m.split_at_mut(q);
    for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a.to_dtype(DType::F64).unwrap() - b).unwrap().sqr().unwrap().sum_all().unwrap();
        let size = b.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        (difference.to_scalar::<f64>().unwrap() / size).sqrt()
    }

    #[test]
    fn a_matrix_of_low_rank_is_found_again() {
        for (rows, columns, rank) in [(30, 20, 4), (7, 90, 7), (64, 64, 12), (1, 5, 1)] {
            let matrix = random(rows, rank, 1).unwrap().matmul(&random(rank, columns, 2).unwrap()).unwrap();
            let found = low_rank(&matrix, rank, 3).unwrap();
            assert_eq!((found.left.dims(), found.right.dims()), (&[rows, rank][..], &[rank, columns][..]));
            assert!(off(&found.left.matmul(&found.right).unwrap(), &matrix) < 1e-6, "{rows}x{columns}");
            assert!((found.energy - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn the_rest_is_what_the_singular_values_say() {
        // Orthonormal vectors times known values: the best approximation of rank 3 leaves the other squares.
        let (u, w) = (orthonormal(&random(40, 8, 5).unwrap()), orthonormal(&random(25, 8, 6).unwrap()));
        let sigma: Vec<f64> = (0..8).map(|i| 0.6f64.powi(i)).collect();
        let scaled = u.unwrap().broadcast_mul(&Tensor::new(sigma.as_slice(), &Device::Cpu).unwrap()).unwrap();
        let matrix = scaled.matmul(&w.unwrap().t().unwrap().contiguous().unwrap()).unwrap();
        let found = low_rank(&matrix, 3, 7).unwrap();
        let all: f64 = sigma.iter().map(|s| s * s).sum();
        let kept: f64 = sigma.iter().take(3).map(|s| s * s).sum();
        assert!((found.energy - kept / all).abs() < 1e-9, "{} {}", found.energy, kept / all);
        let error = off(&found.left.matmul(&found.right).unwrap(), &matrix);
        assert!((error - (1.0 - kept / all).sqrt()).abs() < 1e-6, "{error}");
    }

    #[test]
    fn nothing_is_approximated_by_nothing() {
        let zero = Tensor::zeros((6, 4), DType::F32, &Device::Cpu).unwrap();
        let found = low_rank(&zero, 2, 1).unwrap();
        assert_eq!(found.left.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
        assert_eq!(found.energy, 1.0);
    }
}
