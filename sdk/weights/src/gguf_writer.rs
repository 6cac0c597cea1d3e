//! GGUF files, version 3, written one tensor after the other.

use crate::gguf::{ALIGNMENT, ORIGINAL_SHAPE, number};
use crate::located::Elements;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Kinds of remarks.
const UNSIGNED: u32 = 4;
const SIGNED: u32 = 5;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// What the version of ggml's block formats is called.
const QUANTIZATION: (&str, u32) = ("general.quantization_version", 2);

/// A tensor that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufOutline {
    /// Its name in the file.
    pub name: String,
    /// How its elements lie.
    pub elements: Elements,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl GgufOutline {
    /// Blocks lie in rows of the innermost dimension: where it has no whole ones, all but the first dimension are one row,
    /// and a remark has the shape, as ComfyUI-GGUF writes kernels.
    fn rows(&self) -> Option<Vec<usize>> {
        let Elements::Blocks(format) = self.elements else { return None };
        let whole = self.shape.last().is_some_and(|n| n.is_multiple_of(format.block_size()));
        let first = self.shape.first().filter(|_| !whole)?;
        Some(vec![*first, self.shape.iter().skip(1).product()])
    }
}

/// Writes a file of these tensors in their order; `content` is asked for the bytes of each in turn.
///
/// `texts` are remarks; `general.architecture` should be among them.
///
/// # Errors
/// Those of `content` and of writing; content of another length than the outline's; formats that such files do not have;
/// blocks that the rows do not fill.
pub fn write_gguf<E: From<io::Error>>(
    out: &mut dyn Write,
    tensors: &[GgufOutline],
    texts: &BTreeMap<String, String>,
    mut content: impl FnMut(&GgufOutline) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let header = header(tensors, texts)?;
    out.write_all(&header)?;
    pad(out, header.len() as u64)?;
    for tensor in tensors {
        let (bytes, expected) = (content(tensor)?, length(tensor)?);
        if bytes.len() as u64 != expected {
            let wrong = format!("{}: expected {expected} bytes, found {}", tensor.name, bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, wrong).into());
        }
        out.write_all(&bytes)?;
        pad(out, expected)?;
    }
    out.flush()?;
    Ok(())
}

fn header(tensors: &[GgufOutline], texts: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    let shapes: Vec<_> = tensors.iter().filter(|t| t.rows().is_some()).collect();
    let quantized = tensors.iter().any(|t| matches!(t.elements, Elements::Blocks(_)));
    let mut out = Vec::from(*b"GGUF");
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(((texts.len() + shapes.len() + usize::from(quantized)) as u64).to_le_bytes());
    for (key, value) in texts {
        text(&mut out, key);
        out.extend(TEXT.to_le_bytes());
        text(&mut out, value);
    }
    if quantized {
        text(&mut out, QUANTIZATION.0);
        [UNSIGNED, QUANTIZATION.1].iter().for_each(|n| out.extend(n.to_le_bytes()));
    }
    for tensor in shapes {
        text(&mut out, &format!("{ORIGINAL_SHAPE}{}", tensor.name));
        [LIST, SIGNED].iter().for_each(|n| out.extend(n.to_le_bytes()));
        out.extend((tensor.shape.len() as u64).to_le_bytes());
        tensor.shape.iter().for_each(|n| out.extend((*n as u32).to_le_bytes()));
    }
    let mut at = 0u64;
    for tensor in tensors {
        let unknown =
            || io::Error::other(format!("{}: GGUF has no tensors of {:?}", tensor.name, tensor.elements));
        let shape = tensor.rows().unwrap_or_else(|| tensor.shape.clone());
        text(&mut out, &tensor.name);
        out.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|n| out.extend((*n as u64).to_le_bytes()));
        out.extend(number(tensor.elements).ok_or_else(unknown)?.to_le_bytes());
        out.extend(at.to_le_bytes());
        at += length(tensor)?.next_multiple_of(ALIGNMENT as u64);
    }
    Ok(out)
}

fn length(tensor: &GgufOutline) -> io::Result<u64> {
    let wrong = || io::Error::other(format!("{}: {:?} does not fill its blocks", tensor.name, tensor.shape));
    tensor.elements.bytes(&tensor.shape).ok_or_else(wrong)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Zeros up to the place where the next tensor may start.
fn pad(out: &mut dyn Write, written: u64) -> io::Result<()> {
    let zeros = written.next_multiple_of(ALIGNMENT as u64) - written;
    out.write_all(&[0; ALIGNMENT][..zeros as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StoredDtype, Weights};
    use candle_core::quantized::GgmlDType;
    use candle_core::{DType, Device};

    fn outline(name: &str, elements: Elements, shape: &[usize]) -> GgufOutline {
        GgufOutline { name: name.into(), elements, shape: shape.to_vec() }
    }

    fn write(tensors: &[GgufOutline], byte: u8) -> io::Result<Vec<u8>> {
        let mut file = Vec::new();
        let texts = BTreeMap::from([("general.architecture".to_string(), "sd1".to_string())]);
        let content = |t: &GgufOutline| -> io::Result<Vec<u8>> { Ok(vec![byte; length(t)? as usize]) };
        write_gguf(&mut file, tensors, &texts, content).map(|()| file)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (f16, q8) = (Elements::Plain(StoredDtype::F16), Elements::Blocks(GgmlDType::Q8_0));
        let tensors = [
            outline("bias", f16, &[3]),
            outline("kernel", q8, &[2, 32, 3, 3]),
            outline("matrix", q8, &[3, 64]),
            outline("count", Elements::Plain(StoredDtype::I64), &[]),
        ];
        let weights = Weights::from_bytes(write(&tensors, 0x3c).unwrap(), "x").unwrap();
        assert_eq!(weights.metadata()["general.architecture"], "sd1");
        for t in &tensors {
            let info = weights.info(&t.name).unwrap();
            assert_eq!(info.shape, t.shape, "{}", t.name);
            assert_eq!(weights.elements(&t.name), Some(t.elements));
            assert!(info.bytes.start.is_multiple_of(ALIGNMENT), "{} at {:?}", t.name, info.bytes);
        }
        // The scale 0x3c3c, 1.0586, times 60.
        let kernel = weights.get("kernel", &[2, 32, 3, 3], DType::F32, &Device::Cpu).unwrap();
        let numbers: Vec<f32> = kernel.flatten_all().unwrap().to_vec1().unwrap();
        assert!(numbers.iter().all(|n| (n - 63.516).abs() < 1e-3), "{numbers:?}");
    }

    #[test]
    fn what_such_files_cannot_hold_is_an_error() {
        let short = [outline("w", Elements::Blocks(GgmlDType::Q8_0), &[2, 3])];
        assert!(write(&short, 0).unwrap_err().to_string().contains("w: [2, 3] does not fill"));
        let unknown = [outline("w", Elements::Plain(StoredDtype::U8), &[2])];
        assert!(write(&unknown, 0).unwrap_err().to_string().contains("w: GGUF has no tensors of"));
    }
}
