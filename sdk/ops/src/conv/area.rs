//! The piece of a convolution's result that one job computes, and the image under it laid out for products.

use super::Geometry;
use crate::host::scratch;
use crate::wide::block::Vector;
use crate::wide::pairs::{columns, single_columns};
use crate::wide::{LANES, Unit};

/// Output pixels that one job computes: rows and columns of some images. If of more than one image, then all of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) images: (usize, usize),
    pub(super) rows: (usize, usize),
    pub(super) cols: (usize, usize),
}

/// How the image under an area lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// As it is, with its border; a tap is an offset. Only for stride 1.
    Border,
    /// Anew for each tap.
    Taps,
}

/// Where the numbers of an area are.
pub(super) struct Map {
    pub(super) vectors: Vec<Vector>,
    pub(super) taps: Vec<usize>,
    /// Words of one step's channels.
    pub(super) plane: usize,
}

impl Area {
    pub(super) fn pixels(&self) -> usize {
        self.images.1 * self.rows.1 * self.cols.1
    }

    /// Rows and columns of one image with its border.
    fn bordered(&self, g: &Geometry) -> (usize, usize) {
        (self.rows.1 + g.kh - 1, self.cols.1 + g.kw - 1)
    }

    /// Element of a row of the result (one output channel of all images) that belongs to a pixel of the area.
    fn element(&self, g: &Geometry, image: usize, y: usize, x: usize) -> usize {
        (image * g.co * g.oh + self.rows.0 + y) * g.ow + self.cols.0 + x
    }

    pub(super) fn map(&self, g: &Geometry, layout: Layout) -> Map {
        let (high, wide) = self.bordered(g);
        match layout {
            Layout::Border => Map {
                vectors: if self.cols.1.is_multiple_of(LANES) { self.by_row(g) } else { self.across_rows(g) },
                taps: (0..g.taps()).map(|t| t / g.kw * wide + t % g.kw).collect(),
                plane: self.images.1 * high * wide,
            },
            Layout::Taps => Map {
                vectors: self.dense(g),
                taps: (0..g.taps()).map(|t| t * self.pixels()).collect(),
                plane: g.taps() * self.pixels(),
            },
        }
    }

    fn by_row(&self, g: &Geometry) -> Vec<Vector> {
        let (high, wide) = self.bordered(g);
        let mut vectors = Vec::new();
        for image in 0..self.images.1 {
            for y in 0..self.rows.1 {
                for x in (0..self.cols.1).step_by(LANES) {
                    let first = self.element(g, image, y, x);
                    vectors.push(Vector::new((image * high + y) * wide + x, |lane| Some(first + lane)));
                }
            }
        }
        vectors
    }

    /// Vectors over the bordered image as it lies in memory; the lanes over the border are lost.
    fn across_rows(&self, g: &Geometry) -> Vec<Vector> {
        let (high, wide) = self.bordered(g);
        let used = (self.rows.1 - 1) * wide + self.cols.1;
        let mut vectors = Vec::new();
        for image in 0..self.images.1 {
            for at in (0..used).step_by(LANES) {
                vectors.push(Vector::new(image * high * wide + at, |lane| {
                    let (y, x) = ((at + lane) / wide, (at + lane) % wide);
                    (at + lane < used && x < self.cols.1).then(|| self.element(g, image, y, x))
                }));
            }
        }
        vectors
    }

    fn dense(&self, g: &Geometry) -> Vec<Vector> {
        let pixels = self.pixels();
        let vector = |at: usize| {
            Vector::new(at, |lane| {
                let pixel = at + lane;
                let (row, x) = (pixel / self.cols.1, pixel % self.cols.1);
                (pixel < pixels).then(|| self.element(g, row / self.rows.1, row % self.rows.1, x))
            })
        };
        (0..pixels).step_by(LANES).map(vector).collect()
    }

    /// Lays out the channels `from..to` of the area's images. `out` has a vector more than the map's planes.
    pub(super) fn pack(
        &self,
        g: &Geometry,
        layout: Layout,
        unit: Unit,
        x: &[f32],
        (from, to): (usize, usize),
        out: &mut [f32],
    ) {
        let (taps, rows, columns) = match layout {
            Layout::Border => (1, self.bordered(g).0, self.bordered(g).1),
            Layout::Taps => (g.taps(), self.rows.1, self.cols.1),
        };
        let mut at = 0;
        for channel in (from..to).step_by(unit.elements()) {
            for tap in 0..taps {
                let (ky, kx) = (tap / g.kw, tap % g.kw);
                let first = (self.cols.0 * g.stride + kx) as isize - g.left as isize;
                for image in self.images.0..self.images.0 + self.images.1 {
                    let lines = Lines { g, x, image, channel, next: channel + 1 < to };
                    for y in 0..rows {
                        let out = &mut out[at..][..columns];
                        lines.write(unit, (self.rows.0 + y) * g.stride + ky, first, out);
                        at += columns;
                    }
                }
            }
        }
    }
}

/// A channel of an image, and the next if there is one.
struct Lines<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    image: usize,
    channel: usize,
    next: bool,
}

impl Lines<'_> {
    /// The words of row `row` of the image with its border, from column `first` of the image on.
    fn write(&self, unit: Unit, row: usize, first: isize, out: &mut [f32]) {
        let g = self.g;
        let Some(row) = row.checked_sub(g.top).filter(|row| *row < g.h) else { return out.fill(0.0) };
        let at = ((self.image * g.ci + self.channel) * g.h + row) * g.w;
        let low = &self.x[at..][..g.w];
        let high = self.next.then(|| &self.x[at + g.h * g.w..][..g.w]);
        if g.stride == 1 {
            return neighbours(unit, low, high, first, out);
        }
        scratch(2 * out.len(), |memory| {
            let (a, b) = memory.split_at_mut(out.len());
            every(low, first, g.stride, a);
            let high = high.map(|high| {
                every(high, first, g.stride, b);
                &*b
            });
            neighbours(unit, a, high, 0, out);
        });
    }
}

/// Elements `first`, `first + step`, ... of a line, zero where there is none.
fn every(line: &[f32], first: isize, step: usize, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let at = usize::try_from(first + (i * step) as isize).ok();
        *out = at.and_then(|at| line.get(at)).copied().unwrap_or(0.0);
    }
}

/// Words of neighbouring columns of a line and of the next channel's, zero where there is none.
fn neighbours(unit: Unit, low: &[f32], high: Option<&[f32]>, first: isize, out: &mut [f32]) {
    let before = first.min(0).unsigned_abs().min(out.len());
    let first = (first.max(0) as usize).min(low.len());
    let inside = (low.len() - first).min(out.len() - before);
    let (start, out) = out.split_at_mut(before);
    let (out, end) = out.split_at_mut(inside);
    start.fill(0.0);
    end.fill(0.0);
    let span = first..first + inside;
    match high {
        _ if !unit.is_bf16() => out.copy_from_slice(&low[span]),
        Some(high) => columns(&low[span.clone()], &high[span], out),
        None => single_columns(&low[span], out),
    }
}
