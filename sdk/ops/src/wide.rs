//! Matrix products on the wide registers of x86-64, in f32 or with bf16 operands that are added up in f32.
//!
//! Both sides of a product are laid out in *steps*: one element of the inner dimension in f32, a pair of neighbouring
//! ones in bf16 (what `vdpbf16ps` takes). A *word*, four bytes, is what one row or column has for one step. The left side
//! lies in *panels* of a few rows, the right side in *vectors* of 16 columns; all sums of a panel and one or two vectors
//! stay in registers ("Anatomy of High-Performance Matrix Multiplication", Goto and van de Geijn 2008).

pub(crate) mod block;
pub(crate) mod pack;
pub(crate) mod pairs;
pub(crate) mod product;
mod register;
pub(crate) mod tile;
mod transpose;

use crate::products::Products;
use crate::simd::has_avx512;
use crate::stored::Stored;

/// Columns of a vector.
pub(crate) const LANES: usize = 16;

/// Most rows of a panel of any unit.
pub(crate) const ROWS: usize = 14;

/// The instructions that products are computed with. A value exists only if the processor has them, and AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// f32 with AVX2 and FMA.
    Avx2,
    /// f32 with AVX-512.
    Avx512,
    /// bf16 operands with AVX-512 BF16; subnormal numbers count as zero.
    Bf16,
    /// The same without the instructions: what tests have on every processor.
    #[cfg(test)]
    PlainBf16,
}

impl Unit {
    /// The best for f32, if there is one.
    pub(crate) fn f32() -> Option<Self> {
        if has_avx512() { Some(Self(Kind::Avx512)) } else { Self::avx2() }
    }

    /// That for bf16 operands, if it was asked for, the weight is stored so or in fewer bits, and there is one.
    pub(crate) fn bf16_for(products: Products, weight: Stored) -> Option<Self> {
        let wanted = products == Products::Bf16 && matches!(weight, Stored::BF16(_) | Stored::Blocks(..));
        if wanted { Self::bf16() } else { None }
    }

    fn avx2() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(Kind::Avx2))
    }

    fn bf16() -> Option<Self> {
        (has_avx512() && is_x86_feature_detected!("avx512bf16")).then_some(Self(Kind::Bf16))
    }

    pub(crate) fn is_bf16(self) -> bool {
        !matches!(self.0, Kind::Avx2 | Kind::Avx512)
    }

    /// Elements of the inner dimension that one step has.
    pub(crate) fn elements(self) -> usize {
        if self.is_bf16() { 2 } else { 1 }
    }

    /// Steps of `n` elements of the inner dimension.
    pub(crate) fn steps(self, n: usize) -> usize {
        n.div_ceil(self.elements())
    }

    /// Most rows of a panel. With 16 registers: two of sums for each, two of the right side and one of the left make
    /// 15; with 32 they make 31.
    pub(crate) fn rows(self) -> usize {
        if self.0 == Kind::Avx2 { 6 } else { ROWS }
    }

    /// Vectors that are multiplied at once: a vector is two AVX2 registers.
    pub(crate) fn vectors(self) -> usize {
        if self.0 == Kind::Avx2 { 1 } else { 2 }
    }

    /// Steps of the inner dimension that are taken at once: a panel and the vectors that it is multiplied with stay in
    /// the first cache.
    pub(crate) fn depth(self) -> usize {
        if self.0 == Kind::Avx2 { 320 } else { 256 }
    }

    /// Cuts rows into as few panels as possible, as equal as possible: (first, rows) of each.
    pub(crate) fn panels(self, total: usize) -> Vec<(usize, usize)> {
        even_blocks(total, self.rows())
    }
}

#[cfg(test)]
impl Unit {
    /// All that this processor can run.
    pub(crate) fn all() -> Vec<Self> {
        let plain = Self::avx2().map(|_| Self(Kind::PlainBf16));
        let avx512 = has_avx512().then_some(Self(Kind::Avx512));
        [Self::avx2(), avx512, Self::bf16(), plain].into_iter().flatten().collect()
    }

    /// An operand as it is multiplied.
    pub(crate) fn rounded(self, x: f32) -> f64 {
        if self.is_bf16() { half::bf16::from_f32(x).to_f64() } else { f64::from(x) }
    }
}

/// Cuts `total` into as few blocks of at most `most` as possible, as equal as possible: (first, size) of each.
pub(crate) fn even_blocks(total: usize, most: usize) -> Vec<(usize, usize)> {
    let count = total.div_ceil(most.max(1));
    (0..count).map(|i| (i * total / count, (i + 1) * total / count - i * total / count)).collect()
}
