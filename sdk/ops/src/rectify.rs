//! Rectifiers with a slope for negative numbers, and the scaled sum of a residual.

use crate::host::{self, Shared};
use crate::simd::multiversion;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// max(x, 0) + slope min(x, 0): any shape in, the same shape and dtype out.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    let _span = crate::span!("leaky_relu", x = ?x.dims());
    if !host::is_native(x) {
        let positive = x.relu()?;
        return &positive + ((x - &positive)? * f64::from(slope))?;
    }
    let slope = Tensor::new(&[slope], x.device())?;
    host::prepare(x)?.apply_op2(&slope, Prelu)?.to_dtype(x.dtype())
}

/// [`leaky_relu`] of `x` (B, C, ...) with the slopes `weight`, (C) or (1) for all channels
/// (He et al. 2015, arXiv:1502.01852).
pub fn prelu(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let _span = crate::span!("prelu", x = ?x.dims());
    let channels = if x.rank() < 2 { 1 } else { x.dim(1)? };
    if weight.rank() != 1 || ![1, channels].contains(&weight.elem_count()) {
        bail!("prelu: slopes {:?} for {:?}", weight.shape(), x.shape())
    }
    if !host::is_native(x) {
        let mut shape = vec![1; x.rank()];
        if x.rank() > 1 {
            shape[1] = weight.elem_count();
        }
        let positive = x.relu()?;
        let slopes = weight.to_dtype(x.dtype())?.reshape(shape)?;
        return &positive + (x - &positive)?.broadcast_mul(&slopes)?;
    }
    host::prepare(x)?.apply_op2(&host::prepare(weight)?, Prelu)?.to_dtype(x.dtype())
}

/// `x` + `scale` `y`, of one shape and dtype.
pub fn add_scaled(x: &Tensor, y: &Tensor, scale: f32) -> Result<Tensor> {
    let _span = crate::span!("add_scaled", x = ?x.dims());
    if x.dims() != y.dims() || x.dtype() != y.dtype() {
        bail!("add_scaled: {:?} of {:?} and {:?} of {:?}", x.shape(), x.dtype(), y.shape(), y.dtype())
    }
    if !host::is_native(x) {
        return x + (y * f64::from(scale))?;
    }
    host::prepare(x)?.apply_op2(&host::prepare(y)?, AddScaled(scale))?.to_dtype(x.dtype())
}

/// Elements handled by one job.
const CHUNK: usize = 1 << 14;

multiversion! {
    fn rectify(slope: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = if x > 0.0 { x } else { slope * x }; }
    }
}

multiversion! {
    fn rectify_back(slope: f32, x: &[f32], g: &[f32], dx: &mut [f32]) {
        for (dx, (&x, &g)) in dx.iter_mut().zip(x.iter().zip(g)) { *dx = if x > 0.0 { g } else { slope * g }; }
    }
}

multiversion! {
    fn sum_scaled(scale: f32, x: &[f32], y: &[f32], z: &mut [f32]) {
        for (z, (&x, &y)) in z.iter_mut().zip(x.iter().zip(y)) { *z = x + scale * y; }
    }
}

struct Prelu;

impl Prelu {
    /// Elements that share a slope, and which slope the plane of a number has.
    fn planes(shape: &Shape, slopes: usize) -> (usize, impl Fn(usize) -> usize) {
        let dims = shape.dims();
        let plane = if slopes == 1 { CHUNK } else { dims[2..].iter().product::<usize>().max(1) };
        (plane, move |number| number % slopes)
    }
}

impl CustomOp2 for Prelu {
    fn name(&self) -> &'static str {
        "prelu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, slopes) = (host::elements(s1, l1, self.name())?, host::elements(s2, l2, self.name())?);
        let (plane, slope) = Self::planes(l1.shape(), slopes.len());
        let mut y = vec![0f32; x.len()];
        let planes = y.par_chunks_mut(plane).zip(x.par_chunks(plane)).enumerate();
        planes.for_each(|(i, (y, x))| rectify(slopes[slope(i)], x, y));
        Ok(host::output(y, l1.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let slopes = weight.to_vec1::<f32>()?;
        let (plane, slope) = Self::planes(x.shape(), slopes.len());
        let mut dx = vec![0f32; x.elem_count()];
        let mut dw = vec![0f32; slopes.len()];
        host::with(x, self.name(), |x| {
            host::with(grad, self.name(), |g| {
                let planes = dx.par_chunks_mut(plane).zip(x.par_chunks(plane).zip(g.par_chunks(plane)));
                planes.enumerate().for_each(|(i, (dx, (x, g)))| rectify_back(slopes[slope(i)], x, g, dx));
                for (i, (x, g)) in x.chunks(plane).zip(g.chunks(plane)).enumerate() {
                    dw[slope(i)] += x.iter().zip(g).map(|(x, g)| x.min(0.0) * g).sum::<f32>();
                }
                Ok(())
            })
        })?;
        let dx = x.track_op().then(|| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
        let dw = weight.track_op().then(|| Tensor::from_vec(dw, weight.shape(), x.device())).transpose()?;
        Ok((dx, dw))
    }
}

struct AddScaled(f32);

impl CustomOp2 for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, y) = (host::elements(s1, l1, self.name())?, host::elements(s2, l2, self.name())?);
        let mut z = vec![0f32; x.len()];
        let memory = Shared::new(&mut z);
        host::blocks(x.len(), CHUNK).into_par_iter().for_each(|(start, len)| {
            // SAFETY: these elements belong to this job.
            let z = unsafe { memory.slice(start, len) };
            sum_scaled(self.0, &x[start..start + len], &y[start..start + len], z);
        });
        Ok(host::output(z, l1.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = y.track_op().then(|| grad * f64::from(self.0)).transpose()?;
        Ok((x.track_op().then(|| grad.clone()), dy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};

    /// Numbers that no finite difference moves across zero, where a rectifier has no derivative.
    fn off_zero(shape: impl Into<Shape>) -> Tensor {
        let x = pseudo_normal(1, shape, 1.0);
        ((x.sign().unwrap() * 0.05).unwrap() + x).unwrap()
    }

    #[test]
    fn rectifiers_agree_with_candle_in_f64_and_with_finite_differences() {
        for shape in [&[2, 3, 4, 5][..], &[2, 3], &[1, 3, 130, 130]] {
            let inputs = [off_zero(shape), pseudo_normal(2, 3, 0.5)];
            agrees_with_f64(&inputs, 1e-5, |t| prelu(&t[0], &t[1]));
            agrees_with_f64(&inputs[..1], 1e-6, |t| leaky_relu(&t[0], 0.2));
            if inputs[0].elem_count() < 1000 {
                check(&inputs, |t| prelu(&t[0], &t[1]));
            }
        }
        let one = [off_zero((2, 3, 5)), pseudo_normal(2, 1, 0.5)];
        agrees_with_f64(&one, 1e-5, |t| prelu(&t[0], &t[1]));
        check(&one, |t| prelu(&t[0], &t[1]));
    }

    #[test]
    fn scaled_sums_agree_with_candle_in_f64_and_with_finite_differences() {
        let inputs = [pseudo_normal(1, (2, 3, 5), 1.0), pseudo_normal(2, (2, 3, 5), 1.0)];
        agrees_with_f64(&inputs, 1e-6, |t| add_scaled(&t[0], &t[1], 0.2));
        check(&inputs, |t| add_scaled(&t[0], &t[1], 0.2));
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let x = Tensor::new(&[f32::NAN, -1.0, 2.0], &candle_core::Device::Cpu).unwrap();
        let y = leaky_relu(&x, 0.2).unwrap().to_vec1::<f32>().unwrap();
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [-0.2, 2.0]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let x = pseudo_normal(1, (2, 3, 4, 4), 1.0);
        assert!(prelu(&x, &pseudo_normal(2, 4, 1.0)).is_err());
        assert!(prelu(&x, &pseudo_normal(2, (3, 1), 1.0)).is_err());
        assert!(add_scaled(&x, &pseudo_normal(2, (2, 3, 4, 5), 1.0), 1.0).is_err());
    }
}
