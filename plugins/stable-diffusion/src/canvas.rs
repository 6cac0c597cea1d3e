//! Pixels before and after sampling: sizes, masks, what is cut out and pasted back.

use crate::image_params::{Fit, Inpaint, Sides};
use atelier_sdk::{Error, Image, PixelFormat, Result};
use image::imageops::{self, FilterType};
use image::{GrayImage, Rgb, RgbImage};

/// An image of the sdk in the colours that networks take; what is transparent is laid on white.
///
/// # Errors
/// A pixel format that is not known.
pub fn rgb(image: &Image) -> Result<RgbImage> {
    let data = match image.format() {
        PixelFormat::Rgb8 => image.data().to_vec(),
        PixelFormat::Gray8 => image.data().iter().flat_map(|v| [*v; 3]).collect(),
        PixelFormat::Rgba8 => image.data().chunks_exact(4).flat_map(on_white).collect(),
        other => return Err(Error::internal(format!("an image of format {other:?}"))),
    };
    RgbImage::from_raw(image.width(), image.height(), data)
        .ok_or_else(|| Error::internal("an image whose size and data differ"))
}

fn on_white(p: &[u8]) -> [u8; 3] {
    let alpha = u32::from(p[3]);
    [0, 1, 2].map(|i| ((u32::from(p[i]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

/// A mask in grey: white is drawn anew.
///
/// # Errors
/// A pixel format that is not known.
pub fn mask(image: &Image, invert: bool) -> Result<GrayImage> {
    let mut gray = match image.format() {
        // A mask may be drawn in transparency: what can be seen through stays.
        PixelFormat::Rgba8 if image.data().chunks_exact(4).any(|p| p[3] < 255) => {
            let alpha = image.data().chunks_exact(4).map(|p| p[3]).collect();
            GrayImage::from_raw(image.width(), image.height(), alpha)
                .ok_or_else(|| Error::internal("an image whose size and data differ"))?
        }
        _ => imageops::grayscale(&rgb(image)?),
    };
    if invert {
        imageops::invert(&mut gray);
    }
    Ok(gray)
}

/// A sampled image as the sdk has it.
///
/// # Errors
/// An empty image.
pub fn finished(image: RgbImage) -> Result<Image> {
    Image::new(image.width(), image.height(), PixelFormat::Rgb8, image.into_raw())
}

/// The part of an image that `fit` keeps for a size: x, y, width, height.
fn kept(from: (u32, u32), to: (u32, u32), fit: Fit) -> (u32, u32, u32, u32) {
    if fit == Fit::Stretch {
        return (0, 0, from.0, from.1);
    }
    let scale = (f64::from(to.0) / f64::from(from.0)).max(f64::from(to.1) / f64::from(from.1));
    let side = |to: u32, from: u32| ((f64::from(to) / scale).round() as u32).clamp(1, from);
    let (w, h) = (side(to.0, from.0), side(to.1, from.1));
    ((from.0 - w) / 2, (from.1 - h) / 2, w, h)
}

/// Brings an image to a size.
pub fn fitted(image: &RgbImage, size: (u32, u32), fit: Fit) -> RgbImage {
    let (x, y, w, h) = kept(image.dimensions(), size, fit);
    scaled(&imageops::crop_imm(image, x, y, w, h).to_image(), size)
}

/// Brings a mask to a size, as [`fitted`] does its image.
pub fn fitted_mask(mask: &GrayImage, size: (u32, u32), fit: Fit) -> GrayImage {
    let (x, y, w, h) = kept(mask.dimensions(), size, fit);
    let part = imageops::crop_imm(mask, x, y, w, h).to_image();
    if part.dimensions() == size {
        part
    } else {
        imageops::resize(&part, size.0, size.1, FilterType::Triangle)
    }
}

/// Scales an image with Lanczos' filter.
pub fn scaled(image: &RgbImage, size: (u32, u32)) -> RgbImage {
    if image.dimensions() == size {
        return image.clone();
    }
    imageops::resize(image, size.0, size.1, FilterType::Lanczos3)
}

/// Softens a mask by a Gaussian of this standard deviation.
pub fn softened(mask: &GrayImage, sigma: f32) -> GrayImage {
    if sigma > 0.0 { imageops::blur(mask, sigma) } else { mask.clone() }
}

/// A part of an image: x, y, width, height.
pub type Region = (u32, u32, u32, u32);

/// The surroundings of a mask: its bounding box, `padding` wider on each side, and brought to the shape of `size`
/// as far as the image allows. None if the mask is black all over.
pub fn surroundings(mask: &GrayImage, padding: u32, size: (u32, u32)) -> Option<Region> {
    let (w, h) = mask.dimensions();
    let mut bounds: Option<(u32, u32, u32, u32)> = None;
    for (x, y, _) in mask.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 0) {
        let b = bounds.get_or_insert((x, y, x, y));
        *b = (b.0.min(x), b.1.min(y), b.2.max(x), b.3.max(y));
    }
    let (x0, y0, x1, y1) = bounds?;
    let (x0, y0) = (x0.saturating_sub(padding), y0.saturating_sub(padding));
    let (x1, y1) = ((x1 + 1 + padding).min(w), (y1 + 1 + padding).min(h));
    let (mut rw, mut rh) = (x1 - x0, y1 - y0);
    let shape = f64::from(size.0) / f64::from(size.1);
    if f64::from(rw) / f64::from(rh) < shape {
        rw = ((f64::from(rh) * shape).round() as u32).clamp(rw, w);
    } else {
        rh = ((f64::from(rw) / shape).round() as u32).clamp(rh, h);
    }
    // Grown on both sides alike, and moved back inside.
    let x = x0.saturating_sub((rw - (x1 - x0)) / 2).min(w - rw);
    let y = y0.saturating_sub((rh - (y1 - y0)) / 2).min(h - rh);
    Some((x, y, rw, rh))
}

/// An image with `sides` added, their pixels those of its edge, and the mask of what was added.
pub fn extended(image: &RgbImage, sides: Sides) -> (RgbImage, GrayImage) {
    let (w, h) = image.dimensions();
    let even = |n: u32| n.max(8) / 8 * 8;
    let (nw, nh) = (even(w + sides.left + sides.right), even(h + sides.top + sides.bottom));
    let inside = |v: u32, before: u32, n: u32| v.saturating_sub(before).min(n - 1);
    let out =
        RgbImage::from_fn(nw, nh, |x, y| *image.get_pixel(inside(x, sides.left, w), inside(y, sides.top, h)));
    let new = |v: u32, before: u32, n: u32| v < before || v >= before + n;
    let mask = GrayImage::from_fn(nw, nh, |x, y| {
        image::Luma([if new(x, sides.left, w) || new(y, sides.top, h) { 255 } else { 0 }])
    });
    (out, mask)
}

/// `new` over `old` where the mask is white.
pub fn pasted(old: &RgbImage, new: &RgbImage, mask: &GrayImage, at: (u32, u32)) -> RgbImage {
    let mut out = old.clone();
    for (x, y, p) in new.enumerate_pixels() {
        let (ox, oy) = (x + at.0, y + at.1);
        if ox >= out.width() || oy >= out.height() {
            continue;
        }
        let m = u32::from(mask.get_pixel(ox, oy).0[0]);
        let o = out.get_pixel_mut(ox, oy);
        *o =
            Rgb([0, 1, 2]
                .map(|i| ((u32::from(p.0[i]) * m + u32::from(o.0[i]) * (255 - m) + 127) / 255) as u8));
    }
    out
}

/// A mask at the size of latents: a latent is drawn anew if most of its pixels are.
pub fn latent_mask(mask: &GrayImage, factor: usize) -> Vec<f32> {
    let side = |n: u32| n as usize / factor;
    let (w, h) = (side(mask.width()), side(mask.height()));
    let mean = |lx: usize, ly: usize| -> u32 {
        let pixel = |i: usize| {
            let (x, y) = (lx * factor + i % factor, ly * factor + i / factor);
            u32::from(mask.get_pixel(x as u32, y as u32).0[0])
        };
        (0..factor * factor).map(pixel).sum::<u32>() / (factor * factor) as u32
    };
    (0..w * h).map(|i| if mean(i % w, i / w) >= 128 { 1.0 } else { 0.0 }).collect()
}

/// Planes of -1 ..= 1, as an encoder takes them.
pub fn planes(image: &RgbImage) -> Vec<f32> {
    let value = |v: u8| f32::from(v) / 127.5 - 1.0;
    (0..3).flat_map(|c| image.pixels().map(move |p| value(p.0[c]))).collect()
}

/// What an inpainting run works on.
pub struct Scene {
    /// The image that the result is pasted into.
    pub whole: RgbImage,
    /// The mask of `whole`, softened.
    pub mask: GrayImage,
    /// The part of `whole` that is drawn.
    pub region: Region,
    /// That part at the size of the request, and its mask.
    pub drawn: (RgbImage, GrayImage),
}

impl Scene {
    /// Prepares the image and mask of a request.
    ///
    /// # Errors
    /// A mask of another size than its image, or one that is black all over.
    pub fn new(params: &Inpaint, image: &RgbImage, given: Option<GrayImage>) -> Result<Self> {
        if let Some(mask) = given.as_ref().filter(|m| m.dimensions() != image.dimensions()) {
            let ((w, h), (mw, mh)) = (image.dimensions(), mask.dimensions());
            return Err(Error::invalid(format!("the mask has {mw}x{mh} pixels, the image {w}x{h}"))
                .hint("a mask has the size of its image"));
        }
        let size = (params.base.width, params.base.height);
        let (whole, mask) = if params.outpaint.is_empty() {
            let mask = given.unwrap_or_else(|| GrayImage::new(image.width(), image.height()));
            match params.only_masked {
                true => (image.clone(), mask),
                false => (fitted(image, size, params.fit), fitted_mask(&mask, size, params.fit)),
            }
        } else {
            let (whole, mut added) = extended(image, params.outpaint);
            if let Some(given) = given {
                let (left, top) = (params.outpaint.left, params.outpaint.top);
                for (x, y, p) in given.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 0) {
                    if x + left < added.width() && y + top < added.height() {
                        added.put_pixel(x + left, y + top, *p);
                    }
                }
            }
            (whole, added)
        };
        let mask = softened(&mask, params.mask_blur);
        let all = (0, 0, whole.width(), whole.height());
        let (region, target) = match params.only_masked {
            true => (surroundings(&mask, params.padding, size), size),
            false => (mask.pixels().any(|p| p.0[0] > 0).then_some(all), whole.dimensions()),
        };
        let region = region.ok_or_else(|| {
            Error::invalid("the mask is black all over: nothing is to be redrawn")
                .hint("white is drawn anew; `invert_mask` turns it round")
        })?;
        let (x, y, w, h) = region;
        let part = scaled(&imageops::crop_imm(&whole, x, y, w, h).to_image(), target);
        let part_mask = fitted_mask(&imageops::crop_imm(&mask, x, y, w, h).to_image(), target, Fit::Stretch);
        Ok(Self { whole, mask, region, drawn: (part, part_mask) })
    }

    /// The image with what was drawn.
    pub fn finish(&self, drawn: &RgbImage) -> RgbImage {
        let (x, y, w, h) = self.region;
        pasted(&self.whole, &scaled(drawn, (w, h)), &self.mask, (x, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(w: u32, h: u32) -> RgbImage {
        RgbImage::from_fn(w, h, |x, y| Rgb([x as u8, y as u8, 7]))
    }

    #[test]
    fn a_size_of_another_shape_cuts_the_middle_or_stretches() {
        assert_eq!(kept((200, 100), (50, 50), Fit::Crop), (50, 0, 100, 100));
        assert_eq!(kept((200, 100), (50, 50), Fit::Stretch), (0, 0, 200, 100));
        assert_eq!(kept((1, 1), (512, 512), Fit::Crop), (0, 0, 1, 1));
        assert_eq!(fitted(&gradient(200, 100), (64, 64), Fit::Crop).dimensions(), (64, 64));
    }

    #[test]
    fn transparency_is_laid_on_white_and_can_be_a_mask() {
        let image = Image::new(2, 1, PixelFormat::Rgba8, vec![0, 0, 0, 255, 0, 0, 0, 0]).unwrap();
        assert_eq!(rgb(&image).unwrap().into_raw(), [0, 0, 0, 255, 255, 255]);
        assert_eq!(mask(&image, false).unwrap().into_raw(), [255, 0]);
        assert_eq!(mask(&image, true).unwrap().into_raw(), [0, 255]);
    }

    #[test]
    fn the_surroundings_of_a_mask_have_the_shape_of_the_request_and_stay_inside() {
        let mut mask = GrayImage::new(100, 60);
        mask.put_pixel(2, 30, image::Luma([255]));
        let (x, y, w, h) = surroundings(&mask, 5, (64, 32)).unwrap();
        assert_eq!((x, w, h), (0, 22, 11));
        assert!(y <= 30 && y + h > 30);
        assert_eq!(surroundings(&GrayImage::new(4, 4), 5, (8, 8)), None);
        let all = GrayImage::from_pixel(100, 60, image::Luma([255]));
        assert_eq!(surroundings(&all, 500, (64, 64)), Some((0, 0, 100, 60)));
    }

    #[test]
    fn an_extended_image_repeats_its_edge_and_masks_what_is_new() {
        let sides = Sides { left: 8, bottom: 9, ..Sides::default() };
        let (image, mask) = extended(&gradient(8, 8), sides);
        assert_eq!((image.dimensions(), mask.dimensions()), ((16, 16), (16, 16)));
        assert_eq!(image.get_pixel(0, 15), image.get_pixel(8, 7));
        assert_eq!(
            [mask.get_pixel(7, 0).0[0], mask.get_pixel(8, 0).0[0], mask.get_pixel(8, 8).0[0]],
            [255, 0, 255]
        );
    }

    #[test]
    fn only_what_the_mask_shows_is_pasted() {
        let (old, new) = (gradient(4, 4), RgbImage::from_pixel(2, 2, Rgb([200, 200, 200])));
        let mut mask = GrayImage::new(4, 4);
        mask.put_pixel(1, 1, image::Luma([255]));
        let out = pasted(&old, &new, &mask, (1, 1));
        assert_eq!(out.get_pixel(1, 1).0, [200; 3]);
        assert_eq!(out.get_pixel(2, 2), old.get_pixel(2, 2));
    }

    #[test]
    fn a_latent_is_redrawn_if_most_of_its_pixels_are() {
        let mask = GrayImage::from_fn(16, 8, |x, _| image::Luma([if x < 5 { 255 } else { 0 }]));
        assert_eq!(latent_mask(&mask, 8), [1.0, 0.0]);
    }

    #[test]
    fn planes_are_channels_first_from_minus_one_to_one() {
        let image = RgbImage::from_raw(2, 1, vec![0, 255, 0, 255, 0, 0]).unwrap();
        assert_eq!(planes(&image), [-1.0, 1.0, 1.0, -1.0, -1.0, -1.0]);
    }
}
