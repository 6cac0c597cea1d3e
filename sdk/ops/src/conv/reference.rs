//! A convolution in f64, term by term, and numbers to try it on.

use super::Geometry;
use crate::gradcheck::pseudo_normal;

/// Numbers close to N(0, 1).
pub(super) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    pseudo_normal(seed, count, 1.0).to_vec1().unwrap()
}

/// Sizes of a convolution of square kernels, the same padding on every side; None where the kernel does not fit.
pub(super) fn geometry(
    (batch, ci, co): (usize, usize, usize),
    (h, w): (usize, usize),
    (kernel, stride, padding): (usize, usize, usize),
) -> Option<Geometry> {
    let spec = crate::Conv2dSpec { stride, padding: crate::Padding::same(padding) };
    Geometry::new((batch, ci, h, w), (co, ci, kernel, kernel), spec).ok()
}

/// Every output, and the sum of the magnitudes of what it is the sum of.
pub(super) fn convolution(g: &Geometry, x: &[f64], weight: &[f64], bias: &[f32]) -> Vec<(f64, f64)> {
    let mut y = Vec::new();
    for image in x.chunks_exact(g.ci * g.h * g.w) {
        for (weight, bias) in weight.chunks_exact(g.depth()).zip(bias) {
            for pixel in 0..g.oh * g.ow {
                y.push(one(g, image, weight, f64::from(*bias), (pixel / g.ow, pixel % g.ow)));
            }
        }
    }
    y
}

fn one(g: &Geometry, image: &[f64], weight: &[f64], bias: f64, (y, x): (usize, usize)) -> (f64, f64) {
    let (mut sum, mut size) = (bias, bias.abs());
    for (plane, weight) in image.chunks_exact(g.h * g.w).zip(weight.chunks_exact(g.taps())) {
        for (tap, weight) in weight.iter().enumerate() {
            let row = (y * g.stride + tap / g.kw).checked_sub(g.top).filter(|row| *row < g.h);
            let column = (x * g.stride + tap % g.kw).checked_sub(g.left).filter(|column| *column < g.w);
            if let (Some(row), Some(column)) = (row, column) {
                let product = plane[row * g.w + column] * weight;
                sum += product;
                size += product.abs();
            }
        }
    }
    (sum, size)
}
