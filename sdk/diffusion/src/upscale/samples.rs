//! Samples of images, of 8 and of 16 bits.

use atelier_sdk::{Error, Image, PixelFormat, Result};

/// How bright red, green and blue are (ITU-R BT.601), as Real-ESRGAN's greys are made.
const BRIGHTNESS: [f32; 3] = [0.299, 0.587, 0.114];

/// One number of a pixel.
pub trait Sample: bytemuck::Pod + PartialEq {
    /// The largest.
    const TOP: f32;
    /// The nearest to a value of 0 to 1; others are cut off.
    fn nearest(value: f32) -> Self;
    /// As a value of 0 to 1.
    fn value(self) -> f32;
}

impl Sample for u8 {
    const TOP: f32 = 255.0;
    fn nearest(value: f32) -> Self {
        (value.clamp(0.0, 1.0) * Self::TOP).round() as Self
    }
    fn value(self) -> f32 {
        f32::from(self) / Self::TOP
    }
}

impl Sample for u16 {
    const TOP: f32 = 65535.0;
    fn nearest(value: f32) -> Self {
        (value.clamp(0.0, 1.0) * Self::TOP).round() as Self
    }
    fn value(self) -> f32 {
        f32::from(self) / Self::TOP
    }
}

/// Samples in rows from the top, those of a pixel beside each other: one (grey) or three (red, green, blue).
#[derive(Debug, Clone, PartialEq)]
pub struct Raster<S> {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub data: Vec<S>,
}

impl<S: Sample> Raster<S> {
    /// Black.
    pub fn new((width, height): (usize, usize), channels: usize) -> Self {
        Self { width, height, channels, data: vec![S::zeroed(); width * height * channels] }
    }

    /// Puts in planes (3, height, width) of 0 to 1, their upper left corner at a column and a row. A grey raster takes
    /// their brightness.
    pub fn put(&mut self, planes: &[f32], (left, top): (usize, usize), (width, height): (usize, usize)) {
        let [red, green, blue] = [0, 1, 2].map(|c| &planes[c * width * height..][..width * height]);
        for y in 0..height {
            let start = ((top + y) * self.width + left) * self.channels;
            let row = &mut self.data[start..start + width * self.channels];
            for (x, pixel) in row.chunks_exact_mut(self.channels).enumerate() {
                let colour = [red, green, blue].map(|plane| plane[y * width + x]);
                match pixel {
                    [grey] => *grey = S::nearest(brightness(colour)),
                    [r, g, b] => [*r, *g, *b] = colour.map(S::nearest),
                    _ => {}
                }
            }
        }
    }
}

fn brightness(colour: [f32; 3]) -> f32 {
    colour.iter().zip(BRIGHTNESS).map(|(v, weight)| v.clamp(0.0, 1.0) * weight).sum()
}

/// All samples of an image.
fn samples<S: Sample>(image: &Image) -> Vec<S> {
    let mut all = vec![S::zeroed(); image.data().len() / size_of::<S>()];
    bytemuck::cast_slice_mut(&mut all).copy_from_slice(image.data());
    all
}

/// The colours of an image and its alpha channel, if it has one.
pub fn apart<S: Sample>(image: &Image) -> (Raster<S>, Option<Raster<S>>) {
    let all: Vec<S> = samples(image);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let raster = |channels, data| Raster { width, height, channels, data };
    match image.format().channels() {
        n @ (2 | 4) => {
            let pixels = all.chunks_exact(n);
            let colours = pixels.clone().flat_map(|p| p[..n - 1].iter().copied()).collect();
            let alpha = pixels.map(|p| p[n - 1]).collect();
            (raster(n - 1, colours), Some(raster(1, alpha)))
        }
        n => (raster(n, all), None),
    }
}

/// An image of colours and alpha.
///
/// # Errors
/// None that is known.
pub fn together<S: Sample>(colours: Raster<S>, alpha: Option<Raster<S>>) -> Result<Image> {
    let n = colours.channels + usize::from(alpha.is_some());
    let format = PixelFormat::of(n, size_of::<S>() > 1).ok_or_else(|| Error::internal("an odd pixel"))?;
    let side = |n: usize| u32::try_from(n).map_err(|_| Error::internal("an image side beyond 32 bits"));
    let (width, height) = (side(colours.width)?, side(colours.height)?);
    let data = match alpha {
        None => colours.data,
        Some(alpha) => {
            let pixels = colours.data.chunks_exact(colours.channels).zip(&alpha.data);
            pixels.flat_map(|(colour, alpha)| colour.iter().copied().chain([*alpha])).collect()
        }
    };
    Image::new(width, height, format, bytemuck::cast_slice(&data).to_vec())
}

/// Planes (3, height, width) of 0 to 1; a grey becomes three equal ones.
pub fn planes<S: Sample>(raster: &Raster<S>) -> Vec<f32> {
    let plane = |c: usize| raster.data.iter().skip(c).step_by(raster.channels).map(|s| s.value());
    match raster.channels {
        1 => (0..3).flat_map(|_| plane(0)).collect(),
        _ => (0..3).flat_map(plane).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_comes_apart_and_together_again_in_every_format() {
        for deep in [false, true] {
            for channels in 1..=4 {
                let format = PixelFormat::of(channels, deep).unwrap();
                let data: Vec<u8> = (0..3 * 2 * format.bytes()).map(|i| (i * 41 + 3) as u8).collect();
                let image = Image::new(3, 2, format, data).unwrap();
                let back = if deep {
                    let (colours, alpha) = apart::<u16>(&image);
                    assert_eq!(alpha.is_some(), channels % 2 == 0);
                    together(colours, alpha)
                } else {
                    let (colours, alpha) = apart::<u8>(&image);
                    together(colours, alpha)
                };
                assert_eq!(back.unwrap(), image);
            }
        }
    }

    #[test]
    fn planes_go_back_to_the_same_samples() {
        let raster =
            Raster { width: 2, height: 2, channels: 3, data: (0..12).map(|i| i * 5000u16).collect() };
        let mut back = Raster::<u16>::new((2, 2), 3);
        back.put(&planes(&raster), (0, 0), (2, 2));
        assert_eq!(back, raster);
        // A grey goes through three planes, and its brightness is itself.
        let grey = Raster { width: 256, height: 1, channels: 1, data: (0..=255u8).collect() };
        let mut back = Raster::<u8>::new((256, 1), 1);
        back.put(&planes(&grey), (0, 0), (256, 1));
        assert_eq!(back, grey);
    }

    #[test]
    fn a_tile_is_put_where_it_belongs_and_cut_off_where_it_is_too_bright() {
        let mut raster = Raster::<u8>::new((3, 2), 3);
        raster.put(&[1.5, 0.5, -1.0], (2, 1), (1, 1));
        assert_eq!(raster.data[15..], [255, 128, 0]);
        assert!(raster.data[..15].iter().all(|v| *v == 0));
    }
}
