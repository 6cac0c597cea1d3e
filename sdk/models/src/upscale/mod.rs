//! Upscalers of the ESRGAN family: convolutions alone, trained to draw the pixels between the pixels.
//!
//! [`UpscalerFile`] finds out what a file has, without reading its weights; [`Upscaler`] is the network. Images are
//! (B, 3, H, W) of values 0..1.

mod architecture;
mod compact;
mod detect;
mod file;
mod names;
mod ncnn;
mod rrdb;
mod tiles;

pub use architecture::{Architecture, Family, Rectifier};
pub use file::UpscalerFile;
pub use tiles::{Tile, Tiles};

use crate::error::{Error, Result};
use crate::layers::{compute_dtype, products};
use atelier_ops::{Products, span, with_products};
use atelier_weights::{Precision, Source};
use candle_core::{DType, Device, Tensor};
use compact::Compact;
use rrdb::Rrdb;
use std::path::Path;

const NETWORK: &str = "upscaler";

#[derive(Clone, Debug)]
enum Body {
    Rrdb(Box<Rrdb>),
    Compact(Compact),
}

/// A network that enlarges images by a whole factor. For use alone: its results carry no gradients.
#[derive(Clone, Debug)]
pub struct Upscaler {
    architecture: Architecture,
    body: Body,
    /// What the weights are stored as.
    dtype: DType,
    /// What is computed in.
    compute: DType,
    products: Products,
    device: Device,
    weight_bytes: u64,
}

impl Upscaler {
    /// Opens a file as [`UpscalerFile::open`] does, its weights stored as `precision` says on `device`.
    ///
    /// # Errors
    /// Those of [`UpscalerFile::open`] and [`UpscalerFile::build`].
    pub fn open(path: impl AsRef<Path>, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        UpscalerFile::open(path)?.build(precision, device)
    }

    /// From tensors under the names that BasicSR gives them.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn new(source: &Source, architecture: &Architecture) -> Result<Self> {
        let body = match architecture.family {
            Family::Rrdb => Body::Rrdb(Box::new(Rrdb::new(source, architecture)?)),
            Family::Compact => Body::Compact(Compact::new(source, architecture)?),
        };
        let elements = match &body {
            Body::Rrdb(body) => body.elements(),
            Body::Compact(body) => body.elements(),
        };
        Ok(Self {
            architecture: *architecture,
            body,
            dtype: source.dtype(),
            compute: compute_dtype(source),
            products: products(source),
            device: source.device().clone(),
            weight_bytes: source.precision().bytes(elements as u64),
        })
    }

    /// What it looks like inside.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Pixels of the result for each of the image, in each direction.
    pub fn scale(&self) -> usize {
        self.architecture.scale
    }

    /// What its weights are stored as.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Memory its weights take, in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Enlarges `x` (B, 3, H, W) of values 0..1 as a whole to (B, 3, scale H, scale W), in x's type on the network's device.
    /// H and W must be multiples of [`Architecture::unshuffle`]; [`Self::upscale`] takes any size.
    ///
    /// Values may go a little beyond 0..1.
    ///
    /// # Errors
    /// Another shape; a failure of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [_, _, height, width] = self.check(x)?;
        let unit = self.architecture.unshuffle;
        if height % unit + width % unit > 0 {
            let message = format!("expected sides that are multiples of {unit}, found {height}x{width}");
            return Err(Error::input(NETWORK, message));
        }
        let _span = span!("upscaler", x = ?x.dims(), network = self.architecture.name());
        let run = || -> candle_core::Result<Tensor> {
            let input = x.detach().to_device(&self.device)?.to_dtype(self.compute)?.contiguous()?;
            let y = match &self.body {
                Body::Rrdb(body) => body.forward(&input)?,
                Body::Compact(body) => body.forward(&input)?,
            };
            y.detach().to_dtype(x.dtype())
        };
        with_products(self.products, run).map_err(Error::compute(NETWORK))
    }

    /// The dimensions of an image.
    fn check(&self, x: &Tensor) -> Result<[usize; 4]> {
        match *x.dims() {
            [b, 3, h, w] if b * h * w > 0 && x.dtype().is_float() => Ok([b, 3, h, w]),
            _ => {
                let message = format!(
                    "expected an image (batch, 3, height, width) of floats, found {:?} of {:?}",
                    x.dims(),
                    x.dtype()
                );
                Err(Error::input(NETWORK, message))
            }
        }
    }
}
