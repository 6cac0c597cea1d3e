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
    /// 8 bits each of grey and alpha.
    GrayAlpha8,
    /// 16 bits of grey. Samples of 16 bits have the byte order of the machine.
    Gray16,
    /// 16 bits each of grey and alpha.
    GrayAlpha16,
    /// 16 bits each of red, green, blue.
    Rgb16,
    /// 16 bits each of red, green, blue, alpha.
    Rgba16,
}

impl PixelFormat {
    /// Samples of one pixel, alpha included.
    pub const fn channels(self) -> usize {
        match self {
            Self::Gray8 | Self::Gray16 => 1,
            Self::GrayAlpha8 | Self::GrayAlpha16 => 2,
            Self::Rgb8 | Self::Rgb16 => 3,
            Self::Rgba8 | Self::Rgba16 => 4,
        }
    }

    /// Whether samples have 16 bits.
    pub const fn is_deep(self) -> bool {
        matches!(self, Self::Gray16 | Self::GrayAlpha16 | Self::Rgb16 | Self::Rgba16)
    }

    /// Bytes of one pixel.
    pub const fn bytes(self) -> usize {
        if self.is_deep() { 2 * self.channels() } else { self.channels() }
    }

    /// The format of so many samples of a pixel, of 16 bits or 8; none for other numbers than 1 to 4.
    pub const fn of(channels: usize, deep: bool) -> Option<Self> {
        Some(match (channels, deep) {
            (1, false) => Self::Gray8,
            (2, false) => Self::GrayAlpha8,
            (3, false) => Self::Rgb8,
            (4, false) => Self::Rgba8,
            (1, true) => Self::Gray16,
            (2, true) => Self::GrayAlpha16,
            (3, true) => Self::Rgb16,
            (4, true) => Self::Rgba16,
            _ => return None,
        })
    }
}

/// An image in memory: rows from the top, no padding; sRGB unless it carries a colour profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    format: PixelFormat,
    data: Vec<u8>,
    profile: Vec<u8>,
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
        Ok(Self { width, height, format, data, profile: Vec::new() })
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
            .hint("16-bit floats overflow in some decoders: try `--precision f32`"));
        }
        let byte = |v: f32| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
        let mut data = Vec::with_capacity(3 * n);
        for i in 0..n {
            data.extend([byte(planes[i]), byte(planes[n + i]), byte(planes[2 * n + i])]);
        }
        Self::new(width, height, PixelFormat::Rgb8, data)
    }

    /// With a colour profile (ICC.1) that says what its numbers mean; without bytes, with none.
    #[must_use]
    pub fn with_profile(mut self, profile: Vec<u8>) -> Self {
        self.profile = profile;
        self
    }

    /// Its colour profile, if it has one.
    pub fn profile(&self) -> Option<&[u8]> {
        Some(self.profile.as_slice()).filter(|p| !p.is_empty())
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
    fn a_format_follows_from_its_samples() {
        for deep in [false, true] {
            for channels in 1..=4 {
                let format = PixelFormat::of(channels, deep).unwrap();
                assert_eq!((format.channels(), format.is_deep()), (channels, deep));
                assert_eq!(format.bytes(), channels * if deep { 2 } else { 1 });
            }
        }
        assert!(PixelFormat::of(5, false).is_none());
    }

    #[test]
    fn data_of_another_size_is_refused() {
        assert!(Image::new(2, 2, PixelFormat::Rgb8, vec![0; 11]).is_err());
        assert!(Image::new(0, 2, PixelFormat::Rgb8, vec![]).is_err());
    }
}
