//! Photos: found, opened within limits, measured, resized.

pub mod duplicates;
pub mod find;
pub mod load;
pub mod measure;
pub mod png_file;
pub mod resize;
pub mod unlike;

use sha2::{Digest, Sha256};

/// Pixels: rows from the top, 3 bytes each, sRGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `3 * width * height` bytes.
    pub data: Vec<u8>,
}

impl Rgb {
    /// An image of one colour.
    pub fn plain(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Self { width, height, data: colour.repeat(width as usize * height as usize) }
    }

    /// A pixel.
    pub fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let i = (y as usize * self.width as usize + x as usize) * 3;
        [self.data[i], self.data[i + 1], self.data[i + 2]]
    }
}

/// The digest of some bytes, as people write it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
