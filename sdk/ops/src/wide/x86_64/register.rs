//! Vectors of 16 words in the registers of x86-64.

use crate::wide::LANES;
use crate::wide::register::Register;
use std::arch::x86_64::*;

/// f32 in two registers of AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

impl Register for Avx2 {
    type Left = *const f32;
    type Word = __m256;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn left<const R: usize>(from: *const f32) -> *const f32 {
        from
    }

    #[inline(always)]
    unsafe fn word<const ROW: usize>(left: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_ps(*left.add(ROW)) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: __m256, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_fmadd_ps(a, b.0, self.0), _mm256_fmadd_ps(a, b.1, self.1)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
}

/// A vector in one register of AVX-512, which `$multiply_add(sum, a, b)` adds products to.
macro_rules! one_register {
    ($(#[$meta:meta])* $name:ident: $multiply_add:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(super) struct $name(__m512);

        impl Register for $name {
            type Left = *const f32;
            type Word = __m512;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { _mm512_setzero_ps() })
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { _mm512_loadu_ps(from) })
            }

            #[inline(always)]
            unsafe fn left<const R: usize>(from: *const f32) -> *const f32 {
                from
            }

            #[inline(always)]
            unsafe fn word<const ROW: usize>(left: *const f32) -> __m512 {
                // SAFETY: the caller's promise.
                unsafe { _mm512_set1_ps(*left.add(ROW)) }
            }

            #[inline(always)]
            unsafe fn multiply_add(self, a: __m512, b: Self) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $multiply_add(self.0, a, b.0) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller's promise.
                unsafe { _mm512_storeu_ps(to, self.0) }
            }
        }
    };
}

one_register! {
    /// f32 with AVX-512.
    Avx512: |sum, a, b| _mm512_fmadd_ps(a, b, sum)
}

one_register! {
    /// Pairs of bf16, or sums in f32, with AVX-512 BF16.
    Bf16: |sum, a, b| _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
}

/// The same 64 bytes as 32 bf16.
#[inline(always)]
unsafe fn pairs(words: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute::<__m512, __m512bh>(words) }
}

const _: () = assert!(LANES * size_of::<f32>() == size_of::<__m512>(), "a vector is one register of AVX-512");
