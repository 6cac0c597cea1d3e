//! To a square: the whole photo as large as it fits, or what it shows, in the middle of its background.

use super::Rgb;
use super::measure::{Background, background, product_box};
use crate::definition::{Frame, ImageRule, Pad};
use atelier_sdk::{Result, ResultExt};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Resizes with Lanczos (3 lobes, on sRGB values, as Pillow does).
///
/// # Errors
/// None for images with pixels; those of the library.
pub fn lanczos(image: &Rgb, width: u32, height: u32) -> Result<Rgb> {
    part(image, [0.0, 0.0, f64::from(image.width), f64::from(image.height)], width, height)
}

/// [`lanczos`] of a part of an image: left, top, width, height in its pixels.
fn part(image: &Rgb, [left, top, wide, high]: [f64; 4], width: u32, height: u32) -> Result<Rgb> {
    if (wide, high) == (f64::from(width), f64::from(height)) && (width, height) == (image.width, image.height)
    {
        return Ok(image.clone());
    }
    let what = "resizing";
    let source = ImageRef::new(image.width, image.height, &image.data, PixelType::U8x3).internal(what)?;
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().crop(left, top, wide, high);
    let options = options.resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut target, &options).internal(what)?;
    Ok(Rgb { width, height, data: target.into_vec() })
}

/// The size of a photo of `width` x `height` inside a square, of at least 1 pixel.
pub fn fit(width: u32, height: u32, side: u32) -> (u32, u32) {
    let long = f64::from(width.max(height));
    let scaled = |v: u32| ((f64::from(v) * f64::from(side) / long).round() as u32).clamp(1, side);
    (scaled(width), scaled(height))
}

/// A photo as a square of the rule's size.
///
/// # Errors
/// Those of [`lanczos`].
pub fn square(image: &Rgb, rule: &ImageRule) -> Result<Rgb> {
    let side = rule.size;
    let product = match rule.frame {
        Frame::Photo => None,
        Frame::Product => around_product(image, rule.margin),
    };
    let (small, left, top) = match product {
        Some(frame) => inside(image, frame, side)?,
        None => {
            let (width, height) = fit(image.width, image.height, side);
            (lanczos(image, width, height)?, (side - width) / 2, (side - height) / 2)
        }
    };
    if (small.width, small.height) == (side, side) {
        return Ok(small);
    }
    let colour = match rule.pad {
        Pad::White => [255; 3],
        Pad::Own => background(image).0,
    };
    let mut out = Rgb::plain(side, side, colour);
    for (y, row) in small.data.chunks_exact(3 * small.width as usize).enumerate() {
        let at = ((top as usize + y) * side as usize + left as usize) * 3;
        out.data[at..at + row.len()].copy_from_slice(row);
    }
    Ok(out)
}

/// The square around the product, in pixels of the photo and maybe reaching out of it: left, top, side. None if the
/// background is not of one colour, since all that differs from it is then no product, or if there is nothing else.
fn around_product(image: &Rgb, margin: f64) -> Option<[f64; 3]> {
    let (border, _, kind) = background(image);
    if !matches!(kind, Background::White | Background::Plain) {
        return None;
    }
    let (w, h) = (f64::from(image.width), f64::from(image.height));
    let [left, top, right, bottom] = product_box(image, border)?.map(f64::from);
    let (left, right, top, bottom) = (left * w, right * w, top * h, bottom * h);
    let side = (right - left).max(bottom - top) / (1.0 - 2.0 * margin);
    Some([(left + right - side) / 2.0, (top + bottom - side) / 2.0, side])
}

/// What of the photo is inside of a square, resized to its place in a square of `to` pixels, and that place.
fn inside(image: &Rgb, [left, top, side]: [f64; 3], to: u32) -> Result<(Rgb, u32, u32)> {
    let axis = |start: f64, length: u32| {
        let (from, end) = (start.max(0.0), (start + side).min(f64::from(length)));
        let at = |v: f64| (((v - start) * f64::from(to) / side).round() as u32).min(to);
        let first = at(from).min(to - 1);
        (from, end - from, first, at(end).max(first + 1) - first)
    };
    let (x, wide, left, width) = axis(left, image.width);
    let (y, high, top, height) = axis(top, image.height);
    Ok((part(image, [x, y, wide, high], width, height)?, left, top))
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
        let own = ImageRule { size: 128, ..ImageRule::default() };
        let square = square(&photo, &own).unwrap();
        assert_eq!((square.width, square.height), (128, 128));
        for (x, y) in [(0, 0), (127, 127), (15, 64), (112, 64), (64, 2)] {
            assert_eq!(square.at(x, y), [230, 231, 232], "{x} {y}");
        }
        assert!(square.at(64, 64)[0] < 200);
        let white = ImageRule { pad: Pad::White, ..own };
        assert_eq!(super::square(&photo, &white).unwrap().at(0, 64), [255; 3]);
    }

    fn boxed(photo: (u32, u32), product: [u32; 4]) -> Rgb {
        let mut image = Rgb::plain(photo.0, photo.1, [240; 3]);
        for y in product[1]..product[3] {
            for x in product[0]..product[2] {
                let at = ((y * photo.0 + x) * 3) as usize;
                image.data[at..at + 3].fill(20);
            }
        }
        image
    }

    /// Columns and rows of a square that are dark: first and last + 1.
    fn dark(square: &Rgb) -> [u32; 4] {
        let side = square.width;
        let all = || (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
        let of = |pick: fn((u32, u32)) -> u32| {
            let found = || all().filter(|p| square.at(p.0, p.1)[0] < 130).map(pick);
            (found().min().unwrap(), found().max().unwrap() + 1)
        };
        let ((left, right), (top, bottom)) = (of(|p| p.0), of(|p| p.1));
        [left, top, right, bottom]
    }

    #[test]
    fn a_product_fills_the_square_but_for_its_margin() {
        let rule = ImageRule { size: 200, frame: Frame::Product, margin: 0.1, ..ImageRule::default() };
        // In the middle, at an edge of which the square reaches out, and larger than high.
        for (photo, product) in [
            ((300, 400), [100, 150, 200, 250]),
            ((300, 400), [10, 300, 110, 399]),
            ((160, 90), [20, 30, 100, 60]),
        ] {
            let square = square(&boxed(photo, product), &rule).unwrap();
            let [left, top, right, bottom] = dark(&square);
            assert!(left.abs_diff(20) <= 1 && right.abs_diff(180) <= 1, "{photo:?} {left} {right}");
            assert!((top + bottom).abs_diff(200) <= 2, "{photo:?} {top} {bottom}");
            assert_eq!(square.at(0, 0), [240; 3]);
        }
    }

    #[test]
    fn a_photo_without_a_plain_background_is_kept_whole() {
        let product = ImageRule { size: 64, frame: Frame::Product, ..ImageRule::default() };
        let whole = ImageRule { frame: Frame::Photo, ..product.clone() };
        for photo in [pattern(40, 60), Rgb::plain(30, 20, [9; 3])] {
            assert_eq!(square(&photo, &product).unwrap(), square(&photo, &whole).unwrap());
        }
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
