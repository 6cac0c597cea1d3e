//! Transposition, block by block.

use super::{Kind, Unit, plain, processor};

/// Rows and columns of a block.
pub(super) const SIDE: usize = 8;

/// Of `rows` rows (at most 16) of `len` elements, `from` apart: element j of row i to element i of the row j of `out`,
/// `to` apart.
pub(crate) fn transpose(
    unit: Unit,
    data: &[f32],
    from: usize,
    size: (usize, usize),
    out: &mut [f32],
    to: usize,
) {
    match unit.0 {
        // SAFETY: a unit exists only where its instructions do.
        Kind::Own(_) => unsafe { processor::transpose(data, from, size, out, to) },
        _ => plain::transpose(data, from, size, out, to),
    }
}

/// [`transpose`], with what transposes a block: `count` (at most 8) rows of 8 elements at `data`, `from` apart, to 8 rows
/// of 8 at `out`, `to` apart, in order, as the rows may overlap.
#[inline(always)]
pub(super) fn in_blocks(
    data: &[f32],
    from: usize,
    (rows, len): (usize, usize),
    out: &mut [f32],
    to: usize,
    block: impl Fn(*const f32, usize, *mut f32),
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
            block(data[i * from + j..].as_ptr(), count, out[j * to + i..].as_mut_ptr());
            j += SIDE;
        }
        for j in j..len {
            for r in i..i + count {
                out[j * to + r] = data[r * from + j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_transposes_rows_of_any_number_and_length() {
        for unit in Unit::all() {
            for (rows, len, apart, to) in (1..=16).flat_map(|rows| {
                [
                    (rows, 1, 1, rows),
                    (rows, 7, 9, rows),
                    (rows, 8, 8, 16),
                    (rows, 21, 30, rows),
                    (rows, 40, 40, 17),
                ]
            }) {
                let data: Vec<f32> = (0..(rows - 1) * apart + len).map(|i| i as f32).collect();
                let mut out = vec![-1f32; (len - 1) * to + rows];
                transpose(unit, &data, apart, (rows, len), &mut out, to);
                for (i, j) in (0..rows).flat_map(|i| (0..len).map(move |j| (i, j))) {
                    let (got, want) = (out[j * to + i], data[i * apart + j]);
                    assert_eq!(got, want, "{unit:?}: {i}, {j} of {rows} x {len}, {apart} apart, to {to}");
                }
            }
        }
    }
}
