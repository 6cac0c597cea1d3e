//! Single-threaded f32 matrix products of strided views; the callers cut the work across threads.

use crate::host::Shared;

/// A strided view of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Rows of `row_stride` elements, of which the product uses the first columns.
    pub(crate) fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn check(&self, rows: usize, cols: usize) {
        let last = (rows - 1) * self.row_stride + (cols - 1) * self.col_stride;
        assert!(last < self.data.len(), "a {rows}x{cols} matrix reaches {last} of {}", self.data.len());
    }
}

/// Where a product goes: rows of `row_stride` elements starting at `start` of shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) memory: Shared,
    pub(crate) start: usize,
    pub(crate) row_stride: usize,
}

impl Target {
    /// A target of this thread's own memory.
    pub(crate) fn own(data: &mut [f32], row_stride: usize) -> Self {
        Self { memory: Shared::new(data), start: 0, row_stride }
    }
}

/// `target = a b`, or `target += a b`; a is m x k, b is k x n.
///
/// # Safety
/// No other task reads or writes the target's elements during the call.
pub(crate) unsafe fn product(
    target: Target,
    accumulate: bool,
    (m, n, k): (usize, usize, usize),
    a: Mat,
    b: Mat,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    a.check(m, k);
    b.check(k, n);
    let dst = target.memory.pointer(target.start, (m - 1) * target.row_stride + n - 1);
    // SAFETY: all three views were checked against their slices; the target is ours by the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            target.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
