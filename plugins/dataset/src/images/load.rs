//! Opens photos: the format is told by the content, the size is checked before a pixel is decoded.

use super::Rgb;
use crate::issue::{Issue, IssueKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use std::path::Path;

/// Largest file that is read.
pub const MAX_FILE: u64 = 256 << 20;
/// Memory for what a file holds beside its pixels.
const MAX_BESIDES: u64 = 64 << 20;

/// A photo that was opened.
#[derive(Debug)]
pub struct Photo {
    /// Its pixels, upright as its EXIF mark says, over white where it was transparent.
    pub pixels: Rgb,
    /// Its format: `jpeg`, ...
    pub format: &'static str,
}

/// Why a photo cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Bad or too large.
    pub kind: IssueKind,
    /// Why.
    pub reason: String,
}

impl Refusal {
    /// A photo that cannot be read.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self { kind: IssueKind::BadImage, reason: reason.into() }
    }

    /// As an issue of a file.
    pub fn of(self, what: &str) -> Issue {
        Issue::new(self.kind, what, self.reason)
    }
}

/// The bytes of a photo's file.
///
/// # Errors
/// It cannot be read, is empty or larger than [`MAX_FILE`].
pub fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let found = std::fs::metadata(path).map_err(|e| Refusal::bad(e.to_string()))?;
    if !found.is_file() {
        return Err(Refusal::bad("it is not a file"));
    }
    match found.len() {
        0 => Err(Refusal::bad("the file has 0 bytes")),
        n if n > MAX_FILE => Err(Refusal {
            kind: IssueKind::TooLarge,
            reason: format!("the file has {n} bytes; at most {MAX_FILE} are read"),
        }),
        _ => std::fs::read(path).map_err(|e| Refusal::bad(e.to_string())),
    }
}

/// Decodes a photo.
///
/// # Errors
/// No image, damaged, cut off, or more than `max_megapixels` million pixels, which are not decoded then.
pub fn decode(bytes: &[u8], max_megapixels: f64) -> Result<Photo, Refusal> {
    let format = image::guess_format(bytes).map_err(|_| Refusal::bad(not_an_image(bytes)))?;
    if !format.reading_enabled() {
        return Err(Refusal::bad(format!("the format {format:?} is not read")));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(0));
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let megapixels = f64::from(width) * f64::from(height) / 1e6;
    if width == 0 || height == 0 {
        return Err(Refusal::bad("it has no pixels"));
    }
    if megapixels > max_megapixels {
        let reason =
            format!("{width}x{height} are {megapixels:.0} megapixels; at most {max_megapixels} are opened");
        return Err(Refusal { kind: IssueKind::TooLarge, reason });
    }
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err(Refusal::bad("the JPEG is cut off"));
    }
    decoder.set_limits(limits(decoder.total_bytes().saturating_mul(2))).map_err(damaged)?;
    // A wrong orientation mark is no reason to refuse the photo.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    let pixels = over_white(image);
    Ok(Photo { pixels, format: name_of(format) })
}

fn limits(room: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(room + MAX_BESIDES);
    limits
}

fn damaged(e: ImageError) -> Refusal {
    match e {
        ImageError::Limits(e) => Refusal { kind: IssueKind::TooLarge, reason: e.to_string() },
        other => Refusal::bad(format!("damaged or cut off: {other}")),
    }
}

fn not_an_image(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(8)];
    let hex: Vec<String> = head.iter().map(|b| format!("{b:02x}")).collect();
    format!("it is no image: it begins with {}", hex.join(" "))
}

/// Names of formats, with the endings that files of each may have.
const NAMES: [(ImageFormat, &str, &[&str]); 6] = [
    (ImageFormat::Jpeg, "jpeg", &["jpg", "jpeg", "jfif"]),
    (ImageFormat::Png, "png", &["png"]),
    (ImageFormat::WebP, "webp", &["webp"]),
    (ImageFormat::Bmp, "bmp", &["bmp"]),
    (ImageFormat::Tiff, "tiff", &["tif", "tiff"]),
    (ImageFormat::Gif, "gif", &["gif"]),
];

fn name_of(format: ImageFormat) -> &'static str {
    NAMES.iter().find(|n| n.0 == format).map_or("image", |n| n.1)
}

/// What is odd about a name whose ending claims another format.
pub fn ending_differs(name: &str, format: &str) -> Option<String> {
    let ending = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
    let fits = NAMES.iter().any(|n| n.1 == format && n.2.contains(&ending.as_str()));
    (!fits).then(|| format!("it is named .{ending} and is a {format}; it is read as what it is"))
}

/// Whether the end mark of a JPEG follows its pixels. The decoder fills what is missing with grey, silently.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, mark]) = bytes.get(at..at + 2) {
        match mark {
            0xff => at += 1,
            0xda => return bytes[at..].windows(2).rev().any(|w| w == [0xff, 0xd9]),
            0x01 | 0xd0..=0xd9 => at += 2,
            _ => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        }
    }
    false
}

fn over_white(image: DynamicImage) -> Rgb {
    let (width, height) = (image.width(), image.height());
    if !image.color().has_alpha() {
        return Rgb { width, height, data: image.into_rgb8().into_raw() };
    }
    let rgba = image.into_rgba8().into_raw();
    let blend = |c: u8, a: u8| ((u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
    let data = rgba
        .chunks_exact(4)
        .flat_map(|p| [blend(p[0], p[3]), blend(p[1], p[3]), blend(p[2], p[3])])
        .collect();
    Rgb { width, height, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Rgba, codecs::jpeg::JpegEncoder};

    fn jpeg(width: u32, height: u32) -> Vec<u8> {
        let image =
            image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, 90]));
        let mut out = Vec::new();
        image.write_with_encoder(JpegEncoder::new_with_quality(&mut out, 90)).unwrap();
        out
    }

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, ImageFormat::Png).unwrap();
        out.into_inner()
    }

    #[test]
    fn every_bad_file_is_refused_with_its_reason() {
        let whole = jpeg(64, 48);
        assert_eq!(decode(&whole, 50.0).unwrap().format, "jpeg");
        for (bytes, reason) in [
            (&b"<html>not found</html>"[..], "it is no image: it begins with 3c 68 74 6d"),
            (&whole[..whole.len() / 2], "cut off"),
            (&whole[..whole.len() - 2], "cut off"),
            (&whole[..30], "cut off"),
            (b"\x89PNG\r\n\x1a\n", "damaged"),
        ] {
            let e = decode(bytes, 50.0).unwrap_err();
            assert!(e.kind == IssueKind::BadImage && e.reason.contains(reason), "{e:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0.jpg"), "").unwrap();
        assert!(read(&dir.path().join("0.jpg")).unwrap_err().reason.contains("0 bytes"));
        assert!(read(dir.path()).unwrap_err().reason.contains("not a file"));
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        // 100 megapixels in half a megabyte.
        let bomb = png(&DynamicImage::ImageLuma8(ImageBuffer::new(10_000, 10_000)));
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        let e = decode(&bomb, 50.0).unwrap_err();
        assert!(e.kind == IssueKind::TooLarge && e.reason.contains("10000x10000"), "{e:?}");
    }

    #[test]
    fn a_wrong_ending_is_told_and_the_content_counts() {
        let photo = decode(&png(&DynamicImage::new_rgb8(3, 2)), 50.0).unwrap();
        assert_eq!((photo.format, photo.pixels.width), ("png", 3));
        assert!(ending_differs("a.jpg", photo.format).unwrap().contains("named .jpg and is a png"));
        assert_eq!(ending_differs("a.JPEG", decode(&jpeg(8, 8), 50.0).unwrap().format), None);
    }

    #[test]
    fn what_is_transparent_is_white() {
        let image = ImageBuffer::from_fn(2, 1, |x, _| Rgba([200, 0, 0, if x == 0 { 0 } else { 128 }]));
        let photo = decode(&png(&DynamicImage::ImageRgba8(image)), 50.0).unwrap();
        assert_eq!(photo.pixels.data, [255, 255, 255, 227, 127, 127]);
    }

    #[test]
    fn a_photo_is_turned_as_its_camera_says() {
        // An APP1 segment with one entry: orientation 6, turn right to view.
        let plain = jpeg(40, 20);
        let tiff =
            [b"II*\0\x08\0\0\0\x01\0".as_slice(), b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"].concat();
        let exif = [b"Exif\0\0".as_slice(), &tiff].concat();
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let turned = [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat();
        let photo = decode(&turned, 50.0).unwrap().pixels;
        assert_eq!((photo.width, photo.height), (20, 40));
        let straight = decode(&plain, 50.0).unwrap().pixels;
        assert_eq!(photo.at(19, 0), straight.at(0, 0));
    }
}
