//! An upscaler at work on images.

use super::room::{self, Sizes};
use super::samples::{self, Raster, Sample};
use super::{Alpha, Enlarge, lanczos};
use crate::error;
use atelier_models::{Error as ModelError, Tiles, Upscaler};
use atelier_sdk::{Error, Event, Image, Result};
use candle_core::{Device, Tensor};

/// Says something to whoever watches; its error stops the work.
type Tell<'a> = dyn FnMut(Event) -> Result<()> + 'a;

/// A loaded upscaler.
#[derive(Debug)]
pub struct Network(Upscaler);

/// What the parts of one image have in common.
struct Work<'a> {
    tiles: Option<Tiles>,
    /// How often the network goes over the image, and how often it has.
    passes: usize,
    done: usize,
    tell: &'a mut Tell<'a>,
}

impl Network {
    /// An upscaler that is ready.
    pub fn new(upscaler: Upscaler) -> Self {
        Self(upscaler)
    }

    /// How many times larger the network itself makes an image.
    pub fn scale(&self) -> usize {
        self.0.scale()
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        self.0.device()
    }

    /// Enlarges an image; depth, greys, alpha and colour profile stay. `limit` is the memory that may be taken, in bytes.
    /// `tell` hears of each tile that is done, and of tiles that had to be smaller than asked for.
    ///
    /// # Errors
    /// A result that is too large, not enough memory, numbers that overflow, an error of `tell`.
    pub fn enlarge<'a>(
        &self,
        image: &Image,
        how: &Enlarge,
        alpha: Alpha,
        limit: Option<u64>,
        tell: &'a mut Tell<'a>,
    ) -> Result<Image> {
        let outscale = how.outscale.unwrap_or(self.scale() as f64);
        let sizes = Sizes::new((image.width(), image.height()), image.format(), self.scale(), outscale)?;
        let (tiles, remark) = room::tiles(&self.0, &sizes, how, limit)?;
        if let Some(message) = remark {
            tell(Event::Warning { message })?;
        }
        let value = room::estimate(&self.0, &sizes, tiles) as f64;
        tell(Event::Metric { name: "memory.estimate".into(), value })?;
        let work = Work { tiles, passes: 1, done: 0, tell };
        let large = match image.format().is_deep() {
            true => self.parts::<u16>(image, alpha, sizes.result, work)?,
            false => self.parts::<u8>(image, alpha, sizes.result, work)?,
        };
        Ok(large.with_profile(image.profile().unwrap_or_default().to_vec()))
    }

    fn parts<S: Sample>(
        &self,
        image: &Image,
        how: Alpha,
        (width, height): (usize, usize),
        mut work: Work<'_>,
    ) -> Result<Image> {
        let (colours, alpha) = samples::apart::<S>(image);
        // Where nothing is transparent, or everything alike, there is nothing for a network to draw.
        let level =
            alpha.as_ref().and_then(|a| a.data.first().copied().filter(|l| a.data.iter().all(|v| v == l)));
        let drawn = alpha.is_some() && level.is_none() && how == Alpha::Network;
        work.passes += usize::from(drawn);
        let large = sized(self.drawn(&colours, &mut work)?, width, height);
        drop(colours);
        let alpha = match (alpha, level) {
            (None, _) => None,
            (Some(_), Some(level)) => {
                Some(Raster { width, height, channels: 1, data: vec![level; width * height] })
            }
            (Some(alpha), None) if drawn => Some(sized(self.drawn(&alpha, &mut work)?, width, height)),
            (Some(alpha), None) => Some(sized(alpha, width, height)),
        };
        samples::together(large, alpha)
    }

    /// What the network makes of colours or greys.
    fn drawn<S: Sample>(&self, raster: &Raster<S>, work: &mut Work<'_>) -> Result<Raster<S>> {
        let scale = self.scale();
        let image =
            Tensor::from_vec(samples::planes(raster), (1, 3, raster.height, raster.width), &Device::Cpu)
                .map_err(error::tensor("giving an image to the upscaler"))?;
        let mut out = Raster::new((raster.width * scale, raster.height * scale), raster.channels);
        let mut stopped: Option<Error> = None;
        let result = self.0.tiles(&image, work.tiles, |tile, done, total| {
            let failed = |e| {
                stopped = Some(e);
                ModelError::Cancelled { network: "upscaler" }
            };
            let mut put = || -> candle_core::Result<()> {
                let (_, _, height, width) = tile.pixels.dims4()?;
                let values = tile.pixels.flatten_all()?.to_vec1::<f32>()?;
                out.put(&values, (tile.left, tile.top), (width, height));
                Ok(())
            };
            let told = put().map_err(error::tensor("reading a tile")).and_then(|()| work.told(done, total));
            told.map_err(failed)
        });
        match (stopped, result) {
            (Some(e), _) => Err(e),
            (None, result) => {
                result.map_err(|e| error::model("cannot enlarge the image", e))?;
                work.done += 1;
                Ok(out)
            }
        }
    }
}

/// At a size, if it is another.
fn sized<S: Sample>(raster: Raster<S>, width: usize, height: usize) -> Raster<S> {
    if (raster.width, raster.height) == (width, height) {
        raster
    } else {
        lanczos::resized(&raster, width, height)
    }
}

impl Work<'_> {
    /// Tile `done` of `total` of this pass is done.
    fn told(&mut self, done: usize, total: usize) -> Result<()> {
        let (done, total) = ((self.done * total + done) as u64, (self.passes * total) as u64);
        (self.tell)(Event::Progress { done, total, unit: "tiles".into() })
    }
}
