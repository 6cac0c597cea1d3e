//! Tensors where they lie.

use crate::header::StoredDtype;
use candle_core::DType;
use candle_core::quantized::GgmlDType;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What the weights of a network are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Floats of this type.
    Float(DType),
    /// The weights of layers in eight bits, or in the fewer that a file has them in; all else in f16.
    Int8,
}

impl Precision {
    /// The type of everything but the weights of layers.
    pub fn dtype(self) -> DType {
        match self {
            Self::Float(dtype) => dtype,
            Self::Int8 => DType::F16,
        }
    }

    /// Bytes that so many elements take at most, but for a few of them.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Self::Float(dtype) => elements * dtype.size_in_bytes() as u64,
            // 34 bytes for 32.
            Self::Int8 => elements.div_ceil(32) * 34,
        }
    }

    /// Whether weights are wanted in the very numbers that a file has them in, whatever it has them in: then they are used
    /// where they lie, and take what they take there.
    pub fn takes_what_is_stored(self) -> bool {
        matches!(self, Self::Float(DType::F32) | Self::Int8)
    }

    /// `f32`, `int8`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float(dtype) => dtype.as_str(),
            Self::Int8 => "int8",
        }
    }
}

impl From<DType> for Precision {
    fn from(dtype: DType) -> Self {
        Self::Float(dtype)
    }
}

/// How elements lie in bytes, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Each by itself, little-endian.
    Plain(StoredDtype),
    /// In blocks of few bits.
    Blocks(GgmlDType),
}

impl Elements {
    /// Bytes of so many elements; none if they do not fill their blocks, or are too many.
    pub fn bytes(self, shape: &[usize]) -> Option<u64> {
        let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64))?;
        let (block, size) = match self {
            Self::Plain(dtype) => (1, dtype.size()),
            Self::Blocks(format) => (format.block_size() as u64, format.type_size() as u64),
        };
        count.is_multiple_of(block).then(|| (count / block).checked_mul(size))?
    }
}

/// The content of a file.
pub trait Bytes: AsRef<[u8]> + Send + Sync {
    /// Gives the memory of a part back to the system, which reads it again when it is used.
    fn release(&self, part: &Range<usize>);
}

/// The bytes of a tensor in a file that stays open.
#[derive(Clone)]
pub struct Located {
    /// The file.
    pub memory: Arc<dyn Bytes>,
    /// Where in it.
    pub bytes: Range<usize>,
    /// What they are.
    pub elements: Elements,
}

impl fmt::Debug for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Located({:?}, {:?})", self.bytes, self.elements)
    }
}
