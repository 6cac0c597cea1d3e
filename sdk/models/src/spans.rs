//! Tiles along an axis.

use std::ops::Range;

/// One tile along one axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    /// What it gives.
    pub(crate) inner: Range<usize>,
    /// What it sees.
    pub(crate) outer: Range<usize>,
}

/// Tiles along an axis that see `reach` beyond what they give, all of about the same length; cuts lie at multiples of
/// `unit`.
pub(crate) fn spans(length: usize, tile: usize, reach: usize, unit: usize) -> Vec<Span> {
    let count = length.div_ceil(tile).max(1);
    let whole = |n: usize| n.next_multiple_of(unit);
    let cut = |i: usize| if i >= count { length } else { whole(i * length / count).min(length) };
    let span = |i: usize| {
        let inner = cut(i)..cut(i + 1);
        let outer = inner.start.saturating_sub(whole(reach))..(whole(inner.end) + whole(reach)).min(length);
        Span { inner, outer }
    };
    (0..count).map(span).filter(|s| !s.inner.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_an_axis_once_and_see_as_far_as_they_reach() {
        for (length, tile, reach) in
            [(100, 64, 7), (64, 64, 8), (129, 64, 3), (2, 64, 5), (1000, 96, 8), (67, 64, 9), (1, 16, 0)]
        {
            for unit in [1, 2, 4] {
                let found = spans(length, tile, reach, unit);
                let mut next = 0;
                for s in &found {
                    assert_eq!(s.inner.start, next);
                    next = s.inner.end;
                    assert!(s.inner.start % unit == 0 && s.outer.start % unit == 0, "{s:?}");
                    assert!(s.inner.end % unit == 0 || s.inner.end == length, "{s:?}");
                    assert!(s.inner.len() <= tile + unit, "{s:?}");
                    assert!(s.outer.start == 0 || s.inner.start - s.outer.start >= reach);
                    assert!(s.outer.end == length || s.outer.end - s.inner.end >= reach);
                }
                assert_eq!(next, length);
            }
        }
    }
}
