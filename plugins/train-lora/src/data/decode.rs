//! From files to pixels, with what was decided about them.

use atelier_pictures::{Flat, Problem};
use atelier_sdk::Result;
use std::path::Path;

/// Largest file that is read.
const MAX_FILE: u64 = 256 << 20;

/// An image: three bytes a pixel, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub rgb: Vec<u8>,
    /// What was decided about it.
    pub remarks: Vec<&'static str>,
}

/// The bytes of a file, or why it is not read.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let found = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?;
    match found.len() {
        _ if !found.is_file() => Err("it is not a file".into()),
        0 => Err("the file has 0 bytes".into()),
        n if n > MAX_FILE => Err(format!("the file has {n} bytes; at most {MAX_FILE} are read")),
        _ => std::fs::read(path).map_err(|e| format!("cannot be read: {e}")),
    }
}

/// The pixels that the head of a file claims to have.
pub fn claimed(bytes: &[u8]) -> Result<u64, String> {
    let (width, height) = atelier_pictures::claimed(bytes).map_err(|e| e.to_string())?;
    Ok(u64::from(width) * u64::from(height))
}

/// Decodes an image: upright as its camera says, over white where it is transparent.
///
/// More than `max_megapixels` are refused by the head, before there is memory for them.
pub fn decode(bytes: &[u8], max_megapixels: f64) -> Result<Picture, String> {
    let fits = |width, height| f64::from(width) * f64::from(height) / 1e6 <= max_megapixels;
    let picture = atelier_pictures::decode(bytes, fits).map_err(|e| match e {
        Problem::TooLarge { .. } => format!("{e}; at most {max_megapixels} are opened"),
        other => other.to_string(),
    })?;
    let mut remarks = Vec::new();
    if picture.animated {
        remarks.push("is animated; its first frame is taken");
    }
    let Flat { width, height, rgb, was_transparent } = picture.flat();
    if was_transparent {
        remarks.push("is transparent in places; it is laid over white");
    }
    Ok(Picture { width, height, rgb, remarks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{encode, png};
    use image::{ImageBuffer, ImageFormat, Rgba};

    #[test]
    fn too_many_pixels_are_refused_with_the_limit() {
        let reason = decode(&png(40, 30), 0.001).unwrap_err();
        assert!(reason.contains("40x30") && reason.contains("at most 0.001"), "{reason}");
        assert_eq!(claimed(&png(40, 30)), Ok(1200));
    }

    #[test]
    fn what_was_decided_about_an_image_is_told() {
        let clear = ImageBuffer::from_pixel(3, 1, Rgba([200u8, 0, 0, 128]));
        let picture = decode(&encode(clear, ImageFormat::Png), 1.0).unwrap();
        assert_eq!(picture.remarks, ["is transparent in places; it is laid over white"]);
        let gif = include_bytes!("../../../../tests/fixtures/images/animated.gif");
        assert_eq!(decode(gif, 1.0).unwrap().remarks[0], "is animated; its first frame is taken");
    }
}
