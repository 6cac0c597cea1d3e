//! Matrix products on wide registers, in f32 or with bf16 operands that are added up in f32.
//!
//! Both sides of a product are laid out in *steps*: one element of the inner dimension in f32, a pair of neighbouring
//! ones in bf16 (what `vdpbf16ps` and `bfdot` take). A *word*, four bytes, is what one row or column has for one step.
//! The left side lies in *panels* of a few rows, the right side in *vectors* of 16 columns; all sums of a panel and one
//! or two vectors stay in registers ("Anatomy of High-Performance Matrix Multiplication", Goto and van de Geijn 2008).

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod block;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
mod elsewhere;
pub(crate) mod gated;
pub(crate) mod pack;
pub(crate) mod pairs;
mod plain;
pub(crate) mod product;
mod register;
pub(crate) mod tile;
pub(crate) mod transpose;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as processor;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
use elsewhere as processor;
#[cfg(target_arch = "x86_64")]
use x86_64 as processor;

pub(crate) use processor::fetch;

use crate::products::Products;
use crate::stored::Stored;

/// Columns of a vector.
pub(crate) const LANES: usize = 16;

/// Most rows of a panel of any unit.
pub(crate) const ROWS: usize = 14;

/// The instructions that products are computed with. A value exists only if the processor has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of this kind of processor.
    Own(processor::Kind),
    /// f32 with what every processor has.
    Plain,
    /// What `vdpbf16ps` does, without it.
    PlainBf16,
}

/// How a unit takes a product.
#[derive(Clone, Copy)]
struct Shape {
    /// Most rows of a panel: with the vectors, the registers are full.
    rows: usize,
    /// Vectors that are multiplied at once.
    vectors: usize,
    /// Steps of the inner dimension that are taken at once: a panel and the vectors that it is multiplied with stay in
    /// the first cache.
    depth: usize,
    /// Whether operands are bf16. Subnormal numbers count as zero then.
    bf16: bool,
}

impl Unit {
    /// The best for f32.
    pub(crate) fn f32() -> Self {
        Self(processor::Kind::f32().map_or(Kind::Plain, Kind::Own))
    }

    /// That for bf16 operands, if it was asked for, the weight is stored so or in fewer bits, and there is one.
    pub(crate) fn bf16_for(products: Products, weight: Stored) -> Option<Self> {
        let stored = matches!(weight, Stored::BF16(_) | Stored::Blocks(..));
        stored.then(|| Self::of(products)).filter(|unit| unit.is_bf16())
    }

    /// That for operands which are all computed: bf16 if it was asked for and there is one.
    pub(crate) fn of(products: Products) -> Self {
        match products {
            Products::Exact => None,
            Products::Bf16 => processor::Kind::bf16().map(|kind| Self(Kind::Own(kind))),
            Products::EmulatedBf16 => Some(Self(Kind::PlainBf16)),
        }
        .unwrap_or_else(Self::f32)
    }

    fn shape(self) -> Shape {
        match self.0 {
            Kind::Own(kind) => kind.shape(),
            Kind::Plain => plain::SHAPE,
            Kind::PlainBf16 => plain::BF16_SHAPE,
        }
    }

    pub(crate) fn is_bf16(self) -> bool {
        self.shape().bf16
    }

    /// Elements of the inner dimension that one step has.
    pub(crate) fn elements(self) -> usize {
        if self.is_bf16() { 2 } else { 1 }
    }

    /// Steps of `n` elements of the inner dimension.
    pub(crate) fn steps(self, n: usize) -> usize {
        n.div_ceil(self.elements())
    }

    /// Most rows of a panel.
    pub(crate) fn rows(self) -> usize {
        self.shape().rows
    }

    /// Vectors that are multiplied at once.
    pub(crate) fn vectors(self) -> usize {
        self.shape().vectors
    }

    /// Steps of the inner dimension that are taken at once.
    pub(crate) fn depth(self) -> usize {
        self.shape().depth
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
        let own = processor::Kind::all().into_iter().map(Kind::Own);
        own.chain([Kind::Plain, Kind::PlainBf16]).map(Self).collect()
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
