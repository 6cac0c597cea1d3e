//! What an image looks like while it is being sampled.

use crate::decoding::{self, Pieces};
use crate::pipeline::Pipeline;
use atelier_diffusion::error;
use atelier_models::{AutoencoderTiny, VaeConfig};
use atelier_sdk::{Error, Image, PixelFormat, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How previews are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preview {
    /// Not at all.
    #[default]
    Off,
    /// One pixel for each latent, its colour a linear function of the latent's channels. Costs next to nothing.
    Rgb,
    /// By the tiny autoencoder, at full size.
    Taesd,
}

/// Red, green and blue of -1..1 as a linear function of a latent: for each colour a factor for each channel, and what
/// is added.
#[derive(Debug, Clone, PartialEq)]
pub struct Colours {
    factors: [Vec<f64>; 3],
}

impl Colours {
    /// Those of Stable Diffusion 1.x and 2.x.
    ///
    /// Source: fitted by Keturn, <https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204>.
    pub fn sd1() -> Self {
        Self {
            factors: [
                vec![0.298, 0.187, -0.158, -0.184, 0.0],
                vec![0.207, 0.286, 0.189, -0.271, 0.0],
                vec![0.208, 0.173, 0.264, -0.473, 0.0],
            ],
        }
    }

    /// Those known for an autoencoder of this shape, which no other model has.
    pub fn known(vae: &VaeConfig) -> Option<Self> {
        (*vae == VaeConfig { force_upcast: vae.force_upcast, ..VaeConfig::sd15() }).then(Self::sd1)
    }

    /// Fits the function, by least squares, to what a model's autoencoder makes of patches of colour on white and on
    /// black. Patches that touch each other give latents as no image has them.
    ///
    /// # Errors
    /// The autoencoder failed.
    pub fn fitted(pipeline: &Pipeline) -> Result<Self> {
        let factor = pipeline.factor();
        let latents = 12 * PATCH;
        let side = latents * factor;
        let value = |i: usize| colour(i / (side * side), (i / side) % side / factor, i % side / factor);
        let planes: Vec<f32> = (0..3 * side * side).map(value).collect();
        let encoded = pipeline.encode_planes(&planes, side, side, &Pieces::Whole)?;
        let failed = error::tensor("reading latents");
        let (_, channels, h, w) = encoded.dims4().map_err(&failed)?;
        let values: Vec<f32> = encoded.flatten_all().and_then(|t| t.to_vec1()).map_err(&failed)?;
        let decoded = pipeline.decode_planes(&values, [1, channels, h, w], &Pieces::Whole)?;
        let decoded: Vec<f32> = decoded.flatten_all().and_then(|t| t.to_vec1()).map_err(&failed)?;
        let rows: Vec<Vec<f64>> = (0..h * w)
            .map(|i| (0..channels).map(|c| f64::from(values[c * h * w + i])).chain([1.0]).collect())
            .collect();
        let mean = |c: usize, i: usize| {
            let start = (c * side + i / w * factor) * side + i % w * factor;
            let rows = (0..factor).flat_map(|y| &decoded[start + y * side..][..factor]);
            rows.map(|v| f64::from(*v)).sum::<f64>() / (factor * factor) as f64
        };
        let fit = |c| least_squares(&rows, &(0..h * w).map(|i| mean(c, i)).collect::<Vec<_>>());
        Ok(Self { factors: [fit(0), fit(1), fit(2)] })
    }

    /// An image of one pixel for each latent (1, channels, height, width).
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn image(&self, latents: &[f32], [_, channels, height, width]: [usize; 4]) -> Result<Image> {
        let plane = height * width;
        let value = |colour: &[f64], i: usize| {
            let sum: f64 = (0..channels).map(|c| colour[c] * f64::from(latents[c * plane + i])).sum();
            let value = (sum + colour[channels]) * 0.5 + 0.5;
            (value.clamp(0.0, 1.0) * 255.0).round() as u8
        };
        let pixels = (0..plane).flat_map(|i| self.factors.each_ref().map(|colour| value(colour, i)));
        let side = |n: usize| u32::try_from(n).map_err(|_| Error::internal("an image side beyond 32 bits"));
        Image::new(side(width)?, side(height)?, PixelFormat::Rgb8, pixels.collect())
    }
}

/// Latents on a side of a patch, and of the gap to the next.
const PATCH: usize = 3;

/// Colour `c` (red, green, blue) at the latent in this row and column: 6 by 6 patches over all of the cube of colours, the
/// upper half of them on white, the lower on black.
fn colour(c: usize, row: usize, column: usize) -> f32 {
    let (y, x) = (row / PATCH, column / PATCH);
    if y % 2 == 0 || x % 2 == 0 {
        return if y < 6 { 1.0 } else { -1.0 };
    }
    let number = (y / 2 * 6 + x / 2) * 7 % 36;
    let levels = [number % 4, number / 4 % 3, number / 12 % 3];
    let most = [3.0, 2.0, 2.0];
    levels[c] as f32 / most[c] * 1.8 - 0.9
}

/// The weights of `rows` whose sums come closest to `wanted`: normal equations with a trace of damping, by elimination.
fn least_squares(rows: &[Vec<f64>], wanted: &[f64]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    let mut a = vec![vec![0.0; n + 1]; n];
    for (row, y) in rows.iter().zip(wanted) {
        for i in 0..n {
            for j in 0..n {
                a[i][j] += row[i] * row[j];
            }
            a[i][n] += row[i] * y;
        }
    }
    for (i, line) in a.iter_mut().enumerate() {
        line[i] += 1e-6 * rows.len() as f64;
    }
    for i in 0..n {
        // The matrix is positive definite, thanks to the damping: no pivot is 0.
        let pivot = a[i].clone();
        for (_, line) in a.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = line[i] / pivot[i];
            line.iter_mut().zip(&pivot).for_each(|(v, p)| *v -= factor * p);
        }
    }
    (0..n).map(|i| a[i][n] / a[i][i]).collect()
}

/// Makes the previews of a run.
#[derive(Clone)]
pub enum Painter {
    /// From latents to colours.
    Rgb(Colours),
    /// By a tiny autoencoder.
    Taesd(Arc<AutoencoderTiny>),
}

impl Painter {
    /// A preview of the clean image that is expected at a step.
    ///
    /// # Errors
    /// The network failed.
    pub fn paint(&self, pipeline: &Pipeline, latents: &[f32], shape: [usize; 4]) -> Result<Image> {
        match self {
            Self::Rgb(colours) => colours.image(latents, shape),
            Self::Taesd(tiny) => decoding::decode_tiny(tiny, pipeline, latents, shape),
        }
    }
}

/// Previews of one image.
pub struct Previews<'a> {
    /// Makes them.
    pub painter: &'a Painter,
    /// One each so many steps.
    pub every: usize,
    /// Number of the image within the run, from 1.
    pub image: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_finds_the_weights_that_made_the_values() {
        let rows: Vec<Vec<f64>> = (0..20)
            .map(|i| vec![f64::from(i % 5), f64::from(i * i % 7), f64::from(i % 3) - 1.0, 1.0])
            .collect();
        let weights = [0.5, -1.25, 2.0, 0.75];
        let wanted: Vec<f64> = rows.iter().map(|r| r.iter().zip(weights).map(|(a, b)| a * b).sum()).collect();
        for (found, weight) in least_squares(&rows, &wanted).into_iter().zip(weights) {
            assert!((found - weight).abs() < 1e-4, "{found} {weight}");
        }
    }

    #[test]
    fn a_latent_becomes_a_pixel_of_its_colour() {
        let colours = Colours { factors: [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 0.5]] };
        let image = colours.image(&[-1.0, 1.0, 0.0, 3.0], [1, 2, 1, 2]).unwrap();
        assert_eq!(image.data(), [0, 128, 191, 255, 255, 191]);
    }

    #[test]
    fn the_patches_have_all_colours() {
        let mut seen: Vec<[i32; 3]> = (0..36)
            .map(|i| {
                [0, 1, 2].map(|c| {
                    (colour(c, (2 * (i / 6) + 1) * PATCH, (2 * (i % 6) + 1) * PATCH) * 100.0).round() as i32
                })
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 36);
    }
}
