//! What differs between sizes of tiles.

/// Tiles of SIDE x SIDE pixels, and their transforms.
pub(super) trait Form {
    /// Pixels of the result along each side of a tile.
    const SIDE: usize;

    /// Fewer tiles than this of an image do not make up for the transform of the kernels. The number of images does not
    /// count: an image's result is not to depend on what is computed beside it.
    const FEW: usize;

    /// Pixels of the image under a tile, along each side.
    const PATCH: usize = Self::SIDE + 2;

    /// Numbers that a tile and a kernel are transformed to.
    const POINTS: usize = Self::PATCH * Self::PATCH;

    /// One row of pixels, SIDE * tiles + 2 of them, to (PATCH, tiles).
    fn across(line: &[f32], out: &mut [f32]);

    /// PATCH such rows to the points, `point` words apart.
    fn down(rows: &[f32], out: &mut [f32], point: usize, tiles: usize);

    /// From the points, `point` words apart, to SIDE rows of pixels.
    fn inverse(sums: &[f32], point: usize, lines: &mut [Vec<f32>]);

    /// Kernels, of each channel nine vectors of a panel's rows, to the points, `point` words apart: `rows` words for each
    /// channel. A vector more than these is written.
    fn kernels(taps: &[f32], rows: usize, out: &mut [f32], point: usize);
}
