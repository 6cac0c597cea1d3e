//! A fully connected layer with the gated GELU behind it, whose wide result is never there as a whole.

use crate::activation::{geglu, geglu_row, geglu_row_back};
use crate::host::{self, blocks};
use crate::linear::{linear_for, times, times_transposed, unit_for};
use crate::products::{self, Products};
use crate::stored::{self, Stored};
use crate::tape::Need;
use crate::weight::{Operand, Weight};
use crate::wide::gated::multiply_gated;
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// [`geglu`] of [`linear`](crate::linear), of which only what is needed is computed. For the gradient alone that is nothing:
/// the numbers of the result are then zeros.
///
/// `x` is (..., inputs), `weight` (2 n, inputs), `bias` (2 n); the result is (..., n) in x's dtype. The layer's result is
/// never there as a whole: forward it goes through the GELU block by block, and the way back computes it again for some rows
/// at a time. Where the weight or the bias is part of the graph, one operation follows the other.
pub fn linear_geglu_for<'a>(
    need: Need,
    x: &Tensor,
    weight: impl Into<Operand<'a>>,
    bias: &Tensor,
) -> Result<Tensor> {
    let weight = weight.into();
    let (outputs, inputs) = weight.shape().dims2()?;
    let fits = x.rank() > 0 && x.dim(D::Minus1)? == inputs && bias.dims() == [outputs] && outputs % 2 == 0;
    if !fits || outputs * inputs == 0 || !host::is_native(x) || weight.track_op() || bias.track_op() {
        return geglu(&linear_for(Need::Value, x, weight, Some(bias))?);
    }
    let _span = crate::span!("linear_geglu", x = ?x.dims(), weight = ?weight.dims());
    let products = products::of_call(&[x]);
    let weight = match weight {
        Operand::Tensor(weight) => Weight::Tensor(stored::operand(weight)?),
        Operand::Frozen(weight) => Weight::Frozen(weight.clone()),
    };
    let op = Gated { need, products, weight, bias: bias.to_dtype(DType::F32)?.to_vec1()? };
    host::prepare(x)?.apply_op1(op)?.to_dtype(x.dtype())
}

/// Rows whose wide result and its gradient are there together, on the way back: they set the peak of memory in training.
const ROWS: usize = 2048;

const NAME: &str = "linear_geglu";

struct Gated {
    need: Need,
    products: Products,
    /// (2 n, inputs).
    weight: Weight,
    /// (2 n).
    bias: Vec<f32>,
}

impl Gated {
    /// The gradient of `x`, (rows, inputs), given that of the result, for some rows after the others: dx is overwritten.
    fn input_gradient(&self, dx: &mut [f32], x: &[f32], g: &[f32], weight: Stored) {
        let (width, half) = (self.bias.len(), self.bias.len() / 2);
        let inputs = weight.len() / width;
        let all = x.len() / inputs;
        // Not scratch memory: that would stay.
        let mut part = vec![0f32; ROWS.min(all) * width];
        for (first, rows) in blocks(all, ROWS) {
            let (h, of) = (&mut part[..rows * width], first * inputs..(first + rows) * inputs);
            let (x, dx) = (&x[of.clone()], &mut dx[of]);
            times_transposed(h, Some(&self.bias), x, weight, (width, inputs), self.products);
            let g = g[first * half..].par_chunks(half);
            h.par_chunks_mut(width).zip(g).for_each(|(h, g)| {
                let (value, gate) = h.split_at_mut(half);
                geglu_row_back(value, gate, g);
            });
            times(dx, h, weight, (width, inputs));
        }
    }
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = host::elements(storage, layout, NAME)?;
        let width = self.bias.len();
        let half = width / 2;
        let mut dims = layout.dims().to_vec();
        let inputs = dims.pop().unwrap_or(1);
        dims.push(half);
        let count = x.len() / inputs * half;
        let y = match self.need {
            Need::Gradient => vec![0f32; count],
            Need::Value => stored::with(&self.weight, NAME, |weight| {
                let (unit, left) = (unit_for(self.products, weight), Stored::F32(x));
                let size = (width, inputs);
                // SAFETY: all of the result is written, and nothing of it read.
                Ok(unsafe {
                    host::written(count, |y| {
                        multiply_gated(unit, y, &self.bias, left, weight, size, geglu_row);
                    })
                })
            })?,
        };
        Ok(host::output(y, dims))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = crate::span!("linear_geglu.backward", x = ?x.dims());
        let mut dx = vec![0f32; x.elem_count()];
        host::with(x, NAME, |x| {
            host::with(grad, NAME, |g| {
                stored::with(&self.weight, NAME, |weight| {
                    self.input_gradient(&mut dx, x, g, weight);
                    Ok(())
                })
            })
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};
    use crate::weight::{Format, Frozen};
    use candle_core::Var;
    use std::sync::Arc;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn near(a: &Tensor, b: &Tensor) {
        let (a, b) = (values(a), values(b));
        let largest = b.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        assert!(largest > 0.0 && a.len() == b.len());
        a.iter()
            .zip(b)
            .for_each(|(a, b)| assert!((a - b).abs() <= 2e-6 * largest, "{a} for {b} of {largest}"));
    }

    #[test]
    fn it_agrees_with_candle_in_f64_and_with_finite_differences() {
        let (w, b) = (pseudo_normal(2, (34, 19), 0.3), pseudo_normal(3, 34, 1.0));
        let run = |x: &Tensor| {
            let (w, b) = (w.to_dtype(x.dtype())?, b.to_dtype(x.dtype())?);
            linear_geglu_for(Need::Value, x, &w, &b)
        };
        let x = pseudo_normal(1, (2, 7, 19), 1.0);
        agrees_with_f64(std::slice::from_ref(&x), 2e-6, |t| run(&t[0]));
        check(&[x], |t| run(&t[0]));
    }

    #[test]
    fn several_parts_are_one_operation_after_the_other_and_so_are_their_gradients() {
        let rows = ROWS + ROWS / 2 + 3;
        let (x, w) = (pseudo_normal(1, (1, rows, 24), 1.0), pseudo_normal(2, (12, 24), 0.3));
        let (b, by) = (pseudo_normal(3, 12, 1.0), pseudo_normal(4, (1, rows, 6), 1.0));
        let bytes = values(&w).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (all, memory) = (0..bytes.len(), Arc::new(bytes));
        let frozen = Frozen::new(memory, all, Format::F32, (12, 24)).unwrap();
        let run = |f: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let x = Var::from_tensor(&x).unwrap();
            let y = f(&x).unwrap();
            let gradients = (&y * &by).unwrap().sum_all().unwrap().backward().unwrap();
            (y, gradients.get(&x).unwrap().clone())
        };
        let apart = run(&|x| geglu(&crate::linear(x, &w, Some(&b))?));
        for weight in [Operand::Tensor(&w), Operand::Frozen(&frozen)] {
            let together = run(&|x| linear_geglu_for(Need::Value, x, weight, &b));
            near(&together.0, &apart.0);
            let untracked = linear_geglu_for(Need::Value, &x, weight, &b).unwrap();
            assert_eq!(
                values(&untracked),
                values(&together.0),
                "a recorded pass gives the bits of a plain one"
            );
            near(&together.1, &apart.1);
            let (nothing, gradient) = run(&|x| linear_geglu_for(Need::Gradient, x, weight, &b));
            assert!(values(&nothing).iter().all(|v| *v == 0.0), "numbers that nobody wants");
            assert_eq!(values(&gradient), values(&together.1));
        }
    }

    #[test]
    fn a_weight_or_bias_in_the_graph_gets_its_gradient() {
        let x = pseudo_normal(1, (5, 6), 1.0);
        let w = Var::from_tensor(&pseudo_normal(2, (8, 6), 1.0)).unwrap();
        let b = Var::from_tensor(&pseudo_normal(3, 8, 1.0)).unwrap();
        let y = linear_geglu_for(Need::Value, &x, &*w, &b).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&w).unwrap().dims(), [8, 6]);
        assert_eq!(gradients.get(&b).unwrap().dims(), [8]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused_with_what_they_are() {
        let x = pseudo_normal(1, (4, 6), 1.0);
        let run = |weight: (usize, usize), bias: usize| {
            let (w, b) = (pseudo_normal(2, weight, 1.0), pseudo_normal(3, bias, 1.0));
            linear_geglu_for(Need::Value, &x, &w, &b).unwrap_err().to_string()
        };
        assert!(run((8, 7), 8).contains("[8, 7]"));
        assert!(run((8, 6), 7).contains("[7]"));
        assert!(run((7, 6), 7).contains("not even"));
    }
}
