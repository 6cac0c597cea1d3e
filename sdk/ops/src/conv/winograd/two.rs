//! The transforms of F(2x2, 3x3), Bᵀ d B, G g Gᵀ and Aᵀ m A in Lavin and Gray's paper.

use super::form::Form;
use crate::simd::multiversion;
use crate::wide::LANES;

/// Tiles of 2 x 2 pixels.
pub(super) struct Two;

impl Form for Two {
    const SIDE: usize = 2;
    const FEW: usize = 64;

    multiversion! {
        /// One row: (4, tiles).
        fn across(line: &[f32], out: &mut [f32]) {
            let tiles = out.len() / 4;
            let (a, out) = out.split_at_mut(tiles);
            let (b, out) = out.split_at_mut(tiles);
            let (c, d) = out.split_at_mut(tiles);
            let (pairs, next) = (line.as_chunks::<2>().0, line[2..].as_chunks::<2>().0);
            for i in 0..tiles.min(next.len()).min(a.len()).min(b.len()).min(c.len()).min(d.len()) {
                let ([x0, x1], [x2, x3]) = (pairs[i], next[i]);
                a[i] = x0 - x2;
                b[i] = x1 + x2;
                c[i] = x2 - x1;
                d[i] = x1 - x3;
            }
        }
    }

    multiversion! {
        /// Four rows, (4, 4, tiles), to 16 points, `point` words apart.
        fn down(rows: &[f32], out: &mut [f32], point: usize, tiles: usize) {
            for k in 0..4 {
                let row = |i: usize| &rows[(4 * i + k) * tiles..][..tiles];
                let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
                let write = |out: &mut [f32], i: usize, x: &[f32], y: &[f32], sign: f32| {
                    let out = &mut out[(4 * i + k) * point..][..tiles];
                    for ((out, x), y) in out.iter_mut().zip(x).zip(y) { *out = x + sign * y; }
                };
                write(out, 0, r0, r2, -1.0);
                write(out, 1, r1, r2, 1.0);
                write(out, 2, r2, r1, -1.0);
                write(out, 3, r1, r3, -1.0);
            }
        }
    }

    multiversion! {
        /// From 16 points, `point` words apart, to two rows of pixels.
        fn inverse(sums: &[f32], point: usize, lines: &mut [Vec<f32>]) {
            let [upper, lower] = lines else { return };
            let (upper, lower) = (upper.as_chunks_mut::<2>().0, lower.as_chunks_mut::<2>().0);
            let tiles = upper.len().min(lower.len());
            let m = |p: usize| &sums[p * point..][..tiles];
            let column = |k: usize| [m(k), m(4 + k), m(8 + k), m(12 + k)];
            let (c0, c1, c2, c3) = (column(0), column(1), column(2), column(3));
            for t in 0..tiles {
                let down = |c: [&[f32]; 4]| {
                    let [a, b, c, d] = [c[0][t], c[1][t], c[2][t], c[3][t]];
                    (a + b + c, b - c - d)
                };
                let ((a, e), (b, f), (c, g), (d, h)) = (down(c0), down(c1), down(c2), down(c3));
                upper[t] = [a + b + c, b - c - d];
                lower[t] = [e + f + g, f - g - h];
            }
        }
    }

    multiversion! {
        /// Kernels, of each channel nine vectors of a panel's rows, to 16 points, `point` words apart: `rows` words for each
        /// channel. A vector more than these is written.
        fn kernels(taps: &[f32], rows: usize, out: &mut [f32], point: usize) {
            for (channel, g) in taps.as_chunks::<LANES>().0.as_chunks::<9>().0.iter().enumerate() {
                let mut down = [[[0f32; LANES]; 3]; 4];
                for x in 0..3 {
                    let (a, b, c) = (&g[x], &g[3 + x], &g[6 + x]);
                    for i in 0..LANES {
                        let (ends, middle) = (0.5 * (a[i] + c[i]), 0.5 * b[i]);
                        down[0][x][i] = a[i];
                        down[1][x][i] = ends + middle;
                        down[2][x][i] = ends - middle;
                        down[3][x][i] = c[i];
                    }
                }
                for (y, [a, b, c]) in down.iter().enumerate() {
                    let mut points = [[0f32; LANES]; 4];
                    for i in 0..LANES {
                        let (ends, middle) = (0.5 * (a[i] + c[i]), 0.5 * b[i]);
                        points[0][i] = a[i];
                        points[1][i] = ends + middle;
                        points[2][i] = ends - middle;
                        points[3][i] = c[i];
                    }
                    for (x, words) in points.iter().enumerate() {
                        out[(4 * y + x) * point + channel * rows..][..LANES].copy_from_slice(words);
                    }
                }
            }
        }
    }
}
