//! Elementwise activations and the gated GELU of the transformer blocks.

use crate::composed;
use crate::host;
use crate::simd::{erf, exp, multiversion, sigmoid};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// The activations the networks name in their configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x), also called swish (Elfwing et al. 2017).
    Silu,
    /// x * Phi(x) with the exact error function (Hendrycks and Gimpel 2016).
    Gelu,
    /// x * sigmoid(1.702 x), the approximation OpenAI's CLIP was trained with.
    QuickGelu,
}

impl Activation {
    /// Applies the activation: any shape in, the same shape and dtype out.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        let _span = crate::span!("activation", kind = ?self, x = ?x.dims());
        if !host::is_native(x) {
            return match self {
                Self::Silu => x.silu(),
                Self::Gelu => x.gelu_erf(),
                Self::QuickGelu => composed::quick_gelu(x),
            };
        }
        host::prepare(x)?.apply_op1(Elementwise(self))?.to_dtype(x.dtype())
    }
}

/// x * sigmoid(x): any shape in, the same shape and dtype out.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    Activation::Silu.forward(x)
}

/// x * Phi(x) with the exact error function: any shape in, the same shape and dtype out.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    Activation::Gelu.forward(x)
}

/// x * sigmoid(1.702 x): any shape in, the same shape and dtype out.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    Activation::QuickGelu.forward(x)
}

/// The gated GELU of "GLU Variants Improve Transformer" (Shazeer 2020), with the exact error function.
///
/// `x` is (..., 2 n); the result (..., n) is the first half times GELU of the second half.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let _span = crate::span!("geglu", x = ?x.dims());
    if x.rank() == 0 || x.dim(D::Minus1)? % 2 != 0 {
        bail!("geglu: the last dimension of {:?} is not even", x.shape())
    }
    if !host::is_native(x) {
        return composed::geglu(x);
    }
    host::prepare(x)?.apply_op1(Geglu)?.to_dtype(x.dtype())
}

/// Elements handled by one job.
const CHUNK: usize = 1 << 14;

#[inline(always)]
pub(crate) fn silu_slope<const FUSED: bool>(x: f32) -> f32 {
    let s = sigmoid::<FUSED>(x);
    s * (1.0 + x * (1.0 - s))
}

#[inline(always)]
fn normal_cdf<const FUSED: bool>(x: f32) -> f32 {
    0.5 * (1.0 + erf::<FUSED>(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Derivative of x * Phi(x).
#[inline(always)]
fn gelu_slope<const FUSED: bool>(x: f32) -> f32 {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    normal_cdf::<FUSED>(x) + x * INV_SQRT_2PI * exp::<FUSED>(-0.5 * x * x)
}

#[inline(always)]
fn quick_gelu_slope<const FUSED: bool>(x: f32) -> f32 {
    let s = sigmoid::<FUSED>(1.702 * x);
    s * (1.0 + 1.702 * x * (1.0 - s))
}

multiversion! {
    fn forward_chunk(kind: Activation, x: &[f32], y: &mut [f32]) {
        match kind {
            Activation::Silu => for (y, &x) in y.iter_mut().zip(x) { *y = x * sigmoid::<FUSED>(x); },
            Activation::Gelu => for (y, &x) in y.iter_mut().zip(x) { *y = x * normal_cdf::<FUSED>(x); },
            Activation::QuickGelu => for (y, &x) in y.iter_mut().zip(x) { *y = x * sigmoid::<FUSED>(1.702 * x); },
        }
    }
}

multiversion! {
    fn backward_chunk(kind: Activation, x: &[f32], g: &[f32], y: &mut [f32]) {
        let pairs = y.iter_mut().zip(x.iter().zip(g));
        match kind {
            Activation::Silu => for (y, (&x, &g)) in pairs { *y = g * silu_slope::<FUSED>(x); },
            Activation::Gelu => for (y, (&x, &g)) in pairs { *y = g * gelu_slope::<FUSED>(x); },
            Activation::QuickGelu => for (y, (&x, &g)) in pairs { *y = g * quick_gelu_slope::<FUSED>(x); },
        }
    }
}

struct Elementwise(Activation);

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = host::elements(storage, layout, self.name())?;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| forward_chunk(self.0, x, y));
        Ok(host::output(y, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = crate::span!("activation.backward", kind = ?self.0, x = ?x.dims());
        let mut out = vec![0f32; x.elem_count()];
        host::with(x, self.name(), |x| {
            host::with(grad, self.name(), |g| {
                out.par_chunks_mut(CHUNK)
                    .zip(x.par_chunks(CHUNK).zip(g.par_chunks(CHUNK)))
                    .for_each(|(y, (x, g))| backward_chunk(self.0, x, g, y));
                Ok(())
            })
        })?;
        Tensor::from_vec(out, x.shape(), x.device()).map(Some)
    }
}

multiversion! {
    pub(crate) fn geglu_row(value: &[f32], gate: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(value).zip(gate) { *y = a * b * normal_cdf::<FUSED>(b); }
    }
}

multiversion! {
    /// Puts the gradients of the values and of their gates in place of these, given that of the result.
    pub(crate) fn geglu_row_back(value: &mut [f32], gate: &mut [f32], g: &[f32]) {
        for ((value, gate), &g) in value.iter_mut().zip(gate).zip(g) {
            let (a, b) = (*value, *gate);
            *value = g * b * normal_cdf::<FUSED>(b);
            *gate = g * a * gelu_slope::<FUSED>(b);
        }
    }
}

struct Geglu;

impl CustomOp1 for Geglu {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = host::elements(storage, layout, self.name())?;
        let mut dims = layout.dims().to_vec();
        let width = dims.pop().unwrap_or(2);
        let half = width / 2;
        dims.push(half);
        let mut y = vec![0f32; x.len() / 2];
        if half > 0 {
            y.par_chunks_mut(half).zip(x.par_chunks(width)).for_each(|(y, x)| {
                let (value, gate) = x.split_at(half);
                geglu_row(value, gate, y);
            });
        }
        Ok(host::output(y, dims))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = crate::span!("geglu.backward", x = ?x.dims());
        let width = x.dim(D::Minus1)?;
        let half = width / 2;
        let mut out = host::with(x, self.name(), |x| Ok(x.to_vec()))?;
        host::with(grad, self.name(), |g| {
            if half > 0 {
                out.par_chunks_mut(width).zip(g.par_chunks(half)).for_each(|(out, g)| {
                    let (value, gate) = out.split_at_mut(half);
                    geglu_row_back(value, gate, g);
                });
            }
            Ok(())
        })?;
        Tensor::from_vec(out, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};

    #[test]
    fn activations_agree_with_candle_in_f64_and_with_finite_differences() {
        let x = pseudo_normal(1, (3, 37), 2.0);
        for kind in [Activation::Silu, Activation::Gelu, Activation::QuickGelu] {
            agrees_with_f64(std::slice::from_ref(&x), 2e-6, |t| kind.forward(&t[0]));
            check(std::slice::from_ref(&x), |t| kind.forward(&t[0]));
        }
    }

    #[test]
    fn geglu_agrees_with_candle_in_f64_and_with_finite_differences() {
        let x = pseudo_normal(2, (2, 3, 38), 1.5);
        agrees_with_f64(std::slice::from_ref(&x), 2e-6, |t| geglu(&t[0]));
        check(&[x], |t| geglu(&t[0]));
    }

    #[test]
    fn empty_tensors_stay_empty() {
        let x = Tensor::zeros((2, 0), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        assert_eq!(silu(&x).unwrap().dims(), [2, 0]);
        assert_eq!(quick_gelu(&x).unwrap().dims(), [2, 0]);
        let x = Tensor::zeros((0, 4), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        assert_eq!(geglu(&x).unwrap().dims(), [0, 2]);
    }

    #[test]
    fn geglu_refuses_an_odd_width() {
        assert!(geglu(&pseudo_normal(1, (2, 3), 1.0)).is_err());
    }
}
