//! NEON, and NEON with products of bf16.

mod register;
mod transpose;

use super::Shape;
use super::tile::{Kernel, Tile, Walk, kernels, sums};
use register::{Bf16, Neon};
pub(super) use transpose::transpose;

/// Brings the line of a number that is about to be written to the first cache. The number need not exist.
#[inline(always)]
pub(crate) fn fetch(at: *const f32) {
    // SAFETY: every processor of this kind has the instruction, and it accesses nothing.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) at, options(readonly, nostack, preserves_flags))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// f32 with NEON, which every processor of this kind has.
    Neon,
    /// bf16 operands with `bfdot`.
    Bf16,
}

impl Kind {
    pub(super) fn f32() -> Option<Self> {
        Some(Self::Neon)
    }

    pub(super) fn bf16() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("bf16").then_some(Self::Bf16)
    }

    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        [Self::f32(), Self::bf16()].into_iter().flatten().collect()
    }

    pub(super) fn shape(self) -> Shape {
        // Of 32 registers: four of sums for each row, four of the right side and two of the left make 30.
        Shape { rows: 6, vectors: 1, depth: 320, bf16: self == Self::Bf16 }
    }

    pub(super) fn kernel(self, rows: usize, vectors: usize) -> Kernel {
        match self {
            Self::Neon => NEON[rows - 1][vectors - 1],
            Self::Bf16 => BF16[rows - 1][vectors - 1],
        }
    }
}

static NEON: [[Kernel; 1]; 6] = kernels!(neon, [1]: 1 2 3 4 5 6);
static BF16: [[Kernel; 1]; 6] = kernels!(bf16, [1]: 1 2 3 4 5 6);

#[target_feature(enable = "neon")]
unsafe fn neon<const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: the features are enabled; the rest is the caller's promise.
    unsafe { sums::<Neon, R, V>(tile, walk) }
}

#[target_feature(enable = "neon,bf16")]
unsafe fn bf16<const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: as above.
    unsafe { sums::<Bf16, R, V>(tile, walk) }
}
