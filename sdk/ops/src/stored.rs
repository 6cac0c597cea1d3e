//! Frozen weights as they are stored, in 32 bits or fewer, widened piece by piece where kernels use them.

use crate::blocks::Blocks;
use crate::host::{self, scratch};
use crate::simd::{widen_bf16, widen_f16};
use crate::weight::Operand;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

/// A weight as an operand of a kernel: contiguous, and in f32 if it is a variable. A frozen one stays as it is stored:
/// no copy of it waits in the graph.
pub(crate) fn operand(x: &Tensor) -> Result<Tensor> {
    let known = matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16);
    if known && !x.track_op() { x.contiguous() } else { host::prepare(x) }
}

/// The elements of a weight.
#[derive(Clone, Copy)]
pub(crate) enum Stored<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
    /// The bytes of so many numbers in blocks.
    Blocks(Blocks, &'a [u8], usize),
}

/// Elements that one job widens.
const JOB: usize = 1 << 14;

impl<'a> Stored<'a> {
    /// The elements of a contiguous operand.
    pub(crate) fn of(storage: &'a CpuStorage, layout: &Layout, op: &str) -> Result<Self> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("{op}: the kernel takes contiguous tensors, got strides {:?}", layout.stride())
        };
        match storage {
            CpuStorage::F32(data) => Ok(Self::F32(&data[start..end])),
            CpuStorage::F16(data) => Ok(Self::F16(&data[start..end])),
            CpuStorage::BF16(data) => Ok(Self::BF16(&data[start..end])),
            _ => bail!("{op}: the kernel takes f32, f16 and bf16, got {:?}", storage.dtype()),
        }
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::F16(data) => data.len(),
            Self::BF16(data) => data.len(),
            Self::Blocks(_, _, count) => count,
        }
    }

    /// The elements themselves, if they are f32.
    pub(crate) fn wide(self) -> Option<&'a [f32]> {
        match self {
            Self::F32(data) => Some(data),
            _ => None,
        }
    }

    /// The elements from `start` on, as many as `out` has.
    pub(crate) fn widen(self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            Self::F32(data) => out.copy_from_slice(&data[range]),
            Self::F16(data) => widen_f16(&data[range], out),
            Self::BF16(data) => widen_bf16(&data[range], out),
            Self::Blocks(blocks, bytes, _) => blocks.widen(bytes, start, out),
        }
    }

    /// Lends all elements as f32.
    pub(crate) fn whole<R>(self, f: impl FnOnce(&[f32]) -> R) -> R {
        if let Some(data) = self.wide() {
            return f(data);
        }
        scratch(self.len(), |out| {
            out.par_chunks_mut(JOB).enumerate().for_each(|(i, out)| self.widen(i * JOB, out));
            f(out)
        })
    }
}

/// Lends the elements of a weight on the CPU, of any layout.
pub(crate) fn with<'a, R>(
    weight: impl Into<Operand<'a>>,
    op: &str,
    f: impl FnOnce(Stored) -> Result<R>,
) -> Result<R> {
    let x = match weight.into() {
        Operand::Tensor(x) => x.contiguous()?,
        Operand::Frozen(frozen) => return f(frozen.stored()),
    };
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(Stored::of(cpu, layout, op)?),
        _ => bail!("{op}: the kernel runs on the CPU only"),
    }
}
