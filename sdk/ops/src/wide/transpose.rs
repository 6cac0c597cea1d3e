//! Transposition in registers.

use std::arch::x86_64::*;

/// Rows and columns of a block.
const SIDE: usize = 8;

/// Of `rows` rows (at most 16) of `len` elements, `from` apart: element j of row i to element i of the row j of `out`,
/// `to` apart.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn transpose(
    data: &[f32],
    from: usize,
    (rows, len): (usize, usize),
    out: &mut [f32],
    to: usize,
) {
    assert!(
        data.len() >= (rows - 1) * from + len && out.len() >= (len - 1) * to + rows && to >= rows,
        "{rows} x {len} of {}, {from} apart, to {}, {to} apart",
        data.len(),
        out.len()
    );
    // The last rows of more than eight are a whole block too, with some rows of the one before.
    let last = rows.saturating_sub(SIDE);
    for i in (0..rows).step_by(SIDE).map(|i| i.min(last)) {
        let count = SIDE.min(rows - i);
        let mut j = 0;
        // Of fewer rows than eight more is written than was asked for: where the next column comes, or nobody's.
        while j + SIDE <= len && (j + SIDE - 1) * to + i + SIDE <= out.len() {
            // SAFETY: both blocks are inside.
            unsafe {
                block(data.as_ptr().add(i * from + j), from, count, out.as_mut_ptr().add(j * to + i), to)
            };
            j += SIDE;
        }
        for j in j..len {
            for r in i..i + count {
                out[j * to + r] = data[r * from + j];
            }
        }
    }
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
