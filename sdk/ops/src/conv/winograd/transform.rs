//! The transforms in both directions, eight tiles or a panel's kernels side by side. Everything goes through arrays of known
//! length: of slices the compiler would have to find out at every call that they do not overlap.

use super::form::Form;
use crate::simd::multiversion;
use crate::wide::LANES;

/// Tiles side by side.
pub(super) const BESIDE: usize = 8;

/// A number of each tile.
pub(super) type Beside = [f32; BESIDE];

fn beside(numbers: &[f32]) -> Beside {
    let mut out = [0.0; BESIDE];
    out.copy_from_slice(&numbers[..BESIDE]);
    out
}

/// Where the numbers of tiles are: for each point vectors of 16 tiles, `pitch` words apart.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) vectors: usize,
    pub(super) pitch: usize,
}

multiversion! {
    /// Every SIDE-th pixel, SIDE times, of a row from the pixel `at.0` on, which has `at.1` zeros before it.
    pub(super) fn part<F: Form>(row: &[f32], at: (usize, usize), parts: &mut [f32]) {
        let apart = parts.len() / F::SIDE;
        for i in 0..apart / BESIDE {
            let first = at.0 + i * BESIDE * F::SIDE;
            // As many as a form takes at most.
            let mut whole = [0.0; 4 * BESIDE];
            let whole = &mut whole[..BESIDE * F::SIDE];
            let pixels = match first.checked_sub(at.1).and_then(|first| row.get(first..first + BESIDE * F::SIDE)) {
                Some(pixels) => pixels,
                None => {
                    let before = at.1.saturating_sub(first).min(whole.len());
                    let from = (first + before).saturating_sub(at.1).min(row.len());
                    let inside = (row.len() - from).min(whole.len() - before);
                    whole[before..before + inside].copy_from_slice(&row[from..from + inside]);
                    whole
                }
            };
            for x in 0..F::SIDE {
                let mut part = [0.0; BESIDE];
                for (tile, part) in part.iter_mut().enumerate() { *part = pixels[tile * F::SIDE + x]; }
                parts[x * apart + i * BESIDE..][..BESIDE].copy_from_slice(&part);
            }
        }
    }
}

multiversion! {
    /// Transforms one row of pixels that [`part`] has taken apart: PATCH numbers of each eight tiles.
    pub(super) fn across<F: Form>(parts: &[f32], out: &mut [Beside]) {
        let apart = parts.len() / F::SIDE;
        for (i, out) in out.chunks_exact_mut(F::PATCH).enumerate() {
            // A tile's last two pixels are the next one's first.
            let points = F::forward(|x| beside(&parts[x % F::SIDE * apart + i * BESIDE + x / F::SIDE..]));
            for (out, numbers) in out.iter_mut().zip(points.as_ref()) { *out = *numbers; }
        }
    }
}

multiversion! {
    /// Transforms a row of tiles, the first of which is `tile`, from PATCH such rows. Whole eights of tiles are written, as
    /// far as there are vectors.
    pub(super) fn down<F: Form>(rows: &[Beside], tile: usize, out: &mut [f32], places: Places) {
        let eights = rows.len() / F::POINTS;
        for i in 0..eights {
            let (vector, lane) = ((tile + i * BESIDE) / LANES, (tile + i * BESIDE) % LANES);
            for x in 0..F::PATCH {
                let points = F::forward(|y| rows[(y * eights + i) * F::PATCH + x]);
                for (y, numbers) in points.as_ref().iter().enumerate() {
                    let at = ((F::PATCH * y + x) * places.vectors + vector) * places.pitch;
                    if lane <= LANES - BESIDE {
                        out[at + lane..][..BESIDE].copy_from_slice(numbers);
                        continue;
                    }
                    let (here, next) = numbers.split_at(LANES - lane);
                    out[at + lane..][..here.len()].copy_from_slice(here);
                    if vector + 1 < places.vectors {
                        out[at + places.pitch..][..next.len()].copy_from_slice(next);
                    }
                }
            }
        }
    }
}

multiversion! {
    /// From the points, `point` words apart, to SIDE lines of pixels, of whole eights of tiles.
    pub(super) fn inverse<F: Form>(sums: &[f32], point: usize, lines: &mut [f32]) {
        let width = lines.len() / F::SIDE;
        for (i, at) in (0..width / F::SIDE).step_by(BESIDE).enumerate() {
            // As large as that of any form.
            let mut half = [[[0f32; BESIDE]; 6]; 4];
            for x in 0..F::PATCH {
                let side = F::back(|y| beside(&sums[(F::PATCH * y + x) * point + at..]));
                for (half, side) in half.iter_mut().zip(side.as_ref()) { half[x] = *side; }
            }
            for (half, line) in half.iter().zip(lines.chunks_exact_mut(width)) {
                let pixels = F::back(|x| half[x]);
                let line = &mut line[i * BESIDE * F::SIDE..][..BESIDE * F::SIDE];
                for tile in 0..BESIDE {
                    for (x, pixels) in pixels.as_ref().iter().enumerate() { line[tile * F::SIDE + x] = pixels[tile]; }
                }
            }
        }
    }
}

multiversion! {
    /// Transforms kernels, of each channel nine vectors of a panel's rows, to the points, `point` words apart: `rows` words
    /// for each channel. A vector more than these is written.
    pub(super) fn kernels<F: Form>(taps: &[f32], rows: usize, out: &mut [f32], point: usize) {
        for (channel, g) in taps.as_chunks::<LANES>().0.as_chunks::<9>().0.iter().enumerate() {
            // Not by `map`: its closure is compiled as a function for any processor.
            let (a, b, c) =
                (F::spread([g[0], g[3], g[6]]), F::spread([g[1], g[4], g[7]]), F::spread([g[2], g[5], g[8]]));
            for (y, ((a, b), c)) in a.as_ref().iter().zip(b.as_ref()).zip(c.as_ref()).enumerate() {
                for (x, words) in F::spread([*a, *b, *c]).as_ref().iter().enumerate() {
                    out[(F::PATCH * y + x) * point + channel * rows..][..LANES].copy_from_slice(words);
                }
            }
        }
    }
}
