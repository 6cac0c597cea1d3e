//! Words of two bf16.

use crate::host::scratch;
use crate::simd::multiversion;
use crate::stored::Stored;
use half::bf16;

/// What a bf16 is made of.
trait Element: Copy {
    /// The bits of the nearest bf16; of two, the even one. NaN stays NaN.
    fn bits(self) -> u32;
}

impl Element for bf16 {
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.to_bits())
    }
}

impl Element for f32 {
    #[inline(always)]
    fn bits(self) -> u32 {
        let bits = self.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if self.is_nan() { bits >> 16 | 0x40 } else { rounded }
    }
}

#[inline(always)]
fn word(low: impl Element, high: impl Element) -> f32 {
    f32::from_bits(low.bits() | high.bits() << 16)
}

/// Words of the same tap of two neighbouring channels, (pairs of channels, taps), of a row (channels, taps). A last
/// channel without neighbour has one of zeros.
#[inline(always)]
fn interleave<E: Element>(row: &[E], taps: usize, out: &mut [f32]) {
    if taps == 1 {
        let (pairs, rest) = row.as_chunks::<2>();
        pairs.iter().zip(&mut *out).for_each(|([low, high], out)| *out = word(*low, *high));
        return rest.iter().zip(&mut out[pairs.len()..]).for_each(|(low, out)| *out = word(*low, 0.0));
    }
    if taps == 9 {
        return interleave_nine(row, out);
    }
    for (pair, out) in row.chunks(2 * taps).zip(out.chunks_exact_mut(taps)) {
        pair_up(pair, taps, out);
    }
}

/// [`interleave`] of the usual number of taps: of one that the compiler knows it makes vectors.
#[inline(always)]
fn interleave_nine<E: Element>(row: &[E], out: &mut [f32]) {
    let (pairs, last) = row.as_chunks::<18>();
    let (words, rest) = out.split_at_mut(9 * pairs.len());
    for (pair, words) in pairs.iter().zip(words.as_chunks_mut::<9>().0) {
        for tap in 0..9 {
            words[tap] = word(pair[tap], pair[9 + tap]);
        }
    }
    pair_up(last, 9, rest);
}

/// The words of two channels, or of one and zeros.
#[inline(always)]
fn pair_up<E: Element>(pair: &[E], taps: usize, out: &mut [f32]) {
    let (low, high) = pair.split_at(taps.min(pair.len()));
    match high {
        [] => low.iter().zip(out).for_each(|(low, out)| *out = word(*low, 0.0)),
        high => low.iter().zip(high).zip(out).for_each(|((low, high), out)| *out = word(*low, *high)),
    }
}

multiversion! {
    fn interleave_f32(row: &[f32], taps: usize, out: &mut [f32]) {
        interleave(row, taps, out);
    }
}

multiversion! {
    fn interleave_bf16(row: &[bf16], taps: usize, out: &mut [f32]) {
        interleave(row, taps, out);
    }
}

/// The words of a row of `len` elements from `at` on: of the same tap of two neighbouring channels each.
pub(super) fn line(data: Stored, (at, len): (usize, usize), taps: usize, out: &mut [f32]) {
    match data {
        Stored::F32(data) => interleave_f32(&data[at..at + len], taps, out),
        Stored::BF16(data) => interleave_bf16(&data[at..at + len], taps, out),
        Stored::F16(_) | Stored::Blocks(..) => scratch(len, |row| {
            data.widen(at, row);
            interleave_f32(row, taps, out);
        }),
    }
}

multiversion! {
    /// Words of the same column of two rows.
    pub(crate) fn columns(low: &[f32], high: &[f32], out: &mut [f32]) {
        for ((low, high), out) in low.iter().zip(high).zip(out) { *out = word(*low, *high); }
    }
}

multiversion! {
    /// Words of the columns of one row, and of zeros.
    pub(crate) fn single_columns(low: &[f32], out: &mut [f32]) {
        for (low, out) in low.iter().zip(out) { *out = word(*low, 0.0); }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_rounded_as_the_half_crate_rounds_them() {
        let mut numbers: Vec<f32> = (0..=u16::MAX)
            .flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| u32::from(high) << 16 | low))
            .map(f32::from_bits)
            .collect();
        numbers.push(1.0);
        let mut words = vec![0f32; numbers.len()];
        columns(&numbers, &numbers, &mut words);
        for (x, word) in numbers.iter().zip(words) {
            let want = u32::from(bf16::from_f32(*x).to_bits());
            assert_eq!(word.to_bits(), want | want << 16, "{x:e}, bits {:#x}", x.to_bits());
        }
    }

    #[test]
    fn words_of_a_row_are_the_same_taps_of_neighbouring_channels() {
        for (channels, taps) in [(1usize, 1), (5, 1), (34, 1), (1, 9), (6, 9), (7, 9), (5, 4)] {
            let row: Vec<f32> = (0..channels * taps).map(|i| i as f32).collect();
            let stored: Vec<bf16> = row.iter().map(|v| bf16::from_f32(*v)).collect();
            let mut words =
                [vec![0f32; channels.div_ceil(2) * taps], vec![0f32; channels.div_ceil(2) * taps]];
            line(Stored::F32(&row), (0, row.len()), taps, &mut words[0]);
            line(Stored::BF16(&stored), (0, row.len()), taps, &mut words[1]);
            for words in words {
                for (i, word) in words.iter().enumerate() {
                    let (channel, tap) = (i / taps * 2, i % taps);
                    let at = |channel: usize| row.get(channel * taps + tap).copied().unwrap_or(0.0);
                    let got = [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(f32::from_bits);
                    assert_eq!(got, [at(channel), at(channel + 1)], "{channels} x {taps}, word {i}");
                }
            }
        }
    }
}
