//! Vectors of 16 words in the registers of aarch64.

use crate::wide::LANES;
use crate::wide::register::Register;
use std::arch::{aarch64::*, asm};

/// Words of a register.
const WORDS: usize = 4;

/// Registers of a vector.
const PARTS: usize = LANES / WORDS;

/// Words of up to eight rows.
type Left = [float32x4_t; 2];

/// One of a register's words.
#[derive(Clone, Copy)]
pub(super) struct Word {
    of: float32x4_t,
    /// Known to the compiler, where all is inlined: a part of the instruction.
    lane: usize,
}

/// No more than what is there is read.
#[inline(always)]
unsafe fn left<const R: usize>(from: *const f32) -> Left {
    // SAFETY: the caller's promise.
    unsafe {
        let mut left = [vdupq_n_f32(0.0); 2];
        for (i, left) in left.iter_mut().enumerate() {
            let from = from.wrapping_add(i * WORDS);
            *left = match R.saturating_sub(i * WORDS) {
                0 => continue,
                1 => vld1q_dup_f32(from),
                2 => vcombine_f32(vld1_f32(from), vdup_n_f32(0.0)),
                3 => vcombine_f32(vld1_f32(from), vld1_dup_f32(from.add(2))),
                _ => vld1q_f32(from),
            };
        }
        left
    }
}

/// `sum + a b` of four f32 each.
#[inline(always)]
unsafe fn add_products(sum: float32x4_t, a: Word, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        match a.lane {
            0 => vfmaq_laneq_f32::<0>(sum, b, a.of),
            1 => vfmaq_laneq_f32::<1>(sum, b, a.of),
            2 => vfmaq_laneq_f32::<2>(sum, b, a.of),
            _ => vfmaq_laneq_f32::<3>(sum, b, a.of),
        }
    }
}

/// `sum + a b` of four pairs of bf16 each. The compiler has no function for the instruction yet.
#[inline(always)]
unsafe fn add_pairs(mut sum: float32x4_t, a: Word, b: float32x4_t) -> float32x4_t {
    macro_rules! of_lane {
        ($lane:literal) => {
            asm!(concat!("bfdot {sum:v}.4s, {b:v}.8h, {a:v}.2h[", $lane, "]"), sum = inout(vreg) sum, b = in(vreg) b,
                a = in(vreg) a.of, options(pure, nomem, nostack, preserves_flags))
        };
    }
    // SAFETY: the caller's promise; the instruction touches the named registers only.
    unsafe {
        match a.lane {
            0 => of_lane!(0),
            1 => of_lane!(1),
            2 => of_lane!(2),
            _ => of_lane!(3),
        }
    }
    sum
}

/// A vector whose products `$add_products(sum, a, b)` adds, four words at a time.
macro_rules! four_registers {
    ($(#[$meta:meta])* $name:ident: $add_products:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(super) struct $name([float32x4_t; PARTS]);

        impl Register for $name {
            type Left = Left;
            type Word = Word;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { [vdupq_n_f32(0.0); PARTS] })
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { [0, 4, 8, 12].map(|i| vld1q_f32(from.add(i))) })
            }

            #[inline(always)]
            unsafe fn left<const R: usize>(from: *const f32) -> Left {
                // SAFETY: the caller's promise.
                unsafe { left::<R>(from) }
            }

            #[inline(always)]
            unsafe fn word<const ROW: usize>(left: Left) -> Word {
                Word { of: left[ROW / WORDS], lane: ROW % WORDS }
            }

            #[inline(always)]
            unsafe fn multiply_add(self, a: Word, b: Self) -> Self {
                let (Self([sum, sum1, sum2, sum3]), Self([b, b1, b2, b3])) = (self, b);
                // No closure: it would be compiled for itself, without the instructions.
                // SAFETY: the caller's promise.
                Self(unsafe {
                    [
                        $add_products(sum, a, b),
                        $add_products(sum1, a, b1),
                        $add_products(sum2, a, b2),
                        $add_products(sum3, a, b3),
                    ]
                })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                for (i, part) in self.0.into_iter().enumerate() {
                    // SAFETY: the caller's promise.
                    unsafe { vst1q_f32(to.add(i * WORDS), part) };
                }
            }
        }
    };
}

four_registers! {
    /// f32.
    Neon: add_products
}

four_registers! {
    /// Pairs of bf16, or sums in f32.
    Bf16: add_pairs
}
