//! Products in plain Rust: for processors whose instructions nobody wrote kernels for, and to see on any processor what
//! those with bf16 give.

use super::register::Register;
use super::tile::{Kernel, Tile, Walk, kernels, sums};
use super::transpose::{SIDE, in_blocks};
use super::{LANES, ROWS, Shape};

/// Few sums: registers are as narrow and as few as on the oldest processors.
pub(super) const SHAPE: Shape = Shape { rows: 2, vectors: 1, depth: 320, bf16: false };

pub(super) static KERNELS: [[Kernel; 1]; 2] = kernels!(plain, [1]: 1 2);

unsafe fn plain<const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: the caller's promise.
    unsafe { sums::<Plain, R, V>(tile, walk) }
}

/// The numbers that a register would have.
#[derive(Clone, Copy)]
struct Plain([f32; LANES]);

impl Register for Plain {
    type Left = *const f32;
    type Word = f32;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; LANES]>().read() })
    }

    #[inline(always)]
    unsafe fn left<const R: usize>(from: *const f32) -> *const f32 {
        from
    }

    #[inline(always)]
    unsafe fn word<const ROW: usize>(left: *const f32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *left.add(ROW) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: f32, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a * b.0[i]))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write(self.0) }
    }
}

/// As [`super::transpose::transpose`].
pub(super) fn transpose(data: &[f32], from: usize, size: (usize, usize), out: &mut [f32], to: usize) {
    in_blocks(data, from, size, out, to, |data, count, out| {
        for (column, row) in (0..SIDE).flat_map(|column| (0..count).map(move |row| (column, row))) {
            // SAFETY: the block is inside of both.
            unsafe { *out.add(column * to + row) = *data.add(row * from + column) };
        }
    });
}

pub(super) const BF16_SHAPE: Shape = Shape { rows: ROWS, vectors: 2, depth: 256, bf16: true };

pub(super) static BF16_KERNELS: [[Kernel; 2]; ROWS] = kernels!(bf16, [1 2]: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

unsafe fn bf16<const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: the caller's promise.
    unsafe { sums::<Bf16, R, V>(tile, walk) }
}

/// What `vdpbf16ps` does: the second product of a pair is added first, each sum rounded, subnormal numbers are zero.
#[derive(Clone, Copy)]
struct Bf16([f32; LANES]);

impl Register for Bf16 {
    type Left = *const f32;
    type Word = f32;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; LANES]>().read() })
    }

    #[inline(always)]
    unsafe fn left<const R: usize>(from: *const f32) -> *const f32 {
        from
    }

    #[inline(always)]
    unsafe fn word<const ROW: usize>(left: *const f32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *left.add(ROW) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, word: f32, vector: Self) -> Self {
        // `is_subnormal` is no comparison of a whole register.
        let normal = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x };
        // The product of two bf16 is an f32: nothing is rounded before the sum.
        let pair = |word: f32| {
            [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(|bits| normal(f32::from_bits(bits)))
        };
        let [a, c] = pair(word);
        Self(std::array::from_fn(|i| {
            let [b, d] = pair(vector.0[i]);
            normal(a * b + normal(c * d + self.0[i]))
        }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write(self.0) }
    }
}
