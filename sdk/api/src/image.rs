//! Images as they cross the line between host and plugin.

use crate::error::{Error, Result};

/// The layout of pixels in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PixelFormat {
    /// 8 bits of grey.
    Gray8,
    /// 8 bits each of red, green, blue.
    Rgb8,
    /// 8 bits each of red, green, blue, alpha.
    Rgba8,
}

impl PixelFormat {
    /// Bytes of one pixel.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Gray8 => 1,
            Self::Rgb8 => 3,
            Self::Rgba8 => 4,
        }
    }
}

/// An image in memory: rows from the top, no padding, sRGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    format: PixelFormat,
    data: Vec<u8>,
}

impl Image {
    /// An image of given pixels.
    ///
    /// # Errors
    /// A side of 0, or data whose length does not fit the size.
    pub fn new(width: u32, height: u32, format: PixelFormat, data: Vec<u8>) -> Result<Self> {
        let expected = (width as usize).saturating_mul(height as usize).saturating_mul(format.bytes());
        if expected == 0 || data.len() != expected {
            return Err(Error::invalid(format!(
                "a {width}x{height} {format:?} image has {expected} bytes, not {}",
                data.len()
            )));
        }
        Ok(Self { width, height, format, data })
    }

    /// An RGB image from planes of floats in -1 ..= 1 (channel, row, column), as decoders give them.
    ///
    /// # Errors
    /// Data whose length does not fit the size, or a value that is not a number.
    pub fn from_planes(width: u32, height: u32, planes: &[f32]) -> Result<Self> {
        let n = width as usize * height as usize;
        if planes.len() != 3 * n {
            return Err(Error::invalid(format!(
                "a {width}x{height} RGB image has {} values, not {}",
                3 * n,
                planes.len()
            )));
        }
        if let Some(i) = planes.iter().position(|v| !v.is_finite()) {
            return Err(Error::internal(format!(
                "the decoder produced {} at pixel {}, channel {}",
                planes[i],
                i % n,
                i / n
            ))
            .hint("16-bit floats overflow in some decoders: try `--dtype f32`"));
        }
        let byte = |v: f32| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
        let mut data = Vec::with_capacity(3 * n);
        for i in 0..n {
            data.extend([byte(planes[i]), byte(planes[n + i]), byte(planes[2 * n + i])]);
        }
        Self::new(width, height, PixelFormat::Rgb8, data)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Pixel layout.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// The pixels.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The pixels, for a change in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// The pixels alone.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_interleaved_bytes() {
        let image = Image::from_planes(2, 1, &[-1.0, 1.0, 0.0, 2.0, -3.0, 0.5]).unwrap();
        assert_eq!(image.data(), [0, 128, 0, 255, 255, 191]);
    }

    #[test]
    fn a_decoder_that_gives_nan_is_an_error_and_not_a_black_image() {
        let e = Image::from_planes(1, 1, &[0.0, f32::NAN, 0.0]).unwrap_err();
        assert!(e.message().contains("channel 1"), "{e}");
    }

    #[test]
    fn data_of_another_size_is_refused() {
        assert!(Image::new(2, 2, PixelFormat::Rgb8, vec![0; 11]).is_err());
        assert!(Image::new(0, 2, PixelFormat::Rgb8, vec![]).is_err());
    }
}
