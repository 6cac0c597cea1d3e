//! The layers the networks are made of, each with the weights it has in a checkpoint.

use crate::adapters;
use atelier_ops::{
    Conv2dSpec, Need, Products, conv2d_for, group_moments, group_norm, group_norm_silu, layer_norm,
    linear_for, silu,
};
use atelier_weights::lora::Applied;
use atelier_weights::{Result, Source};
use candle_core::{DType, Device, Tensor};

/// The type a network computes in: f32 on the CPU whatever its weights are stored as (f64 stays f64), elsewhere the
/// type of the weights.
pub(crate) fn compute_dtype(source: &Source) -> DType {
    match (source.device(), source.dtype()) {
        (Device::Cpu, DType::F16 | DType::BF16) => DType::F32,
        (_, dtype) => dtype,
    }
}

/// How a network multiplies when it is used and not trained: weights that are stored in bf16 as they are.
pub(crate) fn products(source: &Source) -> Products {
    if source.dtype() == DType::BF16 { Products::Bf16 } else { Products::Exact }
}

/// A fully connected layer.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (outputs, inputs).
    pub weight: Tensor,
    /// (outputs).
    pub bias: Option<Tensor>,
    /// Changes of the weight that are applied beside it.
    pub adapters: Vec<Applied>,
}

impl Linear {
    /// With a bias. Errors: missing or misshapen tensors.
    pub fn new(source: &Source, inputs: usize, outputs: usize) -> Result<Self> {
        let bias = Some(source.get(&[outputs], "bias")?);
        Ok(Self { bias, ..Self::without_bias(source, inputs, outputs)? })
    }

    /// Without a bias. Errors: missing or misshapen tensors.
    pub fn without_bias(source: &Source, inputs: usize, outputs: usize) -> Result<Self> {
        let (weight, adapters) = source.layer(&[outputs, inputs])?;
        Ok(Self { weight, bias: None, adapters })
    }

    /// From the kernel (outputs, inputs, 1, 1) of a convolution, which on tokens is the same thing.
    pub fn from_pointwise(source: &Source, inputs: usize, outputs: usize) -> Result<Self> {
        let (kernel, adapters) = source.layer(&[outputs, inputs, 1, 1])?;
        let weight = kernel.reshape((outputs, inputs)).map_err(|e| atelier_weights::Error::Tensor {
            place: "a 1x1 convolution".into(),
            tensor: source.path().into(),
            source: Box::new(e),
        })?;
        Ok(Self { weight, bias: Some(source.get(&[outputs], "bias")?), adapters })
    }

    /// (..., inputs) to (..., outputs).
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_for(Need::Value, x)
    }

    /// [`Self::forward`] as the last step of a segment: for the gradient alone the numbers are not computed.
    pub(crate) fn forward_for(&self, need: Need, x: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        let (y, rest) = match adapters::fusable(&self.adapters) {
            Some((first, rest)) => (adapters::linear_with(first, need, x, weight, bias)?, rest),
            None => (linear_for(need, x, weight, bias)?, &self.adapters[..]),
        };
        rest.iter().try_fold(y, |y, a| y + adapters::linear_change(a, x, &self.weight)?)
    }

    /// What is needed of the input, where this is needed of the result: variables in here need its numbers.
    pub(crate) fn need_of_input(&self, need: Need) -> Need {
        let frozen = self.adapters.is_empty() && !self.weight.track_op();
        if frozen { need } else { Need::Value }
    }
}

/// A two-dimensional convolution with a bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// (outputs, inputs, kernel, kernel).
    pub weight: Tensor,
    /// (outputs).
    pub bias: Tensor,
    /// Changes of the kernel that are applied beside it.
    pub adapters: Vec<Applied>,
    spec: Conv2dSpec,
}

impl Conv2d {
    /// A square kernel. Errors: missing or misshapen tensors.
    pub fn new(
        source: &Source,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        spec: Conv2dSpec,
    ) -> Result<Self> {
        let (weight, adapters) = source.layer(&[outputs, inputs, kernel, kernel])?;
        Ok(Self { weight, bias: source.get(&[outputs], "bias")?, adapters, spec })
    }

    /// Without a bias. Errors: missing or misshapen tensors.
    pub(crate) fn without_bias(
        source: &Source,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        spec: Conv2dSpec,
    ) -> Result<Self> {
        let weight = source.get(&[outputs, inputs, kernel, kernel], "weight")?;
        let bias = Tensor::zeros(outputs, weight.dtype(), weight.device());
        let bias = bias.map_err(|e| atelier_weights::Error::Tensor {
            place: "a convolution without bias".into(),
            tensor: source.path().into(),
            source: Box::new(e),
        })?;
        Ok(Self { weight, bias, adapters: Vec::new(), spec })
    }

    /// An odd kernel that keeps the size of the image. Errors: missing or misshapen tensors.
    pub fn same(source: &Source, inputs: usize, outputs: usize, kernel: usize) -> Result<Self> {
        Self::new(source, inputs, outputs, kernel, Conv2dSpec::padded(kernel / 2))
    }

    /// (B, inputs, H, W) to (B, outputs, H', W').
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_for(Need::Value, x)
    }

    /// [`Self::forward`] as the last step of a segment: for the gradient alone the numbers are not computed.
    pub(crate) fn forward_for(&self, need: Need, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = conv2d_for(need, x, &self.weight, Some(&self.bias), self.spec)?;
        self.adapters.iter().try_fold(y, |y, a| y + adapters::conv_change(a, x, &self.weight, self.spec)?)
    }
}

/// Group normalisation.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// (channels).
    pub weight: Tensor,
    /// (channels).
    pub bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Errors: missing or misshapen tensors.
    pub fn new(source: &Source, channels: usize, groups: usize, eps: f64) -> Result<Self> {
        let (weight, bias) = (source.get(&[channels], "weight")?, source.get(&[channels], "bias")?);
        Ok(Self { weight, bias, groups, eps })
    }

    /// (B, C, ...) to the same shape.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        group_norm(x, &self.weight, &self.bias, self.groups, self.eps)
    }

    /// The SiLU of [`Self::forward`].
    pub fn forward_silu(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        group_norm_silu(x, &self.weight, &self.bias, self.groups, self.eps)
    }

    /// Mean and variance of each group of each image of `x` (B, C, ...): B * groups pairs.
    pub(crate) fn moments(&self, x: &Tensor) -> candle_core::Result<Vec<[f64; 2]>> {
        group_moments(x, self.groups)
    }

    /// [`Self::forward_silu`] of a part of an image, `x` (B, C, h, w), whose whole has these moments.
    pub(crate) fn forward_silu_as(&self, x: &Tensor, moments: &[[f64; 2]]) -> candle_core::Result<Tensor> {
        let (batch, channels, ..) = x.dims4()?;
        let per = channels / self.groups;
        let spread = |f: &dyn Fn(&[f64; 2]) -> f64| -> candle_core::Result<Tensor> {
            let values: Vec<f32> = moments.iter().flat_map(|m| vec![f(m) as f32; per]).collect();
            Tensor::from_vec(values, (batch, channels, 1, 1), x.device())?.to_dtype(x.dtype())
        };
        let own = |t: &Tensor| t.to_dtype(x.dtype())?.reshape((1, channels, 1, 1));
        let scale = spread(&|m| 1.0 / (m[1] + self.eps).sqrt())?.broadcast_mul(&own(&self.weight)?)?;
        let shift = own(&self.bias)?.broadcast_sub(&(spread(&|m| m[0])? * &scale)?)?;
        silu(&x.broadcast_mul(&scale)?.broadcast_add(&shift)?)
    }
}

/// Layer normalisation.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// (channels).
    pub weight: Tensor,
    /// (channels).
    pub bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Errors: missing or misshapen tensors.
    pub fn new(source: &Source, channels: usize, eps: f64) -> Result<Self> {
        let (weight, bias) = (source.get(&[channels], "weight")?, source.get(&[channels], "bias")?);
        Ok(Self { weight, bias, eps })
    }

    /// (..., C) to the same shape.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// (B, C, H, W) to (B, H * W, C).
pub(crate) fn to_tokens(x: &Tensor) -> candle_core::Result<Tensor> {
    x.flatten_from(2)?.transpose(1, 2)?.contiguous()
}

/// (B, H * W, C) to (B, C, H, W).
pub(crate) fn to_image(x: &Tensor, height: usize, width: usize) -> candle_core::Result<Tensor> {
    let (batch, _, channels) = x.dims3()?;
    x.transpose(1, 2)?.contiguous()?.reshape((batch, channels, height, width))
}
