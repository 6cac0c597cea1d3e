//! Opens photos.

use super::Rgb;
use crate::issue::{Issue, IssueKind};
use atelier_pictures::{Flat, ImageFormat, Problem};
use std::path::Path;

/// Largest file that is read.
pub const MAX_FILE: u64 = 256 << 20;

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
    let fits = |width, height| f64::from(width) * f64::from(height) / 1e6 <= max_megapixels;
    let picture = atelier_pictures::decode(bytes, fits).map_err(|e| match e {
        Problem::TooLarge { .. } => Refusal {
            kind: IssueKind::TooLarge,
            reason: format!("{e}; at most {max_megapixels} are opened"),
        },
        Problem::Memory(_) => Refusal { kind: IssueKind::TooLarge, reason: e.to_string() },
        other => Refusal::bad(other.to_string()),
    })?;
    let format = name_of(picture.format);
    let Flat { width, height, rgb, .. } = picture.flat();
    Ok(Photo { pixels: Rgb { width, height, data: rgb }, format })
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

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageBuffer, codecs::jpeg::JpegEncoder};
    use std::io::Cursor;

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
}
