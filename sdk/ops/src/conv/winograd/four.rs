//! The transforms of F(4x4, 3x3) with the points 0, ±√½, ±√2 and infinity, whose errors are smaller than those with the
//! usual 0, ±1, ±2 ("Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", Barabasz
//! et al. 2018, arXiv:1803.10986, on how points are chosen).
//!
//! With a = √½ and b = √2, so that a² + b² = 5/2 and a² b² = 1, the rows of the transforms of a line are
//! Bᵀ: (1, 0, -5/2, 0, 1, 0), (0, ∓a b², -b², ±a, 1, 0), (0, ∓b a², -a², ±b, 1, 0), (0, 1, 0, -5/2, 0, 1);
//! G: (1, 0, 0), -2/3 (1, ±a, a²), 1/6 (1, ±b, b²), (0, 0, 1);
//! Aᵀ: for each power i up to 3, (0^i, a^i, (-a)^i, b^i, (-b)^i, and 1 at last for i = 3).

use super::form::Form;
use crate::simd::multiversion;
use crate::wide::LANES;
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

/// Tiles whose numbers are apart on the stack.
const PIECE: usize = 32;

impl Form for Four {
    const SIDE: usize = 4;
    const FEW: usize = 128;

    multiversion! {
        /// One row: (6, tiles).
        fn across(line: &[f32], out: &mut [f32]) {
            let tiles = out.len() / 6;
            let pixels = line.as_chunks::<4>().0;
            // Every fourth pixel, four times; a tile's last two pixels are the next one's first.
            let mut fourths = [[0f32; PIECE + 1]; 4];
            let mut at = 0;
            while at < tiles {
                let n = PIECE.min(tiles - at);
                let [f0, f1, f2, f3] = &mut fourths;
                for (i, [a, b, c, d]) in pixels[at..at + n].iter().enumerate() {
                    (f0[i], f1[i], f2[i], f3[i]) = (*a, *b, *c, *d);
                }
                (f0[n], f1[n]) = (line[4 * (at + n)], line[4 * (at + n) + 1]);
                let (o0, rest) = out.split_at_mut(tiles);
                let (o1, rest) = rest.split_at_mut(tiles);
                let (o2, rest) = rest.split_at_mut(tiles);
                let (o3, rest) = rest.split_at_mut(tiles);
                let (o4, o5) = rest.split_at_mut(tiles);
                let [o0, o1, o2, o3, o4, o5] = [o0, o1, o2, o3, o4, o5].map(|o| &mut o[at..at + n]);
                for i in 0..n {
                    [o0[i], o1[i], o2[i], o3[i], o4[i], o5[i]] =
                        forward([f0[i], f1[i], f2[i], f3[i], f0[i + 1], f1[i + 1]]);
                }
                at += n;
            }
        }
    }

    multiversion! {
        /// Six rows, (6, 6, tiles), to 36 points, `point` words apart.
        fn down(rows: &[f32], out: &mut [f32], point: usize, tiles: usize) {
            for k in 0..6 {
                let row = |i: usize| &rows[(6 * i + k) * tiles..][..tiles];
                let (r0, r1, r2, r3, r4, r5) = (row(0), row(1), row(2), row(3), row(4), row(5));
                let (o0, rest) = out[k * point..].split_at_mut(6 * point);
                let (o1, rest) = rest.split_at_mut(6 * point);
                let (o2, rest) = rest.split_at_mut(6 * point);
                let (o3, rest) = rest.split_at_mut(6 * point);
                let (o4, o5) = rest.split_at_mut(6 * point);
                let [o0, o1, o2, o3, o4, o5] = [o0, o1, o2, o3, o4, o5].map(|o| &mut o[..tiles]);
                for i in 0..tiles {
                    [o0[i], o1[i], o2[i], o3[i], o4[i], o5[i]] = forward([r0[i], r1[i], r2[i], r3[i], r4[i], r5[i]]);
                }
            }
        }
    }

    multiversion! {
        /// From 36 points, `point` words apart, to four rows of pixels.
        fn inverse(sums: &[f32], point: usize, lines: &mut [Vec<f32>]) {
            let tiles = lines[0].len() / 4;
            let mut down = [[[0f32; PIECE]; 6]; 4];
            let mut at = 0;
            while at < tiles {
                let n = PIECE.min(tiles - at);
                for k in 0..6 {
                    let m = |i: usize| &sums[(6 * i + k) * point + at..][..n];
                    let (m0, m1, m2, m3, m4, m5) = (m(0), m(1), m(2), m(3), m(4), m(5));
                    let [d0, d1, d2, d3] = &mut down;
                    let [d0, d1, d2, d3] = [d0, d1, d2, d3].map(|d| &mut d[k][..n]);
                    for i in 0..n {
                        [d0[i], d1[i], d2[i], d3[i]] = back([m0[i], m1[i], m2[i], m3[i], m4[i], m5[i]]);
                    }
                }
                for (line, down) in lines.iter_mut().zip(&down) {
                    let pixels = &mut line.as_chunks_mut::<4>().0[at..at + n];
                    let [d0, d1, d2, d3, d4, d5] = [0, 1, 2, 3, 4, 5].map(|k| &down[k][..n]);
                    for (i, pixels) in pixels.iter_mut().enumerate() {
                        *pixels = back([d0[i], d1[i], d2[i], d3[i], d4[i], d5[i]]);
                    }
                }
                at += n;
            }
        }
    }

    multiversion! {
        /// Kernels of each channel to 36 points.
        fn kernels(taps: &[f32], rows: usize, out: &mut [f32], point: usize) {
            for (channel, g) in taps.as_chunks::<LANES>().0.as_chunks::<9>().0.iter().enumerate() {
                let mut down = [[[0f32; LANES]; 3]; 6];
                for x in 0..3 {
                    for i in 0..LANES {
                        let line = spread([g[x][i], g[3 + x][i], g[6 + x][i]]);
                        for (down, value) in down.iter_mut().zip(line) { down[x][i] = value; }
                    }
                }
                for (y, [a, b, c]) in down.iter().enumerate() {
                    let mut points = [[0f32; LANES]; 6];
                    for i in 0..LANES {
                        let line = spread([a[i], b[i], c[i]]);
                        for (points, value) in points.iter_mut().zip(line) { points[i] = value; }
                    }
                    for (x, words) in points.iter().enumerate() {
                        out[(6 * y + x) * point + channel * rows..][..LANES].copy_from_slice(words);
                    }
                }
            }
        }
    }
}
