//! Products of two row-major matrices, cut over all threads.

use super::block::{self, Panel, Start, Vector};
use super::pack::{self, Rows};
use super::tile::Walk;
use super::{LANES, ROWS, Unit, even_blocks, fetch};
use crate::host::{self, Shared, blocks, scratch};
use crate::stored::Stored;
use rayon::prelude::*;

/// Panels of the left side that a job lays out. Fewer (12, 16) were slower by up to 7 % on a Zen 3, though at all depths
/// these are more than its second cache.
const PANELS: usize = 24;

/// Depths of the unit that are laid out of these panels: what is added to the result at each depth is then near for the
/// next.
const DEPTHS: usize = 4;

/// Blocks of columns of the right side that are laid out at once: a page of its rows, where it is laid out as it is.
const NEIGHBOURS: usize = 8;

/// Words of the right side laid out at a time for all jobs.
const RIGHT: usize = 4 << 20;

/// The right side of a product, k x n.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// As it is, (k, n). Not in bf16.
    Plain(Stored<'a>),
    /// Its transpose, (n, k).
    Transposed(Stored<'a>),
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Base<'a> {
    /// Nothing: the result is overwritten.
    Zero,
    /// What is there.
    There,
    /// A number for each row of the result.
    Rows(&'a [f32]),
    /// A number for each column of the result.
    Columns(&'a [f32]),
}

/// y (m, n) = base + left (m, k) right (k, n).
pub(crate) fn multiply(
    unit: Unit,
    y: &mut [f32],
    base: Base,
    left: Stored,
    right: Right,
    (n, k): (usize, usize),
) {
    assert_eq!(left.len() / k * n, y.len(), "a result of {n} columns");
    // SAFETY: the result is ours, with a row for each of the left side.
    unsafe { multiply_to(unit, Shared::new(y), base, left, right, (n, k)) }
}

/// [`multiply`] to memory whose numbers are read only for [`Base::There`].
///
/// # Safety
/// Nobody else accesses the result, m x n numbers.
pub(crate) unsafe fn multiply_to(
    unit: Unit,
    y: Shared,
    base: Base,
    left: Stored,
    right: Right,
    (n, k): (usize, usize),
) {
    match base {
        Base::Zero | Base::There => {}
        Base::Rows(base) => assert_eq!(base.len(), left.len() / k, "a number for each row"),
        Base::Columns(base) => assert_eq!(base.len(), n, "a number for each column"),
    }
    let product = Product { unit, n, k, base, left, right };
    for (first, count) in blocks(n, product.width()) {
        // SAFETY: the caller's promise.
        unsafe { product.add_columns((first, count), y) };
    }
}

/// Some rows of the left side: (first, count) of each panel.
pub(super) type Panels<'a> = &'a [(usize, usize)];

pub(super) struct Product<'a> {
    pub(super) unit: Unit,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) base: Base<'a>,
    pub(super) left: Stored<'a>,
    pub(super) right: Right<'a>,
}

/// Where numbers of the result go: the first there, and how far its rows are apart.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) memory: Shared,
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) stride: usize,
}

impl Place {
    /// Some rows of the result, of all columns that are there.
    fn rows(&self, first: usize, count: usize) -> *mut f32 {
        self.memory.pointer((first - self.row) * self.stride, count * self.stride - 1)
    }
}

impl Product<'_> {
    /// Columns that are laid out side by side.
    fn columns(&self) -> usize {
        self.unit.vectors() * LANES
    }

    /// Columns that are laid out at a time for all jobs.
    pub(super) fn width(&self) -> usize {
        (RIGHT / self.unit.steps(self.k) / self.columns()).max(1) * self.columns()
    }

    /// Cuts `count` columns into jobs, `job(panels, (column, count), packed)` each: the first column is of those that are cut.
    /// The product's columns that they are begin at each of `firsts`; `packed` are these laid out for the job, if they are.
    pub(super) fn in_jobs<const N: usize>(
        &self,
        firsts: [usize; N],
        count: usize,
        job: impl Fn(Panels, (usize, usize), [Option<&[f32]>; N]) + Sync,
    ) {
        let panels = self.unit.panels(self.left.len() / self.k);
        let groups = even_blocks(panels.len(), PANELS);
        let (columns, steps) = (self.columns(), self.unit.steps(self.k));
        // Of use to more than one job: laid out once for all of them.
        let words = if groups.len() > 1 { count.next_multiple_of(columns) * steps } else { 0 };
        let each = host::wanted_jobs().div_ceil(groups.len());
        let parts = blocks(count, count.div_ceil(each).next_multiple_of(columns));
        let jobs: Vec<_> = groups.iter().flat_map(|g| parts.iter().map(move |c| (*g, *c))).collect();
        scratch(N * words, |packed| {
            for (i, first) in firsts.into_iter().enumerate() {
                self.pack_right(first, &mut packed[i * words..][..words]);
            }
            let packed: [_; N] =
                std::array::from_fn(|i| (words > 0).then_some(&packed[i * words..][..words]));
            jobs.into_par_iter().for_each(|((panel, panel_count), columns)| {
                let packed = packed.map(|p| p.map(|p| &p[columns.0 * steps..]));
                job(&panels[panel..panel + panel_count], columns, packed);
            });
        });
    }

    /// Computes `count` columns of the result, from `first` on.
    ///
    /// # Safety
    /// Nobody else accesses the result.
    unsafe fn add_columns(&self, (first, count): (usize, usize), y: Shared) {
        self.in_jobs([first], count, |panels, (column, count), [packed]| {
            // SAFETY: each job has its own rows and columns of the result.
            unsafe { self.job(panels, (first + column, count), packed, y) };
        });
    }

    /// Lays out whole columns from `first` on, as many as `out` has room for.
    fn pack_right(&self, first: usize, out: &mut [f32]) {
        let columns = NEIGHBOURS * self.columns();
        let parts = out.par_chunks_mut(columns * self.unit.steps(self.k)).enumerate();
        parts.for_each(|(i, out)| self.pack_columns(first + i * columns, (0, self.k), out));
    }

    /// Lays out elements `from..to` of the inner dimension of the columns from `column` on, one block of columns after the
    /// other, as many as `out` has room for.
    fn pack_columns(&self, column: usize, (from, to): (usize, usize), out: &mut [f32]) {
        let columns = self.columns();
        let block = self.unit.steps(to - from) * columns;
        match self.right {
            Right::Plain(data) => {
                assert!(!self.unit.is_bf16(), "words of bf16 are laid out from the transpose only");
                // Row by row, of which a block is but a small piece.
                for p in from..to {
                    for (i, out) in out.chunks_exact_mut(block).enumerate() {
                        let first = column + i * columns;
                        let (values, beyond) =
                            out[(p - from) * columns..][..columns].split_at_mut(columns.min(self.n - first));
                        data.widen(p * self.n + first, values);
                        beyond.fill(0.0);
                    }
                }
            }
            Right::Transposed(data) => {
                for (i, first) in (column..self.n).step_by(LANES).enumerate() {
                    let (at, vector) = (i / self.unit.vectors() * block, i % self.unit.vectors() * LANES);
                    if at >= out.len() {
                        break;
                    }
                    let rows = Rows { data, first: first * self.k, stride: self.k, taps: 1 };
                    let count = LANES.min(self.n - first);
                    pack::panel(self.unit, rows, count, (from, to), &mut out[at + vector..], columns);
                }
            }
        }
    }

    /// The rows of some panels, of `count` columns from `column` on. `packed` are these laid out, if they are.
    ///
    /// # Safety
    /// Nobody else accesses these elements of the result.
    unsafe fn job(&self, panels: Panels, columns: (usize, usize), packed: Option<&[f32]>, result: Shared) {
        let deepest = (DEPTHS * self.unit.depth()).min(self.unit.steps(self.k));
        let left = panels.iter().map(|p| p.1).sum::<usize>() * deepest;
        let place = Place { memory: result, row: 0, column: 0, stride: self.n };
        scratch(left + self.own(packed), |memory| {
            let (left, right) = memory.split_at_mut(left);
            for depths in self.depths().chunks(DEPTHS) {
                self.pack_left(panels, depths, left);
                // SAFETY: the caller's promise.
                unsafe { self.add_depths(panels, depths, left, columns, (packed, right), place) };
            }
        });
    }

    /// The steps that are taken at once: (first, count) of each depth.
    pub(super) fn depths(&self) -> Vec<(usize, usize)> {
        even_blocks(self.unit.steps(self.k), self.unit.depth())
    }

    /// Words that a job needs to lay out columns itself, if they are not.
    pub(super) fn own(&self, packed: Option<&[f32]>) -> usize {
        let steps = self.unit.depth().min(self.unit.steps(self.k));
        if packed.is_some() { 0 } else { self.columns() * steps }
    }

    /// Adds the products at some depths, whose panels are laid out in `left`, to `count` columns from `column` on. These are
    /// laid out, or there is memory for the job's own.
    ///
    /// # Safety
    /// As [`Self::job`].
    pub(super) unsafe fn add_depths(
        &self,
        panels: Panels,
        depths: &[(usize, usize)],
        left: &[f32],
        (column, count): (usize, usize),
        (packed, right): (Option<&[f32]>, &mut [f32]),
        place: Place,
    ) {
        let (columns, steps) = (self.columns(), self.unit.steps(self.k));
        let rows: usize = panels.iter().map(|p| p.1).sum();
        for (at, width) in blocks(count, columns) {
            let mut left = left;
            for (first, size) in depths {
                let b = match packed {
                    Some(packed) => &packed[at * steps + first * columns..],
                    None => {
                        let right = &mut right[..columns * size];
                        self.pack_columns(column + at, self.elements((*first, *size)), right);
                        &right[..]
                    }
                };
                let base = if *first == 0 { self.base } else { Base::There };
                // SAFETY: the caller's promise.
                unsafe { self.multiply(panels, left, (column + at, width), b, (*size, base), place) };
                left = &left[rows * size..];
            }
        }
    }

    /// The elements of the inner dimension, `from..to`, that some steps are.
    fn elements(&self, (first, size): (usize, usize)) -> (usize, usize) {
        let each = self.unit.elements();
        (first * each, ((first + size) * each).min(self.k))
    }

    /// Lays out some panels at some depths.
    pub(super) fn pack_left(&self, panels: Panels, depths: &[(usize, usize)], out: &mut [f32]) {
        let mut at = 0;
        for depth in depths {
            for (row, count) in panels {
                let rows = Rows { data: self.left, first: row * self.k, stride: self.k, taps: 1 };
                pack::panel(self.unit, rows, *count, self.elements(*depth), &mut out[at..], *count);
                at += count * depth.1;
            }
        }
    }

    /// Fetches some numbers of a panel's rows, which are about to be written.
    fn prefetch(&self, panel: Option<&(usize, usize)>, (column, count): (usize, usize), place: Place) {
        let Some((row, rows)) = panel else { return };
        let first = place.rows(*row, *rows).wrapping_add(column - place.column);
        for row in 0..*rows {
            for at in (0..count).step_by(LANES).chain([count - 1]) {
                fetch(first.wrapping_add(row * place.stride + at));
            }
        }
    }

    /// Adds the products of some panels and of the columns laid out side by side in `right` to a base.
    ///
    /// # Safety
    /// As [`Self::job`].
    unsafe fn multiply(
        &self,
        panels: Panels,
        left: &[f32],
        (column, count): (usize, usize),
        right: &[f32],
        (steps, base): (usize, Base),
        place: Place,
    ) {
        let there = column - place.column;
        let vector = |i: usize| {
            let (first, end) = (there + i * LANES, there + count);
            if first + LANES <= end {
                return Vector::whole(i * LANES, first);
            }
            Vector::new(i * LANES, |lane| (first + lane < end).then_some(first + lane))
        };
        let both = [vector(0), vector(1)];
        let vectors = &both[..count.div_ceil(LANES)];
        let walk = Walk { planes: steps, plane: self.columns(), taps: &[0] };
        let (mut at, mut numbers) = (0, [[0f32; LANES]; ROWS]);
        self.prefetch(panels.first(), (column, count), place);
        for (i, (row, rows)) in panels.iter().enumerate() {
            self.prefetch(panels.get(i + 1), (column, count), place);
            let start = match base {
                Base::Zero => Start::Rows(&[[0.0; LANES]; ROWS]),
                Base::There => Start::There,
                Base::Columns(base) => Start::Columns(&base[place.column..]),
                Base::Rows(base) => {
                    for (numbers, base) in numbers.iter_mut().zip(&base[*row..row + rows]) {
                        *numbers = [*base; LANES];
                    }
                    Start::Rows(&numbers)
                }
            };
            let panel = Panel {
                unit: self.unit,
                rows: *rows,
                a: &left[at..],
                start,
                out: place.rows(*row, *rows),
                out_row: place.stride,
            };
            // SAFETY: the vectors have only elements of this job.
            unsafe { block::run(&panel, right, walk, vectors) };
            at += rows * steps;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::pseudo_normal;
    use half::{bf16, f16};

    #[test]
    fn a_product_is_added_to_its_base_in_every_unit() {
        for (m, n, k) in
            [(1, 1, 1), (7, 17, 5), (14, 32, 16), (15, 33, 31), (77, 100, 513), (300, 70, 1030), (200, 7, 2)]
        {
            let numbers = |seed, count: usize| pseudo_normal(seed, count, 1.0).to_vec1::<f32>().unwrap();
            let (x, w) = (numbers(1, m * k), numbers(2, n * k));
            let b: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let h: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            let (rows, columns) = (numbers(3, m), numbers(4, n));
            for unit in Unit::all() {
                for weight in [Stored::F32(&w), Stored::BF16(&b), Stored::F16(&h)] {
                    let mut wide = vec![0f32; n * k];
                    weight.widen(0, &mut wide);
                    for base in [Base::Zero, Base::There, Base::Rows(&rows), Base::Columns(&columns)] {
                        let mut y = vec![0.5; m * n];
                        multiply(unit, &mut y, base, Stored::F32(&x), Right::Transposed(weight), (n, k));
                        for (i, got) in y.iter().enumerate() {
                            let start = f64::from(match base {
                                Base::Zero => 0.0,
                                Base::There => 0.5,
                                Base::Rows(rows) => rows[i / n],
                                Base::Columns(columns) => columns[i % n],
                            });
                            let terms = x[i / n * k..][..k].iter().zip(&wide[i % n * k..][..k]);
                            let terms = terms.map(|(x, w)| unit.rounded(*x) * unit.rounded(*w));
                            let add = |(sum, size): (f64, f64), term: f64| (sum + term, size + term.abs());
                            let (want, size) = terms.fold((start, start.abs()), add);
                            let error = (f64::from(*got) - want).abs();
                            assert!(error <= 1e-6 * size, "{m} {n} {k} {unit:?} at {i}: {got} for {want}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_right_side_as_it_is_gives_the_bits_of_its_transpose() {
        for (m, n, k) in [(1, 1, 1), (7, 17, 5), (15, 33, 31), (77, 100, 513), (200, 7, 2)] {
            let numbers = |seed, count: usize| pseudo_normal(seed, count, 1.0).to_vec1::<f32>().unwrap();
            let (x, w, base) = (numbers(1, m * k), numbers(2, k * n), numbers(3, m));
            let transposed: Vec<f32> = (0..n * k).map(|i| w[i % k * n + i / k]).collect();
            for unit in Unit::all().into_iter().filter(|u| !u.is_bf16()) {
                let run = |right| {
                    let mut y = vec![0f32; m * n];
                    multiply(unit, &mut y, Base::Rows(&base), Stored::F32(&x), right, (n, k));
                    y
                };
                let plain = run(Right::Plain(Stored::F32(&w)));
                assert_eq!(plain, run(Right::Transposed(Stored::F32(&transposed))), "{m} {n} {k} {unit:?}");
                let halves =
                    [&w, &transposed].map(|w| w.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>());
                let [plain, transposed] = [&halves[0], &halves[1]].map(|h| Stored::F16(h));
                assert_eq!(
                    run(Right::Plain(plain)),
                    run(Right::Transposed(transposed)),
                    "{m} {n} {k} {unit:?}"
                );
            }
        }
    }
}
