//! Decoding in tiles by themselves, blended where they overlap.
//!
//! Source: the tiled decoding of diffusers' `AutoencoderKL`. Every tile has its own statistics in the group norms, so
//! colours differ from tile to tile; blending hides the steps, not the difference. It is here for the same image as
//! other programs make, and for the least memory.

use crate::error::{Error, Result};
use candle_core::Tensor;

/// Tiles of latents and how they overlap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blending {
    /// Side of a tile in latents.
    pub tile: usize,
    /// The part of a tile that it shares with the next, 0 up to 1.
    pub overlap: f64,
}

/// Runs `one` on tiles of `latents` (B, C, h, w) and joins what it gives, `factor` times as large.
pub(super) fn run(
    latents: &Tensor,
    blending: &Blending,
    factor: usize,
    one: impl Fn(&Tensor) -> Result<Tensor>,
    failed: impl Fn(candle_core::Error) -> Error,
) -> Result<Tensor> {
    let tile = blending.tile.max(2);
    let overlap = blending.overlap.clamp(0.0, 0.9);
    let step = ((tile as f64 * (1.0 - overlap)) as usize).max(1);
    let blend = ((tile * factor) as f64 * overlap) as usize;
    let keep = tile * factor - blend;
    let (_, _, h, w) = latents.dims4().map_err(&failed)?;
    let mut above: Vec<Tensor> = Vec::new();
    let mut rows = Vec::new();
    for y in (0..h).step_by(step) {
        let cut =
            |x: usize| latents.narrow(2, y, tile.min(h - y))?.narrow(3, x, tile.min(w - x))?.contiguous();
        let mut row: Vec<Tensor> = Vec::new();
        for (i, x) in (0..w).step_by(step).enumerate() {
            let mut now = one(&cut(x).map_err(&failed)?)?;
            if let Some(above) = above.get(i) {
                now = blended(above, &now, 2, blend).map_err(&failed)?;
            }
            if let Some(left) = row.last() {
                now = blended(left, &now, 3, blend).map_err(&failed)?;
            }
            row.push(now);
        }
        let kept = |t: &Tensor| t.narrow(2, 0, keep.min(t.dim(2)?))?.narrow(3, 0, keep.min(t.dim(3)?));
        let parts: candle_core::Result<Vec<_>> = row.iter().map(kept).collect();
        rows.push(parts.and_then(|parts| Tensor::cat(&parts, 3)).map_err(&failed)?);
        above = row;
    }
    Tensor::cat(&rows, 2).map_err(failed)
}

/// `next` whose first `extent` rows (dimension 2) or columns (3) go over from the last ones of `before`.
fn blended(before: &Tensor, next: &Tensor, dim: usize, extent: usize) -> candle_core::Result<Tensor> {
    let (from, length) = (before.dim(dim)?, next.dim(dim)?);
    let extent = extent.min(from).min(length);
    if extent == 0 {
        return Ok(next.clone());
    }
    let weights: Vec<f32> = (0..extent).map(|i| i as f32 / extent as f32).collect();
    let mut shape = [1; 4];
    shape[dim] = extent;
    let weights = Tensor::from_vec(weights, shape.to_vec(), next.device())?.to_dtype(next.dtype())?;
    let old = before.narrow(dim, from - extent, extent)?;
    let new = next.narrow(dim, 0, extent)?;
    let mixed = (&old + (new - &old)?.broadcast_mul(&weights)?)?;
    Tensor::cat(&[&mixed, &next.narrow(dim, extent, length - extent)?], dim)
}
