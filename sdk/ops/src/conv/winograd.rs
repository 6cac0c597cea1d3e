//! Convolution with 3 x 3 kernels by Winograd's minimal filtering: F(4x4, 3x3) takes 36 products for 16 pixels in place of
//! 144, F(2x2, 3x3) 16 for four in place of 36 ("Fast Algorithms for Convolutional Neural Networks", Lavin and Gray 2015,
//! arXiv:1509.09308).
//!
//! Tiles of the result are computed from as many pixels of the input and two more on each side, which overlap. A tile is
//! transformed to some numbers (*points*), and so is a kernel; at each point their products are summed over the channels,
//! and the sums transformed back. An error is within 1e-6 of the magnitudes that the result is a sum of, those of all
//! numbers under its tile: up to one pixel less than a tile's side farther than its kernel reaches. So far, too, what is not finite spreads.

mod form;
mod four;
mod patch;
mod tiles;
mod transform;
mod two;

use super::Geometry;
use crate::host::{self, Shared, blocks, scratch};
use crate::stored::Stored;
use crate::wide::pack::{self, Rows};
use crate::wide::tile::{self, Tile, Walk};
use crate::wide::{LANES, Unit, even_blocks};
use form::Form;
use four::Four;
use patch::Patch;
use rayon::prelude::*;
use std::marker::PhantomData;
use tiles::Tiles;
use transform::{BESIDE, Places};
use two::Two;

/// Tiles of an image from which on its kernels are transformed for all pieces of it before any is computed. Of smaller ones
/// each job transforms those of its own channels, which then stay in its core's second cache, and computes all pieces.
const MANY: usize = 128;

/// Words of transformed kernels at a time, of an image of many tiles.
const KERNELS: usize = 4 << 20;

/// Input channels at a time: at least, where the kernels would be fewer, and at most, so that a job's transformed tiles
/// stay in the third cache.
const CHANNELS: (usize, usize) = (16, 320);

/// Of an image of fewer tiles, input channels at a time, and output channels of a job: its transformed kernels and its sums
/// are about as large as the second cache.
const FEW_TILES_CHANNELS: usize = 96;
const FEW_TILES_ROWS: usize = 12;

/// Words of an image's transformed tiles, of fewer, that are there at a time for all jobs: they stay in the third cache.
const TOGETHER: usize = 1 << 20;

/// Pieces of images of fewer tiles that are computed at a time: a job has the sums of all of them.
const PIECES: usize = 4;

/// Words of sums that a job of many tiles has before it transforms them back: they stay in the second cache.
const SUMS: usize = 48 << 10;

/// Fewer channels than this on either side do not make up for the transforms.
const FEW_CHANNELS: usize = 32;

/// Fewer tiles than this of an image do not make up for the transform of the kernels. The number of images does not count:
/// an image's result is not to depend on what is computed beside it.
const FEW_TILES: usize = 16;

/// Whether an image has tiles enough.
fn suits<F: Form>(g: &Geometry) -> bool {
    tiles::count::<F>(g) >= FEW_TILES
}

/// Whether this is faster in f32 than products of bf16, at twice the rate, with the image as it lies.
pub(super) fn beats_bf16(g: &Geometry) -> bool {
    is_possible(g, 2 * FEW_CHANNELS) && suits::<Four>(g)
}

fn is_possible(g: &Geometry, channels: usize) -> bool {
    (g.kh, g.kw, g.stride) == (3, 3, 1) && g.ci.min(g.co) >= channels
}

/// y (B, Co, OH, OW) from x (B, Ci, H, W), weight (Co, Ci, 3, 3) and bias (Co), with stride 1. None where products with the
/// image's columns are faster.
pub(super) fn forward_if_faster(
    unit: Unit,
    g: &Geometry,
    x: &[f32],
    weight: Stored,
    bias: &[f32],
) -> Option<Vec<f32>> {
    if !is_possible(g, FEW_CHANNELS) {
        return None;
    }
    if suits::<Four>(g) {
        return Some(forward::<Four>(unit, g, x, weight, bias));
    }
    suits::<Two>(g).then(|| forward::<Two>(unit, g, x, weight, bias))
}

fn forward<F: Form + Sync>(unit: Unit, g: &Geometry, x: &[f32], weight: Stored, bias: &[f32]) -> Vec<f32> {
    let many = tiles::count::<F>(g) >= MANY;
    let channels =
        if many { (KERNELS / (F::POINTS * g.co)).clamp(CHANNELS.0, CHANNELS.1) } else { FEW_TILES_CHANNELS };
    let (tiles, panels) = (Tiles::of::<F>(g), Panel::all(unit, g.co));
    let pass = |(first, count)| Pass::<F> { unit, g, x, weight, bias, first, count, form: PhantomData };
    let passes: Vec<_> = even_blocks(g.ci, channels).into_iter().map(pass).collect();
    let compute = |y: Shared| {
        if many {
            passes.iter().for_each(|pass| pass.by_tiles(&tiles, &panels, y));
        } else {
            // Of one image: its bits are not to depend on what is computed beside it.
            let words = F::POINTS * tiles::count::<F>(g) * channels;
            for passes in passes.chunks((TOGETHER / words).max(1)) {
                tiles.chunks(PIECES).for_each(|tiles| Few { passes, tiles }.compute(&panels, y));
            }
        }
    };
    // SAFETY: the tiles of all channels are all pixels; the first input channels write them, the others add to them.
    unsafe { host::written(g.batch * g.co * g.oh * g.ow, compute) }
}

/// Some pieces of images of few tiles, and the passes that are summed up before they are transformed back.
struct Few<'a, F> {
    passes: &'a [Pass<'a, F>],
    tiles: &'a [Tiles],
}

impl<F: Form + Sync> Few<'_, F> {
    /// Computes everything: the tiles are transformed for all jobs, each of which has its own output channels.
    fn compute(&self, panels: &[Panel], result: Shared) {
        let pieces: Vec<_> =
            self.passes.iter().flat_map(|pass| self.tiles.iter().map(move |tiles| (pass, *tiles))).collect();
        let words: Vec<_> = pieces.iter().map(|(pass, tiles)| pass.tile_words(tiles)).collect();
        scratch(words.iter().sum(), |memory| {
            let mut inputs = cut(memory, words);
            let all = inputs.par_iter_mut().zip(&pieces);
            all.for_each(|(inputs, (pass, tiles))| pass.transform_tiles(*tiles, inputs));
            let jobs = panels.par_chunks((FEW_TILES_ROWS / panels[0].rows).max(1));
            // SAFETY: each job has its own channels of the result.
            jobs.for_each(|panels| unsafe { self.job(panels, &inputs, result) });
        });
    }

    /// The channels of some panels. `inputs` are each pass's transformed tiles.
    ///
    /// # Safety
    /// Nobody else accesses these channels of the result.
    unsafe fn job(&self, panels: &[Panel], inputs: &[&mut [f32]], result: Shared) {
        let kernels = self.passes.iter().map(|pass| pass.words(panels)).max().unwrap_or(0);
        let sums: Vec<_> = self.tiles.iter().map(|tiles| sum_words::<F>(tiles, panels)).collect();
        scratch(kernels + sums.iter().sum::<usize>(), |memory| {
            let (kernels, memory) = memory.split_at_mut(kernels);
            let mut sums = cut(memory, sums);
            for (i, (pass, inputs)) in self.passes.iter().zip(inputs.chunks(self.tiles.len())).enumerate() {
                for (at, panel) in panels.iter().enumerate() {
                    let (start, words) = (pass.start(&panels[0], panel), pass.words(&panels[at..=at]));
                    pass.transform_kernels(panel, &mut kernels[start..][..words]);
                }
                for ((tiles, inputs), sums) in self.tiles.iter().zip(inputs).zip(&mut sums) {
                    pass.multiply(*tiles, panels, kernels, inputs, (i > 0, sums));
                }
            }
            for (tiles, sums) in self.tiles.iter().zip(sums) {
                // SAFETY: the caller's promise.
                unsafe { self.passes[0].transform_back(*tiles, panels, sums, result) };
            }
        });
    }
}

/// Cuts memory into parts of these lengths.
fn cut(memory: &mut [f32], lengths: Vec<usize>) -> Vec<&mut [f32]> {
    let mut rest = memory;
    let part = |length| {
        let (part, beyond) = std::mem::take(&mut rest).split_at_mut(length);
        rest = beyond;
        part
    };
    lengths.into_iter().map(part).collect()
}

/// Words of the sums of some tiles and panels. Tiles are transformed back by eights, the last ones' too.
fn sum_words<F: Form>(tiles: &Tiles, panels: &[Panel]) -> usize {
    F::POINTS * panels.iter().map(|p| p.rows).sum::<usize>() * tiles.line() + BESIDE
}

/// Output channels that are multiplied at once.
struct Panel {
    index: usize,
    first: usize,
    rows: usize,
}

impl Panel {
    fn all(unit: Unit, channels: usize) -> Vec<Self> {
        let panels = unit.panels(channels).into_iter().enumerate();
        panels.map(|(index, (first, rows))| Self { index, first, rows }).collect()
    }
}

/// What some input channels add to the result.
struct Pass<'a, F> {
    unit: Unit,
    g: &'a Geometry,
    x: &'a [f32],
    weight: Stored<'a>,
    bias: &'a [f32],
    first: usize,
    count: usize,
    form: PhantomData<F>,
}

impl<F: Form + Sync> Pass<'_, F> {
    /// Words of a panel's kernels at one point, with room for a vector beyond the last.
    fn point_words(&self, panel: &Panel) -> usize {
        self.count * panel.rows + LANES
    }

    /// Words of the kernels of some panels.
    fn words(&self, panels: &[Panel]) -> usize {
        F::POINTS * panels.iter().map(|p| self.point_words(p)).sum::<usize>()
    }

    /// Where a panel's kernels are, of those from the panel `first` on.
    fn start(&self, first: &Panel, panel: &Panel) -> usize {
        F::POINTS * (self.count * (panel.first - first.first) + (panel.index - first.index) * LANES)
    }

    /// Computes everything: the kernels are transformed for all jobs, each of which has its own tiles.
    fn by_tiles(&self, tiles: &[Tiles], panels: &[Panel], result: Shared) {
        let groups =
            even_blocks(panels.len(), panels.len().div_ceil(host::wanted_jobs().div_ceil(tiles.len())));
        let jobs: Vec<_> = tiles.iter().flat_map(|t| groups.iter().map(move |g| (*t, *g))).collect();
        scratch(self.words(panels), |kernels| {
            let memory = Shared::new(kernels);
            panels.par_iter().enumerate().for_each(|(i, panel)| {
                let (start, words) = (self.start(&panels[0], panel), self.words(&panels[i..=i]));
                // SAFETY: each panel has its own part.
                self.transform_kernels(panel, unsafe { memory.slice(start, words) });
            });
            let kernels = &*kernels;
            jobs.par_iter().for_each(|(tiles, (panel, n))| {
                let group = &panels[*panel..panel + n];
                let kernels = &kernels[self.start(&panels[0], &group[0])..];
                scratch(self.tile_words(tiles), |inputs| {
                    self.transform_tiles(*tiles, inputs);
                    // SAFETY: each job has its own pixels and channels of the result.
                    unsafe { self.add(*tiles, group, kernels, inputs, result) };
                });
            });
        });
    }

    /// A panel's kernels, point by point: (points, channels, rows).
    fn transform_kernels(&self, panel: &Panel, out: &mut [f32]) {
        /// Channels whose kernels stay in the first cache.
        const PIECE: usize = 32;
        let g = self.g;
        let rows =
            Rows { data: self.weight, first: panel.first * g.depth(), stride: g.depth(), taps: g.taps() };
        scratch(PIECE * g.taps() * LANES, |taps| {
            for (at, n) in blocks(self.count, PIECE) {
                let (from, taps) = (self.first + at, &mut taps[..n * g.taps() * LANES]);
                pack::panel(self.unit, rows, panel.rows, (from, from + n), taps, LANES);
                transform::kernels::<F>(
                    taps,
                    panel.rows,
                    &mut out[at * panel.rows..],
                    self.point_words(panel),
                );
            }
        });
    }

    /// Adds to the pixels of some tiles, of the channels of some panels, as many at a time as there is room for their sums.
    /// `kernels` are the panels'.
    ///
    /// # Safety
    /// Nobody else accesses these elements of the result.
    unsafe fn add(&self, tiles: Tiles, panels: &[Panel], kernels: &[f32], inputs: &[f32], result: Shared) {
        let rows = panels.iter().map(|p| p.rows).max().unwrap_or(1);
        let group = (SUMS / (F::POINTS * tiles.line() * rows)).max(1);
        let words = panels.chunks(group).map(|group| sum_words::<F>(&tiles, group)).max().unwrap_or(0);
        scratch(words, |sums| {
            for group in panels.chunks(group) {
                let kernels = &kernels[self.start(&panels[0], &group[0])..];
                self.multiply(tiles, group, kernels, inputs, (false, sums));
                // SAFETY: the caller's promise.
                unsafe { self.transform_back(tiles, group, sums, result) };
            }
        });
    }

    /// Words of transformed tiles.
    fn tile_words(&self, tiles: &Tiles) -> usize {
        F::POINTS * tiles.vectors() * self.pitch()
    }

    /// Words from a point's vector of tiles to the next one: 16 for each channel, and for one more if their number is even,
    /// as their addresses then use all of the cache.
    fn pitch(&self) -> usize {
        (self.count | 1) * LANES
    }

    /// Every channel's tiles, point by point and vector by vector: (points, vectors, channels, 16).
    fn transform_tiles(&self, tiles: Tiles, out: &mut [f32]) {
        let g = self.g;
        let corner = [(tiles.rows.0, g.top), (tiles.cols.0, g.left)];
        let mut patch = Patch::<F>::new(tiles.rows.1, tiles.cols.1);
        let places = Places { vectors: tiles.vectors(), pitch: self.pitch() };
        for channel in 0..self.count {
            for image in 0..tiles.images.1 {
                let plane = (tiles.images.0 + image) * g.ci + self.first + channel;
                patch.read(&self.x[plane * g.h * g.w..][..g.h * g.w], (g.h, g.w), corner);
                patch.transform(image * tiles.each(), &mut out[channel * LANES..], places);
            }
        }
    }

    /// Sums over the channels, point by point: (points, output channels of the panels, line). They are added to what is
    /// there, if that is asked for. `kernels` are the panels'.
    fn multiply(
        &self,
        tiles: Tiles,
        panels: &[Panel],
        kernels: &[f32],
        inputs: &[f32],
        (add, sums): (bool, &mut [f32]),
    ) {
        const ZEROS: [f32; LANES] = [0.0; LANES];
        let (line, vectors, first) = (tiles.line(), tiles.vectors(), &panels[0]);
        let channels: usize = panels.iter().map(|p| p.rows).sum();
        assert!(sums.len() >= F::POINTS * channels * line, "{} sums", sums.len());
        assert!(inputs.len() >= F::POINTS * vectors * self.pitch(), "{} points of tiles", inputs.len());
        let walk = Walk { planes: self.count, plane: LANES, taps: &[0] };
        for point in 0..F::POINTS {
            for vector in (0..vectors).step_by(self.unit.vectors()) {
                let count = self.unit.vectors().min(vectors - vector);
                let both = [vector, vector + count - 1];
                let b = both.map(|v| inputs[(point * vectors + v) * self.pitch()..].as_ptr());
                for panel in panels {
                    let words = self.point_words(panel);
                    let a = kernels[self.start(first, panel) + point * words..][..words].as_ptr();
                    let at = (point * channels + panel.first - first.first) * line;
                    let out = both.map(|v| sums[at + v * LANES..].as_mut_ptr());
                    let (start, start_row) = match add {
                        true => (out.map(<*mut f32>::cast_const), line),
                        false => ([ZEROS.as_ptr(); 2], 0),
                    };
                    let tile = Tile { a, b, start, start_row, out, out_row: line };
                    // SAFETY: a vector of every channel's inputs at every point, and of sums for each row of the panels,
                    // by the assertions; the panel's words were sliced.
                    unsafe { tile::run(self.unit, panel.rows, count, &tile, walk) };
                }
            }
        }
    }

    /// Adds the pixels of some tiles to the channels of some panels of the result.
    ///
    /// # Safety
    /// As [`Self::add`].
    unsafe fn transform_back(&self, tiles: Tiles, panels: &[Panel], sums: &[f32], result: Shared) {
        let (first, channels) = (panels[0].first, panels.iter().map(|p| p.rows).sum());
        let (g, line, (_, rows), (left, cols)) = (self.g, tiles.line(), tiles.rows, tiles.cols);
        let whole = F::SIDE * cols.next_multiple_of(BESIDE);
        let mut lines = vec![0f32; F::SIDE * whole];
        let width = (F::SIDE * cols).min(g.ow - F::SIDE * left);
        for channel in 0..channels {
            let start = if self.first == 0 { Some(self.bias[first + channel]) } else { None };
            for (image, tile_row) in (0..tiles.images.1).flat_map(|i| (0..rows).map(move |r| (i, r))) {
                let plane = (tiles.images.0 + image) * g.co + first + channel;
                let tile = image * tiles.each() + tile_row * cols;
                transform::inverse::<F>(&sums[channel * line + tile..], channels * line, &mut lines);
                let row = F::SIDE * (tiles.rows.0 + tile_row);
                for (y, line) in lines.chunks_exact(whole).enumerate().take(g.oh - row) {
                    // SAFETY: these pixels of this channel belong to this job.
                    let out =
                        unsafe { result.slice((plane * g.oh + row + y) * g.ow + F::SIDE * left, width) };
                    patch::add(out, &line[..width], start);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::passes::unrolled;
    use crate::conv::reference::{convolution, geometry, numbers};
    use half::{bf16, f16};

    /// The largest error as part of the magnitudes that an output's tile is made of.
    const TOLERANCE: f64 = 1e-6;

    /// The last two have as many tiles as are computed tiles by tiles, of either size.
    const SIZES: [(usize, usize); 11] =
        [(1, 1), (3, 5), (9, 8), (5, 16), (7, 17), (4, 70), (2, 33), (20, 14), (8, 8), (17, 35), (5, 258)];

    #[test]
    fn both_orders_of_computing_are_tested_with_both_sizes_of_tiles() {
        let many = |count: fn(&Geometry) -> usize| {
            let geometries = SIZES.into_iter().filter_map(|size| geometry((1, 1, 1), size, (3, 1, 1)));
            geometries.filter(|g| count(g) >= MANY).count()
        };
        assert!((1..SIZES.len()).contains(&many(tiles::count::<Two>)));
        assert!((1..SIZES.len()).contains(&many(tiles::count::<Four>)));
    }

    type Forward = fn(Unit, &Geometry, &[f32], Stored, &[f32]) -> Vec<f32>;

    /// Pixels along the side of a tile, and the convolution with such.
    const FORMS: [(usize, Forward); 2] = [(Two::SIDE, forward::<Two>), (Four::SIDE, forward::<Four>)];

    /// Every unit for f32, and the sizes of a convolution with 3 x 3 kernels.
    fn cases() -> impl Iterator<Item = (Unit, Geometry)> {
        let channels = [(1, 1), (7, 17), (33, 15)];
        let all =
            channels.into_iter().flat_map(|c| SIZES.into_iter().enumerate().map(move |(i, s)| (i, c, s)));
        let all = all.filter_map(|(i, (ci, co), size)| geometry((1 + i % 3, ci, co), size, (3, 1, i % 4)));
        all.flat_map(|g| Unit::all().into_iter().filter(|u| !u.is_bf16()).map(move |u| (u, g)))
    }

    /// The image with its border, and the convolution of it.
    fn bordered(g: &Geometry, x: &[f32]) -> (Geometry, Vec<f32>) {
        let outer = Geometry { h: g.oh + 2, w: g.ow + 2, top: 0, left: 0, ..*g };
        let mut out = vec![0f32; g.batch * g.ci * outer.h * outer.w];
        for (out, x) in out.chunks_exact_mut(outer.h * outer.w).zip(x.chunks_exact(g.h * g.w)) {
            for (y, row) in x.chunks_exact(g.w).enumerate() {
                out[(g.top + y) * outer.w + g.left..][..g.w].copy_from_slice(row);
            }
        }
        (outer, out)
    }

    /// Largest magnitudes of the pixels up to `reach` away: the most that any of the tiles over a pixel can have in its
    /// place.
    fn spread(g: &Geometry, x: &[f32], reach: usize) -> Vec<f64> {
        let at = |plane: &[f32], y: usize, x: usize| {
            let rows = y.saturating_sub(reach)..(y + reach + 1).min(g.h);
            let columns = x.saturating_sub(reach)..(x + reach + 1).min(g.w);
            let largest = |row: &[f32]| row[columns.clone()].iter().fold(0f32, |a, v| a.max(v.abs()));
            f64::from(rows.map(|y| largest(&plane[y * g.w..][..g.w])).fold(0f32, f32::max))
        };
        let planes = x.chunks_exact(g.h * g.w);
        planes
            .flat_map(|plane| (0..g.h * g.w).map(|i| at(plane, i / g.w, i % g.w)).collect::<Vec<_>>())
            .collect()
    }

    /// Checks a result against the sum in f64 of all its products.
    fn check(unit: Unit, g: &Geometry, x: &[f32], weight: Stored, bias: &[f32]) {
        let mut wide = vec![0f32; weight.len()];
        weight.widen(0, &mut wide);
        let floats = |data: &[f32]| data.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        // Any number of a kernel may have the place of any other, too.
        let largest = |kernel: &[f32]| vec![kernel.iter().fold(0f64, |a, v| a.max(f64::from(v.abs()))); 9];
        let kernels: Vec<f64> = wide.chunks_exact(9).flat_map(largest).collect();
        let want = convolution(g, &floats(x), &floats(&wide), bias);
        let (outer, whole) = bordered(g, x);
        for (side, forward) in FORMS {
            let sizes = convolution(&outer, &spread(&outer, &whole, side - 1), &kernels, bias);
            let got = forward(unit, g, x, weight, bias);
            for (at, (got, (want, size))) in got.iter().zip(want.iter().zip(sizes)).enumerate() {
                let (want, size) = (want.0, size.1);
                let error = (f64::from(*got) - want).abs();
                // Numbers below the smallest normal one are rounded to a step of their own.
                let smallest = f64::from(f32::MIN_POSITIVE);
                assert!(
                    error <= TOLERANCE * (size + smallest),
                    "tiles of {side}, {g:?} {unit:?} at {at}: {got} for {want}, magnitudes {size}"
                );
            }
        }
    }

    #[test]
    fn every_size_is_within_the_tolerance_in_every_unit_from_every_kind_of_weight() {
        for (i, (unit, g)) in cases().enumerate() {
            let seed = i as u64;
            let (x, bias) = (numbers(seed, g.batch * g.ci * g.h * g.w), numbers(seed + 1, g.co));
            let w = numbers(seed + 2, g.co * g.depth());
            let b: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let h: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            let weight = [Stored::F32(&w), Stored::BF16(&b), Stored::F16(&h)][i % 3];
            check(unit, &g, &x, weight, &bias);
        }
    }

    #[test]
    fn a_border_wider_than_what_is_taken_at_once_is_within_the_tolerance() {
        let g = geometry((2, 3, 4), (2, 5), (3, 1, 37)).unwrap();
        let (x, w) = (numbers(1, g.batch * g.ci * g.h * g.w), numbers(2, g.co * g.depth()));
        for unit in Unit::all().into_iter().filter(|u| !u.is_bf16()) {
            check(unit, &g, &x, Stored::F32(&w), &numbers(3, g.co));
        }
    }

    #[test]
    fn sums_over_more_channels_than_are_taken_together_are_within_the_tolerance() {
        for size in [(8, 8), (20, 70), (46, 47)] {
            let g = geometry((2, 410, 9), size, (3, 1, 1)).unwrap();
            let (x, w) = (numbers(1, g.batch * g.ci * g.h * g.w), numbers(2, g.co * g.depth()));
            for unit in Unit::all().into_iter().filter(|u| !u.is_bf16()) {
                check(unit, &g, &x, Stored::F32(&w), &numbers(3, g.co));
            }
        }
    }

    #[test]
    fn numbers_of_all_magnitudes_are_within_the_tolerance() {
        const SCALES: [f32; 6] = [1e4, 1e-3, 1.0, 0.0, 1e-39, 1e15];
        for (i, (unit, g)) in cases().filter(|(_, g)| g.ci == 7).enumerate() {
            // Scales that change from pixel to pixel, all large, all subnormal.
            let scaled = |v: (usize, &f32), by: usize| {
                v.1 * SCALES[if by == 0 { (v.0 * 7 + v.0 / 5) % 5 } else { by }]
            };
            let (x, bias) = (numbers(i as u64, g.batch * g.ci * g.h * g.w), vec![0f32; g.co]);
            let w = numbers(i as u64 + 2, g.co * g.depth());
            for (x_by, w_by) in [(0, 2), (2, 0), (0, 0), (4, 2), (5, 5)] {
                let x: Vec<f32> = x.iter().enumerate().map(|v| scaled(v, x_by)).collect();
                let w: Vec<f32> = w.iter().enumerate().map(|v| scaled(v, w_by)).collect();
                check(unit, &g, &x, Stored::F32(&w), &bias);
            }
        }
    }

    #[test]
    fn what_is_not_finite_reaches_what_its_kernels_cover_and_less_than_a_tile_more() {
        let g = geometry((1, 5, 7), (20, 23), (3, 1, 1)).unwrap();
        let (w, bias) = (numbers(2, g.co * g.depth()), numbers(3, g.co));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (row, column) in [(0, 0), (7, 10), (8, 11), (19, 22)] {
                let mut x = numbers(1, g.ci * g.h * g.w);
                let clean = unrolled(&g, &x, Stored::F32(&w), &bias);
                x[(2 * g.h + row) * g.w + column] = bad;
                let units = Unit::all().into_iter().filter(|u| !u.is_bf16());
                for (unit, (side, forward)) in units.flat_map(|u| FORMS.map(|form| (u, form))) {
                    let y = forward(unit, &g, &x, Stored::F32(&w), &bias);
                    for (i, (y, clean)) in y.iter().zip(&clean).enumerate() {
                        let away = (i / g.w % g.h).abs_diff(row).max((i % g.w).abs_diff(column));
                        match away {
                            0 | 1 => assert!(!y.is_finite(), "{y} under {bad}"),
                            away if away <= side => {}
                            _ => assert!((y - clean).abs() < 1e-4, "{y} for {clean}, {away} from {bad}"),
                        }
                    }
                }
            }
        }
    }

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn the_bits_depend_neither_on_the_threads_nor_on_the_images_beside() {
        for size in [(8, 8), (9, 7), (20, 70), (46, 47)] {
            let g = geometry((3, 350, 37), size, (3, 1, 1)).unwrap();
            let (x, bias) = (numbers(1, g.batch * g.ci * g.h * g.w), numbers(3, g.co));
            let w = numbers(2, g.co * g.depth());
            let units = Unit::all().into_iter().filter(|u| !u.is_bf16());
            for (unit, (_, forward)) in units.flat_map(|u| FORMS.map(|form| (u, form))) {
                let run = |threads, g: &Geometry, x: &[f32]| {
                    pool(threads).install(|| forward(unit, g, x, Stored::F32(&w), &bias))
                };
                let all = run(1, &g, &x);
                assert_eq!(all, run(2, &g, &x));
                assert_eq!(all, run(7, &g, &x));
                let one = Geometry { batch: 1, ..g };
                let second = run(2, &one, &x[g.ci * g.h * g.w..][..g.ci * g.h * g.w]);
                assert_eq!(second, all[g.co * g.oh * g.ow..][..g.co * g.oh * g.ow]);
            }
        }
    }
}
