//! Whether an image and its result fit into the memory, and in what tiles.

use super::Enlarge;
use crate::memory::{BASE, words};
use atelier_models::{Tiles, Upscaler};
use atelier_sdk::{Error, ErrorKind, PixelFormat, Result};

/// Most pixels of a result, as of an image that is read.
const MAX_PIXELS: u64 = 1 << 28;
/// Largest side of a result in pixels.
const MAX_SIDE: f64 = 65_535.0;

/// An image, and what is to become of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    pub image: (usize, usize),
    pub format: PixelFormat,
    /// What the network gives.
    pub network: (usize, usize),
    pub result: (usize, usize),
}

impl Sizes {
    /// Of an image that a network of a scale enlarges, and that then becomes `outscale` times as large.
    ///
    /// # Errors
    /// A result that is too large, with its size.
    pub fn new(
        (width, height): (u32, u32),
        format: PixelFormat,
        scale: usize,
        outscale: f64,
    ) -> Result<Self> {
        let side = |n: u32| (f64::from(n) * outscale).round().max(1.0);
        let (w, h) = (side(width), side(height));
        if w > MAX_SIDE || h > MAX_SIDE || w * h > MAX_PIXELS as f64 {
            let message = format!("the result would have {w}x{h} pixels: {outscale} times {width}x{height}");
            return Err(Error::invalid(message).hint(format!(
                "at most {MAX_PIXELS} pixels and {MAX_SIDE} on a side: choose a smaller `outscale`"
            )));
        }
        let image = (width as usize, height as usize);
        let network = (image.0 * scale, image.1 * scale);
        Ok(Self { image, format, network, result: (w as usize, h as usize) })
    }

    /// Memory that the image takes on its way, in bytes, without the network's.
    pub fn bytes(&self) -> u64 {
        let pixels = |(w, h): (usize, usize)| (w * h) as u64;
        let pixel = self.format.bytes() as u64;
        let resized = if self.network == self.result { 0 } else { pixels(self.result) * pixel };
        // Three planes of 4 bytes, and the image itself; the result, and its file.
        pixels(self.image) * (12 + pixel)
            + pixels(self.network) * pixel
            + resized
            + 2 * pixels(self.result) * pixel
    }
}

/// Memory that enlarging takes, in bytes.
pub fn estimate(upscaler: &Upscaler, sizes: &Sizes, tiles: Option<Tiles>) -> u64 {
    let (width, height) = sizes.image;
    BASE + sizes.bytes() + upscaler.memory((height, width), tiles)
}

/// Tiles that fit into `limit` bytes, those that are asked for if they do, and words if they do not.
///
/// # Errors
/// None fit.
pub fn tiles(
    upscaler: &Upscaler,
    sizes: &Sizes,
    how: &Enlarge,
    limit: Option<u64>,
) -> Result<(Option<Tiles>, Option<String>)> {
    let (width, height) = sizes.image;
    choose(&|tiles| estimate(upscaler, sizes, tiles), how, width.max(height), limit, sizes.result)
}

fn choose(
    need: &dyn Fn(Option<Tiles>) -> u64,
    how: &Enlarge,
    longest: usize,
    limit: Option<u64>,
    (width, height): (usize, usize),
) -> Result<(Option<Tiles>, Option<String>)> {
    let of = |size: usize| Tiles { size, overlap: how.overlap as usize };
    let wanted = (how.tile > 0).then(|| of(how.tile as usize));
    let fits = |tiles| limit.is_none_or(|limit| need(tiles) <= limit);
    if fits(wanted) {
        return Ok((wanted, None));
    }
    let first = wanted.map_or(longest, |tiles| tiles.size.min(longest));
    let smaller = std::iter::successors(Some(first / 2), |size| Some(size / 2));
    let mut smaller = smaller.take_while(|size| *size >= Tiles::MIN_SIZE).map(of);
    let limit = limit.unwrap_or(0);
    if let Some(tiles) = smaller.find(|tiles| fits(Some(*tiles))) {
        let words = format!(
            "the image is enlarged in tiles of {}: with {} it would take about {} of memory, and there are {}",
            tiles.size,
            if how.tile > 0 { format!("tiles of {}", how.tile) } else { "the whole at once".into() },
            words(need(wanted)),
            words(limit)
        );
        return Ok((Some(tiles), Some(words)));
    }
    let least = need(Some(of(Tiles::MIN_SIZE)));
    let message = format!(
        "enlarging to {width}x{height} pixels needs about {} of memory, and there are {}",
        words(least),
        words(limit)
    );
    Err(Error::new(ErrorKind::Environment, message)
        .hint("a smaller image or a smaller network needs less")
        .hint("the estimate may be wrong: `memory_limit` sets what a run may take, in GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_any_size_up_to_the_limit() {
        let sizes = |size, outscale| Sizes::new(size, PixelFormat::Rgb8, 4, outscale);
        assert_eq!(sizes((101, 1), 1.5).unwrap().result, (152, 2));
        assert_eq!(sizes((1, 1), 1.0).unwrap().result, (1, 1));
        assert_eq!(sizes((100, 100), 2.3).unwrap().result, (230, 230));
        let e = sizes((10_000, 8000), 4.0).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidRequest);
        assert!(e.message().contains("40000x32000"), "{e}");
        assert!(sizes((16_000, 1), 16.0).is_err());
    }

    #[test]
    fn tiles_shrink_until_they_fit_and_say_so() {
        // A square of the side that is seen, and something that is always there.
        let need = |tiles: Option<Tiles>| 1000 + tiles.map_or(400, |t| t.size.min(400) as u64).pow(2);
        let how = |tile| Enlarge { tile, overlap: 0, ..Enlarge::default() };
        let choose = |tile, limit| choose(&need, &how(tile), 400, Some(limit), (800, 800));
        let size = |tiles: Option<Tiles>| tiles.map(|t| t.size);
        assert_eq!(choose(0, 200_000).unwrap(), (None, None));
        let (tiles, words) = choose(0, 50_000).unwrap();
        assert_eq!(size(tiles), Some(200));
        assert!(words.unwrap().contains("in tiles of 200: with the whole at once"));
        let (tiles, words) = choose(256, 50_000).unwrap();
        assert_eq!(size(tiles), Some(128));
        assert!(words.unwrap().contains("with tiles of 256"));
        let e = choose(0, 1100).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Environment);
        assert!(e.message().contains("800x800"), "{e}");
    }
}
