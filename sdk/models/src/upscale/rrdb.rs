//! RRDBNet: residual-in-residual dense blocks (ESRGAN, Wang et al. 2018, arXiv:1809.00219), as
//! <https://github.com/XPixelGroup/BasicSR> has it.

use super::Architecture;
use crate::layers::Conv2d;
use atelier_ops::{add_scaled, leaky_relu, upsample_nearest};
use atelier_weights::Source;
use candle_core::{Result, Tensor};

/// What all activations let through of negative numbers.
const SLOPE: f32 = 0.2;
/// What residuals are multiplied by.
const RESIDUAL: f32 = 0.2;

/// The network.
#[derive(Clone, Debug)]
pub(super) struct Rrdb {
    conv_first: Conv2d,
    body: Vec<[Dense; 3]>,
    conv_body: Conv2d,
    /// One for each doubling.
    conv_up: Vec<Conv2d>,
    conv_hr: Conv2d,
    conv_last: Conv2d,
    unshuffle: usize,
    growth: usize,
}

impl Rrdb {
    pub(super) fn new(source: &Source, a: &Architecture) -> atelier_weights::Result<Self> {
        let conv = |name: String, inputs, outputs| Conv2d::same(&source.pp(name), inputs, outputs, 3);
        let (channels, growth) = (a.channels, a.growth);
        let block = |i: usize| -> atelier_weights::Result<[Dense; 3]> {
            let dense = |k| Dense::new(&source.pp(format!("body.{i}.rdb{k}")), channels, growth);
            Ok([dense(1)?, dense(2)?, dense(3)?])
        };
        let up = (1..=a.doublings()).map(|i| conv(format!("conv_up{i}"), channels, channels));
        Ok(Self {
            conv_first: conv("conv_first".into(), 3 * a.unshuffle * a.unshuffle, channels)?,
            body: (0..a.blocks).map(block).collect::<atelier_weights::Result<_>>()?,
            conv_body: conv("conv_body".into(), channels, channels)?,
            conv_up: up.collect::<atelier_weights::Result<_>>()?,
            conv_hr: conv("conv_hr".into(), channels, channels)?,
            conv_last: conv("conv_last".into(), channels, 3)?,
            unshuffle: a.unshuffle,
            growth,
        })
    }

    pub(super) fn elements(&self) -> usize {
        let outer = [&self.conv_first, &self.conv_body, &self.conv_hr, &self.conv_last];
        let dense = self.body.iter().flatten().flat_map(|dense| &dense.convs);
        let all = outer.into_iter().chain(&self.conv_up).chain(dense);
        all.map(|conv| conv.weight.elem_count() + conv.bias.elem_count()).sum()
    }

    /// (B, 3, H, W) to (B, 3, scale H, scale W).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut features = self.trunk(x)?;
        for conv in &self.conv_up {
            features = enlarged(features, conv)?;
        }
        self.conv_last.forward(&activated(features, &self.conv_hr)?)
    }

    fn trunk(&self, x: &Tensor) -> Result<Tensor> {
        let first = match self.unshuffle {
            1 => self.conv_first.forward(x)?,
            side => self.conv_first.forward(&pixel_unshuffle(x, side)?)?,
        };
        let (batch, channels, height, width) = first.dims4()?;
        // The memory in which the blocks grow, one after the other.
        let shape = (batch, channels + 4 * self.growth, height, width);
        let stack = Tensor::zeros(shape, first.dtype(), first.device())?;
        let mut features = first.clone();
        for block in &self.body {
            let mut inner = features.clone();
            for dense in block {
                inner = dense.forward(&inner, &stack)?;
            }
            features = add_scaled(&features, &inner, RESIDUAL)?;
        }
        add_scaled(&first, &self.conv_body.forward(&features)?, 1.0)
    }
}

/// Five convolutions, each of all that was there before it.
#[derive(Clone, Debug)]
struct Dense {
    convs: [Conv2d; 5],
}

impl Dense {
    fn new(source: &Source, channels: usize, growth: usize) -> atelier_weights::Result<Self> {
        let conv = |i: usize, outputs| {
            Conv2d::same(&source.pp(format!("conv{i}")), channels + (i - 1) * growth, outputs, 3)
        };
        let convs =
            [conv(1, growth)?, conv(2, growth)?, conv(3, growth)?, conv(4, growth)?, conv(5, channels)?];
        Ok(Self { convs })
    }

    /// `stack` is memory for all channels, whatever is in it: to join them anew for each convolution would copy each
    /// up to five times.
    fn forward(&self, x: &Tensor, stack: &Tensor) -> Result<Tensor> {
        let [growing @ .., last] = &self.convs;
        stack.slice_set(x, 1, 0)?;
        let mut filled = x.dim(1)?;
        for conv in growing {
            let y = leaky_relu(&conv.forward(&stack.narrow(1, 0, filled)?)?, SLOPE)?;
            stack.slice_set(&y, 1, filled)?;
            filled += y.dim(1)?;
        }
        add_scaled(x, &last.forward(stack)?, RESIDUAL)
    }
}

/// Twice the size, convolved, activated. Takes what it needs no longer, so that it is freed.
fn enlarged(x: Tensor, conv: &Conv2d) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    activated(upsample_nearest(&x, 2 * height, 2 * width)?, conv)
}

fn activated(x: Tensor, conv: &Conv2d) -> Result<Tensor> {
    let y = conv.forward(&x)?;
    drop(x);
    leaky_relu(&y, SLOPE)
}

/// (B, C, H, W) to (B, C side², H / side, W / side), each pixel's square row by row: torch's `pixel_unshuffle`.
fn pixel_unshuffle(x: &Tensor, side: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (h, w) = (height / side, width / side);
    let squares = x.reshape((batch, channels, h, side, w, side))?.permute((0, 1, 3, 5, 2, 4))?;
    squares.reshape((batch, channels * side * side, h, w))?.contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn pixels_are_folded_as_torch_folds_them() {
        // torch.nn.functional.pixel_unshuffle(torch.arange(16.).reshape(1, 1, 4, 4), 2)
        let x = Tensor::arange(0f32, 16., &Device::Cpu).unwrap().reshape((1, 1, 4, 4)).unwrap();
        let y = pixel_unshuffle(&x, 2).unwrap();
        assert_eq!(y.dims(), [1, 4, 2, 2]);
        let y = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y, [0., 2., 8., 10., 1., 3., 9., 11., 4., 6., 12., 14., 5., 7., 13., 15.]);
    }
}
