//! The transforms of F(4x4, 3x3) with the points 0, ±√½, ±√2 and infinity, whose errors are smaller than those with the
//! usual 0, ±1, ±2 ("Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", Barabasz
//! et al. 2018, arXiv:1803.10986, on how points are chosen).
//!
//! With a = √½ and b = √2, so that a² + b² = 5/2 and a² b² = 1, the rows of the transforms of a line are
//! Bᵀ: (1, 0, -5/2, 0, 1, 0), (0, ∓a b², -b², ±a, 1, 0), (0, ∓b a², -a², ±b, 1, 0), (0, 1, 0, -5/2, 0, 1);
//! G: (1, 0, 0), -2/3 (1, ±a, a²), 1/6 (1, ±b, b²), (0, 0, 1);
//! Aᵀ: for each power i up to 3, (0^i, a^i, (-a)^i, b^i, (-b)^i, and 1 at last for i = 3).

use super::form::{Form, lanes};
use std::f32::consts::{FRAC_1_SQRT_2 as A, SQRT_2 as B};

/// Tiles of 4 x 4 pixels.
pub(super) struct Four;

/// Bᵀ d for one line.
#[inline(always)]
fn forward([d0, d1, d2, d3, d4, d5]: [f32; 6]) -> [f32; 6] {
    let (even_a, odd_a) = (d4 - 2.0 * d2, A * (d3 - 2.0 * d1));
    let (even_b, odd_b) = (d4 - 0.5 * d2, B * (d3 - 0.5 * d1));
    [d0 - 2.5 * d2 + d4, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, d1 - 2.5 * d3 + d5]
}

/// Aᵀ m for one line.
#[inline(always)]
fn back([m0, m1, m2, m3, m4, m5]: [f32; 6]) -> [f32; 4] {
    let (sum_a, difference_a) = (m1 + m2, m1 - m2);
    let (sum_b, difference_b) = (m3 + m4, m3 - m4);
    [
        m0 + sum_a + sum_b,
        A * difference_a + B * difference_b,
        0.5 * sum_a + 2.0 * sum_b,
        0.5 * A * difference_a + 2.0 * B * difference_b + m5,
    ]
}

/// G g for one line.
#[inline(always)]
fn spread([g0, g1, g2]: [f32; 3]) -> [f32; 6] {
    let (even_a, odd_a) = ((g0 + 0.5 * g2) * (-2.0 / 3.0), g1 * (A * -2.0 / 3.0));
    let (even_b, odd_b) = ((g0 + 2.0 * g2) * (1.0 / 6.0), g1 * (B / 6.0));
    [g0, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, g2]
}

impl Form for Four {
    const SIDE: usize = 4;
    type Patch<const N: usize> = [[f32; N]; 6];
    type Side<const N: usize> = [[f32; N]; 4];

    #[inline(always)]
    fn forward<const N: usize>(d: impl Fn(usize) -> [f32; N]) -> Self::Patch<N> {
        lanes([d(0), d(1), d(2), d(3), d(4), d(5)], forward)
    }

    #[inline(always)]
    fn back<const N: usize>(m: impl Fn(usize) -> [f32; N]) -> Self::Side<N> {
        lanes([m(0), m(1), m(2), m(3), m(4), m(5)], back)
    }

    #[inline(always)]
    fn spread<const N: usize>(g: [[f32; N]; 3]) -> Self::Patch<N> {
        lanes(g, spread)
    }
}
