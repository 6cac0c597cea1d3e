//! A run that begins with an image instead of noise alone.

use crate::image_params::Fill;
use atelier_sdk::{Result, SampleCtx};
use candle_core::Tensor;

/// Where a run begins, and what of it stays.
pub struct Start {
    /// Latents of the image, (1, channels, height, width).
    pub latents: Vec<f32>,
    /// 1 where latents are drawn anew, 0 where they stay; one value for all channels of a latent. None draws all.
    pub mask: Option<Vec<f32>>,
    /// What the masked part is filled with.
    pub fill: Fill,
    /// More channels for the network of a model for inpainting.
    pub channels: Option<Tensor>,
}

impl Start {
    /// Makes standard normal noise the noisy start at level `sigma`: `x = x0 + sigma n`.
    pub fn begin(&self, noise: &mut [f32], sigma: f32) {
        for (i, v) in noise.iter_mut().enumerate() {
            let m = self.mask_at(i);
            let filled = match self.fill {
                Fill::Original => self.latents[i],
                Fill::Noise if self.mask.is_some() => self.latents[i] * (1.0 - m) + *v * m,
                Fill::Noise => *v,
                Fill::Blank => self.latents[i] * (1.0 - m),
            };
            *v = filled + sigma * *v;
        }
    }

    /// Puts the image's own latents where they stay.
    pub fn blend(&self, x: &mut [f32]) {
        if self.mask.is_none() {
            return;
        }
        for (i, v) in x.iter_mut().enumerate() {
            let m = self.mask_at(i);
            *v = *v * m + self.latents[i] * (1.0 - m);
        }
    }

    fn mask_at(&self, i: usize) -> f32 {
        self.mask.as_ref().map_or(1.0, |mask| mask[i % mask.len()])
    }
}

/// A denoiser that knows what stays: there the estimate is the image itself, so that the sampler's path leads to it
/// exactly, whatever its order.
///
/// Source: latent blending as A1111 does it, on the denoised estimate. For deterministic samplers it is the same as
/// noising the image anew after each step, as diffusers does.
pub struct Blended<'a, 'b> {
    /// The network under guidance.
    pub inner: &'a mut dyn SampleCtx,
    /// What stays.
    pub start: &'b Start,
}

impl SampleCtx for Blended<'_, '_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        self.inner.denoise(x, sigma, out)?;
        self.start.blend(out);
        Ok(())
    }
    fn noise(&mut self, from: f32, to: f32, out: &mut [f32]) -> Result<()> {
        self.inner.noise(from, to, out)
    }
    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()> {
        self.inner.step_done(i, x)
    }
    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(mask: Option<Vec<f32>>, fill: Fill) -> Start {
        // Two channels of two latents.
        Start { latents: vec![1.0, 2.0, 3.0, 4.0], mask, fill, channels: None }
    }

    #[test]
    fn noise_is_added_to_what_the_mask_is_filled_with() {
        let half = Some(vec![0.0, 1.0]);
        for (mask, fill, expected) in [
            (None, Fill::Original, [1.5, 2.5, 3.5, 4.5]),
            (half.clone(), Fill::Original, [1.5, 2.5, 3.5, 4.5]),
            (half.clone(), Fill::Blank, [1.5, 0.5, 3.5, 0.5]),
            (half, Fill::Noise, [1.5, 0.75, 3.5, 0.75]),
        ] {
            let mut x = [0.25; 4];
            start(mask, fill).begin(&mut x, 2.0);
            assert_eq!(x, expected, "{fill:?}");
        }
    }

    #[test]
    fn what_stays_is_the_image_in_every_channel() {
        let mut x = [9.0; 4];
        start(Some(vec![0.0, 1.0]), Fill::Original).blend(&mut x);
        assert_eq!(x, [1.0, 9.0, 3.0, 9.0]);
    }
}
