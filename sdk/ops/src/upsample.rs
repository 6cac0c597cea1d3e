//! Nearest-neighbour upsampling.

use crate::composed;
use crate::host::{self, elements};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// `x` (B, C, H, W) enlarged to (B, C, height, width): output pixel i is input pixel floor(i * H / height).
///
/// Sizes between the input's and twice the input's are what the networks need (twice, or one less where a skip
/// connection has an odd size); a multiple of the input's size works too. Others are refused.
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let _span = crate::span!("upsample_nearest", x = ?x.dims(), height, width);
    let (_, _, h, w) = x.dims4()?;
    // For these sizes the source index is i / factor with one integer factor for the whole axis.
    let factor = |from: usize, to: usize| -> Result<usize> {
        let factor = if from == 0 { 0 } else { to.div_ceil(from) };
        if to == 0 || factor == 0 || (0..to).any(|i| i * from / to != i / factor) {
            bail!("upsample_nearest: from {h}x{w} to {height}x{width}")
        }
        Ok(factor)
    };
    let (down, across) = (factor(h, height)?, factor(w, width)?);
    if !host::is_native(x) {
        return composed::upsample_nearest(x, height, width);
    }
    host::prepare(x)?.apply_op1(Upsample { height, width, down, across })?.to_dtype(x.dtype())
}

struct Upsample {
    height: usize,
    width: usize,
    /// Rows of the result per row of the input.
    down: usize,
    /// Columns of the result per column of the input.
    across: usize,
}

impl Upsample {
    fn plane(&self, x: &[f32], w: usize, y: &mut [f32]) {
        for (row, y) in y.chunks_exact_mut(self.width).enumerate() {
            let x = &x[row / self.down * w..][..w];
            for (y, &x) in y.chunks_mut(self.across).zip(x) {
                y.fill(x);
            }
        }
    }

    fn plane_back(&self, g: &[f32], w: usize, dx: &mut [f32]) {
        for (row, g) in g.chunks_exact(self.width).enumerate() {
            let dx = &mut dx[row / self.down * w..][..w];
            for (g, dx) in g.chunks(self.across).zip(dx) {
                *dx += g.iter().sum::<f32>();
            }
        }
    }
}

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "upsample_nearest"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(storage, layout, self.name())?;
        let (batch, channels, h, w) = layout.shape().dims4()?;
        let size = self.height * self.width;
        let mut y = vec![0f32; batch * channels * size];
        y.par_chunks_mut(size).zip(x.par_chunks(h * w)).for_each(|(y, x)| self.plane(x, w, y));
        Ok(host::output(y, (batch, channels, self.height, self.width)))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        let mut dx = vec![0f32; x.elem_count()];
        host::with(grad, self.name(), |g| {
            let planes = dx.par_chunks_mut(h * w).zip(g.par_chunks(self.height * self.width));
            planes.for_each(|(dx, g)| self.plane_back(g, w, dx));
            Ok(())
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};
    use candle_core::Var;

    #[test]
    fn upsampling_agrees_with_candle_in_f64_and_with_finite_differences() {
        for (h, w, height, width) in [(3, 4, 6, 8), (3, 4, 5, 7), (2, 5, 4, 9), (1, 1, 1, 2), (2, 3, 6, 9)] {
            let x = pseudo_normal(1, (2, 3, h, w), 1.0);
            agrees_with_f64(std::slice::from_ref(&x), 1e-6, |t| upsample_nearest(&t[0], height, width));
            check(&[x], |t| upsample_nearest(&t[0], height, width));
        }
    }

    #[test]
    fn pixels_are_repeated_as_torch_repeats_them() {
        let x =
            Tensor::new(&[1f32, 2., 3.], &candle_core::Device::Cpu).unwrap().reshape((1, 1, 1, 3)).unwrap();
        let row =
            |width| upsample_nearest(&x, 1, width).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(row(6), [1., 1., 2., 2., 3., 3.]);
        assert_eq!(row(5), [1., 1., 2., 2., 3.]);
    }

    #[test]
    fn gradients_of_a_shared_input_add_up() {
        let x = Var::from_tensor(
            &Tensor::ones((1, 2, 2, 2), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
        );
        let x = x.unwrap();
        let shared = (x.as_tensor() * 1.0).unwrap();
        let up = upsample_nearest(&shared, 4, 4).unwrap().sum_all().unwrap();
        let grads = (up + shared.sum_all().unwrap()).unwrap().backward().unwrap();
        let got = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(got.iter().all(|v| *v == 5.0), "{got:?}");
    }

    #[test]
    fn sizes_nearest_would_repeat_unevenly_are_refused() {
        assert!(upsample_nearest(&pseudo_normal(1, (1, 1, 3, 3), 1.0), 4, 6).is_err());
        assert!(upsample_nearest(&pseudo_normal(1, (1, 1, 3, 3), 1.0), 0, 6).is_err());
    }
}
