//! Encoding and decoding in tiles, with the result of the whole image.
//!
//! Convolutions are local: with as much around it as they reach, a tile gives what the whole image gives there. Group
//! norms are not: mean and variance belong to the whole image. Tiles that each have their own show it as steps of colour.
//! Here they share those of the image: for each norm, a pass over all tiles measures what it takes, with the norms before
//! it already known. So a tile is the same image wherever it is cut, there is nothing to blend, and no seam to see.
//!
//! What lies between two residual blocks is kept whole, since passes begin there; everything inside is of a tile's size.

use crate::layers::{Conv2d, GroupNorm};
use crate::resample::{Downsample, Upsample};
use crate::resnet::ResnetBlock;
use crate::spans::{Span, spans};
use atelier_ops::span;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// How to encode or decode in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    tile: usize,
}

impl Tiling {
    /// The smallest side of a tile. Smaller ones are mostly what lies around them.
    pub const MIN_TILE: usize = 64;

    /// Tiles of this side, in pixels of whatever size a stage works on.
    pub fn of(tile: usize) -> Self {
        Self { tile: tile.max(Self::MIN_TILE) }
    }

    /// The side of a tile with what it sees around it, at most.
    pub(super) fn seen(&self) -> usize {
        self.tile + 2 * 8
    }
}

/// A residual block with what comes before and after it.
#[derive(Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) enters: Option<&'a Conv2d>,
    pub(super) upsampler: Option<&'a Upsample>,
    pub(super) resnet: &'a ResnetBlock,
    pub(super) downsampler: Option<&'a Downsample>,
    pub(super) leaves: Option<(&'a GroupNorm, &'a Conv2d)>,
}

impl<'a> Stage<'a> {
    /// A block alone.
    pub(super) fn of(resnet: &'a ResnetBlock) -> Self {
        Self { enters: None, upsampler: None, resnet, downsampler: None, leaves: None }
    }

    fn begin(&self, x: &Tensor) -> Result<Tensor> {
        match (self.enters, self.upsampler) {
            (Some(conv), _) => conv.forward(x),
            (_, Some(up)) => up.forward(x, (2 * x.dim(2)?, 2 * x.dim(3)?)),
            _ => Ok(x.clone()),
        }
    }

    /// The whole image at once.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let _span = span!("vae.stage", x = ?x.dims());
        let x = self.resnet.forward(&self.begin(x)?, None)?;
        match (self.downsampler, self.leaves) {
            (Some(down), _) => down.forward(&x),
            (_, Some((norm, conv))) => conv.forward(&norm.forward_silu(&x)?),
            _ => Ok(x),
        }
    }

    fn norms(&self) -> Vec<&'a GroupNorm> {
        let inner = [&self.resnet.norm1, &self.resnet.norm2];
        inner.into_iter().chain(self.leaves.map(|(norm, _)| norm)).collect()
    }

    /// A part of the image, with the moments of the first norms: what the next norm takes, or the result if there is
    /// no next one.
    fn advance(&self, x: &Tensor, known: &[Moments]) -> Result<Tensor> {
        let normed = |i: usize, norm: &GroupNorm, x: &Tensor| norm.forward_silu_as(x, &known[i].groups);
        let x = self.begin(x)?;
        if known.is_empty() {
            return Ok(x);
        }
        let h = self.resnet.first(normed(0, &self.resnet.norm1, &x)?, None)?;
        if known.len() == 1 {
            return Ok(h);
        }
        let y = self.resnet.second(&x, normed(1, &self.resnet.norm2, &h)?)?;
        match (self.downsampler, self.leaves) {
            (Some(down), _) => down.forward(&y),
            (_, Some((norm, conv))) if known.len() > 2 => conv.forward(&normed(2, norm, &y)?),
            _ => Ok(y),
        }
    }

    /// How far a pixel of the larger of its two sizes sees: one for each 3x3 convolution, two for a strided one.
    fn reach(&self) -> usize {
        let ends = usize::from(self.enters.is_some()) + usize::from(self.leaves.is_some());
        2 + ends + usize::from(self.upsampler.is_some()) + 2 * usize::from(self.downsampler.is_some())
    }
}

/// Mean and variance of each group of each image, of several parts together.
#[derive(Clone, Debug, Default)]
struct Moments {
    pixels: f64,
    groups: Vec<[f64; 2]>,
}

impl Moments {
    /// Adds a part (Chan, Golub and LeVeque 1979).
    fn add(&mut self, pixels: usize, part: Vec<[f64; 2]>) {
        let n = pixels as f64;
        if self.pixels == 0.0 {
            *self = Self { pixels: n, groups: part };
            return;
        }
        let all = self.pixels + n;
        for (whole, part) in self.groups.iter_mut().zip(part) {
            let difference = part[0] - whole[0];
            whole[0] += difference * n / all;
            whole[1] = (whole[1] * self.pixels + part[1] * n) / all
                + difference * difference * (self.pixels * n) / (all * all);
        }
        self.pixels = all;
    }
}

/// The tiles of a stage.
struct Grid {
    rows: Vec<Span>,
    columns: Vec<Span>,
    /// Pixels worked on for each of the input.
    enlarged: usize,
    /// Pixels worked on for each of the result.
    reduced: usize,
}

impl Grid {
    fn new(stage: &Stage<'_>, x: &Tensor, tiling: &Tiling) -> Result<Self> {
        let enlarged = 1 + usize::from(stage.upsampler.is_some());
        let axis = |length: usize| spans(length * enlarged, tiling.tile, stage.reach(), 2);
        let (_, _, h, w) = x.dims4()?;
        let reduced = 1 + usize::from(stage.downsampler.is_some());
        Ok(Self { rows: axis(h), columns: axis(w), enlarged, reduced })
    }

    /// What a tile sees of the input.
    fn seen(&self, x: &Tensor, row: &Span, column: &Span) -> Result<Tensor> {
        let cut = |x: &Tensor, dim, Range { start, end }: Range<usize>| {
            x.narrow(dim, start / self.enlarged, (end - start) / self.enlarged)
        };
        cut(&cut(x, 2, row.outer.clone())?, 3, column.outer.clone())?.contiguous()
    }
}

/// What a tile gives, of what was computed for all it sees; `reduced` is 2 for what is half the size.
fn given(y: &Tensor, row: &Span, column: &Span, reduced: usize) -> Result<Tensor> {
    let cut = |y: &Tensor, dim, Span { inner, outer }: &Span| {
        let length = inner.end / reduced - inner.start / reduced;
        y.narrow(dim, (inner.start - outer.start) / reduced, length)
    };
    cut(&cut(y, 2, row)?, 3, column)?.contiguous()
}

/// Runs a stage on `x` (B, C, h, w), in tiles if it is larger than one.
pub(super) fn run(stage: &Stage<'_>, x: &Tensor, tiling: &Tiling) -> Result<Tensor> {
    let grid = Grid::new(stage, x, tiling)?;
    if grid.rows.len() * grid.columns.len() == 1 {
        return stage.forward(x);
    }
    let mut known: Vec<Moments> = Vec::new();
    for norm in stage.norms() {
        let mut moments = Moments::default();
        for (row, column) in grid.rows.iter().flat_map(|r| grid.columns.iter().map(move |c| (r, c))) {
            let y = given(&stage.advance(&grid.seen(x, row, column)?, &known)?, row, column, 1)?;
            moments.add(row.inner.len() * column.inner.len(), norm.moments(&y)?);
        }
        known.push(moments);
    }
    join(stage, x, &grid, &known)
}

/// The result, tile by tile.
fn join(stage: &Stage<'_>, x: &Tensor, grid: &Grid, known: &[Moments]) -> Result<Tensor> {
    let length = |spans: &[Span]| spans.last().map_or(0, |s| s.inner.end) / grid.reduced;
    let (h, w) = (length(&grid.rows), length(&grid.columns));
    let mut whole: Option<Tensor> = None;
    for row in &grid.rows {
        let mut tiles = Vec::with_capacity(grid.columns.len());
        for column in &grid.columns {
            let y = stage.advance(&grid.seen(x, row, column)?, known)?;
            tiles.push(given(&y, row, column, grid.reduced)?);
        }
        let strip = Tensor::cat(&tiles, 3)?.contiguous()?;
        let (b, c, ..) = strip.dims4()?;
        let all = match whole.take() {
            Some(all) => all,
            None => Tensor::zeros((b, c, h, w), strip.dtype(), strip.device())?,
        };
        all.slice_set(&strip, 2, row.inner.start / grid.reduced)?;
        whole = Some(all);
    }
    whole.ok_or_else(|| candle_core::Error::Msg("a stage of an empty image".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_are_those_of_the_whole() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i * i % 23) + 5.0).collect();
        let of = |v: &[f64]| {
            let mean = v.iter().sum::<f64>() / v.len() as f64;
            [mean, v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64]
        };
        let mut all = Moments::default();
        for part in [&values[..3], &values[3..20], &values[20..]] {
            all.add(part.len(), vec![of(part)]);
        }
        let [mean, variance] = of(&values);
        assert!((all.groups[0][0] - mean).abs() < 1e-12 && (all.groups[0][1] - variance).abs() < 1e-10);
    }
}
