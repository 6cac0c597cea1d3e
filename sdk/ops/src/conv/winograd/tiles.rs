//! The piece of a convolution's result that is computed at once, in tiles of some pixels.

use super::form::Form;
use crate::conv::Geometry;
use crate::wide::{LANES, even_blocks};

/// Tiles of a piece.
const TILES: usize = 64;

/// Columns of tiles of a piece: they are neighbours in memory.
const COLUMNS: usize = 32;

/// Neighbouring tiles of one image, or all of some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    /// First and count, and so the rows and columns.
    pub(super) images: (usize, usize),
    pub(super) rows: (usize, usize),
    pub(super) cols: (usize, usize),
}

/// Tiles of one image.
pub(super) fn count<F: Form>(g: &Geometry) -> usize {
    g.oh.div_ceil(F::SIDE) * g.ow.div_ceil(F::SIDE)
}

impl Tiles {
    /// Cuts the result of a convolution into pieces.
    pub(super) fn of<F: Form>(g: &Geometry) -> Vec<Self> {
        let (high, wide) = (g.oh.div_ceil(F::SIDE), g.ow.div_ceil(F::SIDE));
        if 2 * high * wide <= TILES {
            let images = even_blocks(g.batch, TILES / (high * wide));
            return images
                .into_iter()
                .map(|images| Self { images, rows: (0, high), cols: (0, wide) })
                .collect();
        }
        let cols = even_blocks(wide, COLUMNS);
        let rows = even_blocks(high, (TILES / cols[0].1).max(1));
        let of_image = |image: usize| {
            let cols = &cols;
            let all = rows.iter().flat_map(move |r| cols.iter().map(move |c| (*r, *c)));
            all.map(move |(rows, cols)| Self { images: (image, 1), rows, cols })
        };
        (0..g.batch).flat_map(of_image).collect()
    }

    /// Tiles of each image.
    pub(super) fn each(&self) -> usize {
        self.rows.1 * self.cols.1
    }

    /// Vectors of tiles.
    pub(super) fn vectors(&self) -> usize {
        (self.images.1 * self.each()).div_ceil(LANES)
    }

    /// Words from one channel's sums to the next's: an odd number of vectors, as their addresses then use all of the
    /// cache.
    pub(super) fn line(&self) -> usize {
        (self.vectors() | 1) * LANES
    }
}
