//! Products of panels with vectors that lie one step after the other, results included.

use crate::wide::tile::{self, Tile, Walk};
use crate::wide::{LANES, Unit};

/// The right side of a product: `vectors` of 16 columns, (steps, 16) each, `apart` words from each other.
pub(super) struct Product<'a> {
    pub(super) unit: Unit,
    pub(super) vectors: usize,
    pub(super) steps: usize,
    pub(super) right: &'a [f32],
    pub(super) apart: usize,
}

impl Product<'_> {
    /// Of each vector: `out (rows, 16) = panel (steps, rows) times right (steps, 16)`, or what is added to `out`. What a
    /// vector has of it is `out_apart` words from the next's.
    pub(super) fn run(&self, rows: usize, panel: &[f32], add: bool, out: &mut [f32], out_apart: usize) {
        const ZEROS: [f32; LANES] = [0.0; LANES];
        let last = self.vectors - 1;
        assert!(self.vectors <= self.unit.vectors() && rows <= self.unit.rows() && !self.unit.is_bf16());
        assert!(panel.len() >= self.steps * rows, "{} words, {} steps of {rows}", panel.len(), self.steps);
        assert!(self.right.len() >= last * self.apart + self.steps * LANES, "{} words", self.right.len());
        assert!(out.len() >= last * out_apart + rows * LANES, "{rows} rows to {} words", out.len());
        let right = self.right.as_ptr();
        let b = [right, right.wrapping_add(last * self.apart)];
        let first = out.as_mut_ptr();
        let out = [first, first.wrapping_add(last * out_apart)];
        let (start, start_row) =
            if add { (out.map(<*mut f32>::cast_const), LANES) } else { ([ZEROS.as_ptr(); 2], 0) };
        let tile = Tile { a: panel.as_ptr(), b, start, start_row, out, out_row: LANES };
        let walk = Walk { planes: self.steps, plane: LANES, taps: &[0] };
        // SAFETY: all sides have the words of every step and row, by the assertions; `out` is borrowed exclusively.
        unsafe { tile::run(self.unit, rows, self.vectors, &tile, walk) };
    }
}
