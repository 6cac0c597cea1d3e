//! Convolution as products with the image where it lies, without its columns unrolled ("Anatomy of High-Performance
//! Deep Learning Convolutions on SIMD Architectures", Georganas et al. 2018, arXiv:1808.05567).

use super::Geometry;
use super::area::{Area, Layout, Map};
use crate::host::{self, Shared, blocks, scratch};
use crate::stored::Stored;
use crate::wide::block::{self, Panel, Start};
use crate::wide::pack::{self, Rows};
use crate::wide::tile::Walk;
use crate::wide::{LANES, Unit, even_blocks};
use rayon::prelude::*;

/// Words of the image that a job lays out at once: they stay in the second cache of one core.
const IMAGE: usize = 40 << 10;

/// Steps of the inner dimension taken at once: those of a panel stay in the first cache.
const DEPTH: usize = 288;

/// Words of the panels that a job goes through for each vector.
const GROUP: usize = 56 << 10;

/// Output pixels of an area, and columns of one.
const PIXELS: usize = 512;
const COLUMNS: usize = 64;

/// Narrower images are laid out for each tap: too many lanes would be lost over the border.
const NARROW: usize = 14;

/// Words of the weight laid out at a time for all jobs.
const WEIGHT: usize = 4 << 20;

/// y (B, Co, OH, OW) from x (B, Ci, H, W), weight (Co, Ci * kh * kw) and bias (Co).
pub(super) fn forward(unit: Unit, g: &Geometry, x: &[f32], weight: Stored, bias: &[f32]) -> Vec<f32> {
    let mut y = vec![0f32; g.batch * g.co * g.oh * g.ow];
    let (memory, areas, panels) = (Shared::new(&mut y), areas(g), unit.panels(g.co));
    let direct = Direct { unit, g, x, weight, bias, layout: layout(g) };
    let largest = panels.iter().map(|p| p.1).max().unwrap_or(1);
    // All jobs differ in their channels only: the image is of use to all of them.
    let only = if let [area] = areas[..] { Some(area) } else { None };
    let words = only.map_or(0, |area| direct.words(&area.map(g, direct.layout), g.ci));
    scratch(words, |image| {
        let image = only.map(|area| {
            direct.pack_image(area, image);
            &*image
        });
        for panels in panels.chunks((WEIGHT / (largest * direct.steps())).max(1)) {
            direct.channels((&areas, image), panels, memory);
        }
    });
    y
}

fn layout(g: &Geometry) -> Layout {
    let shared = g.stride == 1 && (g.ow >= NARROW || g.taps() == 1);
    if shared { Layout::Border } else { Layout::Taps }
}

/// Cuts the result into areas of about equal size.
fn areas(g: &Geometry) -> Vec<Area> {
    let depth = (DEPTH / g.taps()).clamp(1, g.ci);
    let pixels = PIXELS.min(IMAGE / depth);
    let plane = g.oh * g.ow;
    if g.batch > 1 && 2 * plane <= pixels {
        let each = blocks(g.batch, pixels / plane);
        return each.into_iter().map(|images| Area { images, rows: (0, g.oh), cols: (0, g.ow) }).collect();
    }
    // Whole vectors if it can be; a little more than the width asked for rather than two narrow halves.
    let pieces = (g.ow / COLUMNS).max(1);
    let width = g.ow.div_ceil(pieces);
    let width = if g.ow.is_multiple_of(LANES) { width.next_multiple_of(LANES) } else { width };
    let rows = even_blocks(g.oh, (pixels / width).max(1));
    let cols = blocks(g.ow, width);
    let of_image = |b: usize| {
        let cols = &cols;
        rows.iter().flat_map(move |r| cols.iter().map(move |c| Area { images: (b, 1), rows: *r, cols: *c }))
    };
    (0..g.batch).flat_map(of_image).collect()
}

/// Some output channels: (first, count) of each panel.
type Panels<'a> = &'a [(usize, usize)];

/// Output channels of some panels.
fn channels(panels: Panels) -> usize {
    panels.iter().map(|p| p.1).sum()
}

struct Direct<'a> {
    unit: Unit,
    g: &'a Geometry,
    x: &'a [f32],
    weight: Stored<'a>,
    bias: &'a [f32],
    layout: Layout,
}

impl Direct<'_> {
    /// Steps of the inner dimension.
    fn steps(&self) -> usize {
        self.unit.steps(self.g.ci) * self.g.taps()
    }

    /// Words of the image under an area, of some channels.
    fn words(&self, map: &Map, channels: usize) -> usize {
        self.unit.steps(channels) * map.plane + map.taps.iter().max().copied().unwrap_or(0) + LANES
    }

    /// The image under an area, of all channels, one step after the other.
    fn pack_image(&self, area: Area, out: &mut [f32]) {
        let plane = area.map(self.g, self.layout).plane;
        let steps = out.par_chunks_mut(plane).enumerate().take(self.unit.steps(self.g.ci));
        steps.for_each(|(step, out)| {
            area.pack(self.g, self.layout, self.unit, self.x, self.elements((step, 1)), out);
        });
    }

    /// Computes all pixels of the channels of some panels. The image is laid out, if all areas are one.
    fn channels(&self, (areas, image): (&[Area], Option<&[f32]>), panels: Panels, result: Shared) {
        // Of use to more than one job: laid out once for all of them.
        let words = if areas.len() > 1 { channels(panels) * self.steps() } else { 0 };
        scratch(words, |packed| {
            if words > 0 {
                self.pack_all(panels, packed);
            }
            let groups = panels.len().div_ceil(host::wanted_jobs().div_ceil(areas.len()));
            let groups = even_blocks(panels.len(), groups);
            let jobs = areas.iter().flat_map(|a| groups.iter().map(move |g| (*a, *g)));
            let jobs: Vec<_> = jobs.collect();
            jobs.into_par_iter().for_each(|(area, (first, count))| {
                let packed = (words > 0).then(|| &packed[channels(&panels[..first]) * self.steps()..]);
                // SAFETY: each job has its own pixels and channels of the result.
                unsafe { self.job(area, &panels[first..first + count], (packed, image), result) };
            });
        });
    }

    /// All steps of all panels, one panel after the other.
    fn pack_all(&self, panels: Panels, out: &mut [f32]) {
        let (memory, taps, first) = (Shared::new(out), self.g.taps(), panels[0].0);
        panels.par_iter().for_each(|panel| {
            let (start, len) = ((panel.0 - first) * self.steps(), panel.1 * self.steps());
            // SAFETY: each panel has its own part of the memory.
            let out = unsafe { memory.slice(start, len) };
            for (first, size) in blocks(self.unit.steps(self.g.ci), (DEPTH / taps).max(1)) {
                self.pack_panel(*panel, (first, size), &mut out[first * taps * panel.1..]);
            }
        });
    }

    /// One panel, some steps of channels.
    fn pack_panel(&self, panel: (usize, usize), steps: (usize, usize), out: &mut [f32]) {
        let g = self.g;
        let rows = Rows { data: self.weight, first: panel.0 * g.depth(), stride: g.depth(), taps: g.taps() };
        pack::panel(self.unit, rows, panel.1, self.elements(steps), out, panel.1);
    }

    /// The channels of some steps: from and to.
    fn elements(&self, (first, size): (usize, usize)) -> (usize, usize) {
        let each = self.unit.elements();
        (first * each, ((first + size) * each).min(self.g.ci))
    }

    /// Blocks of steps over the channels, for planes of so many words.
    fn depths(&self, plane: usize) -> Vec<(usize, usize)> {
        let most = (IMAGE / plane).min(DEPTH / self.g.taps()).max(4);
        even_blocks(self.unit.steps(self.g.ci), most)
    }

    /// The pixels of an area, of the channels of some panels. `packed` are these laid out, `whole` the image, if they are.
    ///
    /// # Safety
    /// Nobody else accesses these elements of the result.
    unsafe fn job(
        &self,
        area: Area,
        panels: Panels,
        (packed, whole): (Option<&[f32]>, Option<&[f32]>),
        result: Shared,
    ) {
        let (g, taps) = (self.g, self.g.taps());
        let map = area.map(g, self.layout);
        let depths = self.depths(map.plane);
        let deepest = depths.iter().map(|d| d.1).max().unwrap_or(0);
        let image = if whole.is_some() { 0 } else { self.words(&map, deepest * self.unit.elements()) };
        let own = if packed.is_some() { 0 } else { deepest * taps * channels(panels) };
        let channel = panels[0].0;
        let bias: Vec<_> = self.bias[channel..][..channels(panels)].iter().map(|b| [*b; LANES]).collect();
        scratch(image + own, |memory| {
            let (image, own): (&mut [f32], &mut [f32]) = memory.split_at_mut(image);
            for (first, size) in depths {
                let image = match whole {
                    Some(whole) => &whole[first * map.plane..],
                    None => {
                        area.pack(g, self.layout, self.unit, self.x, self.elements((first, size)), image);
                        &*image
                    }
                };
                let walk = Walk { planes: size, plane: map.plane, taps: &map.taps };
                // Panels whose words, for so many steps of channels, stay in the second cache.
                let group = (GROUP / (size * taps * panels[0].1)).max(1);
                for (i, group) in panels.chunks(group).enumerate().map(|(i, p)| (i * group, p)) {
                    let left = self.left(panels, (i, group.len()), (first, size), packed, &mut *own);
                    let panels = group.iter().zip(left).map(|(p, a)| {
                        let bias = (first == 0).then(|| &bias[p.0 - channel..]);
                        self.panel(area, *p, a, bias, result)
                    });
                    let panels: Vec<_> = panels.collect();
                    for vectors in map.vectors.chunks(self.unit.vectors()) {
                        for panel in &panels {
                            // SAFETY: the vectors have only elements of this job.
                            unsafe { block::run(panel, image, walk, vectors) };
                        }
                    }
                }
            }
        });
    }

    /// The words of `count` panels from the `at`th on: of those laid out before, or else laid out now.
    fn left<'b>(
        &self,
        panels: Panels,
        (at, count): (usize, usize),
        (first, size): (usize, usize),
        packed: Option<&'b [f32]>,
        own: &'b mut [f32],
    ) -> Vec<&'b [f32]> {
        let (taps, panels, before) = (self.g.taps(), &panels[at..at + count], channels(&panels[..at]));
        if let Some(packed) = packed {
            let start = |p: &(usize, usize)| (before + p.0 - panels[0].0) * self.steps() + first * p.1 * taps;
            return panels.iter().map(|p| &packed[start(p)..]).collect();
        }
        let mut rest = own;
        let mut left = Vec::new();
        for panel in panels {
            let (a, more) = rest.split_at_mut(size * taps * panel.1);
            self.pack_panel(*panel, (first, size), a);
            left.push(&*a);
            rest = more;
        }
        left
    }

    /// A panel whose sums go to an area. The first time its channels' bias, a vector of each, is added.
    fn panel<'b>(
        &self,
        area: Area,
        (channel, rows): (usize, usize),
        a: &'b [f32],
        bias: Option<&'b [[f32; LANES]]>,
        result: Shared,
    ) -> Panel<'b> {
        let (g, pixels) = (self.g, self.g.oh * self.g.ow);
        let start = (area.images.0 * g.co + channel) * pixels;
        let last = ((area.images.1 - 1) * g.co + rows) * pixels - 1;
        let out = result.pointer(start, last);
        Panel {
            unit: self.unit,
            rows,
            a,
            start: bias.map_or(Start::There, Start::Rows),
            out,
            out_row: pixels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::reference::{convolution, geometry, numbers};
    use half::bf16;

    const SIZES: [(usize, usize); 8] = [(1, 1), (3, 5), (9, 8), (5, 16), (7, 17), (4, 70), (2, 33), (20, 14)];

    /// Kernel size, stride, padding.
    const KERNELS: [(usize, usize, usize); 7] =
        [(3, 1, 1), (1, 1, 0), (3, 2, 1), (5, 1, 2), (3, 1, 0), (2, 3, 1), (7, 1, 3)];

    fn check(unit: Unit, g: &Geometry, x: &[f32], weight: Stored, b: &[f32]) {
        let rounded = |data: &[f32]| data.iter().map(|v| unit.rounded(*v)).collect::<Vec<_>>();
        let mut wide = vec![0f32; weight.len()];
        weight.widen(0, &mut wide);
        let want = convolution(g, &rounded(x), &rounded(&wide), b);
        for (at, (got, (want, size))) in forward(unit, g, x, weight, b).iter().zip(want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= 1e-6 * size, "{g:?} {unit:?} at {at}: {got} for {want}, magnitudes {size}");
        }
    }

    #[test]
    fn a_direct_convolution_is_the_sum_of_its_products_in_every_unit() {
        for (seed, (ci, co)) in [(1, 1), (7, 17), (33, 15)].into_iter().enumerate() {
            for (i, size) in SIZES.into_iter().enumerate() {
                for kernel in KERNELS {
                    let Some(g) = geometry((1 + i % 3, ci, co), size, kernel) else { continue };
                    let seed = (10 * seed + i) as u64;
                    let (x, b) = (numbers(seed, g.batch * ci * g.h * g.w), numbers(seed + 1, co));
                    let w = numbers(seed + 2, co * g.depth());
                    let stored: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
                    for unit in Unit::all() {
                        let weight = if unit.is_bf16() { Stored::BF16(&stored) } else { Stored::F32(&w) };
                        check(unit, &g, &x, weight, &b);
                    }
                }
            }
        }
    }
}
