//! Writing safetensors files, tensor by tensor: never more than one in memory.

use crate::header::StoredDtype;
use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its element type; not [`StoredDtype::Quantized`].
    pub dtype: StoredDtype,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Planned {
    /// A tensor as it is in memory.
    pub fn of(name: impl Into<String>, tensor: &Tensor) -> Self {
        let dtype = match tensor.dtype() {
            DType::F16 => StoredDtype::F16,
            DType::BF16 => StoredDtype::BF16,
            DType::F64 => StoredDtype::F64,
            _ => StoredDtype::F32,
        };
        Self { name: name.into(), dtype, shape: tensor.dims().to_vec() }
    }

    fn bytes(&self) -> u64 {
        self.shape.iter().map(|d| *d as u64).product::<u64>() * self.dtype.size()
    }
}

/// Writes a safetensors file of these tensors in this order; `bytes` gives each one's elements, little-endian.
///
/// Errors: those of `out` and of `bytes`; fewer or more bytes than a tensor has.
pub fn write_safetensors<E: From<io::Error>>(
    out: &mut impl Write,
    tensors: &[Planned],
    metadata: &BTreeMap<String, String>,
    mut bytes: impl FnMut(&Planned) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let header = header(tensors, metadata);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in tensors {
        let content = bytes(tensor)?;
        if content.len() as u64 != tensor.bytes() {
            let message = format!(
                "tensor {:?}: expected {} bytes, found {}",
                tensor.name,
                tensor.bytes(),
                content.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
        }
        out.write_all(&content)?;
    }
    Ok(out.flush()?)
}

/// JSON, filled with spaces to a multiple of 8 bytes, as the format recommends.
fn header(tensors: &[Planned], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut fields = Map::new();
    if !metadata.is_empty() {
        fields.insert("__metadata__".into(), json!(metadata));
    }
    let mut at = 0;
    for tensor in tensors {
        let end = at + tensor.bytes();
        let about = json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [at, end]});
        fields.insert(tensor.name.clone(), about);
        at = end;
    }
    let mut text = Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    text
}

/// The elements of a tensor, little-endian, as `dtype`, one of F16, BF16, F32 and F64.
///
/// Errors: another type; the tensor library failed.
pub fn bytes_of(tensor: &Tensor, dtype: StoredDtype) -> candle_core::Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    let values = |dtype| flat.to_dtype(dtype);
    Ok(match dtype {
        StoredDtype::F16 => {
            values(DType::F16)?.to_vec1::<half::f16>()?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        StoredDtype::BF16 => {
            values(DType::BF16)?.to_vec1::<half::bf16>()?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        StoredDtype::F32 => {
            values(DType::F32)?.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        StoredDtype::F64 => {
            values(DType::F64)?.to_vec1::<f64>()?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        other => candle_core::bail!("tensors are not written as {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weights;
    use candle_core::Device;

    #[test]
    fn what_is_written_is_read_back() {
        let a = Tensor::new(&[[1f32, -2.5], [3.0, 4.0]], &Device::Cpu).unwrap();
        let b = Tensor::new(&[0.5f32], &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
        let all = [Planned::of("b", &b), Planned::of("a", &a)];
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let mut out = Vec::new();
        write_safetensors(&mut out, &all, &metadata, |t| {
            bytes_of(if t.name == "a" { &a } else { &b }, t.dtype).map_err(io::Error::other)
        })
        .unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &out).unwrap();
        let weights = Weights::open(file.path()).unwrap();
        assert_eq!(weights.metadata()["format"], "pt");
        assert_eq!(weights.info("b").unwrap().dtype, StoredDtype::F16);
        let read = weights.get("a", &[2, 2], DType::F32, &Device::Cpu).unwrap();
        assert_eq!(read.to_vec2::<f32>().unwrap(), a.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn a_tensor_of_another_length_is_not_written() {
        let a = Planned { name: "a".into(), dtype: StoredDtype::F32, shape: vec![2] };
        let result: io::Result<()> =
            write_safetensors(&mut Vec::new(), &[a], &BTreeMap::new(), |_| Ok(vec![0; 4]));
        assert!(result.unwrap_err().to_string().contains("expected 8 bytes, found 4"));
    }
}
