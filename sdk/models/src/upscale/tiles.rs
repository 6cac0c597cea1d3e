//! Images of any size, tile by tile.

use super::{NETWORK, Upscaler};
use crate::error::{Error, Result};
use crate::spans::{Span, spans};
use candle_core::{DType, Device, Tensor};

/// How to cut an image.
///
/// Each tile is computed together with `overlap` pixels of what lies around it, which are cut away from the result: there
/// is nothing to blend. With an overlap of [`super::Architecture::reach`] the tiles give what the whole image gives; that
/// is 34 pixels for the small networks and 349 for the large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// The side of a tile at most, in pixels of the image.
    pub size: usize,
    /// Pixels of the image seen around it.
    pub overlap: usize,
}

impl Tiles {
    /// The smallest side of a tile. Smaller ones are mostly what lies around them.
    pub const MIN_SIZE: usize = 16;

    /// The side of what is computed at once, at most.
    pub fn seen(&self) -> usize {
        self.size.max(Self::MIN_SIZE) + 2 * self.overlap
    }
}

impl Default for Tiles {
    fn default() -> Self {
        Self { size: 192, overlap: 16 }
    }
}

/// A piece of the result.
#[derive(Clone, Debug)]
pub struct Tile {
    /// Its first row in the result.
    pub top: usize,
    /// Its first column in the result.
    pub left: usize,
    /// (B, 3, height, width), f32 in the machine's memory.
    pub pixels: Tensor,
}

impl Upscaler {
    /// Enlarges `image` (B, 3, H, W) of values 0..1, any float type, at least 1x1, and gives the result in pieces, row by
    /// row, that cover it once. Without `tiles` the whole is one piece.
    ///
    /// Sides that are not multiples of [`super::Architecture::unshuffle`] are filled up with mirrored pixels, which are cut
    /// away again. Values may go a little beyond 0..1.
    ///
    /// # Errors
    /// Another shape; an error of `each`; infinities or NaN in a result.
    pub fn tiles(
        &self,
        image: &Tensor,
        tiles: Option<Tiles>,
        mut each: impl FnMut(Tile, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let [_, _, height, width] = self.check(image)?;
        let grid = Grid::new(self, (height, width), tiles);
        let image = filled_up(image, self.architecture().unshuffle).map_err(Error::compute(NETWORK))?;
        let total = grid.rows.len() * grid.columns.len();
        let places = grid.rows.iter().flat_map(|row| grid.columns.iter().map(move |column| (row, column)));
        for (i, (row, column)) in places.enumerate() {
            let tile = atelier_ops::scope(|| self.tile(&image, row, column, (height, width)))?;
            each(tile, i + 1, total)?;
        }
        Ok(())
    }

    /// Enlarges `image` (B, 3, H, W) of values 0..1 to (B, 3, scale H, scale W), f32 in the machine's memory; see
    /// [`Self::tiles`].
    ///
    /// `progress` is told how many tiles of how many are done, before the first and after each; its error ends the work
    /// ([`Error::Cancelled`] is there for that).
    ///
    /// # Errors
    /// Those of [`Self::tiles`] and of `progress`.
    pub fn upscale(
        &self,
        image: &Tensor,
        tiles: Option<Tiles>,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Tensor> {
        let [batch, channels, h, w] = self.check(image)?;
        let (height, width) = (h * self.scale(), w * self.scale());
        progress(0, Grid::new(self, (h, w), tiles).len())?;
        let mut all = vec![0f32; batch * channels * height * width];
        self.tiles(image, tiles, |tile, done, total| {
            for_rows(&tile, |plane, row, values| {
                let start = (plane * height + tile.top + row) * width + tile.left;
                all[start..start + values.len()].copy_from_slice(values);
            })?;
            progress(done, total)
        })?;
        let result = Tensor::from_vec(all, (batch, channels, height, width), &Device::Cpu);
        result.map_err(Error::compute(NETWORK))
    }

    /// Enlarges a picture of 8 bits, red, green and blue in turn, row by row. The result is rounded to the nearest step;
    /// beside the two pictures and one tile nothing is in memory.
    ///
    /// # Errors
    /// `pixels` not of 3 `width` `height` bytes, or none; those of [`Self::upscale`].
    pub fn upscale_rgb8(
        &self,
        pixels: &[u8],
        (width, height): (usize, usize),
        tiles: Option<Tiles>,
        mut progress: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if expected != Some(pixels.len()) || pixels.is_empty() {
            let message = format!(
                "expected 3 bytes for each of {width}x{height} pixels, at least one, found {} bytes",
                pixels.len()
            );
            return Err(Error::input(NETWORK, message));
        }
        let image = planes(pixels, height, width).map_err(Error::compute(NETWORK))?;
        progress(0, Grid::new(self, (height, width), tiles).len())?;
        let across = width * self.scale();
        let mut all = vec![0u8; pixels.len() * self.scale() * self.scale()];
        self.tiles(&image, tiles, |tile, done, total| {
            for_rows(&tile, |plane, row, values| {
                let start = ((tile.top + row) * across + tile.left) * 3 + plane;
                let target = all[start..].iter_mut().step_by(3);
                target.zip(values).for_each(|(byte, value)| *byte = (value * 255.0).round() as u8);
            })?;
            progress(done, total)
        })?;
        Ok(all)
    }

    /// Memory that enlarging an image of `height` x `width` takes at most at once, in bytes: the weights, one tile with what
    /// it sees, and nothing for image and result.
    pub fn memory(&self, (height, width): (usize, usize), tiles: Option<Tiles>) -> u64 {
        let grid = Grid::new(self, (height, width), tiles);
        let most = |spans: &[Span]| spans.iter().map(|s| s.outer.len()).max().unwrap_or(0);
        let (h, w) = (most(&grid.rows), most(&grid.columns));
        self.weight_bytes() + self.architecture().forward_bytes(h, w, self.dtype(), self.device())
    }

    /// One tile of an image that is filled up; `size` is that of the image itself.
    fn tile(&self, image: &Tensor, row: &Span, column: &Span, size: (usize, usize)) -> Result<Tile> {
        let cut = |x: &Tensor, dim, span: &Span| x.narrow(dim, span.outer.start, span.outer.len());
        let seen = || cut(&cut(image, 2, row)?, 3, column)?.contiguous();
        let result = self.forward(&seen().map_err(Error::compute(NETWORK))?)?;
        let scale = self.scale();
        let given = |y: &Tensor, dim, Span { inner, outer }: &Span, end: usize| {
            y.narrow(dim, (inner.start - outer.start) * scale, (inner.end.min(end) - inner.start) * scale)
        };
        let pixels = || given(&given(&result, 2, row, size.0)?, 3, column, size.1)?.to_device(&Device::Cpu);
        let pixels = pixels().and_then(|p| p.to_dtype(DType::F32)?.contiguous());
        let pixels = pixels.map_err(Error::compute(NETWORK))?;
        let tile = Tile { top: row.inner.start * scale, left: column.inner.start * scale, pixels };
        let mut finite = true;
        for_rows(&tile, |_, _, values| finite &= values.iter().all(|v| v.is_finite()))?;
        if !finite {
            let message = format!(
                "expected numbers, found infinities or NaN in the tile at row {}, column {}; try weights of 32 bits",
                tile.top, tile.left
            );
            return Err(Error::input(NETWORK, message));
        }
        Ok(tile)
    }
}

/// The tiles of an image, along each axis.
struct Grid {
    rows: Vec<Span>,
    columns: Vec<Span>,
}

impl Grid {
    fn new(upscaler: &Upscaler, (height, width): (usize, usize), tiles: Option<Tiles>) -> Self {
        let unit = upscaler.architecture().unshuffle;
        let axis = |length: usize| {
            let length = length.next_multiple_of(unit);
            match tiles {
                Some(tiles) => spans(length, tiles.size.max(Tiles::MIN_SIZE), tiles.overlap, unit),
                None => spans(length, length, 0, unit),
            }
        };
        Self { rows: axis(height), columns: axis(width) }
    }

    fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// Calls `f` with each row of each plane of a tile: the plane's number, the row's, its values.
fn for_rows(tile: &Tile, mut f: impl FnMut(usize, usize, &[f32])) -> Result<()> {
    let mut lend = || -> candle_core::Result<()> {
        let (_, _, height, width) = tile.pixels.dims4()?;
        let (storage, layout) = tile.pixels.storage_and_layout();
        let candle_core::Storage::Cpu(candle_core::CpuStorage::F32(values)) = &*storage else {
            candle_core::bail!("a tile is f32 in the machine's memory")
        };
        for (i, row) in values[layout.start_offset()..].chunks_exact(width).enumerate() {
            f(i / height, i % height, row);
        }
        Ok(())
    };
    lend().map_err(Error::compute(NETWORK))
}

/// 8-bit colours in turn to (1, 3, height, width) of 0..1.
fn planes(pixels: &[u8], height: usize, width: usize) -> candle_core::Result<Tensor> {
    let mut values = Vec::with_capacity(pixels.len());
    for channel in 0..3 {
        values.extend(pixels.iter().skip(channel).step_by(3).map(|byte| f32::from(*byte) / 255.0));
    }
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu)
}

/// `image` with rows below and columns to the right up to multiples of `unit`: mirrored at the last pixel, which is not
/// repeated, as the original programs fill up. Of a single pixel there is only itself.
fn filled_up(image: &Tensor, unit: usize) -> candle_core::Result<Tensor> {
    let mut image = image.clone();
    for dim in [2, 3] {
        let length = image.dim(dim)?;
        let wanted = length.next_multiple_of(unit);
        if wanted > length {
            let index: Vec<u32> = (0..wanted).map(|i| mirrored(i, length) as u32).collect();
            let index = Tensor::from_vec(index, wanted, image.device())?;
            image = image.contiguous()?.index_select(&index, dim)?;
        }
    }
    Ok(image)
}

/// Where pixel `i` of an axis is taken from that has `length`, going back and forth.
fn mirrored(i: usize, length: usize) -> usize {
    let period = (2 * (length - 1)).max(1);
    let i = i % period;
    if i < length { i } else { period - i }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_go_back_and_forth_without_repeating_the_edge() {
        let row = |length| (0..7).map(|i| mirrored(i, length)).collect::<Vec<_>>();
        assert_eq!(row(1), [0; 7]);
        assert_eq!(row(2), [0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(row(3), [0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(row(7), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn sides_are_filled_up_to_multiples() {
        let x = Tensor::arange(0f32, 9., &Device::Cpu).unwrap().reshape((1, 1, 3, 3)).unwrap();
        let y = filled_up(&x, 4).unwrap().reshape((4, 4)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(y[0], [0., 1., 2., 1.]);
        assert_eq!(y[3], [3., 4., 5., 4.]);
        assert_eq!(filled_up(&x, 3).unwrap().dims(), [1, 1, 3, 3]);
    }
}
