//! The fully connected layer with low-rank factors beside its frozen weight, in one operation.

use crate::host::{self, prepare};
use crate::linear::{linear_for, parallel_product, times, times_transposed};
use crate::matmul::Mat;
use crate::products::{self, Products};
use crate::stored;
use crate::tape::Need;
use crate::weight::{Operand, Weight};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};

/// Factors of a change of a weight: `scale · up · down`.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// (rank, inputs).
    pub down: &'a Tensor,
    /// (outputs, rank).
    pub up: &'a Tensor,
    /// What their product is multiplied with.
    pub scale: f64,
}

/// y = x (W + scale · up · down)ᵀ + b: LoRA (Hu et al. 2021, arXiv:2106.09685), with gradients of `x`, `down` and `up`.
///
/// Shapes as for [`crate::linear`]. As one operation it needs no passes over results as large as y or x to add them up,
/// neither forward nor back. For the gradient alone nothing is computed. Where the weight or bias is itself a variable,
/// or on another device, it is the composition.
pub fn linear_adapted<'a>(
    need: Need,
    x: &Tensor,
    weight: impl Into<Operand<'a>>,
    bias: Option<&Tensor>,
    LowRank { down, up, scale }: LowRank,
) -> Result<Tensor> {
    let weight = weight.into();
    let _span = crate::span!("linear_adapted", x = ?x.dims(), weight = ?weight.dims(), down = ?down.dims());
    let (outputs, inputs) = weight.shape().dims2()?;
    let rank = down.dim(0)?;
    if down.dims() != [rank, inputs] || up.dims() != [outputs, rank] || rank == 0 {
        bail!("linear_adapted: factors {:?} and {:?} for {:?}", down.shape(), up.shape(), weight.shape())
    }
    if x.rank() == 0 || x.dim(D::Minus1)? != inputs || bias.is_some_and(|b| b.dims() != [outputs]) {
        bail!("linear_adapted: input {:?} for a weight {:?}", x.shape(), weight.shape())
    }
    if !host::is_native(x) || weight.track_op() || bias.is_some_and(Tensor::track_op) {
        let inner = (linear_for(Need::Value, x, down, None)? * scale)?;
        return linear_for(need, x, weight, bias)? + linear_for(Need::Value, &inner, up, None)?;
    }
    let op = LinearAdapted {
        weight: match weight {
            Operand::Tensor(weight) => Weight::Tensor(stored::operand(weight)?),
            Operand::Frozen(weight) => Weight::Frozen(weight.clone()),
        },
        bias: bias.map(prepare).transpose()?,
        scale: scale as f32,
        need,
        products: products::of_call(&[x, down, up]),
    };
    prepare(x)?.apply_op3(&prepare(down)?, &prepare(up)?, op)?.to_dtype(x.dtype())
}

struct LinearAdapted {
    weight: Weight,
    bias: Option<Tensor>,
    scale: f32,
    need: Need,
    products: Products,
}

/// Rows of x, outputs, inputs, rank.
#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
    r: usize,
}

fn rows(data: &[f32], width: usize) -> Mat<'_> {
    Mat::rows(data, width)
}

impl LinearAdapted {
    /// scale · x downᵀ, (m, rank).
    fn inner(&self, s: Sizes, x: &[f32], down: &[f32]) -> Vec<f32> {
        let mut inner = vec![0f32; s.m * s.r];
        let (x, down) = (|i: usize| rows(&x[i * s.k..], s.k), |j: usize| rows(&down[j * s.k..], s.k).t());
        parallel_product(&mut inner, false, (s.m, s.r, s.k), x, down);
        inner.iter_mut().for_each(|v| *v *= self.scale);
        inner
    }

    fn forward(&self, s: Sizes, x: &[f32], down: &[f32], up: &[f32]) -> Result<Vec<f32>> {
        let mut y = vec![0f32; s.m * s.n];
        stored::with(&self.weight, self.name(), |w| {
            let mut run = |bias: Option<&[f32]>| {
                times_transposed(&mut y, bias, x, w, (s.n, s.k), self.products);
                Ok(())
            };
            match &self.bias {
                Some(bias) => host::with(bias, self.name(), |bias| run(Some(bias))),
                None => run(None),
            }
        })?;
        let inner = self.inner(s, x, down);
        let (inner, up) = (|i: usize| rows(&inner[i * s.r..], s.r), |j: usize| rows(&up[j * s.r..], s.r).t());
        parallel_product(&mut y, true, (s.m, s.n, s.r), inner, up);
        Ok(y)
    }

    /// Gradients of x, if wanted, of down and of up.
    fn backward(&self, s: Sizes, [x, down, up, g]: [&[f32]; 4], wanted: bool) -> Result<[Vec<f32>; 3]> {
        let mut inner = vec![0f32; s.m * s.r];
        parallel_product(
            &mut inner,
            false,
            (s.m, s.r, s.n),
            |i| rows(&g[i * s.n..], s.n),
            |j| rows(&up[j..], s.r),
        );
        inner.iter_mut().for_each(|v| *v *= self.scale);
        let mut d_down = vec![0f32; s.r * s.k];
        let (left, right) = (|i: usize| rows(&inner[i..], s.r).t(), |j: usize| rows(&x[j..], s.k));
        parallel_product(&mut d_down, false, (s.r, s.k, s.m), left, right);
        let mut dx = vec![0f32; if wanted { s.m * s.k } else { 0 }];
        if wanted {
            stored::with(&self.weight, self.name(), |w| {
                times(&mut dx, g, w, (s.n, s.k));
                Ok(())
            })?;
            let (left, right) = (|i: usize| rows(&inner[i * s.r..], s.r), |j: usize| rows(&down[j..], s.k));
            parallel_product(&mut dx, true, (s.m, s.k, s.r), left, right);
        }
        let inner = self.inner(s, x, down);
        let mut d_up = vec![0f32; s.n * s.r];
        let (left, right) = (|i: usize| rows(&g[i..], s.n).t(), |j: usize| rows(&inner[j..], s.r));
        parallel_product(&mut d_up, false, (s.n, s.r, s.m), left, right);
        Ok([dx, d_down, d_up])
    }
}

impl CustomOp3 for LinearAdapted {
    fn name(&self) -> &'static str {
        "linear_adapted"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = host::elements(s1, l1, self.name())?;
        let down = host::elements(s2, l2, self.name())?;
        let up = host::elements(s3, l3, self.name())?;
        let (n, k) = Operand::from(&self.weight).shape().dims2()?;
        let s = Sizes { m: x.len() / k, n, k, r: down.len() / k };
        let mut dims = l1.dims().to_vec();
        dims.pop();
        dims.push(n);
        if self.need == Need::Gradient {
            return Ok(host::output(vec![0f32; s.m * s.n], dims));
        }
        Ok(host::output(self.forward(s, x, down, up)?, dims))
    }

    fn bwd(
        &self,
        x: &Tensor,
        down: &Tensor,
        up: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = crate::span!("linear_adapted.backward", x = ?x.dims(), weight = ?self.weight.dims());
        let name = self.name();
        let (n, k) = Operand::from(&self.weight).shape().dims2()?;
        let s = Sizes { m: x.elem_count() / k, n, k, r: down.dim(0)? };
        let wanted = x.track_op();
        let [dx, d_down, d_up] = host::with(x, name, |x| {
            host::with(down, name, |down| {
                host::with(up, name, |up| {
                    host::with(grad, name, |g| self.backward(s, [x, down, up, g], wanted))
                })
            })
        })?;
        let of = |data: Vec<f32>, t: &Tensor| Tensor::from_vec(data, t.shape(), t.device());
        let dx = wanted.then(|| of(dx, x)).transpose()?;
        Ok((dx, Some(of(d_down, down)?), Some(of(d_up, up)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};
    use candle_core::DType;

    fn inputs(rows: usize, inputs: usize, outputs: usize, rank: usize) -> [Tensor; 3] {
        let x = pseudo_normal(1, (2, rows, inputs), 1.0);
        [x, pseudo_normal(2, (rank, inputs), 0.3), pseudo_normal(3, (outputs, rank), 0.3)]
    }

    #[test]
    fn linear_adapted_agrees_with_candle_in_f64_and_with_finite_differences() {
        for (rows, k, n, r) in [(1, 3, 5, 1), (7, 40, 33, 4), (300, 19, 130, 8)] {
            let (w, b) = (pseudo_normal(4, (n, k), 0.3), pseudo_normal(5, n, 1.0));
            let inputs = inputs(rows, k, n, r);
            for bias in [None, Some(&b)] {
                let run = |t: &[Tensor]| {
                    let factors = LowRank { down: &t[1], up: &t[2], scale: 0.7 };
                    let to = |w: &Tensor| w.to_dtype(t[0].dtype());
                    linear_adapted(Need::Value, &t[0], &to(&w)?, bias.map(to).transpose()?.as_ref(), factors)
                };
                agrees_with_f64(&inputs, 1e-5, run);
                check(&inputs, run);
            }
        }
    }

    #[test]
    fn factors_that_do_not_fit_are_refused() {
        let [x, down, up] = inputs(2, 4, 5, 3);
        let w = Tensor::zeros((5, 4), DType::F32, x.device()).unwrap();
        let run = |x: &Tensor, down: &Tensor, up: &Tensor| {
            linear_adapted(Need::Value, x, &w, None, LowRank { down, up, scale: 1.0 })
        };
        assert!(run(&x, &down, &up).is_ok());
        assert!(run(&x, &up, &down).is_err());
        assert!(run(&up, &down, &up).is_err());
    }
}
