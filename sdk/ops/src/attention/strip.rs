//! Products of panels with vectors whose columns lie side by side.

use crate::wide::tile::{self, Tile, Walk};
use crate::wide::{LANES, Unit};

/// The right side of a product: `vectors` of 16 columns, `apart` words from each other. The steps of each are `plane` words
/// apart.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) words: &'a [f32],
    pub(super) vectors: usize,
    pub(super) apart: usize,
    pub(super) plane: usize,
    pub(super) steps: usize,
}

/// Words of a result from a row to the next, and from what a vector has of a row to what the next one has.
pub(super) type Apart = (usize, usize);

impl Right<'_> {
    /// `out = panel (steps, rows) times these vectors`, or what is added to `out`. They are no more than the unit takes at
    /// once.
    pub(super) fn run(
        &self,
        unit: Unit,
        (rows, panel): (usize, &[f32]),
        add: bool,
        out: &mut [f32],
        (row, vector): Apart,
    ) {
        const ZEROS: [f32; LANES] = [0.0; LANES];
        let (walk, last) = (Walk { planes: self.steps, plane: self.plane, taps: &[0] }, self.vectors - 1);
        assert!(self.vectors <= unit.vectors() && rows <= unit.rows());
        assert!(panel.len() >= self.steps * rows, "{} words, {} steps of {rows}", panel.len(), self.steps);
        assert!(self.words.len() >= last * self.apart + walk.reach(), "{} words", self.words.len());
        assert!(out.len() >= last * vector + (rows - 1) * row + LANES, "{rows} rows to {} words", out.len());
        let right = self.words.as_ptr();
        let b = [right, right.wrapping_add(last * self.apart)];
        let first = out.as_mut_ptr();
        let out = [first, first.wrapping_add(last * vector)];
        let (start, start_row) =
            if add { (out.map(<*mut f32>::cast_const), row) } else { ([ZEROS.as_ptr(); 2], 0) };
        let tile = Tile { a: panel.as_ptr(), b, start, start_row, out, out_row: row };
        // SAFETY: all sides have the words of every step, row and vector, by the assertions; `out` is borrowed exclusively.
        unsafe { tile::run(unit, rows, self.vectors, &tile, walk) };
    }
}
