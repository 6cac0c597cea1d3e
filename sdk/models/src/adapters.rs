//! Adapters beside the frozen weights of layers: `y = W x + s · up (down x)`, without a second W where it can be.
//!
//! Every operation is differentiable, in the input and in the factors.

use atelier_ops::{Conv2dSpec, LowRank, Need, Weight, conv2d, dropout, linear, linear_adapted};
use atelier_weights::lora::{Applied, Delta, Update};
use candle_core::{Result, Tensor};

/// The first adapter, if the layer can apply it in one operation with its weight, and the others.
pub(crate) fn fusable(adapters: &[Applied]) -> Option<(&Applied, &[Applied])> {
    let (first, rest) = adapters.split_first()?;
    let plain = matches!(low_rank(&first.delta), Some((_, _, None, _)));
    let whole = first.dropout.as_ref().is_none_or(|d| d.current().is_none());
    (plain && whole).then_some((first, rest))
}

/// A linear layer's result for `x` with a [`fusable`] adapter on it.
pub(crate) fn linear_with(
    applied: &Applied,
    need: Need,
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let Some((down, up, _, scale)) = low_rank(&applied.delta) else {
        candle_core::bail!("an adapter {} is not low-rank", applied.delta.kind())
    };
    let (down, up) = (matrix(down, x)?, matrix(up, x)?);
    let factors = LowRank { down: &down, up: &up, scale: scale * applied.weight };
    linear_adapted(need, x, weight, bias, factors)
}

/// What an adapter adds to a linear layer's result for `x`.
pub(crate) fn linear_change(applied: &Applied, x: &Tensor, weight: &Weight) -> Result<Tensor> {
    let x = &dropped(applied, x)?;
    match low_rank(&applied.delta) {
        Some((down, up, None, scale)) => {
            let inner = linear(x, &matrix(down, x)?, None)?;
            // The number goes on the small side of the factors.
            linear(&(inner * (scale * applied.weight))?, &matrix(up, x)?, None)
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
    weight: &Weight,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    let x = &dropped(applied, x)?;
    let pointwise = Conv2dSpec::padded(0);
    match low_rank(&applied.delta) {
        Some((down, up, mid, scale)) => {
            // One of the parts has the kernel, and with it stride and padding.
            let inner = match mid {
                None => conv2d(x, &kernel(down, x)?, None, spec)?,
                Some(mid) => conv2d(&conv2d(x, &kernel(down, x)?, None, pointwise)?, mid, None, spec)?,
            };
            conv2d(&(inner * (scale * applied.weight))?, &kernel(up, x)?, None, pointwise)
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

/// What goes into an adapter: the layer's input, thinned out in training.
fn dropped(applied: &Applied, x: &Tensor) -> Result<Tensor> {
    match applied.dropout.as_ref().and_then(|d| d.current()) {
        Some((rate, key)) => dropout(x, rate, key),
        None => Ok(x.clone()),
    }
}

/// (a, b, 1, 1) as (a, b), in the type of `x`: factors in training are f32 whatever the network computes in.
fn matrix(factor: &Tensor, x: &Tensor) -> Result<Tensor> {
    let factor = factor.to_dtype(x.dtype())?;
    if factor.rank() == 2 { Ok(factor) } else { factor.flatten_from(1) }
}

/// (a, b) as (a, b, 1, 1), in the type of `x`.
fn kernel(factor: &Tensor, x: &Tensor) -> Result<Tensor> {
    let factor = factor.to_dtype(x.dtype())?;
    match factor.dims() {
        [a, b] => factor.reshape((*a, *b, 1, 1)),
        _ => Ok(factor),
    }
}
