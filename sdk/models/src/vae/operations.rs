//! How much there is to compute.

use super::config::VaeConfig;
use crate::operations::Operations;

impl VaeConfig {
    /// Operations of decoding latents (height, width) to one image, as a whole.
    pub fn decode_operations(&self, (height, width): (usize, usize)) -> Operations {
        let mut sum = Operations::default();
        let (mut pixels, latent) = (height * width, self.latent_channels);
        if self.use_post_quant_conv {
            sum.convolve(pixels, 1, latent, latent);
        }
        let channels: Vec<usize> = self.block_out_channels.iter().rev().copied().collect();
        sum.convolve(pixels, 3, latent, channels[0]);
        self.middle(&mut sum, pixels, channels[0]);
        for (block, outputs) in channels.iter().enumerate() {
            self.resnets(&mut sum, pixels, &channels, block, self.layers_per_block + 1);
            if block + 1 < channels.len() {
                pixels *= 4;
                sum.convolve(pixels, 3, *outputs, *outputs);
            }
        }
        sum.convolve(pixels, 3, self.block_out_channels[0], self.out_channels);
        sum
    }

    /// Operations of encoding one image as latents (height, width), as a whole.
    pub fn encode_operations(&self, (height, width): (usize, usize)) -> Operations {
        let mut sum = Operations::default();
        let (channels, latent) = (&self.block_out_channels, self.latent_channels);
        let mut pixels = height * width * self.factor() * self.factor();
        sum.convolve(pixels, 3, self.in_channels, channels[0]);
        for (block, outputs) in channels.iter().enumerate() {
            self.resnets(&mut sum, pixels, channels, block, self.layers_per_block);
            if block + 1 < channels.len() {
                pixels /= 4;
                sum.convolve(pixels, 3, *outputs, *outputs);
            }
        }
        let inner = channels[channels.len() - 1];
        self.middle(&mut sum, pixels, inner);
        sum.convolve(pixels, 3, inner, 2 * latent);
        if self.use_quant_conv {
            sum.convolve(pixels, 1, 2 * latent, 2 * latent);
        }
        sum
    }

    /// The residual blocks of a block, the first of which takes what the block before gave.
    fn resnets(&self, sum: &mut Operations, pixels: usize, channels: &[usize], block: usize, count: usize) {
        for layer in 0..count {
            let before = if layer == 0 { block.saturating_sub(1) } else { block };
            sum.resnet(pixels, channels[before], channels[block]);
        }
    }

    fn middle(&self, sum: &mut Operations, pixels: usize, channels: usize) {
        sum.resnet(pixels, channels, channels);
        if self.mid_block_add_attention {
            (0..4).for_each(|_| sum.connect(pixels, channels, channels));
            sum.attend(1, pixels, pixels, channels);
        }
        sum.resnet(pixels, channels, channels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_autoencoder_of_stable_diffusion_takes_what_is_published() {
        let sd = VaeConfig::sd15();
        let giga = |o: Operations| o.total() as f64 / 1e9;
        for (side, decode, encode) in [(32, 622.0, 273.0), (64, 2515.0, 1117.0)] {
            let (d, e) = (giga(sd.decode_operations((side, side))), giga(sd.encode_operations((side, side))));
            assert!((d - decode).abs() < 1.0 && (e - encode).abs() < 1.0, "{side}: {d}, {e}");
        }
        assert!((giga(sd.decode_operations((96, 96))) - 5754.0).abs() < 1.0);
    }
}
