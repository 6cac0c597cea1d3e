//! The same operations as compositions of candle's differentiable ones: for other devices, and for f64.

use crate::conv::Conv2dSpec;
use candle_core::{D, DType, Device, Result, Tensor};

/// Norms and softmax lose too much in 16 bits: f32 for those, unless the tensor has f64 already.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Softmax over the last dimension, differentiable on every device (candle's own fused one is not).
///
/// Any shape in, the same shape and dtype out; 16-bit types are computed in f32.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let wide_x = x.to_dtype(wide(x.dtype()))?;
    let max = wide_x.max_keepdim(D::Minus1)?.detach();
    let e = wide_x.broadcast_sub(&max)?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?.to_dtype(x.dtype())
}

/// (B, N, H*D) to (B, H, N, D).
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, channels) = x.dims3()?;
    x.reshape((batch, tokens, heads, channels / heads))?.transpose(1, 2)?.contiguous()
}

/// 0 where the key is not after the query, minus infinity elsewhere: (rows, keys), from query `start` on.
fn causal_mask(start: usize, rows: usize, keys: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let mask: Vec<f32> = (start..start + rows)
        .flat_map(|q| (0..keys).map(move |k| if k > q { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Tensor::from_vec(mask, (rows, keys), device)?.to_dtype(dtype)
}

/// Scores kept at once by the composed attention: 64 Mi elements, 256 MB in f32.
const SCORES: usize = 64 << 20;

pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let (batch, queries, channels) = q.dims3()?;
    let keys = k.dim(1)?;
    let scale = 1.0 / ((channels / heads) as f64).sqrt();
    let (q, k, v) = (split_heads(&(q * scale)?, heads)?, split_heads(k, heads)?, split_heads(v, heads)?);
    let transposed = k.transpose(2, 3)?.contiguous()?;
    let rows = (SCORES / (batch * heads * keys)).clamp(1, queries);
    let mut parts = Vec::with_capacity(queries.div_ceil(rows));
    for start in (0..queries).step_by(rows) {
        let rows = rows.min(queries - start);
        let scores = q.narrow(2, start, rows)?.contiguous()?.matmul(&transposed)?;
        let scores = if causal {
            scores.broadcast_add(&causal_mask(start, rows, keys, q.dtype(), q.device())?)?
        } else {
            scores
        };
        parts.push(softmax(&scores)?.matmul(&v)?);
    }
    Tensor::cat(&parts, 2)?.transpose(1, 2)?.reshape((batch, queries, channels))
}

pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let inputs = dims.pop().unwrap_or(1);
    dims.push(weight.dim(0)?);
    let y = x.reshape(((), inputs))?.matmul(&weight.t()?)?.reshape(dims)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// Elements that a device may lay out at once for a convolution: 64 Mi, 256 MB in f32. candle's Metal backend copies
/// every patch of the input, which for one layer of a decoder at 512 pixels would be gigabytes.
const PATCHES: usize = 64 << 20;

pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec: Conv2dSpec) -> Result<Tensor> {
    let y = conv2d_in_strips(x, weight, spec, PATCHES)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

/// A convolution without bias, in strips of output rows that need no more than `patches` elements each.
fn conv2d_in_strips(x: &Tensor, weight: &Tensor, spec: Conv2dSpec, patches: usize) -> Result<Tensor> {
    let (p, stride) = (spec.padding, spec.stride);
    let (batch, channels, height, width) = x.dims4()?;
    let (_, _, kh, kw) = weight.dims4()?;
    let rows = (height + p.top + p.bottom - kh) / stride + 1;
    let columns = (width + p.left + p.right - kw) / stride + 1;
    let strip = (patches / (batch * channels * kh * kw * columns)).clamp(1, rows);
    let even = p.top == p.bottom && p.top == p.left && p.top == p.right;
    if strip == rows && even && stride == 1 {
        return x.conv2d(weight, p.top, 1, 1, 1);
    }
    // Cut to the pixels a stride reaches: candle's backward takes the rest of the height for both directions.
    let used = |outputs: usize, kernel: usize| (outputs - 1) * stride + kernel;
    let x = x.pad_with_zeros(2, p.top, p.bottom)?.pad_with_zeros(3, p.left, p.right)?;
    let x = x.narrow(3, 0, used(columns, kw))?;
    let parts: Result<Vec<Tensor>> = (0..rows)
        .step_by(strip)
        .map(|start| {
            let part = x.narrow(2, start * stride, used(strip.min(rows - start), kh))?.contiguous()?;
            part.conv2d(weight, 0, stride, 1, 1)
        })
        .collect();
    Tensor::cat(&parts?, 2)
}

/// Subtracts the mean of the last dimension and divides by the deviation.
fn standardise(x: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?)
}

pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = wide(x.dtype());
    standardise(&x.to_dtype(dtype)?, eps)?
        .broadcast_mul(&weight.to_dtype(dtype)?)?
        .broadcast_add(&bias.to_dtype(dtype)?)?
        .to_dtype(x.dtype())
}

pub(crate) fn group_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    with_silu: bool,
) -> Result<Tensor> {
    let dtype = wide(x.dtype());
    let mut per_channel = vec![1; x.rank()];
    per_channel[1] = x.dim(1)?;
    let y = standardise(&x.to_dtype(dtype)?.reshape((x.dim(0)?, groups, ()))?, eps)?
        .reshape(x.shape())?
        .broadcast_mul(&weight.to_dtype(dtype)?.reshape(per_channel.as_slice())?)?
        .broadcast_add(&bias.to_dtype(dtype)?.reshape(per_channel.as_slice())?)?;
    let y = if with_silu { y.silu()? } else { y };
    y.to_dtype(x.dtype())
}

pub(crate) fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x * ((x * -1.702)?.exp()? + 1.0)?.recip()?
}

pub(crate) fn geglu(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    x.narrow(D::Minus1, 0, half)?.contiguous()? * x.narrow(D::Minus1, half, half)?.contiguous()?.gelu_erf()?
}

/// Repeats rows and columns an integer number of times, then crops: what nearest does for sizes up to that.
pub(crate) fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (batch, channels, h, w) = x.dims4()?;
    let (up, across) = (height.div_ceil(h), width.div_ceil(w));
    // Not candle's upsample_nearest2d: its backward overwrites gradients of a shared input.
    x.reshape((batch, channels, h, 1, w, 1))?
        .broadcast_as((batch, channels, h, up, w, across))?
        .reshape((batch, channels, h * up, w * across))?
        .narrow(2, 0, height)?
        .narrow(3, 0, width)?
        .contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Padding;
    use crate::gradcheck::{check, pseudo_normal};

    #[test]
    fn a_convolution_in_strips_is_the_whole_one_with_its_gradients() {
        let corner = Conv2dSpec { stride: 2, padding: Padding::bottom_right(1) };
        for spec in [Conv2dSpec::padded(1), corner] {
            let x = pseudo_normal(1, (2, 3, 7, 6), 1.0);
            let w = pseudo_normal(2, (4, 3, 3, 3), 0.3);
            let whole = conv2d_in_strips(&x, &w, spec, usize::MAX).unwrap();
            for patches in [1, 700, 2000] {
                let strips = conv2d_in_strips(&x, &w, spec, patches).unwrap();
                let worst = (&strips - &whole).unwrap().abs().unwrap().max_all().unwrap();
                assert!(worst.to_scalar::<f32>().unwrap() < 1e-5, "{patches}");
            }
            check(&[x, w], |t| conv2d_in_strips(&t[0], &t[1], spec, 700));
        }
    }
}
