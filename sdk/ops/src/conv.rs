//! Two-dimensional convolution.

mod area;
mod columns;
mod direct;
mod passes;
#[cfg(test)]
mod reference;
mod winograd;

use crate::composed;
use crate::host;
use crate::products::{self, Products};
use crate::stored::{self, Stored};
use crate::tape::Need;
use crate::weight::{Frozen, Operand};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
pub(crate) use columns::Geometry;

/// Zeros added around an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Rows above the first.
    pub top: usize,
    /// Rows below the last.
    pub bottom: usize,
    /// Columns before the first.
    pub left: usize,
    /// Columns after the last.
    pub right: usize,
}

impl Padding {
    /// The same number of zeros on every side.
    pub const fn same(n: usize) -> Self {
        Self { top: n, bottom: n, left: n, right: n }
    }

    /// Zeros below and to the right only, as the autoencoder's downsampling pads.
    pub const fn bottom_right(n: usize) -> Self {
        Self { top: 0, bottom: n, left: 0, right: n }
    }
}

/// Stride and padding of a convolution; its kernel size is the weight's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dSpec {
    /// Step between neighbouring outputs, in pixels of the input, in both directions.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

impl Conv2dSpec {
    /// Stride 1 with the same number of zeros on every side.
    pub const fn padded(n: usize) -> Self {
        Self { stride: 1, padding: Padding::same(n) }
    }
}

/// Cross-correlation of `x` (B, Ci, H, W) with `weight` (Co, Ci, kh, kw), plus `bias` (Co).
///
/// The result is (B, Co, (H + padding - kh) / stride + 1, (W + padding - kw) / stride + 1) in x's dtype. A weight of
/// another dtype is converted for the call. Errors: shapes that do not fit, a kernel larger than the padded image.
pub fn conv2d<'a>(
    x: &Tensor,
    weight: impl Into<Operand<'a>>,
    bias: Option<&Tensor>,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    conv2d_for(Need::Value, x, weight, bias, spec)
}

/// [`conv2d`], of whose result only what is needed is computed. For the gradient alone that is nothing: the numbers
/// of the result are then zeros.
pub fn conv2d_for<'a>(
    need: Need,
    x: &Tensor,
    weight: impl Into<Operand<'a>>,
    bias: Option<&Tensor>,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    let weight = weight.into();
    let _span = crate::span!("conv2d", x = ?x.dims(), weight = ?weight.dims(), stride = spec.stride);
    let geometry = Geometry::new(x.dims4()?, weight.shape().dims4()?, spec)?;
    if let Some(bias) = bias
        && bias.dims() != [geometry.co]
    {
        bail!("conv2d: bias {:?} for {} output channels", bias.shape(), geometry.co)
    }
    if !host::is_native(x) {
        let bias = bias.map(|b| b.to_dtype(x.dtype())).transpose()?;
        return composed::conv2d(x, &weight.beside(x)?, bias.as_ref(), spec);
    }
    let bias = match bias {
        Some(bias) => host::prepare(bias)?,
        None => Tensor::zeros(geometry.co, DType::F32, x.device())?,
    };
    let input = host::prepare(x)?;
    let y = match weight {
        Operand::Tensor(weight) => {
            let op = Conv2d { geometry, need, products: products::of_call(&[x, weight, &bias]) };
            input.apply_op3(&stored::operand(weight)?, &bias, op)
        }
        Operand::Frozen(weight) => {
            let op = Conv2d { geometry, need, products: products::of_call(&[x, &bias]) };
            input.apply_op2(&bias, FrozenConv2d { op, weight: weight.clone() })
        }
    };
    y?.to_dtype(x.dtype())
}

struct Conv2d {
    geometry: Geometry,
    need: Need,
    products: Products,
}

impl Conv2d {
    fn value(&self, x: &[f32], weight: Stored, bias: &[f32]) -> (CpuStorage, Shape) {
        let g = &self.geometry;
        let shape = (g.batch, g.co, g.oh, g.ow);
        if self.need == Need::Gradient {
            return host::output(vec![0f32; g.batch * g.co * g.oh * g.ow], shape);
        }
        host::output(passes::forward(g, x, weight, bias, self.products), shape)
    }

    /// The gradient of x, if it is part of the graph.
    fn input_gradient(&self, x: &Tensor, gy: &[f32], weight: Operand) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let dx = stored::with(weight, NAME, |w| Ok(passes::input_gradient(&self.geometry, gy, w)))?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

/// The gradient of a bias, if it is part of the graph.
fn bias_gradient(bias: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
    bias.track_op().then(|| grad.sum((0, 2, 3))).transpose()
}

const NAME: &str = "conv2d";

/// [`Conv2d`] with a weight that is no tensor.
struct FrozenConv2d {
    op: Conv2d,
    weight: Frozen,
}

impl CustomOp2 for FrozenConv2d {
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
        Ok(self.op.value(x, self.weight.stored(), bias))
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let weight = Operand::Frozen(&self.weight);
        let _span = crate::span!("conv2d.backward", x = ?x.dims(), weight = ?weight.dims());
        let dx = host::with(grad, NAME, |gy| self.op.input_gradient(x, gy, weight))?;
        Ok((dx, bias_gradient(bias, grad)?))
    }
}

impl CustomOp3 for Conv2d {
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
        let (x, bias) = (host::elements(s1, l1, NAME)?, host::elements(s3, l3, NAME)?);
        Ok(self.value(x, Stored::of(s2, l2, NAME)?, bias))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = crate::span!("conv2d.backward", x = ?x.dims(), weight = ?weight.dims());
        host::with(grad, NAME, |gy| {
            let dw = if weight.track_op() {
                let dw = host::with(x, NAME, |x| Ok(passes::weight_gradient(&self.geometry, gy, x)))?;
                Some(Tensor::from_vec(dw, weight.shape(), x.device())?)
            } else {
                None
            };
            Ok((self.input_gradient(x, gy, weight.into())?, dw, bias_gradient(bias, grad)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};
    use crate::{Keep, Tape, Value};
    use candle_core::Var;

    #[test]
    fn conv2d_agrees_with_candle_in_f64_and_with_finite_differences() {
        let even = |stride, n| Conv2dSpec { stride, padding: Padding::same(n) };
        let corner = Conv2dSpec { stride: 2, padding: Padding::bottom_right(1) };
        for (ci, co, height, width, kernel, spec) in [
            (3, 5, 7, 6, (3, 3), even(1, 1)),
            (4, 70, 5, 9, (3, 3), even(2, 1)),
            (4, 3, 8, 7, (3, 3), corner),
            (6, 4, 5, 5, (1, 1), even(1, 0)),
            (6, 4, 5, 5, (1, 1), even(2, 0)),
            (2, 3, 9, 8, (5, 5), even(1, 2)),
            (2, 3, 6, 10, (3, 1), even(1, 0)),
            (1, 1, 1, 1, (3, 3), even(1, 1)),
            (2, 2, 40, 300, (3, 3), even(1, 1)),
            // Enough pixels for the gradient as a convolution.
            (20, 5, 30, 19, (3, 3), even(1, 1)),
            (4, 3, 30, 19, (1, 1), even(1, 0)),
            (3, 4, 30, 19, (3, 1), even(1, 0)),
            (3, 2, 30, 19, (3, 3), even(1, 2)),
            (3, 2, 30, 19, (3, 3), even(1, 3)),
        ] {
            let x = pseudo_normal(1, (2, ci, height, width), 1.0);
            let w = pseudo_normal(2, (co, ci, kernel.0, kernel.1), 0.3);
            let b = pseudo_normal(3, co, 1.0);
            let inputs = [x, w, b];
            agrees_with_f64(&inputs, 2e-5, |t| conv2d(&t[0], &t[1], Some(&t[2]), spec));
            agrees_with_f64(&inputs[..2], 2e-5, |t| conv2d(&t[0], &t[1], None, spec));
            if width < 20 {
                check(&inputs, |t| conv2d(&t[0], &t[1], Some(&t[2]), spec));
            }
        }
    }

    /// Enough channels and pixels for Winograd's way, forward and back.
    fn large() -> [Tensor; 3] {
        let (x, w) = (pseudo_normal(1, (2, 33, 17, 18), 1.0), pseudo_normal(2, (38, 33, 3, 3), 0.1));
        [x, w, pseudo_normal(3, 38, 1.0)]
    }

    fn bits(t: &Tensor) -> Vec<u32> {
        t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn a_convolution_that_takes_a_quarter_of_the_products_is_exact_whatever_is_asked_for() {
        let ways = [Products::Exact, Products::EmulatedBf16];
        for (size, exact) in [(13, true), (12, false)] {
            let x = pseudo_normal(1, (1, 64, size, size), 1.0);
            let w = pseudo_normal(2, (64, 64, 3, 3), 0.1).to_dtype(DType::BF16).unwrap();
            let [a, b] = ways.map(|products| {
                crate::with_products(products, || conv2d(&x, &w, None, Conv2dSpec::padded(1))).unwrap()
            });
            assert_eq!(bits(&a) == bits(&b), exact, "{size}");
        }
    }

    #[test]
    fn large_convolutions_agree_with_candle_in_f64_and_with_finite_differences() {
        let uneven = Padding { top: 0, bottom: 2, left: 2, right: 1 };
        for padding in [Padding::same(0), Padding::same(1), Padding::same(2), uneven] {
            let spec = Conv2dSpec { stride: 1, padding };
            let run = |t: &[Tensor]| conv2d(&t[0], &t[1], Some(&t[2]), spec);
            agrees_with_f64(&large(), 2e-5, run);
            check(&large(), run);
        }
    }

    #[test]
    fn a_large_convolution_has_the_same_bits_recorded_computed_again_or_neither() {
        let [x, w, b] = large();
        let variable = Var::from_tensor(&x).unwrap();
        let run = |keep: Option<Keep>| {
            let mut tape = keep.map_or_else(Tape::off, Tape::new);
            let x = tape.input(&variable).unwrap();
            let conv = |t: &[Tensor], need| conv2d_for(need, &t[0], &w, Some(&b), Conv2dSpec::padded(1));
            let y = tape.run(&[&x], conv).unwrap();
            let square = tape.run(&[&y], |t, _| t[0].sqr()).unwrap();
            (bits(square.tensor()), tape, square)
        };
        let gradient = |tape: Tape, y: Value| {
            let gradients = tape.backward(&y, &pseudo_normal(9, y.tensor().shape(), 1.0)).unwrap();
            bits(gradients.get(&variable).unwrap())
        };
        let (value, all, y) = run(Some(Keep::All));
        let (again, boundaries, z) = run(Some(Keep::Boundaries));
        assert!(value == again && value == run(None).0);
        assert!(gradient(all, y) == gradient(boundaries, z));
    }

    #[test]
    fn bf16_products_are_as_near_as_their_operands_and_only_of_bf16_weights_without_a_graph() {
        let [x, w, b] = large();
        let (stored, variable) = (w.to_dtype(DType::BF16).unwrap(), Var::from_tensor(&x).unwrap());
        let run = |products, x: &Tensor, w: &Tensor| {
            crate::with_products(products, || conv2d(x, w, Some(&b), Conv2dSpec::padded(1))).unwrap()
        };
        let exact = run(Products::Exact, &x, &stored);
        let largest = exact.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        for rounded in [Products::Bf16, Products::EmulatedBf16] {
            let bf16 = run(rounded, &x, &stored);
            let error =
                (&exact - &bf16).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(error <= largest / 256.0, "{error} of {largest}");
            assert!(bits(&bf16) != bits(&exact) || rounded == Products::Bf16);
            assert!(bits(&run(rounded, &x, &w)) == bits(&run(Products::Exact, &x, &w)));
            assert!(bits(&run(rounded, &variable, &stored)) == bits(&exact));
        }
    }

    #[test]
    fn a_frozen_kernel_gets_no_gradient() {
        let x = Var::from_tensor(&pseudo_normal(1, (1, 2, 4, 4), 1.0)).unwrap();
        let w = pseudo_normal(2, (3, 2, 3, 3), 1.0);
        let y = conv2d(&x, &w, None, Conv2dSpec::padded(1)).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some());
        assert!(grads.get(&w).is_none());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let x = pseudo_normal(1, (1, 2, 4, 4), 1.0);
        let conv = |w: &Tensor, b: Option<&Tensor>, n| conv2d(&x, w, b, Conv2dSpec::padded(n));
        assert!(conv(&pseudo_normal(1, (3, 5, 3, 3), 1.0), None, 1).is_err(), "5 input channels for 2");
        assert!(conv(&pseudo_normal(1, (3, 2, 5, 5), 1.0), None, 0).is_err(), "a kernel of 5 on 4 pixels");
        let bias = pseudo_normal(1, 4, 1.0);
        assert!(
            conv(&pseudo_normal(1, (3, 2, 3, 3), 1.0), Some(&bias), 1).is_err(),
            "4 biases for 3 channels"
        );
    }
}
