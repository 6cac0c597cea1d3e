//! Matrices laid out anew, columns as rows.

use crate::host::{self, Shared};
use crate::wide::{LANES, Unit, even_blocks, transpose::transpose};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// `x` (B, M, N) as (B, N, M), in row-major order.
///
/// Errors: another rank.
pub fn transposed(x: &Tensor) -> Result<Tensor> {
    let _span = crate::span!("transposed", x = ?x.dims());
    x.dims3()?;
    if !host::is_native(x) || x.dtype() != DType::F32 {
        return x.transpose(1, 2)?.contiguous();
    }
    x.contiguous()?.apply_op1(Transposed)
}

/// Rows of the result that one job writes: they stay in its second cache until they are whole.
const ROWS: usize = 64;

struct Transposed;

impl CustomOp1 for Transposed {
    fn name(&self) -> &'static str {
        "transposed"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = host::elements(storage, layout, self.name())?;
        let (batch, m, n) = layout.shape().dims3()?;
        let compute = |y: Shared| {
            let jobs: Vec<_> = (0..batch)
                .flat_map(|b| host::blocks(n, ROWS).into_iter().map(move |rows| (b, rows)))
                .collect();
            jobs.into_par_iter().for_each(|(b, (first, count))| {
                // SAFETY: each job has its own rows of the result.
                let out = unsafe { y.slice((b * n + first) * m, count * m) };
                // Blocks of eight or more, or one alone: of fewer, what is written reaches beyond.
                for (row, rows) in even_blocks(m, LANES) {
                    let from = &x[(b * m + row) * n + first..];
                    transpose(Unit::f32(), from, n, (rows, count), &mut out[row..], m);
                }
            });
        };
        // SAFETY: the jobs are all rows of the result, and each writes all columns.
        let y = unsafe { host::written(x.len(), compute) };
        Ok(host::output(y, (batch, n, m)))
    }

    fn bwd(&self, _x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        transposed(grad).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_normal};

    #[test]
    fn columns_become_rows_of_every_size_and_type() {
        for shape in [(1, 1, 1), (2, 3, 5), (1, 7, 64), (3, 17, 65), (2, 40, 130), (1, 200, 9), (1, 33, 1)] {
            let x = pseudo_normal(1, shape, 1.0);
            for dtype in [DType::F32, DType::F64, DType::BF16] {
                let x = x.to_dtype(dtype).unwrap();
                let (got, want) = (transposed(&x).unwrap(), x.transpose(1, 2).unwrap());
                assert_eq!((got.dtype(), got.dims(), got.is_contiguous()), (dtype, want.dims(), true));
                let values =
                    |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>();
                assert_eq!(values(&got).unwrap(), values(&want).unwrap(), "{shape:?} {dtype:?}");
            }
        }
    }

    #[test]
    fn a_view_is_taken_as_what_it_shows() {
        let x = pseudo_normal(1, (9, 2, 10), 1.0).transpose(0, 1).unwrap();
        let want = x.transpose(1, 2).unwrap().contiguous().unwrap();
        assert_eq!(transposed(&x).unwrap().to_vec3::<f32>().unwrap(), want.to_vec3::<f32>().unwrap());
    }

    #[test]
    fn its_gradient_agrees_with_finite_differences() {
        check(&[pseudo_normal(1, (2, 3, 4), 1.0)], |t| transposed(&t[0]));
    }

    #[test]
    fn another_rank_is_refused() {
        assert!(transposed(&pseudo_normal(1, (2, 3), 1.0)).is_err());
    }
}
