//! Weights of layers: tensors, or numbers that are used where they lie.

use crate::blocks::{self, Blocks};
use crate::stored::{self, Stored};
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that many weights may lie in: a file that is mapped into memory, or memory.
pub type Memory = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// How numbers lie in bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Floats of 32 bits.
    F32,
    /// Floats of 16 bits.
    F16,
    /// Floats of 16 bits with f32's exponent.
    BF16,
    /// Blocks of fewer bits, in one row whatever the shape.
    Blocks(GgmlDType),
}

/// A weight that no gradient reaches, used where it lies and as it is stored: nothing of it is copied or converted but
/// the part that a kernel works on. On the CPU only.
#[derive(Clone)]
pub struct Frozen {
    memory: Memory,
    bytes: Range<usize>,
    kind: Kind,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    F32,
    F16,
    BF16,
    Blocks(Blocks),
}

impl Frozen {
    /// The numbers in a part of `memory`, of this shape.
    ///
    /// # Errors
    /// The part has another size, or lies outside of the memory, or where numbers of its kind cannot be read; blocks that
    /// the shape does not fill; formats of blocks that no files have; a machine whose numbers are big-endian.
    pub fn new(memory: Memory, bytes: Range<usize>, format: Format, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let count = shape.elem_count();
        let (kind, size, align) = match format {
            Format::F32 => (Kind::F32, count.checked_mul(4), 4),
            Format::F16 => (Kind::F16, count.checked_mul(2), 2),
            Format::BF16 => (Kind::BF16, count.checked_mul(2), 2),
            Format::Blocks(format) => {
                let blocks = Blocks::new(format)?;
                (Kind::Blocks(blocks), blocks.bytes(count), 2)
            }
        };
        let Some(part) = (*memory).as_ref().get(bytes.clone()) else {
            bail!("bytes {bytes:?} of {}", (*memory).as_ref().len())
        };
        if size != Some(part.len()) || cfg!(target_endian = "big") {
            bail!("{shape:?} as {format:?} in {} bytes", part.len())
        }
        if !part.as_ptr().addr().is_multiple_of(align) {
            bail!("{format:?} at an address that {align} does not divide")
        }
        Ok(Self { memory, bytes, kind, shape })
    }

    /// The numbers of a weight on the CPU in eight bits each: blocks of 32 that share a scale (`Q8_0`). Each is within 1/254
    /// of the largest of its block, and what rounding the scale to f16 adds (2^-11); a block with a number that is not
    /// finite becomes NaN.
    ///
    /// # Errors
    /// Numbers that do not fill their blocks: see [`Self::fits_eight_bits`].
    pub fn eight_bits<'a>(weight: impl Into<Operand<'a>>) -> Result<Self> {
        let weight = weight.into();
        if !Self::fits_eight_bits(weight.dims()) {
            bail!("{:?} does not fill blocks of 32", weight.shape())
        }
        let bytes = stored::with(weight, "eight_bits", |numbers| Ok(blocks::to_eight_bits(numbers)))?;
        let range = 0..bytes.len();
        Self::new(Arc::new(bytes), range, Format::Blocks(GgmlDType::Q8_0), weight.shape().clone())
    }

    /// Whether the rows of a weight (outputs, inputs, ...) of this shape are whole blocks of eight bits.
    pub fn fits_eight_bits(shape: &[usize]) -> bool {
        let row = shape.iter().skip(1).product();
        shape.len() > 1 && row > 0 && Blocks::EIGHT_BITS.bytes(row).is_some()
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// One of another count.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.elem_count() != self.shape.elem_count() {
            bail!("{:?} as {shape:?}", self.shape)
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// A copy of the numbers, in f32.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_tensor(&self) -> Result<Tensor> {
        self.stored().whole(|numbers| Tensor::from_slice(numbers, self.shape.clone(), &Device::Cpu))
    }

    /// Some rows of a table (rows, width), in f32: (ids, width).
    ///
    /// # Errors
    /// A row that it does not have; another rank.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let (rows, width) = self.shape.dims2()?;
        let table = self.stored();
        let mut out = vec![0f32; ids.len() * width];
        for (i, id) in ids.iter().enumerate() {
            if *id as usize >= rows {
                bail!("row {id} of {rows}")
            }
            table.widen(*id as usize * width, &mut out[i * width..][..width]);
        }
        Tensor::from_vec(out, (ids.len(), width), &Device::Cpu)
    }

    pub(crate) fn stored(&self) -> Stored<'_> {
        let bytes = &(*self.memory).as_ref()[self.bytes.clone()];
        // SAFETY: any bits are a number. `new` has checked that nothing lies before the first.
        unsafe {
            match self.kind {
                Kind::F32 => Stored::F32(bytes.align_to().1),
                Kind::F16 => Stored::F16(bytes.align_to().1),
                Kind::BF16 => Stored::BF16(bytes.align_to().1),
                Kind::Blocks(blocks) => Stored::Blocks(blocks, bytes, self.shape.elem_count()),
            }
        }
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frozen({:?}, {:?})", self.shape, self.kind)
    }
}

/// The weight of a layer.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Of any type on any device; may be a variable.
    Tensor(Tensor),
    /// Numbers that are used where they lie.
    Frozen(Frozen),
}

impl Weight {
    /// (outputs, inputs, ...).
    pub fn dims(&self) -> &[usize] {
        Operand::from(self).dims()
    }

    /// How many numbers it has.
    pub fn elem_count(&self) -> usize {
        Operand::from(self).shape().elem_count()
    }

    /// Whether it is part of a graph of gradients.
    pub fn track_op(&self) -> bool {
        Operand::from(self).track_op()
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// One of another count.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        Ok(match self {
            Self::Tensor(tensor) => Self::Tensor(tensor.reshape(shape.into())?),
            Self::Frozen(frozen) => Self::Frozen(frozen.reshape(shape)?),
        })
    }

    /// The numbers as a tensor of this type; a copy, unless they are one.
    ///
    /// # Errors
    /// Those of the conversion.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        Operand::from(self).to_dtype(dtype)
    }
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

/// A weight that an operation is called with.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// See [`Weight::Tensor`].
    Tensor(&'a Tensor),
    /// See [`Weight::Frozen`].
    Frozen(&'a Frozen),
}

impl<'a> From<&'a Tensor> for Operand<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl<'a> From<&'a Weight> for Operand<'a> {
    fn from(weight: &'a Weight) -> Self {
        match weight {
            Weight::Tensor(tensor) => Self::Tensor(tensor),
            Weight::Frozen(frozen) => Self::Frozen(frozen),
        }
    }
}

impl<'a> Operand<'a> {
    pub(crate) fn shape(self) -> &'a Shape {
        match self {
            Self::Tensor(tensor) => tensor.shape(),
            Self::Frozen(frozen) => &frozen.shape,
        }
    }

    pub(crate) fn dims(self) -> &'a [usize] {
        self.shape().dims()
    }

    pub(crate) fn track_op(self) -> bool {
        matches!(self, Self::Tensor(tensor) if tensor.track_op())
    }

    pub(crate) fn to_dtype(self, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => tensor.to_dtype(dtype),
            Self::Frozen(frozen) => frozen.to_tensor()?.to_dtype(dtype),
        }
    }

    /// The weight for a computation elsewhere than in our kernels, beside `x`.
    pub(crate) fn beside(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => tensor.to_dtype(x.dtype()),
            Self::Frozen(frozen) => frozen.to_tensor()?.to_dtype(x.dtype())?.to_device(x.device()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::pseudo_normal;
    use half::f16;

    fn bytes(count: u16) -> Memory {
        Arc::new((0..count).flat_map(|i| f16::from_f32(f32::from(i)).to_le_bytes()).collect::<Vec<u8>>())
    }

    #[test]
    fn numbers_are_read_where_they_lie() {
        let frozen = Frozen::new(bytes(20), 8..32, Format::F16, (3, 4)).unwrap();
        let rows = frozen.to_tensor().unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows, [[4., 5., 6., 7.], [8., 9., 10., 11.], [12., 13., 14., 15.]]);
        let again = frozen.reshape((12, 1)).unwrap().to_tensor().unwrap();
        assert_eq!(again.dims(), [12, 1]);
        assert!(frozen.reshape(11).is_err());
    }

    #[test]
    fn bytes_that_are_not_the_numbers_of_the_shape_are_refused() {
        let new = |range, format, shape: (usize, usize)| Frozen::new(bytes(64), range, format, shape);
        assert!(new(0..24, Format::F16, (3, 4)).is_ok());
        assert!(new(0..26, Format::F16, (3, 4)).is_err(), "one too many");
        assert!(new(120..144, Format::F16, (3, 4)).is_err(), "outside");
        assert!(new(1..25, Format::F16, (3, 4)).is_err(), "between two numbers");
        assert!(new(2..50, Format::F32, (3, 4)).is_err(), "between two numbers");
        assert!(new(0..34, Format::Blocks(GgmlDType::Q8_0), (1, 32)).is_ok());
        assert!(new(0..34, Format::Blocks(GgmlDType::Q8_0), (1, 33)).is_err(), "a part of a block");
        assert!(new(0..36, Format::Blocks(GgmlDType::Q8_1), (1, 32)).is_err(), "no format of weights");
    }

    #[test]
    fn rows_that_are_no_whole_blocks_are_not_made_eight_bits() {
        assert!(Frozen::eight_bits(&pseudo_normal(1, (5, 64), 1.0)).is_ok());
        assert!(Frozen::eight_bits(&pseudo_normal(1, (5, 32, 3, 3), 1.0)).is_ok());
        assert!(Frozen::eight_bits(&pseudo_normal(1, (32, 4, 3, 3), 1.0)).is_err());
        assert!(Frozen::eight_bits(&pseudo_normal(1, 64, 1.0)).is_err());
    }

    /// The numbers of a tensor in memory, and those that they are then.
    fn frozen(x: &Tensor, format: Format) -> (Frozen, Tensor) {
        let numbers = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bytes: Vec<u8> = match format {
            Format::F32 => numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Format::F16 => numbers.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Format::BF16 => numbers.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            Format::Blocks(format) => {
                let stored = candle_core::quantized::QTensor::quantize(&x.flatten_all().unwrap(), format);
                stored.unwrap().data().unwrap().into_owned()
            }
        };
        let frozen = Frozen::new(Arc::new(bytes.clone()), 0..bytes.len(), format, x.shape()).unwrap();
        let numbers = frozen.to_tensor().unwrap();
        (frozen, numbers)
    }

    const FORMATS: [Format; 5] = [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Blocks(GgmlDType::Q8_0),
        Format::Blocks(GgmlDType::Q4K),
    ];

    /// Value and gradient of the input are those with the same numbers in a tensor.
    fn same(x: &Tensor, w: &Tensor, run: impl Fn(&Tensor, Operand) -> Result<Tensor>) {
        let near = |a: &Tensor, b: &Tensor| {
            let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let largest = b.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(largest > 0.0 && difference <= 1e-5 * largest, "{difference} of {largest}");
        };
        for format in FORMATS {
            let (frozen, numbers) = frozen(w, format);
            let (one, other) =
                (run(x, Operand::Frozen(&frozen)).unwrap(), run(x, (&numbers).into()).unwrap());
            assert_eq!(one.dims(), other.dims());
            near(&one, &other);
            let gradient = |weight: Operand| {
                let x = candle_core::Var::from_tensor(x).unwrap();
                let y = run(&x, weight).unwrap();
                let by = pseudo_normal(9, y.shape(), 1.0);
                let gradients = (y * by).unwrap().sum_all().unwrap().backward().unwrap();
                gradients.get(&x).unwrap().clone()
            };
            near(&gradient(Operand::Frozen(&frozen)), &gradient((&numbers).into()));
        }
    }

    #[test]
    fn layers_with_numbers_where_they_lie_are_those_with_tensors() {
        let b = pseudo_normal(3, 33, 1.0);
        for (rows, inputs) in [(1, 256), (70, 512)] {
            let (x, w) = (pseudo_normal(1, (2, rows, inputs), 1.0), pseudo_normal(2, (33, inputs), 0.1));
            same(&x, &w, |x, w| crate::linear(x, w, Some(&b)));
            let (down, up) = (pseudo_normal(4, (4, inputs), 0.1), pseudo_normal(5, (33, 4), 0.1));
            let factors = crate::LowRank { down: &down, up: &up, scale: 0.5 };
            same(&x, &w, |x, w| crate::linear_adapted(crate::tape::Need::Value, x, w, Some(&b), factors));
        }
        for (size, kernel, stride) in [(3, 1, 1), (5, 3, 2), (20, 3, 1), (20, 1, 1)] {
            let x = pseudo_normal(1, (1, 256, size, size), 1.0);
            let w = pseudo_normal(2, (33, 256, kernel, kernel), 0.1);
            let spec = crate::Conv2dSpec { stride, ..crate::Conv2dSpec::padded(kernel / 2) };
            same(&x, &w, |x, w| crate::conv2d(x, w, Some(&b), spec));
        }
    }

    #[test]
    fn other_types_compute_with_the_same_numbers() {
        let (x, w) = (pseudo_normal(1, (3, 64), 1.0), pseudo_normal(2, (5, 64), 0.1));
        let (frozen, numbers) = frozen(&w, Format::Blocks(GgmlDType::Q8_0));
        let x = x.to_dtype(DType::F64).unwrap();
        let run = |w: Operand| crate::linear(&x, w, None).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(run(Operand::Frozen(&frozen)), run((&numbers).into()));
    }
}
