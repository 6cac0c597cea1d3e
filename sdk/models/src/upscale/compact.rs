//! SRVGGNetCompact (<https://github.com/xinntao/Real-ESRGAN>): convolutions and activations in turn at the size of the
//! image; the last convolution draws each pixel's square, as a difference to the nearest-neighbour enlargement.

use super::{Architecture, Rectifier};
use crate::layers::Conv2d;
use atelier_ops::{leaky_relu, prelu, upsample_nearest};
use atelier_weights::Source;
use candle_core::{Result, Tensor};

/// The network.
#[derive(Clone, Debug)]
pub(super) struct Compact {
    layers: Vec<(Conv2d, Slope)>,
    last: Conv2d,
    scale: usize,
}

#[derive(Clone, Debug)]
enum Slope {
    /// (channels) or (1).
    Learned(Tensor),
    Fixed(f32),
}

impl Compact {
    pub(super) fn new(source: &Source, a: &Architecture) -> atelier_weights::Result<Self> {
        let body = source.pp("body");
        let layer = |i: usize| -> atelier_weights::Result<(Conv2d, Slope)> {
            let inputs = if i == 0 { 3 } else { a.channels };
            let conv = Conv2d::same(&body.pp(2 * i), inputs, a.channels, 3)?;
            let slope = match a.rectifier {
                Rectifier::Learned => Slope::Learned(slopes(&body.pp(2 * i + 1), a.channels)?),
                Rectifier::Fixed(slope) => Slope::Fixed(slope),
            };
            Ok((conv, slope))
        };
        let layers: Vec<_> = (0..=a.blocks).map(layer).collect::<atelier_weights::Result<_>>()?;
        let last = Conv2d::same(&body.pp(2 * layers.len()), a.channels, 3 * a.scale * a.scale, 3)?;
        Ok(Self { layers, last, scale: a.scale })
    }

    pub(super) fn elements(&self) -> usize {
        let conv = |conv: &Conv2d| conv.weight.elem_count() + conv.bias.elem_count();
        let slope = |slope: &Slope| if let Slope::Learned(s) = slope { s.elem_count() } else { 0 };
        self.layers.iter().map(|(c, s)| conv(c) + slope(s)).sum::<usize>() + conv(&self.last)
    }

    /// (B, 3, H, W) to (B, 3, scale H, scale W).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let mut y = x.clone();
        for (conv, slope) in &self.layers {
            y = conv.forward(&y)?;
            y = match slope {
                Slope::Learned(slopes) => prelu(&y, slopes)?,
                Slope::Fixed(slope) => leaky_relu(&y, *slope)?,
            };
        }
        let drawn = pixel_shuffle(&self.last.forward(&y)?, self.scale)?;
        drop(y);
        drawn + upsample_nearest(x, self.scale * height, self.scale * width)?
    }
}

/// PReLU's slopes: one for each channel, or one for all.
fn slopes(source: &Source, channels: usize) -> atelier_weights::Result<Tensor> {
    source.get(&[channels], "weight").or_else(|error| source.get(&[1], "weight").map_err(|_| error))
}

/// (B, C side², H, W) to (B, C, H side, W side): torch's `pixel_shuffle`.
fn pixel_shuffle(x: &Tensor, side: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let channels = channels / (side * side);
    let squares = x.reshape((batch, channels, side, side, height, width))?.permute((0, 1, 4, 2, 5, 3))?;
    squares.reshape((batch, channels, height * side, width * side))?.contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn pixels_are_unfolded_as_torch_unfolds_them() {
        // torch.nn.functional.pixel_shuffle(torch.arange(16.).reshape(1, 4, 2, 2), 2)
        let x = Tensor::arange(0f32, 16., &Device::Cpu).unwrap().reshape((1, 4, 2, 2)).unwrap();
        let y = pixel_shuffle(&x, 2).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y, [0., 4., 1., 5., 8., 12., 9., 13., 2., 6., 3., 7., 10., 14., 11., 15.]);
    }
}
