//! What an upscaler looks like inside.

use candle_core::{DType, Device};

/// The networks that upscale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Residual-in-residual dense blocks: ESRGAN (Wang et al. 2018, arXiv:1809.00219), BSRGAN, Real-ESRGAN
    /// (arXiv:2107.10833).
    Rrdb,
    /// A chain of convolutions and activations: `SRVGGNetCompact`, the small networks of Real-ESRGAN.
    Compact,
}

/// The activation between the convolutions of a compact network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rectifier {
    /// max(x, 0) + a min(x, 0) with a slope `a` for each channel, or one for all, stored with the weights (PReLU).
    Learned,
    /// The same with this slope everywhere: 0 is ReLU.
    Fixed(f32),
}

/// Sizes of a network, as its tensors say.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Architecture {
    /// The network.
    pub family: Family,
    /// Pixels of the result for each of the image, in each direction.
    pub scale: usize,
    /// Residual-in-residual blocks; of a compact network, the convolutions between the first and the last.
    pub blocks: usize,
    /// Channels between the blocks.
    pub channels: usize,
    /// Channels each convolution of a dense block adds; 0 for a compact network.
    pub growth: usize,
    /// Pixels that are folded into channels before the first convolution, in each direction: an image's sides must be
    /// multiples of this.
    pub unshuffle: usize,
    /// The activation of a compact network; the other family has LeakyReLU of slope 0.2.
    pub rectifier: Rectifier,
}

/// Patches that a device other than the processor lays out at once for a convolution; see `atelier_ops::conv2d`.
const PATCHES: u64 = 64 << 20;

impl Architecture {
    /// Real-ESRGAN's large network, x4: 23 blocks.
    pub const X4_PLUS: Self = Self {
        family: Family::Rrdb,
        scale: 4,
        blocks: 23,
        channels: 64,
        growth: 32,
        unshuffle: 1,
        rectifier: Rectifier::Fixed(0.2),
    };

    /// The same for drawings: fewer blocks.
    pub const X4_PLUS_ANIME: Self = Self { blocks: 6, ..Self::X4_PLUS };

    /// Real-ESRGAN's general small network, x4: 32 convolutions between the first and the last.
    pub const GENERAL_X4_V3: Self = Self {
        family: Family::Compact,
        scale: 4,
        blocks: 32,
        channels: 64,
        growth: 0,
        unshuffle: 1,
        rectifier: Rectifier::Learned,
    };

    /// The same for drawings that move: half as many.
    pub const ANIME_VIDEO_V3: Self = Self { blocks: 16, ..Self::GENERAL_X4_V3 };

    /// The name of the network's class where it comes from (<https://github.com/XPixelGroup/BasicSR>).
    pub fn name(&self) -> &'static str {
        match self.family {
            Family::Rrdb => "RRDBNet",
            Family::Compact => "SRVGGNetCompact",
        }
    }

    /// How often the large network doubles: its last layers work on 2^n times the pixels of its trunk.
    pub(super) fn doublings(&self) -> usize {
        (self.scale * self.unshuffle).ilog2() as usize
    }

    /// How far a pixel of the result sees, in pixels of the image: with this much overlap tiles give what the whole
    /// image gives. Far less is enough for the eye, see [`super::Tiles`].
    pub fn reach(&self) -> usize {
        match self.family {
            // Doubled and doubled again, the last layers together see less than two pixels of the trunk.
            Family::Rrdb => self.unshuffle * (2 + 15 * self.blocks + 2),
            Family::Compact => self.blocks + 2,
        }
    }

    /// Floating-point operations for an image of this size; a multiplication and an addition are two.
    pub fn operations(&self, height: usize, width: usize) -> u64 {
        let (h, w) = (height.div_ceil(self.unshuffle), width.div_ceil(self.unshuffle));
        let (pixels, c, g) = ((h * w) as u64, self.channels as u64, self.growth as u64);
        let per_pixel = match self.family {
            Family::Rrdb => {
                let dense = (0..4).map(|i| (c + i * g) * g).sum::<u64>() + (c + 4 * g) * c;
                let squares = (1..=self.doublings() as u32).map(|i| 4u64.pow(i)).sum::<u64>();
                let last = 4u64.pow(self.doublings() as u32);
                let inputs = 3 * (self.unshuffle * self.unshuffle) as u64;
                inputs * c + 3 * self.blocks as u64 * dense + c * c + squares * c * c + last * (c * c + 3 * c)
            }
            Family::Compact => 3 * c + self.blocks as u64 * c * c + c * 3 * (self.scale * self.scale) as u64,
        };
        2 * 9 * per_pixel * pixels
    }

    /// Memory that the numbers between the layers take at most for an image (or a tile with its overlap) of this size, in
    /// bytes, with weights stored as `dtype` on `device`. Without the weights themselves.
    pub fn forward_bytes(&self, height: usize, width: usize, dtype: DType, device: &Device) -> u64 {
        let element = if device.is_cpu() { 4 } else { dtype.size_in_bytes() as u64 };
        let (h, w) = (height.div_ceil(self.unshuffle), width.div_ceil(self.unshuffle));
        let (pixels, c, g) = ((h * w) as u64, self.channels as u64, self.growth as u64);
        let (elements, widest) = match self.family {
            Family::Rrdb => {
                // The trunk: features, the block's input, the growing stack, its result and the sum. Then, at the full
                // size, what a convolution takes, what it gives, and what that was enlarged from.
                let full = pixels * 4u64.pow(self.doublings() as u32);
                let trunk = pixels * (5 * c + c + 4 * g);
                let top = if self.doublings() == 0 { pixels * 4 * c } else { full * 2 * c + full / 4 * c };
                (trunk.max(top + full * 3), full * c.max(c + 4 * g))
            }
            Family::Compact => {
                let result = pixels * 3 * (self.scale * self.scale) as u64;
                (pixels * 2 * c + 3 * result, pixels * c)
            }
        };
        let patches = if device.is_cpu() { 0 } else { PATCHES.min(9 * widest) };
        // Beside these, what a device and its threads keep for themselves.
        (elements + patches) * element + (16 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_the_known_networks_are_the_published_ones() {
        let giga = |a: &Architecture| a.operations(128, 128) as f64 / 1e9;
        assert!((giga(&Architecture::X4_PLUS) - 587.0).abs() < 1.0, "{}", giga(&Architecture::X4_PLUS));
        let small = giga(&Architecture::GENERAL_X4_V3);
        assert!((small - 40.0).abs() < 1.0, "{small}");
    }

    #[test]
    fn folded_pixels_cost_a_fraction() {
        let half = Architecture { scale: 2, unshuffle: 2, ..Architecture::X4_PLUS };
        assert_eq!(half.doublings(), 2);
        let ratio = half.operations(256, 256) as f64 / Architecture::X4_PLUS.operations(128, 128) as f64;
        assert!((1.0..1.01).contains(&ratio), "{ratio}");
        assert_eq!(half.reach(), 2 * Architecture::X4_PLUS.reach());
    }
}
