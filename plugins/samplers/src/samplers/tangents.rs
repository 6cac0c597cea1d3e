//! What linear multistep samplers share: the tangents of past steps, and the weights of polynomials.

use super::combine;
use atelier_sdk::{Result, SampleCtx};
use std::collections::VecDeque;

/// Tangents `(x - D) / sigma` of the last steps, newest first: predictions of the noise, as papers call them.
pub(crate) struct Tangents {
    past: VecDeque<Vec<f32>>,
    most: usize,
    d: Vec<f32>,
}

impl Tangents {
    /// Room for the `most` newest tangents of latents of this size.
    pub(crate) fn new(most: usize, size: usize) -> Self {
        Self { past: VecDeque::new(), most, d: vec![0f32; size] }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.past.len()
    }

    /// Evaluates the model at `sigma`, and keeps the tangent there as the newest.
    pub(crate) fn evaluate(&mut self, ctx: &mut dyn SampleCtx, x: &[f32], sigma: f32) -> Result<()> {
        ctx.denoise(x, sigma, &mut self.d)?;
        let mut tangent = x.to_vec();
        let inverse = 1.0 / f64::from(sigma);
        combine(&mut tangent, inverse, [(-inverse, &self.d)]);
        self.past.push_front(tangent);
        self.past.truncate(self.most);
        Ok(())
    }

    /// Forgets the newest.
    pub(crate) fn drop_newest(&mut self) {
        self.past.pop_front();
    }

    /// The estimate of the image at the last evaluation.
    pub(crate) fn denoised(&self) -> &[f32] {
        &self.d
    }

    /// `x <- x + sum_k w_k t_k`, the weight of the newest tangent first.
    pub(crate) fn advance(&self, x: &mut [f32], weights: impl IntoIterator<Item = f64>) {
        let terms: Vec<_> = weights.into_iter().zip(&self.past).collect();
        for (j, x) in x.iter_mut().enumerate() {
            *x = terms.iter().fold(f64::from(*x), |sum, (w, t)| sum + w * f64::from(t[j])) as f32;
        }
    }
}

/// Weights of Adams and Bashforth for equal steps, of orders 1 to 4, the newest tangent first.
const ADAMS_BASHFORTH: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// The weights of Adams and Bashforth for this many tangents, 1 to 4, and a step of this length.
pub(crate) fn adams_bashforth(tangents: usize, step: f64) -> impl Iterator<Item = f64> {
    ADAMS_BASHFORTH[tangents.clamp(1, 4) - 1].iter().map(move |w| w * step)
}

/// The integral of each Lagrange polynomial of `nodes`, from the integrals of `1`, `v`, `v^2`, ...
pub(crate) fn lagrange(nodes: &[f64], moments: &[f64]) -> Vec<f64> {
    let integral = |k: usize| {
        // Coefficients of the polynomial that is 1 at node k and 0 at the others, the constant one first.
        let mut poly = vec![1.0];
        for (_, node) in nodes.iter().enumerate().filter(|(i, _)| *i != k) {
            let scale = 1.0 / (nodes[k] - node);
            poly.push(0.0);
            for i in (0..poly.len()).rev() {
                let lower = if i > 0 { poly[i - 1] } else { 0.0 };
                poly[i] = scale * (lower - node * poly[i]);
            }
        }
        poly.iter().zip(moments).map(|(c, m)| c * m).sum()
    };
    (0..nodes.len()).map(integral).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_for_equal_steps_are_those_of_adams_and_bashforth() {
        let moments: Vec<f64> = (1..=4).map(|j| 1.0 / f64::from(j)).collect();
        for order in 1..=4 {
            let nodes: Vec<f64> = (0..order).map(|k| -(k as f64)).collect();
            for (w, known) in lagrange(&nodes, &moments).iter().zip(adams_bashforth(order, 1.0)) {
                assert!((w - known).abs() < 1e-12, "{order}: {w} {known}");
            }
        }
    }
}
