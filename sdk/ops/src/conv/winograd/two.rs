//! The transforms of F(2x2, 3x3), Bᵀ d B, G g Gᵀ and Aᵀ m A in Lavin and Gray's paper.

use super::form::{Form, lanes};

/// Tiles of 2 x 2 pixels.
pub(super) struct Two;

impl Form for Two {
    const SIDE: usize = 2;
    type Patch<const N: usize> = [[f32; N]; 4];
    type Side<const N: usize> = [[f32; N]; 2];

    #[inline(always)]
    fn forward<const N: usize>(d: impl Fn(usize) -> [f32; N]) -> Self::Patch<N> {
        lanes([d(0), d(1), d(2), d(3)], |[a, b, c, d]| [a - c, b + c, c - b, b - d])
    }

    #[inline(always)]
    fn back<const N: usize>(m: impl Fn(usize) -> [f32; N]) -> Self::Side<N> {
        lanes([m(0), m(1), m(2), m(3)], |[a, b, c, d]| [a + b + c, b - c - d])
    }

    #[inline(always)]
    fn spread<const N: usize>(g: [[f32; N]; 3]) -> Self::Patch<N> {
        lanes(g, |[a, b, c]| {
            let (ends, middle) = (0.5 * (a + c), 0.5 * b);
            [a, ends + middle, ends - middle, c]
        })
    }
}
