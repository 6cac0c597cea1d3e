//! Unrolling of image patches into matrix columns, and its adjoint.

use super::Conv2dSpec;
use crate::stored::Stored;
use candle_core::{Result, bail};
use std::ops::Range;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) ci: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) co: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
    pub(super) stride: usize,
    pub(super) top: usize,
    pub(super) left: usize,
}

type Dims4 = (usize, usize, usize, usize);

impl Geometry {
    pub(crate) fn new((batch, ci, h, w): Dims4, (co, wi, kh, kw): Dims4, spec: Conv2dSpec) -> Result<Self> {
        let p = spec.padding;
        let (height, width) = (h + p.top + p.bottom, w + p.left + p.right);
        if ci != wi || ci == 0 || co == 0 || kh == 0 || kw == 0 {
            bail!("conv2d: a weight ({co}, {wi}, {kh}, {kw}) does not fit {ci} input channels")
        }
        if kh > height || kw > width || spec.stride == 0 {
            bail!("conv2d: a {kh}x{kw} kernel with stride {} on a padded {height}x{width} image", spec.stride)
        }
        let (oh, ow) = ((height - kh) / spec.stride + 1, (width - kw) / spec.stride + 1);
        Ok(Self { batch, ci, h, w, co, kh, kw, oh, ow, stride: spec.stride, top: p.top, left: p.left })
    }

    /// Kernel elements of one input channel.
    pub(crate) fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// Rows of the column matrix.
    pub(crate) fn depth(&self) -> usize {
        self.ci * self.taps()
    }

    /// Whether the column matrix is the image itself.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && self.oh == self.h && self.ow == self.w
    }

    /// The convolution that leads from the gradient of the output to that of the input, with [`Self::turned`] weights.
    /// None with a stride, where it would be one with gaps.
    pub(crate) fn adjoint(&self) -> Option<Self> {
        if self.stride != 1 || self.top >= self.kh || self.left >= self.kw {
            return None;
        }
        Some(Self {
            ci: self.co,
            h: self.oh,
            w: self.ow,
            co: self.ci,
            oh: self.h,
            ow: self.w,
            top: self.kh - 1 - self.top,
            left: self.kw - 1 - self.left,
            ..*self
        })
    }

    /// Weights (Co, Ci, kh, kw) as (Ci, Co, kh, kw), each kernel turned round: those of input channels
    /// `first..`, as many as fill `out`.
    pub(crate) fn turned(&self, weight: Stored, first: usize, out: &mut [f32]) {
        let (taps, row) = (self.taps(), self.co * self.taps());
        let mut kernels = vec![0f32; out.len() / self.co];
        for co in 0..self.co {
            weight.widen((co * self.ci + first) * taps, &mut kernels);
            for (kernel, out) in kernels.chunks_exact(taps).zip(out.chunks_exact_mut(row)) {
                let out = &mut out[co * taps..][..taps];
                out.iter_mut().zip(kernel.iter().rev()).for_each(|(out, value)| *out = *value);
            }
        }
    }

    /// Output columns of a row whose tap `kx` lies inside the image, and the image column of the first.
    fn span(&self, kx: usize) -> (Range<usize>, usize) {
        let start = self.left.saturating_sub(kx).div_ceil(self.stride);
        let end = (self.w + self.left).saturating_sub(kx).div_ceil(self.stride).min(self.ow);
        let start = start.min(end);
        (start..end, (start * self.stride + kx).saturating_sub(self.left))
    }

    /// The image row under tap `ky` of output row `y`, if inside.
    fn source_row(&self, y: usize, ky: usize) -> Option<usize> {
        (y * self.stride + ky).checked_sub(self.top).filter(|row| *row < self.h)
    }

    /// Columns of the output rows `rows`, for the channels of `image` (consecutive planes), into `out`:
    /// one row per (channel, ky, kx), one column per output pixel.
    pub(crate) fn unroll(&self, image: &[f32], rows: Range<usize>, out: &mut [f32]) {
        let columns = rows.len() * self.ow;
        let mut lines = out.chunks_exact_mut(columns);
        for plane in image.chunks_exact(self.h * self.w) {
            for ky in 0..self.kh {
                for kx in 0..self.kw {
                    let Some(line) = lines.next() else { return };
                    for (y, out) in rows.clone().zip(line.chunks_exact_mut(self.ow)) {
                        match self.source_row(y, ky) {
                            Some(row) => self.unroll_row(&plane[row * self.w..][..self.w], kx, out),
                            None => out.fill(0.0),
                        }
                    }
                }
            }
        }
    }

    fn unroll_row(&self, source: &[f32], kx: usize, out: &mut [f32]) {
        let (inside, first) = self.span(kx);
        out[..inside.start].fill(0.0);
        out[inside.end..].fill(0.0);
        let out = &mut out[inside];
        if self.stride == 1 {
            out.copy_from_slice(&source[first..first + out.len()]);
        } else {
            for (out, value) in out.iter_mut().zip(source[first..].iter().step_by(self.stride)) {
                *out = *value;
            }
        }
    }

    /// The adjoint of [`Self::unroll`]: adds the columns back to the pixels they came from.
    pub(crate) fn fold(&self, columns: &[f32], rows: Range<usize>, image: &mut [f32]) {
        let mut lines = columns.chunks_exact(rows.len() * self.ow);
        for plane in image.chunks_exact_mut(self.h * self.w) {
            for ky in 0..self.kh {
                for kx in 0..self.kw {
                    let Some(line) = lines.next() else { return };
                    for (y, values) in rows.clone().zip(line.chunks_exact(self.ow)) {
                        if let Some(row) = self.source_row(y, ky) {
                            self.fold_row(values, kx, &mut plane[row * self.w..][..self.w]);
                        }
                    }
                }
            }
        }
    }

    fn fold_row(&self, values: &[f32], kx: usize, target: &mut [f32]) {
        let (inside, first) = self.span(kx);
        if inside.is_empty() {
            return;
        }
        if self.stride == 1 {
            // Without a step to count the compiler makes vectors of it.
            return target[first..]
                .iter_mut()
                .zip(&values[inside])
                .for_each(|(target, value)| *target += value);
        }
        for (target, value) in target[first..].iter_mut().step_by(self.stride).zip(&values[inside]) {
            *target += value;
        }
    }
}
