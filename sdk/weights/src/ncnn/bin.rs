//! The file of weights: for each layer that has some, in the order of the text, its arrays one after the other.
//!
//! The kernel of a convolution has a tag of four bytes in front, which says what its elements are; biases and the slopes of
//! a PReLU have none and are f32. Numbers are little-endian; 16-bit arrays are filled up to four bytes
//! (`ModelBinFromDataReader::load` in ncnn's `src/modelbin.cpp`).

use super::param::NcnnLayer;
use crate::error::{Error, Result};
use crate::header::{StoredDtype, TensorInfo};
use crate::weights::{Codec, Found};
use std::path::Path;

/// 16-bit floats.
const HALF: u32 = 0x0130_6B47;
/// 8-bit integers.
const INT8: u32 = 0x000D_4B38;
/// 32-bit floats, in files whose other layers are quantised.
const FLOAT: u32 = 0x0002_C056;

/// Layers that have no weights.
const WITHOUT: [&str; 26] = [
    "AbsVal",
    "BinaryOp",
    "Clip",
    "Concat",
    "Crop",
    "Dropout",
    "Eltwise",
    "ExpandDims",
    "Flatten",
    "HardSigmoid",
    "HardSwish",
    "Input",
    "Interp",
    "Noop",
    "Padding",
    "Permute",
    "PixelShuffle",
    "Pooling",
    "ReLU",
    "Reorg",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Split",
    "TanH",
    "UnaryOp",
];

/// The tensors of `layers` in `file`; `path` is for messages.
pub(super) fn read(layers: &[NcnnLayer], file: &[u8], path: &Path) -> Result<Vec<Found>> {
    let mut reader = Reader { file, at: 0, path, found: Vec::new() };
    for layer in layers {
        match layer.kind.as_str() {
            "Convolution" => reader.convolution(layer)?,
            "PReLU" => {
                let slopes = reader.count(layer, 0, 0)?;
                reader.tensor(layer, "weight", StoredDtype::F32, vec![slopes])?;
            }
            kind if WITHOUT.contains(&kind) => {}
            kind => return Err(reader.wrong(layer, format!("layers of the type {kind} are not supported"))),
        }
    }
    match file.len() - reader.at {
        0 => Ok(reader.found),
        _ => Err(Error::WrongFileLength {
            path: path.into(),
            expected: reader.at as u64,
            found: file.len() as u64,
        }),
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    path: &'a Path,
    found: Vec<Found>,
}

impl Reader<'_> {
    fn convolution(&mut self, layer: &NcnnLayer) -> Result<()> {
        let (outputs, elements) = (self.count(layer, 0, 0)?, self.count(layer, 6, 0)?);
        let width = self.count(layer, 1, 0)?;
        let height = self.count(layer, 11, width)?;
        if self.count(layer, 8, 0)? > 0 {
            return Err(self.wrong(layer, "its weights are 8-bit integers, which are not supported".into()));
        }
        if self.count(layer, 19, 0)? > 0 {
            return Err(
                self.wrong(layer, "its weights are those of another layer, which is not supported".into())
            );
        }
        let kernel = outputs.checked_mul(width).and_then(|n| n.checked_mul(height)).filter(|n| *n > 0);
        let inputs = kernel.filter(|n| elements % n == 0).map_or(0, |n| elements / n);
        if inputs == 0 {
            let message = format!(
                "expected weights for {outputs} channels of {height}x{width}, found {elements} of them"
            );
            return Err(self.wrong(layer, message));
        }
        let dtype = self.tag(layer)?;
        self.tensor(layer, "weight", dtype, vec![outputs, inputs, height, width])?;
        match self.count(layer, 5, 0)? {
            0 => Ok(()),
            _ => self.tensor(layer, "bias", StoredDtype::F32, vec![outputs]),
        }
    }

    /// What the elements after the tag are.
    fn tag(&mut self, layer: &NcnnLayer) -> Result<StoredDtype> {
        let end = self.at.saturating_add(4);
        let Some(tag) = self.file.get(self.at..end).and_then(|bytes| bytes.first_chunk::<4>()) else {
            return Err(self.wrong(layer, "expected the tag of its weights, found the end".into()));
        };
        let found = match u32::from_le_bytes(*tag) {
            0 | FLOAT => Ok(StoredDtype::F32),
            HALF => Ok(StoredDtype::F16),
            INT8 => Err("its weights are 8-bit integers, which are not supported".into()),
            other => Err(format!(
                "its weights have the tag {other:#010x}, indices into a table of 256 numbers or nothing known; \
                 expected floats of 16 or 32 bits"
            )),
        };
        let dtype = found.map_err(|message| self.wrong(layer, message))?;
        self.at = end;
        Ok(dtype)
    }

    /// Elements without a tag, up to the next multiple of four bytes.
    fn tensor(&mut self, layer: &NcnnLayer, end: &str, dtype: StoredDtype, shape: Vec<usize>) -> Result<()> {
        let bytes = shape.iter().try_fold(dtype.size() as usize, |n, d| n.checked_mul(*d));
        let whole = bytes.and_then(|n| n.checked_next_multiple_of(4)).and_then(|n| self.at.checked_add(n));
        let (Some(bytes), Some(next)) = (bytes, whole.filter(|next| *next <= self.file.len())) else {
            let left = self.file.len() - self.at;
            let message = format!("expected its {end} of shape {shape:?}, found {left} bytes up to the end");
            return Err(self.wrong(layer, message));
        };
        let info = TensorInfo { dtype, shape, bytes: self.at..self.at + bytes };
        self.found.push((format!("{}.{end}", layer.name), info, Codec::Plain));
        self.at = next;
        Ok(())
    }

    fn count(&self, layer: &NcnnLayer, number: i64, default: usize) -> Result<usize> {
        layer.count(number, default).ok_or_else(|| {
            self.wrong(layer, format!("expected a count as parameter {number}, found something else"))
        })
    }

    fn wrong(&self, layer: &NcnnLayer, message: String) -> Error {
        Error::NcnnBin { path: self.path.into(), layer: layer.name.clone(), offset: self.at as u64, message }
    }
}
