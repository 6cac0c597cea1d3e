//! The innermost loop: a panel of the left side times one or two vectors of the right, with all sums in registers.

use super::register::Register;
use super::{Kind, LANES, ROWS, Unit, plain};

/// How a right side is walked through: for each of `planes` planes, `plane` words apart, one step at each offset. The
/// last offset is the largest.
#[derive(Clone, Copy)]
pub(crate) struct Walk<'a> {
    pub(crate) planes: usize,
    pub(crate) plane: usize,
    pub(crate) taps: &'a [usize],
}

impl Walk<'_> {
    pub(crate) fn steps(&self) -> usize {
        self.planes * self.taps.len()
    }

    /// Words from the first of a vector to the end of its last.
    pub(crate) fn reach(&self) -> usize {
        self.planes.saturating_sub(1) * self.plane + self.taps.last().copied().unwrap_or(0) + LANES
    }
}

/// Where the numbers of a tile come from and go to.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// The panel: for each step the words of its rows.
    pub(crate) a: *const f32,
    /// The first word of each vector.
    pub(crate) b: [*const f32; 2],
    /// What is added to the first row's sums, and how far the next row's is.
    pub(crate) start: [*const f32; 2],
    pub(crate) start_row: usize,
    /// Where the first row's sums go, and how far the next row's are.
    pub(crate) out: [*mut f32; 2],
    pub(crate) out_row: usize,
}

/// Computes a tile of as many rows and vectors as it was made for.
pub(super) type Kernel = unsafe fn(&Tile, Walk);

/// A unit's kernels: of each number of rows, of each number of vectors. Names a function that is generic over both.
macro_rules! kernels {
    ($kernel:ident, $vectors:tt: $($rows:literal)*) => { [$(kernels!(@ $kernel, $rows, $vectors)),*] };
    (@ $kernel:ident, $rows:literal, [$($vectors:literal)*]) => { [$($kernel::<$rows, $vectors> as Kernel),*] };
}
pub(super) use kernels;

/// `out = start + a b` for some rows and vectors, as many as the unit takes at most.
///
/// # Safety
/// `a` has `walk.steps() * rows` words, each vector 16 words at every step, 16 floats at `start` and at `out` for every
/// row can be accessed, and nobody else accesses those of `out`.
pub(crate) unsafe fn run(unit: Unit, rows: usize, vectors: usize, tile: &Tile, walk: Walk) {
    let kernel = match unit.0 {
        Kind::Own(kind) => kind.kernel(rows, vectors),
        Kind::Plain => plain::KERNELS[rows - 1][vectors - 1],
        Kind::PlainBf16 => plain::BF16_KERNELS[rows - 1][vectors - 1],
    };
    // SAFETY: a unit exists only if the processor has it; the rest is the caller's promise.
    unsafe { kernel(tile, walk) }
}

/// Steps that are taken without a look at how many are left.
const TOGETHER: usize = 4;

/// Adds the products of one step.
///
/// # Safety
/// `a` has `R` words and each vector of `b` 16, in code compiled for the register's instructions.
#[inline(always)]
unsafe fn step<T: Register, const R: usize, const V: usize>(
    sums: &mut [[T; V]; R],
    a: *const f32,
    b: [*const f32; 2],
) {
    // Row by row without a loop: one that the compiler leaves as it is has its sums in memory.
    macro_rules! rows {
        ($vectors:ident, $left:ident: $($row:literal)*) => {
            $(if $row < R {
                let a = T::word::<$row>($left);
                for (sum, vector) in sums[$row].iter_mut().zip($vectors) {
                    *sum = sum.multiply_add(a, vector);
                }
            })*
        };
    }
    const { assert!(R <= ROWS, "a row is missing below") };
    // SAFETY: the caller's promise.
    unsafe {
        let mut vectors = [T::zero(); V];
        for (vector, b) in vectors.iter_mut().zip(b) {
            *vector = T::load(b);
        }
        let left = T::left::<R>(a);
        rows!(vectors, left: 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
    }
}

/// # Safety
/// As [`run`], in code compiled for the register's instructions.
#[inline(always)]
pub(super) unsafe fn sums<T: Register, const R: usize, const V: usize>(tile: &Tile, walk: Walk) {
    // SAFETY: all that is read and written is what the caller promised.
    unsafe {
        let mut sums = [[T::zero(); V]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = T::load(tile.start[v].add(r * tile.start_row));
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        if walk.taps.len() == 1 {
            // By far the most products: what a loop costs is shared by some steps.
            b = b.map(|b| b.wrapping_add(walk.taps[0]));
            for _ in 0..walk.planes / TOGETHER {
                for i in 0..TOGETHER {
                    step(&mut sums, a.wrapping_add(i * R), b.map(|b| b.wrapping_add(i * walk.plane)));
                }
                a = a.wrapping_add(TOGETHER * R);
                b = b.map(|b| b.wrapping_add(TOGETHER * walk.plane));
            }
            for _ in 0..walk.planes % TOGETHER {
                step(&mut sums, a, b);
                a = a.wrapping_add(R);
                b = b.map(|b| b.wrapping_add(walk.plane));
            }
        } else {
            for plane in 0..walk.planes {
                for tap in walk.taps {
                    step(&mut sums, a, b.map(|b| b.wrapping_add(plane * walk.plane + tap)));
                    a = a.wrapping_add(R);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(tile.out[v].add(r * tile.out_row));
            }
        }
    }
}
