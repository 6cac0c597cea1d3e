//! Transposition in registers.

use crate::wide::transpose::{SIDE, in_blocks};
use std::arch::aarch64::*;

/// As [`crate::wide::transpose::transpose`].
///
/// # Safety
/// The processor has NEON.
#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
unsafe fn block(data: *const f32, from: usize, count: usize, out: *mut f32, to: usize) {
    for left in [0, SIDE / 2] {
        let rows: [float32x4_t; SIDE] = std::array::from_fn(|i| {
            // SAFETY: the caller's promise.
            unsafe { vld1q_f32(data.add(i.min(count - 1) * from + left)) }
        });
        let (upper, lower) =
            (four([rows[0], rows[1], rows[2], rows[3]]), four([rows[4], rows[5], rows[6], rows[7]]));
        // In order: what a column has beyond its rows is overwritten by the next.
        for (column, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let out = out.add((left + column) * to);
                vst1q_f32(out, upper);
                vst1q_f32(out.add(4), lower);
            }
        }
    }
}

/// The columns of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn four([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let (ab, cd) = ((vtrn1q_f32(a, b), vtrn2q_f32(a, b)), (vtrn1q_f32(c, d), vtrn2q_f32(c, d)));
    let pairs = |x| vreinterpretq_f64_f32(x);
    let words = |x| vreinterpretq_f32_f64(x);
    [
        words(vtrn1q_f64(pairs(ab.0), pairs(cd.0))),
        words(vtrn1q_f64(pairs(ab.1), pairs(cd.1))),
        words(vtrn2q_f64(pairs(ab.0), pairs(cd.0))),
        words(vtrn2q_f64(pairs(ab.1), pairs(cd.1))),
    ]
}
