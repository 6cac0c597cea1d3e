//! The fully connected layer.

use crate::composed;
use crate::host::{self, Shared, blocks};
use crate::matmul::{Mat, Target, product};
use crate::products::{self, Products};
use crate::stored::{self, Stored};
use crate::tape::Need;
use crate::weight::{Frozen, Operand};
use crate::wide::{
    Unit,
    product::{Base, Right, multiply, multiply_to},
};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// y = x Wᵀ + b.
///
/// `x` is (..., inputs), `weight` (outputs, inputs), `bias` (outputs); the result is (..., outputs) in x's dtype.
/// A weight of another dtype is converted for the call.
pub fn linear<'a>(x: &Tensor, weight: impl Into<Operand<'a>>, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_for(Need::Value, x, weight, bias)
}

/// [`linear`], of whose result only what is needed is computed. For the gradient alone that is nothing: the numbers
/// of the result are then zeros.
pub fn linear_for<'a>(
    need: Need,
    x: &Tensor,
    weight: impl Into<Operand<'a>>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let weight = weight.into();
    let _span = crate::span!("linear", x = ?x.dims(), weight = ?weight.dims());
    let (outputs, inputs) = weight.shape().dims2()?;
    if x.rank() == 0 || x.dim(D::Minus1)? != inputs || outputs * inputs == 0 {
        bail!("linear: input {:?} for a weight {:?}", x.shape(), weight.shape())
    }
    if !host::is_native(x) {
        let bias = bias.map(|b| b.to_dtype(x.dtype())).transpose()?;
        return composed::linear(x, &weight.beside(x)?, bias.as_ref());
    }
    let bias = match bias {
        Some(bias) if bias.dims() == [outputs] => host::prepare(bias)?,
        Some(bias) => bail!("linear: bias {:?} for {outputs} outputs", bias.shape()),
        None => Tensor::zeros(outputs, candle_core::DType::F32, x.device())?,
    };
    let input = host::prepare(x)?;
    let y = match weight {
        Operand::Tensor(weight) => {
            let op = Linear { need, products: products::of_call(&[x, weight, &bias]) };
            input.apply_op3(&stored::operand(weight)?, &bias, op)
        }
        Operand::Frozen(weight) => {
            let op = Linear { need, products: products::of_call(&[x, &bias]) };
            input.apply_op2(&bias, FrozenLinear { op, weight: weight.clone() })
        }
    };
    y?.to_dtype(x.dtype())
}

struct Linear {
    need: Need,
    products: Products,
}

impl Linear {
    /// y of a weight (n, k).
    fn value(
        &self,
        (x, dims): (&[f32], &[usize]),
        weight: Stored,
        (n, k): (usize, usize),
        bias: &[f32],
    ) -> (CpuStorage, Shape) {
        let count = x.len() / k * n;
        let y = match self.need {
            Need::Gradient => vec![0f32; count],
            Need::Value => {
                let (unit, left) = (unit_for(self.products, weight), Stored::F32(x));
                let right = Right::Transposed(weight);
                // SAFETY: a product with a base that is not what is there writes all of its result, and reads none of it.
                unsafe {
                    host::written(count, |y| multiply_to(unit, y, Base::Columns(bias), left, right, (n, k)))
                }
            }
        };
        let mut dims = dims.to_vec();
        dims.pop();
        dims.push(n);
        host::output(y, dims)
    }
}

/// The gradient of x, if it is part of the graph.
fn input_gradient(x: &Tensor, grad: &Tensor, weight: Operand) -> Result<Option<Tensor>> {
    if !x.track_op() {
        return Ok(None);
    }
    let mut out = vec![0f32; x.elem_count()];
    host::with(grad, NAME, |g| {
        stored::with(weight, NAME, |w| {
            times(&mut out, g, w, weight.shape().dims2()?);
            Ok(())
        })
    })?;
    Tensor::from_vec(out, x.shape(), x.device()).map(Some)
}

/// The gradient of a bias (n), if it is part of the graph.
fn bias_gradient(bias: &Tensor, grad: &Tensor, n: usize) -> Result<Option<Tensor>> {
    bias.track_op().then(|| grad.reshape(((), n))?.sum(0)).transpose()
}

const NAME: &str = "linear";

/// [`Linear`] with a weight that is no tensor.
struct FrozenLinear {
    op: Linear,
    weight: Frozen,
}

impl CustomOp2 for FrozenLinear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (host::elements(s1, l1, NAME)?, host::elements(s2, l2, NAME)?);
        let size = Operand::Frozen(&self.weight).shape().dims2()?;
        Ok(self.op.value((x, l1.dims()), self.weight.stored(), size, bias))
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let weight = Operand::Frozen(&self.weight);
        let _span = crate::span!("linear.backward", x = ?x.dims(), weight = ?weight.dims());
        Ok((input_gradient(x, grad, weight)?, bias_gradient(bias, grad, bias.elem_count())?))
    }
}

/// Rows x columns of the result one job computes.
fn job_size(rows: usize, cols: usize) -> (usize, usize) {
    let (mut r, mut c) = (rows.min(256), cols.min(1024));
    // Enough jobs for all threads; below 64 packing the operands costs more than it saves.
    while rows.div_ceil(r) * cols.div_ceil(c) < host::wanted_jobs() {
        if c > 64 && c >= r {
            c = c.div_ceil(2);
        } else if r > 64 {
            r = r.div_ceil(2);
        } else {
            break;
        }
    }
    (r, c)
}

/// out (m x n) += or = a (m x k) b (k x n), cut over all threads. The views give rows `from..` of a and
/// columns `from..` of b.
pub(crate) fn parallel_product<'a>(
    out: &mut [f32],
    accumulate: bool,
    (m, n, k): (usize, usize, usize),
    a: impl Fn(usize) -> Mat<'a> + Sync,
    b: impl Fn(usize) -> Mat<'a> + Sync,
) {
    let (r, c) = job_size(m, n);
    let memory = Shared::new(out);
    let jobs: Vec<_> =
        blocks(m, r).into_iter().flat_map(|i| blocks(n, c).into_iter().map(move |j| (i, j))).collect();
    jobs.into_par_iter().for_each(|((row, rows), (col, cols))| {
        let target = Target { memory, start: row * n + col, row_stride: n };
        // SAFETY: each job has its own block of the result.
        unsafe { product(target, accumulate, (rows, cols, k), a(row), b(col)) }
    });
}

/// The unit for products with a weight.
pub(crate) fn unit_for(products: Products, weight: Stored) -> Unit {
    Unit::bf16_for(products, weight).unwrap_or_else(Unit::f32)
}

/// y (m, n) = x (m, k) wᵀ of a weight (n, k), plus the bias if there is one.
pub(crate) fn times_transposed(
    y: &mut [f32],
    bias: Option<&[f32]>,
    x: &[f32],
    w: Stored,
    (n, k): (usize, usize),
    products: Products,
) {
    let base = bias.map_or(Base::Zero, Base::Columns);
    multiply(unit_for(products, w), y, base, Stored::F32(x), Right::Transposed(w), (n, k));
}

/// dx (m, k) = g (m, n) w of a weight (n, k).
pub(crate) fn times(dx: &mut [f32], g: &[f32], w: Stored, (n, k): (usize, usize)) {
    multiply(Unit::f32(), dx, Base::Zero, Stored::F32(g), Right::Plain(w), (k, n));
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        NAME
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
        let bias = host::elements(s3, l3, self.name())?;
        Ok(self.value((x, l1.dims()), Stored::of(s2, l2, self.name())?, l2.shape().dims2()?, bias))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = crate::span!("linear.backward", x = ?x.dims(), weight = ?weight.dims());
        let (n, k) = weight.dims2()?;
        let m = x.elem_count() / k;
        let dw = if weight.track_op() {
            let mut out = vec![0f32; n * k];
            host::with(grad, self.name(), |g| {
                host::with(x, self.name(), |x| {
                    parallel_product(
                        &mut out,
                        false,
                        (n, k, m),
                        |i| Mat::rows(&g[i..], n).t(),
                        |j| Mat::rows(&x[j..], k),
                    );
                    Ok(())
                })
            })?;
            Some(Tensor::from_vec(out, (n, k), x.device())?)
        } else {
            None
        };
        Ok((input_gradient(x, grad, weight.into())?, dw, bias_gradient(bias, grad, n)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};
    use candle_core::{DType, Var};

    #[test]
    fn linear_agrees_with_candle_in_f64_and_with_finite_differences() {
        for (rows, inputs, outputs) in [(1, 3, 5), (7, 40, 33), (300, 19, 130)] {
            let x = pseudo_normal(1, (2, rows, inputs), 1.0);
            let w = pseudo_normal(2, (outputs, inputs), 0.3);
            let b = pseudo_normal(3, outputs, 1.0);
            let inputs = [x, w, b];
            agrees_with_f64(&inputs, 1e-5, |t| linear(&t[0], &t[1], Some(&t[2])));
            agrees_with_f64(&inputs[..2], 1e-5, |t| linear(&t[0], &t[1], None));
            check(&inputs, |t| linear(&t[0], &t[1], Some(&t[2])));
        }
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient() {
        let x = Var::from_tensor(&pseudo_normal(1, (4, 6), 1.0)).unwrap();
        let w = pseudo_normal(2, (5, 6), 1.0);
        let grads = linear(&x, &w, None).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some());
        assert!(grads.get(&w).is_none());
    }

    #[test]
    fn half_precision_weights_are_widened_for_f32_input() {
        let x = pseudo_normal(1, (4, 6), 1.0);
        let w = pseudo_normal(2, (5, 6), 1.0).to_dtype(DType::F16).unwrap();
        let got = linear(&x, &w, None).unwrap();
        assert_eq!(got.dtype(), DType::F32);
        let want = linear(&x, &w.to_dtype(DType::F32).unwrap(), None).unwrap();
        assert_eq!(got.to_vec2::<f32>().unwrap(), want.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn bf16_products_are_as_near_as_their_operands_and_only_of_bf16_weights_without_a_graph() {
        let (x, w) = (pseudo_normal(1, (3, 50, 70), 1.0), pseudo_normal(2, (45, 70), 0.1));
        let (stored, b) = (w.to_dtype(DType::BF16).unwrap(), pseudo_normal(3, 45, 1.0));
        let variable = Var::from_tensor(&x).unwrap();
        let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let run = |products, x: &Tensor, w: &Tensor| {
            values(crate::with_products(products, || linear(x, w, Some(&b))).unwrap())
        };
        let exact = run(Products::Exact, &x, &stored);
        let largest = exact.iter().fold(0f32, |a, v| a.max(v.abs()));
        for rounded in [Products::Bf16, Products::EmulatedBf16] {
            let bf16 = run(rounded, &x, &stored);
            for (exact, bf16) in exact.iter().zip(&bf16) {
                assert!((exact - bf16).abs() <= largest / 256.0, "{bf16} for {exact}");
            }
            assert!(bf16 != exact || rounded == Products::Bf16);
            assert_eq!(run(rounded, &x, &w), run(Products::Exact, &x, &w));
            assert_eq!(run(rounded, &variable, &stored), exact);
        }
    }

    #[test]
    fn a_wrong_width_is_refused_with_both_shapes() {
        let error = linear(&pseudo_normal(1, (4, 6), 1.0), &pseudo_normal(2, (5, 7), 1.0), None).unwrap_err();
        assert!(error.to_string().contains("[4, 6]") && error.to_string().contains("[5, 7]"), "{error}");
    }
}
