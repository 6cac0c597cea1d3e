//! Adapters beside the frozen weights of layers: `y = W x + s · up (down x)`, without a second W where it can be.
//!
//! Every operation is differentiable, in the input and in the factors.

use atelier_ops::{Conv2dSpec, conv2d, linear};
use atelier_weights::lora::{Applied, Delta, Update};
use candle_core::{Result, Tensor};

/// What an adapter adds to a linear layer's result for `x`.
pub(crate) fn linear_change(applied: &Applied, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match low_rank(&applied.delta) {
        Some((down, up, None, scale)) => {
            let inner = linear(x, &matrix(down)?, None)?;
            linear(&inner, &matrix(up)?, None)? * (scale * applied.weight)
        }
        _ => {
            let change = applied.delta.change(&weight.to_dtype(x.dtype())?)?;
            linear(x, &change, None)? * applied.weight
        }
    }
}

/// What an adapter adds to a convolution's result for `x`.
pub(crate) fn conv_change(
    applied: &Applied,
    x: &Tensor,
    weight: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    let pointwise = Conv2dSpec::padded(0);
    match low_rank(&applied.delta) {
        Some((down, up, mid, scale)) => {
            // One of the parts has the kernel, and with it stride and padding.
            let inner = match mid {
                None => conv2d(x, &kernel(down)?, None, spec)?,
                Some(mid) => conv2d(&conv2d(x, &kernel(down)?, None, pointwise)?, mid, None, spec)?,
            };
            conv2d(&inner, &kernel(up)?, None, pointwise)? * (scale * applied.weight)
        }
        None => {
            let change = applied.delta.change(&weight.to_dtype(x.dtype())?)?;
            conv2d(x, &change, None, spec)? * applied.weight
        }
    }
}

type Factors<'a> = (&'a Tensor, &'a Tensor, Option<&'a Tensor>, f64);

/// The factors of a change that is plain LoRA: another needs the weight's whole change.
fn low_rank(delta: &Delta) -> Option<Factors<'_>> {
    match &delta.update {
        Update::Lora { down, up, mid, scale } if delta.magnitude.is_none() => {
            Some((down, up, mid.as_ref(), *scale))
        }
        _ => None,
    }
}

/// (a, b, 1, 1) as (a, b).
fn matrix(factor: &Tensor) -> Result<Tensor> {
    factor.flatten_from(1)
}

/// (a, b) as (a, b, 1, 1).
fn kernel(factor: &Tensor) -> Result<Tensor> {
    match factor.dims() {
        [a, b] => factor.reshape((*a, *b, 1, 1)),
        _ => Ok(factor.clone()),
    }
}
