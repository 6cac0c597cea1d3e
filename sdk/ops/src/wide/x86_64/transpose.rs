//! Transposition in registers.

use crate::wide::transpose::{SIDE, in_blocks};
use std::arch::x86_64::*;

/// As [`crate::wide::transpose::transpose`].
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(in crate::wide) unsafe fn transpose(
    data: &[f32],
    from: usize,
    size: (usize, usize),
    out: &mut [f32],
    to: usize,
) {
    // SAFETY: only blocks inside of both are asked for.
    in_blocks(data, from, size, out, to, |data, count, out| unsafe { block(data, from, count, out, to) });
}

/// 8 x 8, of which the last rows may be absent.
///
/// # Safety
/// The rows can be read and written.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn block(data: *const f32, from: usize, count: usize, out: *mut f32, to: usize) {
    let zero = _mm256_setzero_ps();
    let mut r = [zero; SIDE];
    for (i, r) in r.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *r = unsafe { _mm256_loadu_ps(data.add(i.min(count - 1) * from)) };
    }
    let mut t = [zero; SIDE];
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    let pd = |x| _mm256_castps_pd(x);
    let ps = |x| _mm256_castpd_ps(x);
    let mut u = [zero; SIDE];
    for i in 0..2 {
        for j in 0..2 {
            u[4 * i + 2 * j] = ps(_mm256_unpacklo_pd(pd(t[4 * i + j]), pd(t[4 * i + 2 + j])));
            u[4 * i + 2 * j + 1] = ps(_mm256_unpackhi_pd(pd(t[4 * i + j]), pd(t[4 * i + 2 + j])));
        }
    }
    // In order: what a column has beyond its rows is overwritten by the next.
    for j in 0..SIDE {
        let (a, b) = (u[j % 4], u[4 + j % 4]);
        let column =
            if j < 4 { _mm256_permute2f128_ps::<0x20>(a, b) } else { _mm256_permute2f128_ps::<0x31>(a, b) };
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(out.add(j * to), column) };
    }
}
