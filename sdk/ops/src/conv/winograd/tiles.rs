//! The piece of a convolution's result that one job computes, in tiles of some pixels.

use crate::conv::Geometry;
use crate::wide::{LANES, even_blocks};

/// Tiles that a job takes at once.
const TILES: usize = 64;

/// Columns of tiles that a job takes at once: they are neighbours in memory.
const COLUMNS: usize = 32;

/// Neighbouring tiles of one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub(super) image: usize,
    /// First and count, and so the columns.
    pub(super) rows: (usize, usize),
    pub(super) cols: (usize, usize),
}

impl Tiles {
    /// Cuts the result of a convolution into tiles of side x side pixels.
    pub(super) fn of(g: &Geometry, side: usize) -> Vec<Self> {
        let (high, wide) = (g.oh.div_ceil(side), g.ow.div_ceil(side));
        let cols = even_blocks(wide, COLUMNS);
        // Of a small image half, so that there is work for every thread.
        let tiles = TILES.min((high * wide / 2).next_multiple_of(LANES));
        let rows = even_blocks(high, tiles / cols[0].1.max(1));
        let of_image = |image: usize| {
            let cols = &cols;
            rows.iter().flat_map(move |r| cols.iter().map(move |c| Self { image, rows: *r, cols: *c }))
        };
        (0..g.batch).flat_map(of_image).collect()
    }

    /// Vectors of tiles.
    pub(super) fn vectors(&self) -> usize {
        (self.rows.1 * self.cols.1).div_ceil(LANES)
    }

    /// Words from one channel's sums to the next's: an odd number of vectors, as their addresses then use all of the
    /// cache.
    pub(super) fn line(&self) -> usize {
        (self.vectors() | 1) * LANES
    }
}
