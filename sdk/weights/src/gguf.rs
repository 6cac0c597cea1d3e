//! The header of a GGUF file (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), versions 2 and 3, as
//! stable-diffusion.cpp and ComfyUI-GGUF write it.
//!
//! Read here and not by the tensor library, which believes the lengths in the file; its tables of block formats are used.

use crate::error::{Error, Result};
use crate::header::{StoredDtype, TensorInfo};
use crate::located::Elements;
use crate::weights::{Codec, Found};
use candle_core::quantized::GgmlDType;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// More tensors, remarks and dimensions than any image model has.
const MAX_TENSORS: u64 = 100_000;
const MAX_REMARKS: u64 = 100_000;
const MAX_DIMENSIONS: u32 = 4;
/// The kind of a text, and the longest that is kept.
const TEXT: u32 = 8;
const MAX_TEXT: usize = 64 << 10;
/// ComfyUI-GGUF writes kernels as matrices, so that blocks fit, and their shapes under this name.
pub(crate) const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";

/// What the places of tensors are multiples of, unless a file says otherwise.
pub(crate) const ALIGNMENT: usize = 32;

/// Whether `file` starts as one does.
pub(crate) fn is_gguf(file: &[u8]) -> bool {
    file.starts_with(b"GGUF")
}

/// A format of tensors that is understood.
fn format(number: u32) -> Option<(StoredDtype, Codec, u64, u64)> {
    let plain = |dtype: StoredDtype| Some((dtype, Codec::Plain, 1, dtype.size()));
    let blocks = |dtype: GgmlDType| {
        let (count, size) = (dtype.block_size() as u64, dtype.type_size() as u64);
        Some((StoredDtype::Quantized, Codec::Blocks(dtype), count, size))
    };
    match number {
        0 => plain(StoredDtype::F32),
        1 => plain(StoredDtype::F16),
        2 => blocks(GgmlDType::Q4_0),
        3 => blocks(GgmlDType::Q4_1),
        6 => blocks(GgmlDType::Q5_0),
        7 => blocks(GgmlDType::Q5_1),
        8 => blocks(GgmlDType::Q8_0),
        10 => blocks(GgmlDType::Q2K),
        11 => blocks(GgmlDType::Q3K),
        12 => blocks(GgmlDType::Q4K),
        13 => blocks(GgmlDType::Q5K),
        14 => blocks(GgmlDType::Q6K),
        24 => plain(StoredDtype::I8),
        25 => plain(StoredDtype::I16),
        26 => plain(StoredDtype::I32),
        27 => plain(StoredDtype::I64),
        28 => plain(StoredDtype::F64),
        30 => plain(StoredDtype::BF16),
        _ => None,
    }
}

/// The number of a format in files, if it has one.
pub(crate) fn number(elements: Elements) -> Option<u32> {
    (0..=30).find(|number| match (format(*number), elements) {
        (Some((dtype, Codec::Plain, ..)), Elements::Plain(wanted)) => dtype == wanted,
        (Some((_, Codec::Blocks(format), ..)), Elements::Blocks(wanted)) => format == wanted,
        _ => false,
    })
}

/// The tensors of `file`; `path` is for messages.
///
/// Errors: cut off, lengths that lie, another version, formats that are not known.
pub(crate) fn read(file: &[u8], path: &Path) -> Result<(Vec<Found>, BTreeMap<String, String>)> {
    let mut reader = Reader { file, at: 4, path };
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(reader.wrong(format!("expected GGUF version 2 or 3, found {version}")));
    }
    let (tensors, remarks) = (reader.u64()?, reader.u64()?);
    if tensors > MAX_TENSORS || remarks > MAX_REMARKS {
        return Err(reader.wrong(format!(
            "expected at most {MAX_TENSORS} tensors and {MAX_REMARKS} remarks, found {tensors} and {remarks}"
        )));
    }
    let remarks = reader.remarks(remarks)?;
    let described: Vec<_> = (0..tensors).map(|_| reader.tensor()).collect::<Result<_>>()?;
    let start = reader.at.checked_next_multiple_of(remarks.alignment);
    let start = start.filter(|start| *start <= file.len() || described.is_empty());
    let start =
        start.ok_or_else(|| reader.wrong("expected tensors after the header, found the end".into()))?;
    let mut found = HashMap::new();
    for tensor in described {
        let name = tensor.name.clone();
        let located = tensor.locate(start, file.len(), &remarks).map_err(|message| Error::BadView {
            path: path.into(),
            tensor: name.clone(),
            message,
        })?;
        if found.insert(name.clone(), located).is_some() {
            return Err(Error::DuplicateTensor { path: path.into(), tensor: name });
        }
    }
    Ok((found.into_iter().map(|(name, (info, codec))| (name, info, codec)).collect(), remarks.texts))
}

/// What the file says besides tensors, as far as it matters.
struct Remarks {
    alignment: usize,
    shapes: HashMap<String, Vec<usize>>,
    /// Those that are short texts, such as the architecture.
    texts: BTreeMap<String, String>,
}

struct Described {
    name: String,
    /// As torch has it: the file has the innermost first.
    shape: Vec<u64>,
    format: u32,
    offset: u64,
}

impl Described {
    fn locate(
        &self,
        start: usize,
        end: usize,
        remarks: &Remarks,
    ) -> std::result::Result<(TensorInfo, Codec), String> {
        let (dtype, codec, block, size) =
            format(self.format).ok_or_else(|| format!("format {} of ggml is not supported", self.format))?;
        let count = self.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let bytes = count.filter(|n| n % block == 0).and_then(|n| (n / block).checked_mul(size));
        let wrong = || format!("its shape {:?} in blocks of {block} lies outside the file", self.shape);
        let bytes = bytes.and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)?;
        // Blocks are read where they lie, as 16-bit numbers among others.
        if !self.offset.is_multiple_of(8) {
            return Err(format!("expected a place that 8 divides, found {}", self.offset));
        }
        let from = usize::try_from(self.offset).ok().and_then(|o| o.checked_add(start)).ok_or_else(wrong)?;
        let to = from.checked_add(bytes).filter(|to| *to <= end).ok_or_else(wrong)?;
        let mut shape: Vec<usize> = self.shape.iter().map(|d| *d as usize).collect();
        if let Some(original) = remarks.shapes.get(&self.name) {
            let same = original.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64)) == count;
            if !same {
                return Err(format!("expected as many elements in {shape:?} as in {original:?}"));
            }
            shape.clone_from(original);
        }
        Ok((TensorInfo { dtype, shape, bytes: from..to }, codec))
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Reader<'a> {
    fn wrong(&self, message: String) -> Error {
        Error::Gguf { path: self.path.into(), offset: self.at as u64, message }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(count).ok().and_then(|n| self.at.checked_add(n));
        let Some(bytes) = end.and_then(|end| self.file.get(self.at..end)) else {
            return Err(
                self.wrong(format!("expected {count} more bytes, found {}", self.file.len() - self.at))
            );
        };
        self.at += bytes.len();
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(self.take(4)?.first_chunk().map_or(0, |b| u32::from_le_bytes(*b)))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(self.take(8)?.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn remarks(&mut self, count: u64) -> Result<Remarks> {
        let mut remarks = Remarks { alignment: ALIGNMENT, shapes: HashMap::new(), texts: BTreeMap::new() };
        for _ in 0..count {
            let (key, kind) = (self.text()?, self.u32()?);
            if kind == TEXT {
                let text = self.text()?;
                if text.len() <= MAX_TEXT {
                    remarks.texts.insert(key, text);
                }
                continue;
            }
            let numbers = self.value(kind)?;
            match (key.strip_prefix(ORIGINAL_SHAPE), numbers.as_slice()) {
                (Some(name), [_, ..]) if numbers.len() <= MAX_DIMENSIONS as usize => {
                    let shape = numbers.iter().map(|n| *n as usize).collect();
                    remarks.shapes.insert(name.into(), shape);
                }
                (None, [alignment]) if key == "general.alignment" => remarks.alignment = *alignment as usize,
                _ => {}
            }
        }
        if remarks.alignment < 8 || !remarks.alignment.is_power_of_two() || remarks.alignment > 1 << 20 {
            return Err(self.wrong(format!(
                "expected an alignment that is a power of two from 8, found {}",
                remarks.alignment
            )));
        }
        Ok(remarks)
    }

    /// Reads a value; gives 32-bit whole numbers, and short lists of them, and passes over everything else.
    fn value(&mut self, kind: u32) -> Result<Vec<u32>> {
        match kind {
            4 | 5 => Ok(vec![self.u32()?]),
            8 => self.text().map(|_| Vec::new()),
            9 => self.list(),
            _ => {
                let size = self.size(kind)?;
                self.take(size).map(|_| Vec::new())
            }
        }
    }

    fn list(&mut self) -> Result<Vec<u32>> {
        let (kind, count) = (self.u32()?, self.u64()?);
        match kind {
            4 | 5 if count <= u64::from(MAX_DIMENSIONS) => (0..count).map(|_| self.u32()).collect(),
            8 => {
                // Each text has its length before it, so that a lying count ends at the end of the file.
                for _ in 0..count {
                    self.text()?;
                }
                Ok(Vec::new())
            }
            _ => {
                let bytes = self.size(kind)?.saturating_mul(count);
                self.take(bytes).map(|_| Vec::new())
            }
        }
    }

    fn size(&self, kind: u32) -> Result<u64> {
        match kind {
            0 | 1 | 7 => Ok(1),
            2 | 3 => Ok(2),
            4..=6 => Ok(4),
            10..=12 => Ok(8),
            _ => Err(self.wrong(format!("expected a remark of a known type, found type {kind}"))),
        }
    }

    fn tensor(&mut self) -> Result<Described> {
        let (name, dimensions) = (self.text()?, self.u32()?);
        if dimensions > MAX_DIMENSIONS {
            return Err(self.wrong(format!("expected at most 4 dimensions, found {dimensions}")));
        }
        let mut shape: Vec<u64> = (0..dimensions).map(|_| self.u64()).collect::<Result<_>>()?;
        shape.reverse();
        Ok(Described { name, shape, format: self.u32()?, offset: self.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Weights;
    use candle_core::quantized::{QTensor, gguf_file};
    use candle_core::{DType, Device, Tensor};

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
    }

    /// A file of one tensor as the tensor library writes it.
    fn written(format: GgmlDType, shape: &[usize], remarks: &[(&str, gguf_file::Value)]) -> Vec<u8> {
        let tensor = Tensor::from_vec(numbers(shape.iter().product()), shape, &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, format).unwrap();
        let remarks: Vec<_> = remarks.iter().map(|(key, value)| (*key, value)).collect();
        let mut out = std::io::Cursor::new(Vec::new());
        gguf_file::write(&mut out, &remarks, &[("w", &tensor)]).unwrap();
        out.into_inner()
    }

    fn open(bytes: &[u8]) -> Result<Weights> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Weights::open(file.path())
    }

    fn message(bytes: &[u8]) -> String {
        open(bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_format_gives_its_numbers_back_within_its_precision() {
        use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for (format, allowed) in [
            (F32, 0.0),
            (F16, 5e-4),
            (BF16, 4e-3),
            (Q8_0, 0.01),
            (Q6K, 0.04),
            (Q5_0, 0.07),
            (Q5_1, 0.05),
            (Q5K, 0.06),
            (Q4_0, 0.14),
            (Q4_1, 0.1),
            (Q4K, 0.1),
            (Q3K, 0.3),
            (Q2K, 0.5),
        ] {
            let weights = open(&written(format, &[4, 256], &[])).unwrap();
            let got = weights.get("w", &[4, 256], DType::F32, &Device::Cpu).unwrap();
            let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let error = got.iter().zip(numbers(1024)).fold(0f32, |e, (a, b)| e.max((a - b).abs()));
            println!("{format:?}: {error}");
            assert!(error <= allowed, "{format:?}: {error}");
        }
    }

    #[test]
    fn kernels_written_as_matrices_have_their_shape_back() {
        let shape = gguf_file::Value::Array([8, 4, 4, 2].map(gguf_file::Value::I32).to_vec());
        let key = format!("{ORIGINAL_SHAPE}w");
        let weights = open(&written(GgmlDType::Q8_0, &[8, 32], &[(&key, shape)])).unwrap();
        assert_eq!(weights.info("w").unwrap().shape, [8, 4, 4, 2]);
        assert!(weights.get("w", &[8, 4, 4, 2], DType::F16, &Device::Cpu).is_ok());
        let wrong = gguf_file::Value::Array([8, 4].map(gguf_file::Value::I32).to_vec());
        assert!(message(&written(GgmlDType::Q8_0, &[8, 32], &[(&key, wrong)])).contains("as many elements"));
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused_wherever_it_is() {
        let remark = ("general.name", gguf_file::Value::String("x".into()));
        let whole = written(GgmlDType::Q4_0, &[2, 32], &[remark]);
        // Two blocks of 18 bytes are followed by nothing that matters.
        let data = 2 * 18;
        for keep in 1..whole.len() - (64 - data) {
            assert!(open(&whole[..keep]).is_err(), "{keep} of {}", whole.len());
        }
    }

    #[test]
    fn lying_counts_and_unknown_versions_and_formats_are_refused() {
        let sound = written(GgmlDType::F32, &[2, 32], &[]);
        let edited = |at: usize, new: &[u8]| {
            let mut file = sound.clone();
            file[at..at + new.len()].copy_from_slice(new);
            message(&file)
        };
        assert!(edited(4, &[1]).contains("version 2 or 3"));
        assert!(edited(8, &[0xff; 8]).contains("at most"));
        assert!(edited(16, &[0xff; 8]).contains("at most"));
        assert!(edited(24, &[0xff; 8]).contains("more bytes"));
        // After the name: dimensions, sizes, format, place.
        let at = 24 + 8 + 1;
        assert!(edited(at, &[9]).contains("at most 4 dimensions"));
        assert!(edited(at + 4, &[0xff; 8]).contains("outside the file"));
        assert!(edited(at + 20, &[99]).contains("format 99"));
        assert!(edited(at + 24, &[0, 0, 1]).contains("outside the file"));
        assert!(edited(at + 24, &[1]).contains("8 divides"));
    }
}
