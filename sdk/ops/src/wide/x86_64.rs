//! AVX2, AVX-512, and AVX-512 with products of bf16.

mod register;
mod transpose;

use super::tile::{Kernel, Tile, Walk, kernels, sums};
use super::{ROWS, Shape};
use crate::simd::{has_avx2, has_avx512};
use register::{Avx2, Avx512, Bf16};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
pub(super) use transpose::transpose;

/// Brings the line of a number to the first cache. The number need not exist.
#[inline(always)]
pub(crate) fn fetch(at: *const f32) {
    // SAFETY: every processor of this kind has the instruction, and it accesses nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// f32 with AVX2 and FMA.
    Avx2,
    /// f32 with AVX-512, where AVX2 and FMA are too.
    Avx512,
    /// bf16 operands with AVX-512 BF16.
    Bf16,
}

impl Kind {
    pub(super) fn f32() -> Option<Self> {
        if has_avx512() { Some(Self::Avx512) } else { has_avx2().then_some(Self::Avx2) }
    }

    pub(super) fn bf16() -> Option<Self> {
        (has_avx512() && is_x86_feature_detected!("avx512bf16")).then_some(Self::Bf16)
    }

    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let (avx2, avx512) = (has_avx2().then_some(Self::Avx2), has_avx512().then_some(Self::Avx512));
        [avx2, avx512, Self::bf16()].into_iter().flatten().collect()
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            // Of 16 registers: two of sums for each row, two of the right side and one of the left make 15.
            Self::Avx2 => Shape { rows: 6, vectors: 1, depth: 320, bf16: false },
            // Of 32: two of sums for each row, two of the right side and one of the left make 31.
            Self::Avx512 => Shape { rows: ROWS, vectors: 2, depth: 256, bf16: false },
            Self::Bf16 => Shape { bf16: true, ..Self::Avx512.shape() },
        }
    }

    pub(super) fn kernel(self, rows: usize, vectors: usize) -> Kernel {
        match self {
            Self::Avx2 => AVX2[rows - 1][vectors - 1],
            Self::Avx512 => AVX512[rows - 1][vectors - 1],
            Self::Bf16 => BF16[rows - 1][vectors - 1],
        }
    }
}

static AVX2: [[Kernel; 1]; 6] = kernels!(avx2, [1]: 1 2 3 4 5 6);
static AVX512: [[Kernel; 2]; ROWS] = kernels!(avx512, [1 2]: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
static BF16: [[Kernel; 2]; ROWS] = kernels!(bf16, [1 2]: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: the features are enabled; the rest is the caller's promise.
    unsafe { sums::<Avx2, R, V>(tile, walk) }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: as above.
    unsafe { sums::<Avx512, R, V>(tile, walk) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16<const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: as above.
    unsafe { sums::<Bf16, R, V>(tile, walk) }
}
