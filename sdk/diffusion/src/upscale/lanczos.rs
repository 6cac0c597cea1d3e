//! Sizes by Lanczos' filter of three lobes, as Pillow has it: wider where an image shrinks, and cut off at its edges.

use super::samples::{Raster, Sample};
use std::f64::consts::PI;

/// Lobes on each side.
const LOBES: f64 = 3.0;

/// What a sample of the result is made of: the first of the samples, and the weight of each.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

fn filter(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    if x.abs() < LOBES { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let width = scale.max(1.0);
    let one = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - LOBES * width + 0.5).max(0.0) as usize;
        let end = ((centre + LOBES * width + 0.5) as usize).min(from).max(first + 1);
        let weight = |j: usize| filter((j as f64 + 0.5 - centre) / width);
        let all: f64 = (first..end).map(weight).sum();
        Taps { first, weights: (first..end).map(|j| (weight(j) / all) as f32).collect() }
    };
    (0..to).map(one).collect()
}

/// A raster at another size. Row by row: beside the two nothing large is in memory.
pub fn resized<S: Sample>(from: &Raster<S>, width: usize, height: usize) -> Raster<S> {
    let n = from.channels;
    let mut to = Raster::new((width, height), n);
    let columns = taps(from.width, width);
    let mut line = vec![0f32; from.width * n];
    let rows = to.data.chunks_exact_mut(width * n);
    for (row, taps) in rows.zip(taps(from.height, height)) {
        line.fill(0.0);
        for (y, weight) in (taps.first..).zip(&taps.weights) {
            let source = &from.data[y * from.width * n..][..from.width * n];
            line.iter_mut().zip(source).for_each(|(sum, sample)| *sum += weight * sample.value());
        }
        for (pixel, taps) in row.chunks_exact_mut(n).zip(&columns) {
            for (c, sample) in pixel.iter_mut().enumerate() {
                let values = line[taps.first * n + c..].iter().step_by(n);
                *sample = S::nearest(values.zip(&taps.weights).map(|(v, weight)| v * weight).sum());
            }
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow 13, `Image.resize` with `LANCZOS`, of a row.
    #[test]
    fn a_row_is_resized_as_pillow_does_it() {
        let row = |data: Vec<u8>| Raster { width: data.len(), height: 1, channels: 1, data };
        for (from, to) in [
            (vec![0, 0, 255, 255], vec![10, 0, 0, 54, 201, 255, 255, 245u8]),
            (vec![10, 200, 30, 90, 250], vec![97, 80, 175]),
            (vec![10, 200, 30, 90, 250], vec![0, 74, 191, 150, 30, 17, 113, 213, 255]),
            (vec![5, 100, 200], vec![0, 11, 41, 100, 161, 193, 211]),
        ] {
            let found = resized(&row(from), to.len(), 1).data;
            assert!(found.iter().zip(&to).all(|(a, b)| a.abs_diff(*b) <= 1), "{found:?} {to:?}");
        }
    }

    #[test]
    fn what_is_flat_stays_flat_in_both_depths() {
        let flat = Raster { width: 5, height: 3, channels: 3, data: vec![777u16; 45] };
        for (width, height) in [(8, 7), (2, 2), (1, 1), (50, 3)] {
            let other = resized(&flat, width, height);
            assert_eq!((other.width, other.height, other.data.len()), (width, height, width * height * 3));
            assert!(other.data.iter().all(|v| *v == 777), "{width}x{height}");
        }
        let dot = Raster { width: 1, height: 1, channels: 3, data: vec![1u8, 2, 3] };
        assert_eq!(resized(&dot, 2, 1).data, [1, 2, 3, 1, 2, 3]);
    }
}
