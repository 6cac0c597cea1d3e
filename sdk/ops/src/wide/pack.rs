//! Laying out the left side of a product, or a right side whose columns are rows in memory.

use super::transpose::transpose;
use super::{LANES, Unit, pairs};
use crate::host::scratch;
use crate::stored::Stored;

/// A matrix whose rows are `stride` elements apart. Of the inner dimension a row has channels times `taps` elements.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: Stored<'a>,
    pub(crate) first: usize,
    pub(crate) stride: usize,
    pub(crate) taps: usize,
}

/// Lays out `count` (at most 16) rows, of each the channels `from..to`: for each step the words of the rows, the next
/// step's `stride` words on. Steps are (channel or pair of channels, tap).
pub(crate) fn panel(
    unit: Unit,
    rows: Rows,
    count: usize,
    (from, to): (usize, usize),
    out: &mut [f32],
    stride: usize,
) {
    assert!(count <= LANES && from < to, "a panel of {count} rows, channels {from} to {to}");
    let steps = unit.steps(to - from) * rows.taps;
    let (from, len) = (rows.first + from * rows.taps, (to - from) * rows.taps);
    if let Stored::F32(data) = rows.data
        && !unit.is_bf16()
    {
        return transpose(unit, &data[from..], rows.stride, (count, len), out, stride);
    }
    scratch(count * steps, |memory| {
        for (r, line) in memory.chunks_exact_mut(steps).enumerate() {
            let at = from + r * rows.stride;
            if unit.is_bf16() {
                pairs::line(rows.data, (at, len), rows.taps, line);
            } else {
                rows.data.widen(at, line);
            }
        }
        transpose(unit, memory, steps, (count, steps), out, stride);
    });
}
