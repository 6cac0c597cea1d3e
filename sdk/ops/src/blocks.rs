//! Numbers in blocks of a few bits each, as GGUF files have them
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).

use crate::host::scratch;
use crate::simd::multiversion;
use crate::stored::Stored;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, GgmlType,
};
use candle_core::{Result, bail};
use half::f16;
use rayon::prelude::*;

/// Numbers of a block of `Q8_0`, and its bytes: a scale in f16, and a signed byte for each number.
const EIGHT: usize = 32;
const EIGHT_BYTES: usize = EIGHT + 2;

/// 1.5 * 2^23: a number of at most 2^22 added to it has its whole part in the last bits, two's complement.
const WHOLE: f32 = 12_582_912.0;

/// The largest block of any format.
const LARGEST: usize = 256;

/// Numbers that one job turns into blocks.
const JOB: usize = 1 << 15;

/// The format of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks(GgmlDType);

impl Blocks {
    /// Eight bits for each number of 32, and a scale.
    pub(crate) const EIGHT_BITS: Self = Self(GgmlDType::Q8_0);

    /// Errors: not a format of blocks, or one that no files have.
    pub(crate) fn new(format: GgmlDType) -> Result<Self> {
        use GgmlDType::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        match format {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2K | Q3K | Q4K | Q5K | Q6K => Ok(Self(format)),
            _ => bail!("weights are not used in the format {format:?}"),
        }
    }

    /// Bytes of so many numbers; none if they do not fill their blocks.
    pub(crate) fn bytes(self, count: usize) -> Option<usize> {
        let whole = count.is_multiple_of(self.0.block_size());
        whole.then(|| count / self.0.block_size() * self.0.type_size())
    }

    /// The numbers from `start` on, as many as `out` has.
    pub(crate) fn widen(self, bytes: &[u8], start: usize, out: &mut [f32]) {
        match self.0 {
            GgmlDType::Q4_0 => widen_as::<BlockQ4_0>(bytes, start, out),
            GgmlDType::Q4_1 => widen_as::<BlockQ4_1>(bytes, start, out),
            GgmlDType::Q5_0 => widen_as::<BlockQ5_0>(bytes, start, out),
            GgmlDType::Q5_1 => widen_as::<BlockQ5_1>(bytes, start, out),
            GgmlDType::Q2K => widen_as::<BlockQ2K>(bytes, start, out),
            GgmlDType::Q3K => widen_as::<BlockQ3K>(bytes, start, out),
            GgmlDType::Q4K => widen_as::<BlockQ4K>(bytes, start, out),
            GgmlDType::Q5K => widen_as::<BlockQ5K>(bytes, start, out),
            GgmlDType::Q6K => widen_as::<BlockQ6K>(bytes, start, out),
            // Of the formats that `new` lets pass, the only one left.
            _ => {
                let (blocks, _) = bytes.as_chunks::<EIGHT_BYTES>();
                pieces(EIGHT, start, out, |first, out| {
                    widen_eight(&blocks[first..][..out.len() / EIGHT], out);
                });
            }
        }
    }
}

/// Hands the numbers from `start` on to `whole` in whole blocks: the first block's number, and where its numbers go.
fn pieces(size: usize, start: usize, out: &mut [f32], whole: impl Fn(usize, &mut [f32])) {
    let (mut at, mut out) = (start, out);
    while !out.is_empty() {
        let (block, skipped) = (at / size, at % size);
        let count = if skipped == 0 { out.len() / size * size } else { 0 };
        let (now, later) = if count > 0 {
            let (now, later) = out.split_at_mut(count);
            whole(block, now);
            (now, later)
        } else {
            let mut numbers = [0f32; LARGEST];
            whole(block, &mut numbers[..size]);
            let (now, later) = out.split_at_mut((size - skipped).min(out.len()));
            now.copy_from_slice(&numbers[skipped..][..now.len()]);
            (now, later)
        };
        at += now.len();
        out = later;
    }
}

/// [`Blocks::widen`] by the tensor library's own conversion.
fn widen_as<B: GgmlType>(bytes: &[u8], start: usize, out: &mut [f32]) {
    // SAFETY: the formats are C structs of numbers, for which any bytes are values.
    let (before, blocks, _) = unsafe { bytes.align_to::<B>() };
    assert!(before.is_empty(), "blocks lie where their numbers can be read");
    pieces(B::BLCK_SIZE, start, out, |first, out| {
        B::to_float(&blocks[first..][..out.len() / B::BLCK_SIZE], out);
    });
}

multiversion! {
    fn widen_eight(blocks: &[[u8; EIGHT_BYTES]], out: &mut [f32]) {
        let (out, _) = out.as_chunks_mut::<EIGHT>();
        for (block, out) in blocks.iter().zip(out) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for (out, number) in out.iter_mut().zip(&block[2..]) {
                *out = f32::from(*number as i8) * scale;
            }
        }
    }
}

/// The nearest whole number of one of at most 127; of two, that farther from zero, as ggml has it.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    // The last bits of such a large number are whole ones: the sum is rounded to them, ties to even.
    let even = (x + WHOLE) - WHOLE;
    let left = x - even;
    let nearer_zero = left.abs() == 0.5 && left.is_sign_positive() == x.is_sign_positive();
    if nearer_zero { even + 1f32.copysign(x) } else { even }
}

multiversion! {
    fn narrow_eight(numbers: &[[f32; EIGHT]], out: &mut [[u8; EIGHT_BYTES]]) {
        for (numbers, out) in numbers.iter().zip(out) {
            // Bits of numbers without sign are in the order of the numbers, those that are not finite last.
            let largest = numbers.iter().fold(0u32, |m, number| m.max(number.to_bits() & 0x7fff_ffff));
            // A weight that is no number must not become one.
            let finite = largest < f32::INFINITY.to_bits();
            let scale = if finite { f32::from_bits(largest) / 127.0 } else { f32::NAN };
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let [low, high] = f16::from_f32(scale).to_le_bytes();
            (out[0], out[1]) = (low, high);
            for (out, number) in out[2..].iter_mut().zip(numbers) {
                *out = (nearest(number * inverse) + WHOLE).to_bits() as u8;
            }
        }
    }
}

/// The nearest numbers in blocks of [`Blocks::EIGHT_BITS`]: each within 1/254 of the largest of its block, and the scale's
/// rounding (2^-11). Their count fills the blocks.
pub(crate) fn to_eight_bits(numbers: Stored) -> Vec<u8> {
    let mut bytes = vec![0u8; numbers.len() / EIGHT * EIGHT_BYTES];
    let (blocks, _) = bytes.as_chunks_mut::<EIGHT_BYTES>();
    blocks.par_chunks_mut(JOB / EIGHT).enumerate().for_each(|(i, out)| {
        scratch(out.len() * EIGHT, |wide| {
            numbers.widen(i * JOB, wide);
            narrow_eight(wide.as_chunks::<EIGHT>().0, out);
        });
    });
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::pseudo_normal;
    use candle_core::Device;
    use candle_core::quantized::QTensor;

    fn numbers(count: usize) -> Vec<f32> {
        pseudo_normal(7, count, 1.0).to_vec1().unwrap()
    }

    #[test]
    fn any_part_of_any_format_is_that_part_of_its_numbers() {
        use GgmlDType::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for format in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let tensor = candle_core::Tensor::from_vec(numbers(1024), 1024, &Device::Cpu).unwrap();
            let stored = QTensor::quantize(&tensor, format).unwrap();
            let all = stored.dequantize(&Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
            let (blocks, bytes) = (Blocks::new(format).unwrap(), stored.data().unwrap());
            assert_eq!(blocks.bytes(1024), Some(bytes.len()));
            for (start, count) in
                [(0, 1024), (0, 1), (31, 2), (255, 300), (256, 256), (700, 324), (1023, 1), (9, 0)]
            {
                let mut out = vec![f32::NAN; count];
                blocks.widen(&bytes, start, &mut out);
                assert_eq!(out, all[start..start + count], "{format:?}, {count} from {start}");
            }
        }
    }

    #[test]
    fn eight_bits_are_within_half_a_step_of_the_largest_of_a_block() {
        let mut numbers = numbers(4 * JOB);
        numbers[..32].fill(0.0);
        numbers[32..64].iter_mut().for_each(|n| *n *= 1e-6);
        numbers[64] = 1e4;
        let bytes = to_eight_bits(Stored::F32(&numbers));
        let mut back = vec![0f32; numbers.len()];
        Blocks::EIGHT_BITS.widen(&bytes, 0, &mut back);
        for (numbers, back) in numbers.chunks(EIGHT).zip(back.chunks(EIGHT)) {
            let largest = numbers.iter().fold(0f32, |a, b| a.max(b.abs()));
            // Half of the step, the scale's rounding, and where that is subnormal what it can be off by.
            let allowed = largest * (1.0 / 254.0 + 1.0 / 2048.0) + 127.0 * 3e-8;
            for (number, back) in numbers.iter().zip(back) {
                assert!((number - back).abs() <= allowed, "{back} for {number}, {largest} at most");
            }
        }
    }

    #[test]
    fn eight_bits_are_those_of_the_tensor_library() {
        let mut numbers = numbers(8192);
        // Halves, of which many lie in the middle between two whole numbers.
        numbers[4096..6144].iter_mut().for_each(|n| *n = f16::from_f32(*n).to_f32());
        let steps = numbers[6144..].chunks_exact_mut(EIGHT).flat_map(|block| block.iter_mut().zip(0i16..));
        steps.for_each(|(n, i)| *n = if i == 0 { 127.0 } else { f32::from(i - 16) / 2.0 });
        let tensor = candle_core::Tensor::from_slice(&numbers, numbers.len(), &Device::Cpu).unwrap();
        let stored = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
        assert_eq!(to_eight_bits(Stored::F32(&numbers)), stored.data().unwrap().as_ref());
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = numbers(64);
            numbers[40] = wrong;
            let mut back = vec![0f32; 64];
            Blocks::EIGHT_BITS.widen(&to_eight_bits(Stored::F32(&numbers)), 0, &mut back);
            assert!(
                back[..32].iter().all(|n| n.is_finite()) && back[32..].iter().all(|n| n.is_nan()),
                "{wrong}"
            );
        }
    }
}
