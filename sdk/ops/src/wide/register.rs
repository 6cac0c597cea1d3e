//! Vectors of 16 words in registers.

use super::LANES;
use std::arch::x86_64::*;

/// A vector in registers. The methods may be called only where the processor has the type's instructions, from code
/// compiled for them: they are inlined there.
pub(super) trait Register: Copy {
    /// # Safety
    /// The instructions are there; 16 words can be read.
    unsafe fn load(from: *const f32) -> Self;

    /// One word in every lane.
    ///
    /// # Safety
    /// The instructions are there.
    unsafe fn splat(word: f32) -> Self;

    /// `self + a b` for one step.
    ///
    /// # Safety
    /// The instructions are there.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;

    /// # Safety
    /// The instructions are there; 16 floats can be written.
    unsafe fn store(self, to: *mut f32);
}

/// f32 in two registers of AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

impl Register for Avx2 {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn splat(word: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_set1_ps(word), _mm256_set1_ps(word)) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
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

/// f32 with AVX-512.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

impl Register for Avx512 {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn splat(word: f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_set1_ps(word) })
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
}

/// Pairs of bf16, or sums in f32, with AVX-512 BF16.
#[derive(Clone, Copy)]
pub(super) struct Bf16(__m512);

impl Register for Bf16 {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn splat(word: f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_set1_ps(word) })
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise; 64 bytes are read as 32 bf16.
        unsafe {
            let a = std::mem::transmute::<__m512, __m512bh>(a.0);
            let b = std::mem::transmute::<__m512, __m512bh>(b.0);
            Self(_mm512_dpbf16_ps(self.0, a, b))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
}

/// What `vdpbf16ps` does, in plain Rust: the second product of a pair is added first, each sum rounded, subnormal numbers
/// are zero.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(super) struct PlainBf16([f32; LANES]);

#[cfg(test)]
impl Register for PlainBf16 {
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; LANES]>().read() })
    }

    unsafe fn splat(word: f32) -> Self {
        Self([word; LANES])
    }

    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        let normal = |x: f32| if x.is_subnormal() { 0.0 } else { x };
        // The product of two bf16 is an f32: nothing is rounded before the sum.
        let pair = |word: f32| {
            [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(|bits| normal(f32::from_bits(bits)))
        };
        Self(std::array::from_fn(|i| {
            let ([a, c], [b, d]) = (pair(a.0[i]), pair(b.0[i]));
            normal(a * b + normal(c * d + self.0[i]))
        }))
    }

    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write(self.0) }
    }
}

const _: () = assert!(LANES * size_of::<f32>() == size_of::<__m512>(), "a vector is one register of AVX-512");
