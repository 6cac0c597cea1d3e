//! Softmax over keys that come tile by tile ("Online normalizer calculation for softmax", Milakov and Gimelshein 2018,
//! arXiv:1805.02867), of 16 queries side by side. Scores are in units of ln 2: powers of two are their exponentials.

use crate::simd::{exp2, exp2_for_bf16, multiversion};
use crate::wide::LANES;

/// One number for each query of a vector.
pub(super) type Lanes = [f32; LANES];

/// What the scores that came so far are known by.
#[derive(Clone, Copy)]
pub(super) struct Online {
    largest: Lanes,
    /// Of their weights, which are relative to the largest score's.
    sum: Lanes,
}

impl Online {
    /// Before the first score.
    pub(super) const START: Self = Self { largest: [f32::NEG_INFINITY; LANES], sum: [0.0; LANES] };

    /// Takes the scores of further keys, and puts their weights in their place; for products of bf16 words of those of
    /// two keys each, from the first row on. By the result is to be multiplied what was summed with weights so far: 1
    /// where the largest score is what it was.
    pub(super) fn take(&mut self, scores: &mut [Lanes], bf16: bool) -> Lanes {
        let before = self.largest;
        self.largest = largest(scores, before);
        // Where all are minus infinity, so is their distance from a finite number.
        let base = self.largest.map(|x| x.max(f32::MIN));
        let sums = if bf16 { weigh_in_words(scores, base) } else { weigh(scores, base) };
        let factors = weights(before, base);
        self.sum = std::array::from_fn(|i| self.sum[i] * factors[i] + sums[i]);
        factors
    }

    /// By what a weighted sum is to be multiplied for the weights to add up to 1.
    pub(super) fn inverse(&self) -> Lanes {
        self.sum.map(|sum| 1.0 / sum)
    }

    /// The natural logarithm of the sum of the exponentials of one query's scores.
    pub(super) fn log(&self, lane: usize) -> f32 {
        self.largest[lane] * std::f32::consts::LN_2 + self.sum[lane].ln()
    }
}

/// 2^t for t up to 0; zero where it is below the smallest normal number.
#[inline(always)]
fn weight<const FUSED: bool>(t: f32) -> f32 {
    or_zero(t, exp2::<FUSED>(t))
}

#[inline(always)]
fn or_zero(t: f32, power: f32) -> f32 {
    if t < -126.0 { 0.0 } else { power }
}

/// A word of two weights, rounded to the nearest bf16; of two, up. What is not a number need not stay that: the sum of the
/// weights, by which all is divided, is none either.
#[inline(always)]
fn weights_word(low: f32, high: f32) -> f32 {
    let [low, high] = [low, high].map(|weight| weight.to_bits().wrapping_add(0x8000));
    f32::from_bits(low >> 16 | high & 0xffff_0000)
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

multiversion! {
    /// The largest of each lane, `before` included.
    fn largest(scores: &[Lanes], before: Lanes) -> Lanes {
        let mut lanes = before;
        // Four at a time: one after the other would wait for each other.
        let (fours, rest) = scores.as_chunks::<4>();
        for [a, b, c, d] in fours {
            for i in 0..LANES {
                lanes[i] = larger(larger(larger(a[i], b[i]), larger(c[i], d[i])), lanes[i]);
            }
        }
        for row in rest {
            for i in 0..LANES { lanes[i] = larger(row[i], lanes[i]); }
        }
        lanes
    }
}

multiversion! {
    /// Weights of scores relative to `base`.
    fn weights(scores: Lanes, base: Lanes) -> Lanes {
        let mut out = [0f32; LANES];
        for i in 0..LANES { out[i] = weight::<FUSED>(scores[i] - base[i]); }
        out
    }
}

multiversion! {
    /// Puts weights relative to `base` in the place of scores; their sums.
    fn weigh(scores: &mut [Lanes], base: Lanes) -> Lanes {
        let mut sums = [0f32; LANES];
        for row in scores {
            for i in 0..LANES {
                let w = weight::<FUSED>(row[i] - base[i]);
                row[i] = w;
                sums[i] += w;
            }
        }
        sums
    }
}

multiversion! {
    /// Puts words of the weights of two rows each, relative to `base`, in the place of scores, from the first row on; the
    /// weights' sums. A last row without neighbour has one of zeros.
    fn weigh_in_words(scores: &mut [Lanes], base: Lanes) -> Lanes {
        let mut sums = [0f32; LANES];
        for pair in 0..scores.len().div_ceil(2) {
            let low = scores[2 * pair];
            let high = scores.get(2 * pair + 1).copied().unwrap_or([f32::NEG_INFINITY; LANES]);
            for i in 0..LANES {
                let [low, high] = [low[i] - base[i], high[i] - base[i]].map(|t| or_zero(t, exp2_for_bf16::<FUSED>(t)));
                sums[i] += low + high;
                scores[pair][i] = weights_word(low, high);
            }
        }
        sums
    }
}

multiversion! {
    /// Multiplies each lane of all rows by its number.
    pub(super) fn scale_lanes(rows: &mut [Lanes], by: Lanes) {
        for row in rows {
            for i in 0..LANES { row[i] *= by[i]; }
        }
    }
}
