//! Products whose result is halved at once: each number of its first half of columns is combined with that of its second.

use super::Unit;
use super::product::{Base, Panels, Place, Product, Right};
use crate::host::{Shared, blocks, scratch};
use crate::stored::Stored;

/// Columns of the result that a job computes before it combines them: with their rows they stay in the second cache.
const COLUMNS: usize = 64;

/// y (m, n / 2): `combine(value, gate, y)` of the first and the second half of each row of left (m, k) right (k, n), to which
/// the base (n) is added. It is called with some neighbouring numbers of a row.
///
/// # Safety
/// Nobody else accesses the result. Its numbers are not read.
pub(crate) unsafe fn multiply_gated(
    unit: Unit,
    y: Shared,
    base: &[f32],
    left: Stored,
    weight: Stored,
    (n, k): (usize, usize),
    combine: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) {
    assert!(base.len() == n && n.is_multiple_of(2), "{} numbers for {n} columns", base.len());
    let product = Product { unit, n, k, base: Base::Columns(base), left, right: Right::Transposed(weight) };
    let gated = Gated { product, combine };
    let width = (gated.product.width() / 2).next_multiple_of(COLUMNS);
    for (first, count) in blocks(n / 2, width) {
        // SAFETY: the caller's promise.
        unsafe { gated.columns((first, count), y) };
    }
}

struct Gated<'a, F> {
    product: Product<'a>,
    combine: F,
}

impl<F: Fn(&[f32], &[f32], &mut [f32]) + Sync> Gated<'_, F> {
    /// Computes `count` columns of the result, from `first` on.
    ///
    /// # Safety
    /// As [`multiply_gated`].
    unsafe fn columns(&self, (first, count): (usize, usize), y: Shared) {
        let firsts = [first, self.product.n / 2 + first];
        self.product.in_jobs(firsts, count, |panels, (column, count), packed| {
            // SAFETY: each job has its own rows and columns of the result.
            unsafe { self.job(panels, (first + column, count), packed, y) };
        });
    }

    /// The rows of some panels, of `count` columns from `column` on. `packed` are both halves' laid out, if they are.
    ///
    /// # Safety
    /// Nobody else accesses these elements of the result.
    unsafe fn job(
        &self,
        panels: Panels,
        (column, count): (usize, usize),
        packed: [Option<&[f32]>; 2],
        y: Shared,
    ) {
        let p = &self.product;
        let (half, steps, depths) = (p.n / 2, p.unit.steps(p.k), p.depths());
        let (row, rows) = (panels[0].0, panels.iter().map(|p| p.1).sum::<usize>());
        scratch(rows * (steps + 2 * COLUMNS) + p.own(packed[0]), |memory| {
            let (left, memory) = memory.split_at_mut(rows * steps);
            let (both, right) = memory.split_at_mut(2 * rows * COLUMNS);
            p.pack_left(panels, &depths, left);
            for (at, width) in blocks(count, COLUMNS) {
                for (side, part) in both.chunks_exact_mut(rows * COLUMNS).enumerate() {
                    let column = side * half + column + at;
                    let place = Place { memory: Shared::new(part), row, column, stride: COLUMNS };
                    let packed = packed[side].map(|p| &p[at * steps..]);
                    // SAFETY: the place is this job's.
                    unsafe { p.add_depths(panels, &depths, left, (column, width), (packed, right), place) };
                }
                let (values, gates) = both.split_at(rows * COLUMNS);
                let rows = values.chunks_exact(COLUMNS).zip(gates.chunks_exact(COLUMNS)).enumerate();
                for (i, (value, gate)) in rows {
                    // SAFETY: the caller's promise.
                    let y = unsafe { y.slice((row + i) * half + column + at, width) };
                    (self.combine)(&value[..width], &gate[..width], y);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::pseudo_normal;
    use crate::host;
    use crate::wide::product::multiply;
    use half::bf16;

    #[test]
    fn the_bits_are_those_of_the_whole_product_combined_afterwards_in_every_unit() {
        let sizes = [
            (1, 1, 1),
            (7, 7, 5),
            (14, 16, 16),
            (77, 70, 513),
            (300, 33, 1030),
            (200, 130, 2),
            (20, 64, 1300),
        ];
        for (m, half, k) in sizes {
            let n = 2 * half;
            let numbers = |seed, count: usize| pseudo_normal(seed, count, 1.0).to_vec1::<f32>().unwrap();
            let (x, w, base) = (numbers(1, m * k), numbers(2, n * k), numbers(3, n));
            let b: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let combine = |value: &[f32], gate: &[f32], y: &mut [f32]| {
                for ((y, value), gate) in y.iter_mut().zip(value).zip(gate) {
                    *y = value - 3.0 * gate;
                }
            };
            for (unit, weight) in
                Unit::all().into_iter().flat_map(|u| [(u, Stored::F32(&w)), (u, Stored::BF16(&b))])
            {
                let (mut whole, mut want) = (vec![0f32; m * n], vec![0f32; m * half]);
                let (left, right) = (Stored::F32(&x), Right::Transposed(weight));
                multiply(unit, &mut whole, Base::Columns(&base), left, right, (n, k));
                for (row, want) in whole.chunks_exact(n).zip(want.chunks_exact_mut(half)) {
                    combine(&row[..half], &row[half..], want);
                }
                // SAFETY: every number is written.
                let got = unsafe {
                    host::written(m * half, |y| multiply_gated(unit, y, &base, left, weight, (n, k), combine))
                };
                assert_eq!(got, want, "{unit:?}: {m} {half} {k}");
            }
        }
    }
}
