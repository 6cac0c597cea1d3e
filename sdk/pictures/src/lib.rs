//! Image files to pixels: the format is told by the content, the size is checked before there is memory for it, and
//! what is damaged or cut off is refused.
//!
//! All that decodes pictures does it here. That is one behaviour for everyone, and the decoders, which are generic, are
//! compiled once.

mod animation;
mod flat;
mod jpeg;
mod problem;

pub use flat::Flat;
pub use image::{DynamicImage, ImageError, ImageFormat};
pub use problem::Problem;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;

/// How many bytes of a file tell its format.
pub const HEAD: usize = 32;

/// Memory for what a file holds beside its pixels: a colour profile of kilobytes can unfold to gigabytes.
const MAX_BESIDES: u64 = 64 << 20;

/// A decoded picture, upright as its camera says.
#[derive(Debug)]
pub struct Picture {
    /// The pixels, as they are stored.
    pub image: DynamicImage,
    /// What the file is, whatever its name says.
    pub format: ImageFormat,
    /// Its colour profile (ICC.1), not checked.
    pub profile: Option<Vec<u8>>,
    /// Whether more frames follow the one that was decoded.
    pub animated: bool,
}

/// The format of a file that begins with `head`, of which [`HEAD`] bytes are enough.
///
/// # Errors
/// It is no image, or one of a format that is not read.
pub fn sniff(head: &[u8]) -> Result<ImageFormat, Problem> {
    match image::guess_format(head) {
        Ok(format) if format.reading_enabled() => Ok(format),
        Ok(format) => Err(Problem::OtherFormat(format!("{format:?}").to_uppercase())),
        Err(_) => Err(problem::unknown(head)),
    }
}

/// Width and height that the head of a file claims.
///
/// # Errors
/// As [`decode`], but for what only its pixels would show.
pub fn claimed(bytes: &[u8]) -> Result<(u32, u32), Problem> {
    Ok(open(bytes)?.1.dimensions())
}

/// Decodes an image; `fits` says of a width and height in pixels whether they may be opened.
///
/// # Errors
/// It is no image, of a format or kind that is not read, damaged, cut off, or does not fit: then no pixel was decoded.
pub fn decode(bytes: &[u8], fits: impl FnOnce(u32, u32) -> bool) -> Result<Picture, Problem> {
    let (width, height) = claimed(bytes)?;
    if width == 0 || height == 0 {
        return Err(Problem::NoPixels { width, height });
    }
    if !fits(width, height) {
        return Err(Problem::TooLarge { width, height });
    }
    decode_fitting(bytes)
}

/// A decoder that has read the head, and nothing else.
fn open(bytes: &[u8]) -> Result<(ImageFormat, impl ImageDecoder + '_), Problem> {
    let format = sniff(bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(0));
    Ok((format, reader.into_decoder()?))
}

fn decode_fitting(bytes: &[u8]) -> Result<Picture, Problem> {
    let (format, mut decoder) = open(bytes)?;
    // Most are linear light, some exceed white, and we would have to guess.
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(Problem::Floats(format));
    }
    if format == ImageFormat::Jpeg && !jpeg::is_whole(bytes) {
        return Err(Problem::CutOff);
    }
    // Besides the pixels of the result, some decoders keep them in another layout meanwhile.
    let room = decoder.total_bytes().saturating_mul(2);
    decoder.set_limits(limits(room))?;
    // A wrong orientation mark is no reason to refuse a picture, nor is a broken profile.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().unwrap_or(None);
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    let animated = animation::follows(format, bytes, limits(room));
    Ok(Picture { image, format, profile, animated })
}

/// No limit on the sides: those are checked by the caller, who can say how large the image is.
fn limits(room: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(room.saturating_add(MAX_BESIDES));
    limits
}

#[cfg(test)]
mod tests;
