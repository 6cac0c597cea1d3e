//! The layers the networks are made of, each with the weights it has in a checkpoint.

use crate::adapters;
use atelier_ops::{
    Conv2dSpec, Format, Frozen, Need, Products, Weight, conv2d_for, geglu, group_moments, group_norm,
    group_norm_silu, layer_norm, linear_for, linear_geglu_for, silu, transposed,
};
use atelier_weights::lora::Applied;
use atelier_weights::{Elements, Located, Precision, Result, Source, StoredDtype};
use candle_core::{DType, Device, Tensor};

/// The type a network computes in: f32 on the CPU whatever its weights are stored as (f64 stays f64), elsewhere the
/// type of the weights.
pub(crate) fn compute_dtype(source: &Source) -> DType {
    match (source.device(), source.dtype()) {
        (Device::Cpu, DType::F16 | DType::BF16) => DType::F32,
        (_, dtype) => dtype,
    }
}

/// How a network multiplies when it is used and not trained: weights that are stored in bf16, or in fewer bits, in bf16.
pub(crate) fn products(source: &Source) -> Products {
    let rounded = matches!(source.precision(), Precision::Float(DType::BF16) | Precision::Int8);
    if rounded { Products::Bf16 } else { Products::Exact }
}

/// The weight of a layer, and the changes that the layer is to apply to it: where it lies in its file, if its numbers there
/// are those that are wanted.
///
/// Errors: missing or misshapen.
fn weight(source: &Source, shape: &[usize]) -> Result<(Weight, Vec<Applied>)> {
    let eight_bits = source.precision() == Precision::Int8 && Frozen::fits_eight_bits(shape);
    if source.device().is_cpu()
        && let Some((located, adapters)) = source.located(shape)?
        && let Some((format, frozen)) = frozen(&located, shape)
    {
        if is_wanted(format, source.precision()) {
            return Ok((Weight::Frozen(frozen), adapters));
        }
        if eight_bits {
            let narrow = Frozen::eight_bits(&Weight::Frozen(frozen)).map_err(failed(source))?;
            located.memory.release(&located.bytes);
            return Ok((Weight::Frozen(narrow), adapters));
        }
    }
    if !eight_bits {
        let (tensor, adapters) = source.layer(shape, source.dtype())?;
        return Ok((tensor.into(), adapters));
    }
    let (tensor, adapters) = source.layer(shape, DType::F32)?;
    Ok((Weight::Frozen(Frozen::eight_bits(&tensor).map_err(failed(source))?), adapters))
}

/// Whether the numbers in a file are those of this precision.
fn is_wanted(stored: Format, precision: Precision) -> bool {
    match (stored, precision) {
        // What is stored in fewer bits becomes the same floats whether all at once or piece by piece where it is used.
        (_, Precision::Float(DType::F32)) => true,
        (stored, Precision::Float(DType::F16)) => stored == Format::F16,
        (stored, Precision::Float(DType::BF16)) => stored == Format::BF16,
        (stored, Precision::Int8) => matches!(stored, Format::Blocks(_)),
        _ => false,
    }
}

/// A weight where it lies; none if it cannot be read there.
fn frozen(located: &Located, shape: &[usize]) -> Option<(Format, Frozen)> {
    let format = match located.elements {
        Elements::Plain(StoredDtype::F32) => Format::F32,
        Elements::Plain(StoredDtype::F16) => Format::F16,
        Elements::Plain(StoredDtype::BF16) => Format::BF16,
        Elements::Plain(_) => return None,
        Elements::Blocks(format) => Format::Blocks(format),
    };
    Some((format, Frozen::new(located.memory.clone(), located.bytes.clone(), format, shape).ok()?))
}

fn failed(source: &Source) -> impl Fn(candle_core::Error) -> atelier_weights::Error {
    let tensor = source.path().to_string();
    move |source| atelier_weights::Error::Tensor {
        place: "the weight of a layer".into(),
        tensor: tensor.clone(),
        source: Box::new(source),
    }
}

/// A fully connected layer.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (outputs, inputs).
    pub weight: Weight,
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
        let (weight, adapters) = weight(source, &[outputs, inputs])?;
        Ok(Self { weight, bias: None, adapters })
    }

    /// From the kernel (outputs, inputs, 1, 1) of a convolution, which on tokens is the same thing.
    pub fn from_pointwise(source: &Source, inputs: usize, outputs: usize) -> Result<Self> {
        let (kernel, adapters) = weight(source, &[outputs, inputs, 1, 1])?;
        let weight = kernel.reshape((outputs, inputs)).map_err(failed(source))?;
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

    /// The gated GELU of the result, (..., outputs / 2).
    pub(crate) fn geglu_for(&self, need: Need, x: &Tensor) -> candle_core::Result<Tensor> {
        match &self.bias {
            Some(bias) if self.adapters.is_empty() => linear_geglu_for(need, x, &self.weight, bias),
            _ => geglu(&self.forward(x)?),
        }
    }

    /// What is needed of the input, where this is needed of the result: variables in here need its numbers.
    pub(crate) fn need_of_input(&self, need: Need) -> Need {
        let frozen = self.adapters.is_empty() && !self.weight.track_op();
        if frozen { need } else { Need::Value }
    }
}

/// A table whose rows are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Embedding(Weight);

impl Embedding {
    /// (rows, width). Errors: missing or misshapen.
    pub(crate) fn new(source: &Source, rows: usize, width: usize) -> Result<Self> {
        let shape = [rows, width];
        // Its rows are not multiplied: where weights become eight bits, it has what is beside them.
        let precisions = [source.precision(), source.dtype().into()];
        let wanted = |format| precisions.iter().any(|precision| is_wanted(format, *precision));
        if source.device().is_cpu()
            && let Some((located, changes)) = source.located(&shape)?
            && changes.is_empty()
            && let Some((_, table)) = frozen(&located, &shape).filter(|(format, _)| wanted(*format))
        {
            return Ok(Self(Weight::Frozen(table)));
        }
        Ok(Self(source.get(&shape, "weight")?.into()))
    }

    /// The rows `ids`, (ids, width), in this type.
    pub(crate) fn forward(&self, ids: &[u32], dtype: DType) -> candle_core::Result<Tensor> {
        let rows = match &self.0 {
            Weight::Frozen(table) => table.rows(ids)?,
            Weight::Tensor(table) => table.index_select(&Tensor::new(ids, table.device())?, 0)?,
        };
        rows.to_dtype(dtype)
    }
}

/// A two-dimensional convolution with a bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// (outputs, inputs, kernel, kernel).
    pub weight: Weight,
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
        let (weight, adapters) = weight(source, &[outputs, inputs, kernel, kernel])?;
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
        let (weight, adapters) = weight(source, &[outputs, inputs, kernel, kernel])?;
        let bias = Tensor::zeros(outputs, source.dtype(), source.device()).map_err(failed(source))?;
        Ok(Self { weight, bias, adapters, spec })
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
    transposed(&x.flatten_from(2)?)
}

/// (B, H * W, C) to (B, C, H, W).
pub(crate) fn to_image(x: &Tensor, height: usize, width: usize) -> candle_core::Result<Tensor> {
    let (batch, _, channels) = x.dims3()?;
    transposed(x)?.reshape((batch, channels, height, width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_ops::gradcheck::pseudo_normal;
    use atelier_weights::Weights;
    use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
    use std::collections::HashMap;
    use std::sync::Arc;

    const CPU: &Device = &Device::Cpu;

    /// A file of a layer, its weight of this type, and what the weight then is.
    fn file(shape: &[usize], dtype: DType) -> (Arc<Weights>, Tensor) {
        let weight = pseudo_normal(1, shape, 0.1).to_dtype(dtype).unwrap();
        let bias = pseudo_normal(2, shape[0], 1.0);
        let wide = weight.to_dtype(DType::F32).unwrap();
        let tensors = HashMap::from([("weight".to_string(), weight), ("bias".to_string(), bias)]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        candle_core::safetensors::save(&tensors, &path).unwrap();
        (Arc::new(Weights::from_bytes(std::fs::read(&path).unwrap(), "a file").unwrap()), wide)
    }

    fn blocks(shape: (usize, usize), format: GgmlDType) -> Arc<Weights> {
        let quantized = |t: &Tensor, format| QTensor::quantize(t, format).unwrap();
        let weight = quantized(&pseudo_normal(1, shape, 0.1), format);
        let bias = quantized(&pseudo_normal(2, shape.0, 1.0), GgmlDType::F32);
        let mut out = std::io::Cursor::new(Vec::new());
        gguf_file::write(&mut out, &[], &[("weight", &weight), ("bias", &bias)]).unwrap();
        Arc::new(Weights::from_bytes(out.into_inner(), "a file").unwrap())
    }

    fn linear(
        weights: &Arc<Weights>,
        precision: impl Into<Precision>,
        (outputs, inputs): (usize, usize),
    ) -> Linear {
        Linear::new(&Source::from_weights(weights.clone(), precision, CPU), inputs, outputs).unwrap()
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
    }

    /// The largest difference, of the largest number.
    fn error(a: &Tensor, b: &Tensor) -> f32 {
        let (a, b) = (numbers(a), numbers(b));
        assert_eq!(a.len(), b.len());
        let largest = b.iter().fold(0f32, |m, v| m.max(v.abs()));
        a.iter().zip(&b).fold(0f32, |e, (a, b)| e.max((a - b).abs())) / largest
    }

    #[test]
    fn a_weight_is_used_where_it_lies_if_its_numbers_are_those_wanted() {
        use DType::{BF16, F16, F32, F64};
        for (stored, wanted, there) in [
            (F32, F32, true),
            (F16, F16, true),
            (BF16, BF16, true),
            (F16, F32, true),
            (BF16, F32, true),
            (F32, F16, false),
            (F16, BF16, false),
            (F32, F64, false),
        ] {
            let (weights, wide) = file(&[33, 64], stored);
            let layer = linear(&weights, wanted, (33, 64));
            assert_eq!(matches!(layer.weight, Weight::Frozen(_)), there, "{stored:?} as {wanted:?}");
            let kept = wide.to_dtype(wanted).unwrap();
            let got = layer.weight.to_dtype(wanted).unwrap();
            assert_eq!(numbers(&got), numbers(&kept), "{stored:?} as {wanted:?}");
            assert_eq!(weights.unused(), Vec::<String>::new());
            let x = pseudo_normal(3, (2, 5, 64), 1.0)
                .to_dtype(compute_dtype(&Source::from_weights(weights, wanted, CPU)));
            let (x, bias) = (x.unwrap(), layer.bias.as_ref());
            let want = linear_for(Need::Value, &x, &kept, bias).unwrap();
            assert_eq!(numbers(&layer.forward(&x).unwrap()), numbers(&want), "{stored:?} as {wanted:?}");
        }
    }

    #[test]
    fn eight_bits_are_made_of_floats_and_blocks_are_used_as_they_are() {
        let x = pseudo_normal(3, (7, 256), 1.0);
        let shape = (33, 256);
        let (floats, wide) = file(&[33, 256], DType::F32);
        let exact = linear(&floats, DType::F32, shape).forward(&x).unwrap();
        let layer = linear(&floats, Precision::Int8, shape);
        assert!(matches!(layer.weight, Weight::Frozen(_)));
        assert!(error(&layer.weight.to_dtype(DType::F32).unwrap(), &wide) < 1.0 / 254.0 + 1.0 / 2048.0);
        let off = error(&layer.forward(&x).unwrap(), &exact);
        assert!(off > 0.0 && off < 0.01, "{off}");
        for format in [GgmlDType::Q8_0, GgmlDType::Q4_0, GgmlDType::Q6K] {
            let weights = blocks(shape, format);
            let layer = linear(&weights, Precision::Int8, shape);
            assert!(matches!(layer.weight, Weight::Frozen(_)));
            let float = linear(&weights, DType::F32, shape);
            assert!(matches!(float.weight, Weight::Frozen(_)));
            let source = Source::from_weights(weights.clone(), DType::F32, CPU);
            let copied = source.get(&[33, 256], "weight").unwrap();
            assert_eq!(numbers(&float.weight.to_dtype(DType::F32).unwrap()), numbers(&copied), "{format:?}");
            let want = linear_for(Need::Value, &x, &copied, float.bias.as_ref()).unwrap();
            assert_eq!(numbers(&float.forward(&x).unwrap()), numbers(&want), "{format:?}");
            let off = error(&layer.forward(&x).unwrap(), &want);
            // Biases are stored in f16.
            assert!(off < 1e-3, "{format:?}: {off}");
        }
    }

    #[test]
    fn the_rows_of_a_table_are_read_where_it_lies() {
        use DType::{BF16, F16, F32};
        let ids = [4u32, 0, 32, 4];
        for (stored, wanted, there) in [
            (F16, Precision::Float(F16), true),
            (BF16, F32.into(), true),
            (F16, Precision::Int8, true),
            (F32, Precision::Int8, false),
            (F32, Precision::Float(F16), false),
        ] {
            let (weights, wide) = file(&[33, 64], stored);
            let table = Embedding::new(&Source::from_weights(weights, wanted, CPU), 33, 64).unwrap();
            assert_eq!(matches!(table.0, Weight::Frozen(_)), there, "{stored:?} as {wanted:?}");
            let kept = if there { wide } else { wide.to_dtype(F16).unwrap() };
            let want = kept.index_select(&Tensor::new(&ids, CPU).unwrap(), 0).unwrap();
            assert_eq!(
                numbers(&table.forward(&ids, F32).unwrap()),
                numbers(&want),
                "{stored:?} as {wanted:?}"
            );
        }
        let (weights, _) = file(&[33, 64], F32);
        let source = Source::from_weights(weights, F32, CPU);
        assert!(Embedding::new(&source, 34, 64).unwrap_err().to_string().contains("found [33, 64]"));
        assert!(Embedding::new(&source, 33, 64).unwrap().forward(&[33], F32).is_err());
    }

    #[test]
    fn rows_that_are_no_whole_blocks_keep_16_bits() {
        let (weights, _) = file(&[8, 4, 3, 3], DType::F32);
        let source = Source::from_weights(weights, Precision::Int8, CPU);
        let conv = Conv2d::same(&source, 4, 8, 3).unwrap();
        assert!(matches!(&conv.weight, Weight::Tensor(weight) if weight.dtype() == DType::F16));
    }

    #[test]
    fn a_weight_that_lies_where_it_cannot_be_read_is_copied() {
        let header = br#"{"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"bias":{"dtype":"F32","shape":[2],"data_offsets":[24,32]}} "#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        assert!(!bytes.len().is_multiple_of(4));
        bytes.extend((0..8).flat_map(|i| (i as f32).to_le_bytes()));
        let weights = Arc::new(Weights::from_bytes(bytes, "a file").unwrap());
        let layer = linear(&weights, DType::F32, (2, 3));
        assert!(matches!(layer.weight, Weight::Tensor(_)));
        assert_eq!(numbers(&layer.weight.to_dtype(DType::F32).unwrap()), [0., 1., 2., 3., 4., 5.]);
    }

    #[test]
    fn a_missing_or_misshapen_weight_is_named() {
        let (weights, _) = file(&[33, 64], DType::F32);
        let build = |inputs| Linear::new(&Source::from_weights(weights.clone(), DType::F32, CPU), inputs, 33);
        assert!(build(65).unwrap_err().to_string().contains("expected shape [33, 65], found [33, 64]"));
        let nowhere = Source::from_weights(weights.clone(), DType::F32, CPU).pp("mid");
        assert!(Linear::without_bias(&nowhere, 64, 33).unwrap_err().to_string().contains("mid.weight"));
    }
}
