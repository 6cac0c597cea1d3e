//! Safetensors files, written one tensor after the other: a file is never held as a whole.

use crate::convert;
use crate::header::StoredDtype;
use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// A tensor that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its name in the file.
    pub name: String,
    /// Its element type.
    pub dtype: StoredDtype,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Outline {
    /// Of a tensor as it is in memory; what is no weight becomes f32.
    pub fn of(name: impl Into<String>, tensor: &Tensor) -> Self {
        let dtype = match tensor.dtype() {
            DType::F16 => StoredDtype::F16,
            DType::BF16 => StoredDtype::BF16,
            DType::F64 => StoredDtype::F64,
            _ => StoredDtype::F32,
        };
        Self { name: name.into(), dtype, shape: tensor.dims().to_vec() }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().fold(self.dtype.size(), |n, d| n.saturating_mul(*d as u64))
    }
}

/// Writes a file of these tensors; `content` is asked for the bytes of each in turn.
///
/// Wide elements come first, then names in order, as the reference implementation has it, so that every tensor is
/// aligned and the same tensors give the same file.
///
/// # Errors
/// Those of `content` and of writing; content of another length than the outline's; blocks, which have no name here.
pub fn write_safetensors<E: From<io::Error>>(
    out: &mut dyn Write,
    mut tensors: Vec<Outline>,
    metadata: &BTreeMap<String, String>,
    mut content: impl FnMut(&Outline) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    tensors.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(&b.name)));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut at = 0u64;
    for t in &tensors {
        let dtype = t.dtype.name().ok_or_else(|| io::Error::other(format!("{} has blocks", t.name)))?;
        let end = at.saturating_add(t.bytes());
        header.insert(t.name.clone(), json!({"dtype": dtype, "shape": t.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)?;
    for t in &tensors {
        let bytes = content(t)?;
        if bytes.len() as u64 != t.bytes() {
            let wrong = format!("{}: expected {} bytes, found {}", t.name, t.bytes(), bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, wrong).into());
        }
        out.write_all(&bytes)?;
    }
    out.flush()?;
    Ok(())
}

/// The elements of a tensor, little-endian, as `dtype`, one of F16, BF16, F32 and F64.
///
/// # Errors
/// Another type; the tensor library failed.
pub fn bytes_of(tensor: &Tensor, dtype: StoredDtype) -> candle_core::Result<Vec<u8>> {
    let dtype = match dtype {
        StoredDtype::F16 => DType::F16,
        StoredDtype::BF16 => DType::BF16,
        StoredDtype::F32 => DType::F32,
        StoredDtype::F64 => DType::F64,
        other => candle_core::bail!("tensors are not written as {other:?}"),
    };
    convert::bytes(&tensor.to_dtype(dtype)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Header;
    use std::path::Path;

    fn outline(name: &str, dtype: StoredDtype, shape: &[usize]) -> Outline {
        Outline { name: name.into(), dtype, shape: shape.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let tensors = vec![
            outline("b", StoredDtype::F16, &[3]),
            outline("a", StoredDtype::F32, &[2, 1]),
            outline("c", StoredDtype::F16, &[]),
        ];
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let mut file = Vec::new();
        let content =
            |t: &Outline| -> io::Result<Vec<u8>> { Ok(vec![t.name.as_bytes()[0]; t.bytes() as usize]) };
        write_safetensors(&mut file, tensors, &metadata, content).unwrap();
        let header = Header::read(&file, Path::new("x")).unwrap();
        assert_eq!(header.metadata, metadata);
        assert_eq!(&file[header.tensors["a"].bytes.clone()], b"aaaaaaaa");
        assert_eq!(header.tensors["a"].bytes.start % 8, 0);
        assert_eq!(&file[header.tensors["b"].bytes.clone()], b"bbbbbb");
        assert_eq!(&file[header.tensors["c"].bytes.clone()], b"cc");
    }

    #[test]
    fn content_of_another_length_is_an_error() {
        let short = |_: &Outline| -> io::Result<Vec<u8>> { Ok(vec![0; 3]) };
        let tensors = vec![outline("a", StoredDtype::F32, &[1])];
        let e = write_safetensors(&mut Vec::new(), tensors, &BTreeMap::new(), short).unwrap_err();
        assert!(e.to_string().contains("expected 4 bytes, found 3"), "{e}");
        let blocks = vec![outline("a", StoredDtype::Quantized, &[1])];
        assert!(write_safetensors(&mut Vec::new(), blocks, &BTreeMap::new(), short).is_err());
    }
}
