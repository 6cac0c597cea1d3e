//! The product of two row-major matrices, the right one transposed, cut over all threads.

use super::block::{self, Panel, Start, Vector};
use super::pack::{self, Rows};
use super::tile::Walk;
use super::{LANES, Unit, even_blocks};
use crate::host::{self, Shared, blocks, scratch};
use crate::stored::Stored;
use rayon::prelude::*;

/// Panels of the left side that a job lays out: with [`DEPTH`] steps they stay in the cache of one core.
const PANELS: usize = 12;

/// Steps of the inner dimension taken at once: a panel and two vectors of them stay in the first cache.
const DEPTH: usize = 256;

/// Words of the right side laid out at a time for all jobs.
const RIGHT: usize = 4 << 20;

/// y (m, n) += x (m, k) wᵀ of w (n, k).
pub(crate) fn add_times_transposed(unit: Unit, y: &mut [f32], x: &[f32], w: Stored, (n, k): (usize, usize)) {
    let columns = unit.vectors() * LANES;
    let width = (RIGHT / unit.steps(k) / columns).max(1) * columns;
    for (first, count) in blocks(n, width) {
        let product = Product { unit, n, k, x, w };
        product.add_columns((first, count), y);
    }
}

/// Some rows of the left side: (first, count) of each panel.
type Panels<'a> = &'a [(usize, usize)];

struct Product<'a> {
    unit: Unit,
    n: usize,
    k: usize,
    x: &'a [f32],
    w: Stored<'a>,
}

impl Product<'_> {
    /// Columns that are laid out side by side.
    fn columns(&self) -> usize {
        self.unit.vectors() * LANES
    }

    /// Adds to `count` columns of the result, from `first` on.
    fn add_columns(&self, (first, count): (usize, usize), y: &mut [f32]) {
        let panels = self.unit.panels(self.x.len() / self.k);
        let (groups, columns, steps) =
            (even_blocks(panels.len(), PANELS), self.columns(), self.unit.steps(self.k));
        // Of use to more than one job: laid out once for all of them.
        let packed = if groups.len() > 1 { count.next_multiple_of(columns) * steps } else { 0 };
        let memory = Shared::new(y);
        scratch(packed, |packed| {
            let right = packed.par_chunks_mut(columns * steps).enumerate();
            right.for_each(|(i, out)| self.pack_columns(first + i * columns, (0, self.k), out));
            let width = count.div_ceil(host::wanted_jobs().div_ceil(groups.len())).next_multiple_of(columns);
            let jobs = groups.iter().flat_map(|g| blocks(count, width).into_iter().map(move |c| (*g, c)));
            let jobs: Vec<_> = jobs.collect();
            jobs.into_par_iter().for_each(|((panel, panel_count), (column, count))| {
                let packed = packed.get(column * steps..).filter(|p| !p.is_empty());
                let panels = &panels[panel..panel + panel_count];
                // SAFETY: each job has its own rows and columns of the result.
                unsafe { self.job(panels, (first + column, count), packed, memory) };
            });
        });
    }

    /// Lays out the columns side by side from `column` on, elements `from..to` of the inner dimension.
    fn pack_columns(&self, column: usize, (from, to): (usize, usize), out: &mut [f32]) {
        for (i, first) in (column..self.n.min(column + self.columns())).step_by(LANES).enumerate() {
            let rows = Rows { data: self.w, first: first * self.k, stride: self.k, taps: 1 };
            let count = LANES.min(self.n - first);
            pack::panel(self.unit, rows, count, (from, to), &mut out[i * LANES..], self.columns());
        }
    }

    /// The rows of some panels, of `count` columns from `column` on. `packed` are these laid out, if they are.
    ///
    /// # Safety
    /// Nobody else accesses these elements of the result.
    unsafe fn job(
        &self,
        panels: Panels,
        (column, count): (usize, usize),
        packed: Option<&[f32]>,
        result: Shared,
    ) {
        let (each, columns, steps) = (self.unit.elements(), self.columns(), self.unit.steps(self.k));
        let deepest = DEPTH.min(steps);
        let rows: usize = panels.iter().map(|p| p.1).sum();
        let own = if packed.is_some() { 0 } else { columns * deepest };
        scratch(rows * deepest + own, |memory| {
            let (left, right) = memory.split_at_mut(rows * deepest);
            for (first, size) in even_blocks(steps, DEPTH) {
                let elements = (first * each, ((first + size) * each).min(self.k));
                self.pack_left(panels, elements, left);
                for (at, width) in blocks(count, columns) {
                    let b = match packed {
                        Some(packed) => &packed[at * steps + first * columns..],
                        None => {
                            self.pack_columns(column + at, elements, right);
                            &right[..]
                        }
                    };
                    // SAFETY: the caller's promise.
                    unsafe { self.multiply(panels, left, (column + at, width), b, size, result) };
                }
            }
        });
    }

    fn pack_left(&self, panels: Panels, (from, to): (usize, usize), out: &mut [f32]) {
        let (steps, mut at) = (self.unit.steps(to - from), 0);
        for (row, count) in panels {
            let rows = Rows { data: Stored::F32(self.x), first: row * self.k, stride: self.k, taps: 1 };
            pack::panel(self.unit, rows, *count, (from, to), &mut out[at..], *count);
            at += count * steps;
        }
    }

    /// Adds the products of some panels and of the columns laid out side by side in `right`.
    ///
    /// # Safety
    /// As [`Self::job`].
    unsafe fn multiply(
        &self,
        panels: Panels,
        left: &[f32],
        (column, count): (usize, usize),
        right: &[f32],
        steps: usize,
        result: Shared,
    ) {
        let vector = |i: usize| {
            let first = column + i * LANES;
            Vector::new(i * LANES, |lane| (first + lane < self.n).then_some(first + lane))
        };
        let vectors: Vec<_> = (0..count.div_ceil(LANES)).map(vector).collect();
        let walk = Walk { planes: steps, plane: self.columns(), taps: &[0] };
        let mut at = 0;
        for (row, count) in panels {
            let panel = Panel {
                unit: self.unit,
                rows: *count,
                a: &left[at..],
                start: Start::There,
                out: result.pointer(row * self.n, count * self.n - 1),
                out_row: self.n,
            };
            // SAFETY: the vectors have only elements of this job.
            unsafe { block::run(&panel, right, walk, &vectors) };
            at += count * steps;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::pseudo_normal;
    use half::{bf16, f16};

    #[test]
    fn a_product_is_added_to_what_is_there_in_every_unit() {
        for (m, n, k) in
            [(1, 1, 1), (7, 17, 5), (14, 32, 16), (15, 33, 31), (77, 100, 513), (300, 70, 1030), (200, 7, 2)]
        {
            let numbers = |seed, count: usize| pseudo_normal(seed, count, 1.0).to_vec1::<f32>().unwrap();
            let (x, w) = (numbers(1, m * k), numbers(2, n * k));
            let b: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let h: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            for unit in Unit::all() {
                for weight in [Stored::F32(&w), Stored::BF16(&b), Stored::F16(&h)] {
                    let mut y = vec![0.5; m * n];
                    add_times_transposed(unit, &mut y, &x, weight, (n, k));
                    let mut wide = vec![0f32; n * k];
                    weight.widen(0, &mut wide);
                    for (i, got) in y.iter().enumerate() {
                        let terms = x[i / n * k..][..k].iter().zip(&wide[i % n * k..][..k]);
                        let terms = terms.map(|(x, w)| unit.rounded(*x) * unit.rounded(*w));
                        let (want, size) =
                            terms.fold((0.5, 0.5), |(sum, size), term| (sum + term, size + term.abs()));
                        let error = (f64::from(*got) - want).abs();
                        assert!(error <= 1e-6 * size, "{m} {n} {k} {unit:?} at {i}: {got} for {want}");
                    }
                }
            }
        }
    }
}
