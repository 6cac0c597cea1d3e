//! To a square: the whole photo, as large as it fits, in the middle of its background.

use super::Rgb;
use super::measure::background;
use crate::definition::Pad;
use atelier_sdk::{Result, ResultExt};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Resizes with Lanczos (3 lobes, on sRGB values, as Pillow does).
///
/// # Errors
/// None for images with pixels; those of the library.
pub fn lanczos(image: &Rgb, width: u32, height: u32) -> Result<Rgb> {
    if (width, height) == (image.width, image.height) {
        return Ok(image.clone());
    }
    let what = "resizing";
    let source = ImageRef::new(image.width, image.height, &image.data, PixelType::U8x3).internal(what)?;
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut target, &options).internal(what)?;
    Ok(Rgb { width, height, data: target.into_vec() })
}

/// The size of a photo of `width` x `height` inside a square, of at least 1 pixel.
pub fn fit(width: u32, height: u32, side: u32) -> (u32, u32) {
    let long = f64::from(width.max(height));
    let scaled = |v: u32| ((f64::from(v) * f64::from(side) / long).round() as u32).clamp(1, side);
    (scaled(width), scaled(height))
}

/// A photo as a square of `side` pixels.
///
/// # Errors
/// Those of [`lanczos`].
pub fn square(image: &Rgb, side: u32, pad: Pad) -> Result<Rgb> {
    let (width, height) = fit(image.width, image.height, side);
    let small = lanczos(image, width, height)?;
    if (width, height) == (side, side) {
        return Ok(small);
    }
    let colour = match pad {
        Pad::White => [255; 3],
        Pad::Own => background(image).0,
    };
    let mut out = Rgb::plain(side, side, colour);
    let (left, top) = ((side - width) as usize / 2, (side - height) as usize / 2);
    for (y, row) in small.data.chunks_exact(3 * width as usize).enumerate() {
        let at = ((top + y) * side as usize + left) * 3;
        out.data[at..at + row.len()].copy_from_slice(row);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: u32, height: u32) -> Rgb {
        let mut image = Rgb::plain(width, height, [0; 3]);
        for (i, p) in image.data.chunks_exact_mut(3).enumerate() {
            let (x, y) = (i as u32 % width, i as u32 / width);
            p.copy_from_slice(&[(x * 37 + y * 11) as u8, (x * x * 3 + y * 29) as u8, (x * y * 5 + 40) as u8]);
        }
        image
    }

    #[test]
    fn a_square_holds_the_whole_photo_on_its_own_background() {
        let mut photo = Rgb::plain(60, 80, [230, 231, 232]);
        photo.data[(40 * 60 + 30) * 3..][..3].fill(0);
        let square = square(&photo, 128, Pad::Own).unwrap();
        assert_eq!((square.width, square.height), (128, 128));
        for (x, y) in [(0, 0), (127, 127), (15, 64), (112, 64), (64, 2)] {
            assert_eq!(square.at(x, y), [230, 231, 232], "{x} {y}");
        }
        assert!(square.at(64, 64)[0] < 200);
        assert_eq!(super::square(&photo, 128, Pad::White).unwrap().at(0, 64), [255; 3]);
    }

    #[test]
    fn sizes_keep_the_aspect_and_never_vanish() {
        assert_eq!(fit(60, 80, 512), (384, 512));
        assert_eq!(fit(540, 720, 512), (384, 512));
        assert_eq!(fit(10_000, 1, 64), (64, 1));
        assert_eq!(fit(512, 512, 512), (512, 512));
    }

    /// Pillow 13's `resize((9, 7), Image.Resampling.LANCZOS)` of the same 12x10 pattern; at most 1 of 255 apart.
    #[test]
    fn lanczos_is_that_of_pillow() {
        let expected: Vec<u8> =
            serde_json::from_str(include_str!("../../assets/pillow_lanczos.json")).unwrap();
        let ours = lanczos(&pattern(12, 10), 9, 7).unwrap();
        assert_eq!(ours.data.len(), expected.len());
        for (i, (a, b)) in ours.data.iter().zip(&expected).enumerate() {
            assert!(a.abs_diff(*b) <= 1, "{i}: {a} {b}");
        }
    }
}
