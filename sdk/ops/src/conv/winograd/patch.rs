//! The image under some tiles, and their pixels of the result.

use super::form::Form;
use crate::simd::multiversion;
use std::marker::PhantomData;

/// Part of an image with zeros around it, transformed along its rows.
pub(super) struct Patch<F> {
    /// Rows and columns of tiles.
    rows: usize,
    cols: usize,
    line: Vec<f32>,
    /// (SIDE rows + 2, PATCH, cols).
    across: Vec<f32>,
    form: PhantomData<F>,
}

impl<F: Form> Patch<F> {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        let across = vec![0.0; (F::SIDE * rows + 2) * F::PATCH * cols];
        Self { rows, cols, line: vec![0.0; F::SIDE * cols + 2], across, form: PhantomData }
    }

    /// Reads what lies under the tiles from `first` on of an image with `border` zeros before it: both for rows and
    /// columns.
    pub(super) fn read(&mut self, plane: &[f32], (h, w): (usize, usize), at: [(usize, usize); 2]) {
        let [(row, top), (col, left)] = at;
        let before = left.saturating_sub(F::SIDE * col).min(self.line.len());
        let first = (F::SIDE * col + before).saturating_sub(left).min(w);
        let inside = (w - first).min(self.line.len() - before);
        let whole = inside == self.line.len();
        self.line[..before].fill(0.0);
        self.line[before + inside..].fill(0.0);
        for (y, across) in self.across.chunks_exact_mut(F::PATCH * self.cols).enumerate() {
            let Some(y) = (F::SIDE * row + y).checked_sub(top).filter(|y| *y < h) else {
                across.fill(0.0);
                continue;
            };
            let pixels = &plane[y * w + first..][..inside];
            if whole {
                F::across(pixels, across);
            } else {
                self.line[before..before + inside].copy_from_slice(pixels);
                F::across(&self.line, across);
            }
        }
    }

    /// Writes the tiles, row after row; the next point's are `point` words on.
    pub(super) fn transform(&self, out: &mut [f32], point: usize) {
        for row in 0..self.rows {
            let line = F::PATCH * self.cols;
            let across = &self.across[F::SIDE * row * line..][..F::PATCH * line];
            F::down(across, &mut out[row * self.cols..], point, self.cols);
        }
    }
}

multiversion! {
    /// Adds a line to what is there, or to a number.
    pub(super) fn add(out: &mut [f32], line: &[f32], start: Option<f32>) {
        match start {
            Some(start) => for (out, line) in out.iter_mut().zip(line) { *out = start + line; },
            None => for (out, line) in out.iter_mut().zip(line) { *out += line; },
        }
    }
}
