//! The image under some tiles, and their pixels of the result.

use super::form::Form;
use super::transform::{self, BESIDE, Beside, Places};
use crate::simd::multiversion;
use std::marker::PhantomData;

/// Part of an image with zeros around it, transformed along its rows.
pub(super) struct Patch<F> {
    /// Rows and columns of tiles.
    rows: usize,
    cols: usize,
    /// Every SIDE-th pixel of a row, SIDE times, of whole eights of tiles and the next.
    parts: Vec<f32>,
    /// (SIDE rows + 2, eights, PATCH).
    across: Vec<Beside>,
    form: PhantomData<F>,
}

impl<F: Form> Patch<F> {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        let eights = cols.div_ceil(BESIDE);
        Self {
            rows,
            cols,
            parts: vec![0.0; F::SIDE * (eights + 1) * BESIDE],
            across: vec![[0.0; BESIDE]; (F::SIDE * rows + 2) * eights * F::PATCH],
            form: PhantomData,
        }
    }

    /// Numbers of a transformed row of the image.
    fn width(&self) -> usize {
        self.cols.div_ceil(BESIDE) * F::PATCH
    }

    /// Reads what lies under the tiles from `first` on of an image with `border` zeros before it: both for rows and
    /// columns.
    pub(super) fn read(&mut self, plane: &[f32], (h, w): (usize, usize), at: [(usize, usize); 2]) {
        let [(row, top), (col, left)] = at;
        let width = self.width();
        for (y, across) in self.across.chunks_exact_mut(width).enumerate() {
            let Some(y) = (F::SIDE * row + y).checked_sub(top).filter(|y| *y < h) else {
                across.fill([0.0; BESIDE]);
                continue;
            };
            transform::part::<F>(&plane[y * w..][..w], (F::SIDE * col, left), &mut self.parts);
            transform::across::<F>(&self.parts, across);
        }
    }

    /// Writes the tiles, row after row, as [`transform::down`] does, the first at the place of `tile`.
    pub(super) fn transform(&self, tile: usize, out: &mut [f32], places: Places) {
        let width = self.width();
        for row in 0..self.rows {
            let rows = &self.across[F::SIDE * row * width..][..F::PATCH * width];
            transform::down::<F>(rows, tile + row * self.cols, out, places);
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
