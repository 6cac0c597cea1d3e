//! An image as the encoder takes it: resized so that the short side fits, cut to the middle, in [-1, 1].

use super::Opened;
use super::decode::{self, Picture};
use super::lots::hex;
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Where the cut lies in the resized image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size after resizing.
    pub resized: (u64, u64),
    /// Left and top of what is kept.
    pub at: (u64, u64),
}

impl Geometry {
    /// Of an image of `size` that is to fill `target`; both have pixels.
    ///
    /// The side that has just enough pixels is exact, the other is rounded down, and half a pixel beside the middle
    /// goes to the even side: as torchvision's `Resize` and `CenterCrop` do, which trainers were built on.
    pub fn new(size: (u32, u32), target: (u32, u32)) -> Self {
        let ((iw, ih), (w, h)) =
            ((u64::from(size.0), u64::from(size.1)), (u64::from(target.0), u64::from(target.1)));
        let resized = if w * ih >= h * iw { (w, w * ih / iw.max(1)) } else { (h * iw / ih.max(1), h) };
        let middle = |room: u64| room / 2 + u64::from(room % 4 == 3);
        Self { resized, at: (middle(resized.0.saturating_sub(w)), middle(resized.1.saturating_sub(h))) }
    }

    /// The share of the image that is kept.
    pub fn share(&self, target: (u32, u32)) -> f64 {
        let all = self.resized.0 as f64 * self.resized.1 as f64;
        f64::from(target.0) * f64::from(target.1) / all
    }
}

/// The pixels of an image at a resolution (width, height): red, green, blue planes of rows, in [-1, 1]; `flip`
/// mirrors left and right.
///
/// The size is changed by Lanczos (3 lobes) on sRGB values; an image that has the right one is taken as it is.
///
/// # Errors
/// The file is gone, or is not the one that was opened before the run.
pub fn pixels(image: &Opened, resolution: (u32, u32), flip: bool) -> Result<Vec<f32>> {
    let name = &image.item.name;
    let changed = |reason: String| {
        Error::new(ErrorKind::Corrupt, format!("{name} has changed since the run began: {reason}"))
            .hint("leave the training data alone while training, and start again")
    };
    let bytes = decode::read(&image.item.path).map_err(changed)?;
    if hex(&Sha256::digest(&bytes)) != image.sha256 {
        return Err(changed("its content is another".into()));
    }
    // What was opened within the limits once is within them again.
    let picture = decode::decode(&bytes, f64::INFINITY).map_err(changed)?;
    planes(&picture, resolution, flip)
}

/// The pixels of a decoded image; see [`pixels`].
pub fn planes(picture: &Picture, (width, height): (u32, u32), flip: bool) -> Result<Vec<f32>> {
    if width == 0 || height == 0 {
        return Err(Error::invalid(format!("a resolution of {width}x{height} has no pixels")));
    }
    let geometry = Geometry::new((picture.width, picture.height), (width, height));
    let resized = resize(picture, geometry.resized)?;
    let (w, h, stride) = (width as usize, height as usize, geometry.resized.0 as usize);
    let (left, top) = (geometry.at.0 as usize, geometry.at.1 as usize);
    // As `ToTensor` and `Normalize` compute it, in this order and in f32.
    let values: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - 0.5) / 0.5);
    let mut out = vec![0.0; 3 * w * h];
    for (channel, plane) in out.chunks_exact_mut(w * h).enumerate() {
        for (y, row) in plane.chunks_exact_mut(w).enumerate() {
            let from = &resized[((top + y) * stride + left) * 3..][..w * 3];
            row.iter_mut()
                .zip(from.chunks_exact(3))
                .for_each(|(to, p)| *to = values[usize::from(p[channel])]);
            if flip {
                row.reverse();
            }
        }
    }
    Ok(out)
}

/// Rows first, then columns, each rounded to bytes: in the other order, what overshoots black or white in the first
/// pass is cut off elsewhere than in Pillow, up to some percent at hard edges.
fn resize(picture: &Picture, (width, height): (u64, u64)) -> Result<Cow<'_, [u8]>> {
    let side = |v: u64| u32::try_from(v).internal("resizing an image");
    let (width, height) = (side(width)?, side(height)?);
    let rows = lanczos(&picture.rgb, (picture.width, picture.height), (width, picture.height))?;
    match lanczos(&rows, (width, picture.height), (width, height))? {
        Cow::Borrowed(_) => Ok(rows),
        Cow::Owned(columns) => Ok(columns.into()),
    }
}

fn lanczos(rgb: &[u8], from: (u32, u32), to: (u32, u32)) -> Result<Cow<'_, [u8]>> {
    if from == to {
        return Ok(rgb.into());
    }
    let what = "resizing an image";
    let source = ImageRef::new(from.0, from.1, rgb, PixelType::U8x3).internal(what)?;
    let mut target = Image::new(to.0, to.1, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut target, &options).internal(what)?;
    Ok(target.into_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::pattern;

    fn picture(width: u32, height: u32) -> Picture {
        Picture { width, height, rgb: pattern(width, height).into_raw(), remarks: Vec::new() }
    }

    #[test]
    fn the_short_side_fits_and_the_middle_is_kept() {
        for (size, target, resized, at) in [
            ((60, 80), (128, 128), (128, 170), (0, 21)),
            ((80, 60), (128, 128), (170, 128), (21, 0)),
            ((1000, 333), (512, 512), (1537, 512), (512, 0)),
            ((1000, 334), (512, 512), (1532, 512), (510, 0)),
            ((515, 512), (512, 512), (515, 512), (2, 0)),
            ((513, 512), (512, 512), (513, 512), (0, 0)),
            ((100, 100), (64, 32), (64, 64), (0, 16)),
            ((64, 64), (64, 64), (64, 64), (0, 0)),
        ] {
            assert_eq!(Geometry::new(size, target), Geometry { resized, at }, "{size:?} {target:?}");
        }
    }

    #[test]
    fn an_image_of_the_right_size_keeps_its_bits() {
        let source = picture(6, 4);
        let planes = planes(&source, (6, 4), false).unwrap();
        for (i, byte) in source.rgb.iter().enumerate() {
            let value = planes[i % 3 * 24 + i / 3];
            assert_eq!(((value + 1.0) * 127.5).round() as u8, *byte);
        }
        assert_eq!(
            planes.iter().copied().fold(0.0, f32::max).clamp(-1.0, 1.0),
            planes.iter().copied().fold(0.0, f32::max)
        );
    }

    #[test]
    fn a_flip_mirrors_rows_and_nothing_else() {
        let source = picture(50, 70);
        let (plain, flipped) =
            (planes(&source, (16, 24), false).unwrap(), planes(&source, (16, 24), true).unwrap());
        let back: Vec<f32> = flipped.chunks(16).flat_map(|row| row.iter().rev().copied()).collect();
        assert_ne!(plain, flipped);
        assert_eq!(plain, back);
    }

    #[test]
    fn black_and_white_are_the_ends() {
        let source = Picture { width: 2, height: 1, rgb: vec![0, 0, 0, 255, 255, 255], remarks: Vec::new() };
        assert_eq!(planes(&source, (2, 1), false).unwrap(), [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]);
        assert!(planes(&source, (0, 1), false).is_err());
    }

    /// Pillow's `resize((9, 12), LANCZOS)` of the 12x16 pattern, then rows 2 to 10 (torchvision's centre crop), as
    /// bytes; at most 1 of 255 apart.
    #[test]
    fn resize_and_crop_are_those_of_pillow() {
        let expected: Vec<u8> =
            serde_json::from_str(include_str!("../../tests/fixtures/pillow_crop.json")).unwrap();
        let ours = planes(&picture(12, 16), (9, 9), false).unwrap();
        assert_eq!(ours.len(), expected.len());
        let off = expected.iter().enumerate().map(|(i, wanted)| {
            let found = ((ours[i % 3 * 81 + i / 3] + 1.0) * 127.5).round() as u8;
            found.abs_diff(*wanted)
        });
        let off: Vec<u8> = off.collect();
        assert!(off.iter().all(|o| *o <= 1), "{off:?}");
    }
}
