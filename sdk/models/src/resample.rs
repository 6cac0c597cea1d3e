//! Halving and doubling of images between the blocks of a network.

use crate::layers::Conv2d;
use atelier_ops::{Conv2dSpec, Padding, Tape, Value, upsample_nearest};
use atelier_weights::{Result, Source};
use candle_core::Tensor;

/// A strided convolution: half the size, rounded up with padding 1.
#[derive(Clone, Debug)]
pub(crate) struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// With `padding` 0, one row and column of zeros go below and to the right, as the autoencoder was trained.
    pub(crate) fn new(source: &Source, channels: usize, padding: usize) -> Result<Self> {
        let padding = if padding == 0 { Padding::bottom_right(1) } else { Padding::same(padding) };
        Ok(Self {
            conv: Conv2d::new(&source.pp("conv"), channels, channels, 3, Conv2dSpec { stride: 2, padding })?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.conv.forward(x)
    }

    /// [`Self::forward`] as a segment of `tape`.
    pub(crate) fn run<'a>(&'a self, tape: &mut Tape<'a>, x: &Value) -> candle_core::Result<Value> {
        tape.run(&[x], |t, need| self.conv.forward_for(need, &t[0]))
    }
}

/// Nearest-neighbour enlargement, then a convolution.
#[derive(Clone, Debug)]
pub(crate) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(crate) fn new(source: &Source, channels: usize) -> Result<Self> {
        Ok(Self { conv: Conv2d::same(&source.pp("conv"), channels, channels, 3)? })
    }

    /// To the given height and width: twice the input's, or one less where the skip connection's is odd.
    pub(crate) fn forward(&self, x: &Tensor, (height, width): (usize, usize)) -> candle_core::Result<Tensor> {
        self.conv.forward(&upsample_nearest(x, height, width)?)
    }

    /// [`Self::forward`] as a segment of `tape`.
    pub(crate) fn run<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        x: &Value,
        (height, width): (usize, usize),
    ) -> candle_core::Result<Value> {
        tape.run(&[x], move |t, need| self.conv.forward_for(need, &upsample_nearest(&t[0], height, width)?))
    }
}
