//! Bytes of a file to tensors of the wanted type.

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Result, Tensor, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::header::StoredDtype;

/// Elements converted by one task.
const CHUNK: usize = 1 << 16;

/// The little-endian elements in `bytes`, as a tensor of `dtype` on `device`.
///
/// From f32, f64, f16 or bf16 to f32, f16, bf16 (or, from halves by way of f32, f64). The count must be the shape's.
pub(crate) fn tensor(
    bytes: &[u8],
    stored: StoredDtype,
    shape: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let cpu = &Device::Cpu;
    let tensor = match (stored, dtype) {
        // The same type: copied as it is.
        (StoredDtype::F16, DType::F16) => {
            Tensor::from_vec(copied::<f16, 2>(bytes, f16::from_le_bytes), shape, cpu)?
        }
        (StoredDtype::BF16, DType::BF16) => {
            Tensor::from_vec(copied::<bf16, 2>(bytes, bf16::from_le_bytes), shape, cpu)?
        }
        (StoredDtype::F32, _) => Tensor::from_vec(copied::<f32, 4>(bytes, f32::from_le_bytes), shape, cpu)?,
        (StoredDtype::F64, _) => Tensor::from_vec(copied::<f64, 8>(bytes, f64::from_le_bytes), shape, cpu)?,
        (StoredDtype::F16, _) => Tensor::from_vec(
            widened(bytes, f16::from_le_bytes, |h, f| h.convert_to_f32_slice(f)),
            shape,
            cpu,
        )?,
        (StoredDtype::BF16, _) => Tensor::from_vec(
            widened(bytes, bf16::from_le_bytes, |h, f| h.convert_to_f32_slice(f)),
            shape,
            cpu,
        )?,
        _ => bail!("{stored:?} is not a weight's data type"),
    };
    tensor.to_dtype(dtype)?.to_device(device)
}

/// The elements of a vector in blocks of fewer bits.
pub(crate) fn into_blocks(numbers: &Tensor, format: GgmlDType) -> Result<Vec<u8>> {
    Ok(QTensor::quantize(numbers, format)?.data()?.into_owned())
}

/// The elements of a tensor of floats, little-endian.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F16 => flat.to_vec1::<f16>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::BF16 => flat.to_vec1::<bf16>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F32 => flat.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        other => bail!("{other:?} is not a weight's data type"),
    })
}

/// The elements of a view, `size` bytes each, one after the other. The view lies in `bytes`.
pub(crate) fn gathered(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut dense = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at = size * index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
        dense.extend_from_slice(&bytes[at..at + size]);
        for (i, d) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *d {
                break;
            }
            *i = 0;
        }
    }
    dense
}

/// The numbers that the blocks in `bytes` stand for. Their count must be the shape's.
pub(crate) fn blocks(
    bytes: &[u8],
    format: GgmlDType,
    shape: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    // In one row, whatever the shape: blocks may run over the ends of a kernel's rows.
    let count: usize = shape.iter().product();
    if count == 0 {
        return Tensor::zeros(shape, dtype, device);
    }
    let storage = QStorage::from_data(bytes.into(), &Device::Cpu, format)?;
    let numbers = QTensor::new(storage, count)?.dequantize(&Device::Cpu)?;
    numbers.reshape(shape)?.to_dtype(dtype)?.to_device(device)
}

fn copied<T: Copy + Send + Default, const N: usize>(
    bytes: &[u8],
    read: impl Fn([u8; N]) -> T + Sync,
) -> Vec<T> {
    let (elements, _) = bytes.as_chunks::<N>();
    let mut out = vec![T::default(); elements.len()];
    out.par_chunks_mut(CHUNK).zip(elements.par_chunks(CHUNK)).for_each(|(out, elements)| {
        for (out, element) in out.iter_mut().zip(elements) {
            *out = read(*element);
        }
    });
    out
}

fn widened<H: Copy + Default>(
    bytes: &[u8],
    read: impl Fn([u8; 2]) -> H + Sync,
    convert: impl Fn(&[H], &mut [f32]) + Sync,
) -> Vec<f32> {
    /// Halves converted at once, on the stack: the file's bytes may not be aligned.
    const BLOCK: usize = 256;
    let (elements, _) = bytes.as_chunks::<2>();
    let mut out = vec![0f32; elements.len()];
    out.par_chunks_mut(CHUNK).zip(elements.par_chunks(CHUNK)).for_each(|(out, elements)| {
        let mut halves = [H::default(); BLOCK];
        for (out, elements) in out.chunks_mut(BLOCK).zip(elements.chunks(BLOCK)) {
            for (half, element) in halves.iter_mut().zip(elements) {
                *half = read(*element);
            }
            convert(&halves[..out.len()], out);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_type_gives_every_wanted_type() {
        let values = [0.0f32, 1.0, -2.5, 0.15625, 1024.0, -0.0009765625];
        let stored = [
            (StoredDtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
            (StoredDtype::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
            (StoredDtype::BF16, values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        ];
        for (from, bytes) in stored {
            for to in [DType::F32, DType::F16, DType::BF16, DType::F64] {
                let t = tensor(&bytes, from, &[2, 3], to, &Device::Cpu).unwrap();
                assert_eq!((t.dtype(), t.dims()), (to, &[2, 3][..]));
                let got: Vec<f32> = t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                assert_eq!(got, values, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn long_and_unaligned_halves_convert_right() {
        let count = 2 * CHUNK + 777;
        let mut bytes = vec![0xAAu8];
        bytes.extend((0..count).flat_map(|i| f16::from_f32((i % 1000) as f32).to_le_bytes()));
        let t = tensor(&bytes[1..], StoredDtype::F16, &[count], DType::F32, &Device::Cpu).unwrap();
        let got: Vec<f32> = t.to_vec1().unwrap();
        assert!(got.iter().enumerate().all(|(i, v)| *v == (i % 1000) as f32));
    }

    #[test]
    fn integers_are_no_weights() {
        assert!(tensor(&[0; 8], StoredDtype::I64, &[1], DType::F32, &Device::Cpu).is_err());
    }
}
