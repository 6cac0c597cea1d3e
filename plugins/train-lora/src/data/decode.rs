//! From the bytes of a file to pixels: the format is told by the content, the size is checked before a pixel is decoded.

use atelier_sdk::Result;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder, ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
};
use std::io::Cursor;
use std::path::Path;

/// Largest file that is read.
const MAX_FILE: u64 = 256 << 20;
/// Memory for what a file holds beside its pixels: a colour profile of kilobytes can unfold to gigabytes.
const MAX_BESIDES: u64 = 64 << 20;

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

/// A decoder that has read the head, and nothing else.
fn open(bytes: &[u8]) -> Result<(ImageFormat, impl ImageDecoder + '_), String> {
    let format = image::guess_format(bytes).map_err(|_| not_an_image(bytes))?;
    if !format.reading_enabled() {
        let name = format!("{format:?}").to_uppercase();
        return Err(format!("the format {name} is not read: convert it to PNG or JPEG"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(0));
    Ok((format, reader.into_decoder().map_err(damaged)?))
}

/// The pixels that the head of a file claims to have.
pub fn claimed(bytes: &[u8]) -> Result<u64, String> {
    let (width, height) = open(bytes)?.1.dimensions();
    Ok(u64::from(width) * u64::from(height))
}

/// Decodes an image: upright as its camera says, over white where it is transparent.
///
/// More than `max_megapixels` are refused by the head, before there is memory for them.
pub fn decode(bytes: &[u8], max_megapixels: f64) -> Result<Picture, String> {
    let (format, mut decoder) = open(bytes)?;
    let (width, height) = decoder.dimensions();
    let megapixels = f64::from(width) * f64::from(height) / 1e6;
    if width == 0 || height == 0 {
        return Err("it has no pixels".into());
    }
    if megapixels > max_megapixels {
        return Err(format!(
            "{width}x{height} are {megapixels:.0} megapixels; at most {max_megapixels} are opened"
        ));
    }
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err("its samples are floats, which have no agreed meaning: save it with 8 or 16 bits".into());
    }
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err("the JPEG is cut off".into());
    }
    let room = decoder.total_bytes().saturating_mul(2);
    decoder.set_limits(limits(room)).map_err(damaged)?;
    // A wrong orientation mark is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    let mut remarks = Vec::new();
    if is_animated(format, bytes, room) {
        remarks.push("is animated; its first frame is taken");
    }
    Ok(opaque(image, remarks))
}

fn limits(room: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(room.saturating_add(MAX_BESIDES));
    limits
}

fn damaged(e: ImageError) -> String {
    match e {
        ImageError::Limits(_) => "it needs more memory than an image of its size may take".into(),
        ImageError::Unsupported(e) => format!("it is of a rare kind, which is not read: {e}"),
        other => format!("damaged or cut off: {other}"),
    }
}

fn not_an_image(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(12)];
    if head.get(4..8) == Some(b"ftyp") {
        return "the format HEIC or a film is not read: convert it to PNG or JPEG".into();
    }
    let hex: Vec<String> = head.iter().map(|b| format!("{b:02x}")).collect();
    format!("it is no image: it begins with {}", hex.join(" "))
}

/// Whether the end mark of a JPEG is there. Its decoder fills what is missing with grey and says nothing; those of the
/// other formats refuse.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|w| w[0] == 0xff && w[1] != 0xff) {
        let mark = rest[at + 1];
        rest = &rest[at + 2..];
        match mark {
            0xd9 => return true,
            // Within the pixels: an escaped 255, a restart. Elsewhere: the start of the file, and nothing.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            // Anything else has a length, and may hold whole pictures with end marks of their own.
            _ => {
                let [high, low, ..] = rest else { return false };
                let Some(after) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else {
                    return false;
                };
                rest = after;
            }
        }
    }
    false
}

/// Whether there are more frames than the one that was decoded; what cannot tell has none.
fn is_animated(format: ImageFormat, bytes: &[u8], room: u64) -> bool {
    let bytes = Cursor::new(bytes);
    match format {
        ImageFormat::Png => PngDecoder::new(bytes).is_ok_and(|d| d.is_apng().unwrap_or(false)),
        ImageFormat::WebP => WebPDecoder::new(bytes).is_ok_and(|d| d.has_animation()),
        ImageFormat::Gif => GifDecoder::new(bytes).is_ok_and(|mut d| {
            let limited = d.set_limits(limits(room)).is_ok();
            limited && d.into_frames().take(2).filter(|f| f.is_ok()).count() == 2
        }),
        _ => false,
    }
}

fn opaque(image: DynamicImage, mut remarks: Vec<&'static str>) -> Picture {
    let (width, height) = (image.width(), image.height());
    if !image.color().has_alpha() {
        return Picture { width, height, rgb: image.into_rgb8().into_raw(), remarks };
    }
    let rgba = image.into_rgba8().into_raw();
    if rgba.chunks_exact(4).any(|p| p[3] != 255) {
        remarks.push("is transparent in places; it is laid over white");
    }
    let blend = |c: u8, a: u8| ((u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    rgba.chunks_exact(4).for_each(|p| rgb.extend([blend(p[0], p[3]), blend(p[1], p[3]), blend(p[2], p[3])]));
    Picture { width, height, rgb, remarks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{encode, pattern, png};
    use image::{GrayImage, ImageBuffer, Luma, Rgb, Rgba};

    const ALL: [ImageFormat; 6] = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::Gif,
    ];

    #[test]
    fn every_format_is_read_and_a_cut_one_refused() {
        for format in ALL {
            let bytes = encode(pattern(64, 48), format);
            let picture = decode(&bytes, 1.0).unwrap();
            assert_eq!(
                (picture.width, picture.height, picture.rgb.len()),
                (64, 48, 64 * 48 * 3),
                "{format:?}"
            );
            assert!(picture.remarks.is_empty(), "{format:?} {:?}", picture.remarks);
            if !matches!(format, ImageFormat::Jpeg | ImageFormat::Gif) {
                assert_eq!(picture.rgb, *pattern(64, 48).as_raw(), "{format:?}");
            }
            for cut in [13, bytes.len() / 3, bytes.len() * 9 / 10] {
                let reason = decode(&bytes[..cut], 1.0).unwrap_err();
                assert!(
                    reason.contains("cut off") || reason.contains("no image"),
                    "{format:?} {cut} {reason}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_image_says_what_it_is() {
        for (bytes, words) in [
            (&b"<html>"[..], "no image: it begins with 3c 68 74 6d 6c 3e"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
            (b"", "no image"),
        ] {
            let reason = decode(bytes, 1.0).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_head() {
        let mut bomb = png(4, 4);
        bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        let reason = decode(&bomb, 100.0).unwrap_err();
        assert!(reason.contains("50000x50000 are 2500 megapixels"), "{reason}");
        assert_eq!(claimed(&bomb), Ok(2_500_000_000));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |c: u32, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 };
        !bytes.iter().fold(!0, |crc, b| (0..8).fold(crc ^ u32::from(*b), step))
    }

    #[test]
    fn every_kind_of_pixel_becomes_rgb() {
        let clear = ImageBuffer::from_fn(3, 1, |x, _| Rgba([200u8, 0, 0, [0, 128, 255][x as usize]]));
        let picture = decode(&encode(clear, ImageFormat::Png), 1.0).unwrap();
        assert_eq!(picture.rgb, [255, 255, 255, 227, 127, 127, 200, 0, 0]);
        assert_eq!(picture.remarks.len(), 1);
        let grey = GrayImage::from_pixel(1, 1, Luma([7]));
        assert_eq!(decode(&encode(grey, ImageFormat::Png), 1.0).unwrap().rgb, [7, 7, 7]);
        let deep = ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([65535, 128, 129]));
        assert_eq!(decode(&encode(deep, ImageFormat::Tiff), 1.0).unwrap().rgb, [255, 0, 1]);
        let floats = image::Rgb32FImage::from_pixel(1, 1, Rgb([0.5; 3]));
        assert!(decode(&encode(floats, ImageFormat::Tiff), 1.0).unwrap_err().contains("floats"));
    }

    #[test]
    fn a_photo_is_turned_as_its_camera_was_held() {
        let plain = encode(pattern(40, 20), ImageFormat::Jpeg);
        let tiff =
            [b"II*\0\x08\0\0\0\x01\0".as_slice(), b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"].concat();
        let exif = [b"Exif\0\0".as_slice(), &tiff].concat();
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let turned = [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat();
        let (turned, plain) = (decode(&turned, 1.0).unwrap(), decode(&plain, 1.0).unwrap());
        assert_eq!((turned.width, turned.height), (20, 40));
        // Its top right corner was the top left one.
        assert_eq!(turned.rgb[19 * 3..20 * 3], plain.rgb[..3]);
    }

    #[test]
    fn of_an_animation_the_first_frame_counts_and_it_is_told() {
        for bytes in [
            &include_bytes!("../../../../tests/fixtures/images/animated.gif")[..],
            include_bytes!("../../../../tests/fixtures/images/animated.webp"),
            include_bytes!("../../../../tests/fixtures/images/animated.png"),
        ] {
            let picture = decode(bytes, 1.0).unwrap();
            assert_eq!(picture.rgb[..3], [255, 0, 0]);
            assert_eq!(picture.remarks, ["is animated; its first frame is taken"]);
        }
    }

    /// Adobe's programs store the inks inverted; read without that, red would be black.
    #[test]
    fn a_jpeg_for_print_has_the_colours_of_its_inks() {
        let picture = decode(include_bytes!("../../../../tests/fixtures/images/cmyk.jpg"), 1.0).unwrap();
        for (found, wanted) in picture.rgb[..3].iter().zip([255u8, 0, 0]) {
            assert!(found.abs_diff(wanted) <= 4, "{:?}", &picture.rgb[..3]);
        }
    }
}
