//! Pictures without alpha, in 8 bits.

use crate::Picture;

/// A picture laid over white: three bytes a pixel, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flat {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Red, green, blue.
    pub rgb: Vec<u8>,
    /// Whether white shows through anywhere.
    pub was_transparent: bool,
}

impl Picture {
    /// Lays it over white.
    pub fn flat(self) -> Flat {
        let (width, height) = (self.image.width(), self.image.height());
        if !self.image.color().has_alpha() {
            return Flat { width, height, rgb: self.image.into_rgb8().into_raw(), was_transparent: false };
        }
        let rgba = self.image.into_rgba8().into_raw();
        let was_transparent = rgba.chunks_exact(4).any(|p| p[3] != 255);
        let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
        rgba.chunks_exact(4).for_each(|p| rgb.extend([over(p[0], p[3]), over(p[1], p[3]), over(p[2], p[3])]));
        Flat { width, height, rgb, was_transparent }
    }
}

/// A sample over white, rounded.
fn over(sample: u8, alpha: u8) -> u8 {
    let (sample, alpha) = (u32::from(sample), u32::from(alpha));
    ((sample * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
