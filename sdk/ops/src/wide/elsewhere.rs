//! Processors without kernels of their own.

use super::Shape;
use super::tile::Kernel;

/// Does nothing: how such a processor is asked for a line is not known.
pub(crate) fn fetch(_at: *const f32) {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {}

impl Kind {
    pub(super) fn f32() -> Option<Self> {
        None
    }

    pub(super) fn bf16() -> Option<Self> {
        None
    }

    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        Vec::new()
    }

    pub(super) fn shape(self) -> Shape {
        match self {}
    }

    pub(super) fn kernel(self, _rows: usize, _vectors: usize) -> Kernel {
        match self {}
    }
}

/// Nobody calls it: there is no unit of this processor.
///
/// # Safety
/// None is needed.
pub(super) unsafe fn transpose(data: &[f32], from: usize, size: (usize, usize), out: &mut [f32], to: usize) {
    super::plain::transpose(data, from, size, out, to);
}
