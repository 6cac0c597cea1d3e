//! What differs between sizes of tiles.

/// Tiles of SIDE x SIDE pixels, and the transforms of one line, for `N` lines side by side.
pub(super) trait Form {
    /// Pixels of the result along each side of a tile.
    const SIDE: usize;

    /// Pixels of the image under a tile, along each side.
    const PATCH: usize = Self::SIDE + 2;

    /// Numbers that a tile and a kernel are transformed to.
    const POINTS: usize = Self::PATCH * Self::PATCH;

    /// PATCH vectors.
    type Patch<const N: usize>: AsRef<[[f32; N]]>;

    /// SIDE vectors.
    type Side<const N: usize>: AsRef<[[f32; N]]>;

    /// Of the pixels under a tile, Bᵀ d.
    fn forward<const N: usize>(d: impl Fn(usize) -> [f32; N]) -> Self::Patch<N>;

    /// Of sums to pixels, Aᵀ m.
    fn back<const N: usize>(m: impl Fn(usize) -> [f32; N]) -> Self::Side<N>;

    /// Of a kernel, G g.
    fn spread<const N: usize>(g: [[f32; N]; 3]) -> Self::Patch<N>;
}

/// Applies `f` to the numbers of every lane.
#[inline(always)]
pub(super) fn lanes<const N: usize, const K: usize, const M: usize>(
    x: [[f32; N]; K],
    f: impl Fn([f32; K]) -> [f32; M],
) -> [[f32; N]; M] {
    let mut out = [[0f32; N]; M];
    for i in 0..N {
        let y = f(std::array::from_fn(|k| x[k][i]));
        for (out, y) in out.iter_mut().zip(y) {
            out[i] = y;
        }
    }
    out
}
