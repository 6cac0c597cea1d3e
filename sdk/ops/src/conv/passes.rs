//! The three products of a convolution, cut into tiles of output rows that threads work on by themselves.

use super::{Geometry, direct, winograd};
use crate::host::{self, Shared, blocks, scratch};
use crate::matmul::{Mat, Target, product};
use crate::products::Products;
use crate::stored::Stored;
use crate::wide::Unit;
use crate::wide::product::{Base, Right, multiply};
use rayon::prelude::*;

/// Output pixels of a tile: enough columns for an efficient product, few enough to stay in the cache.
const TILE: usize = 256;

/// Output rows of one tile.
fn tile_rows(g: &Geometry) -> usize {
    (TILE / g.ow).clamp(1, g.oh)
}

/// Channels of one job, so that `others * channel blocks` is enough jobs.
fn channel_block(channels: usize, others: usize) -> usize {
    let pieces = host::wanted_jobs().div_ceil(others.max(1));
    channels.div_ceil(pieces).clamp(channels.min(64), channels)
}

/// Tiles up to which each job widens the part of the weight it needs: a weight that is used often is widened once, as a
/// whole.
const WIDENINGS: usize = 2;

/// y (B, Co, OH, OW) from x (B, Ci, H, W), weight (Co, Ci * kh * kw) and bias (Co).
pub(super) fn forward(g: &Geometry, x: &[f32], weight: Stored, bias: &[f32], products: Products) -> Vec<f32> {
    if let Some(y) = on_wide_registers(g, x, weight, bias, products) {
        return y;
    }
    unrolled(g, x, weight, bias)
}

/// Output channels up to which unrolling the image takes longer than the products with its columns.
const FEW_OUTPUTS: usize = 31;

/// [`forward`], where there is a faster way than products with unrolled images.
fn on_wide_registers(
    g: &Geometry,
    x: &[f32],
    weight: Stored,
    bias: &[f32],
    products: Products,
) -> Option<Vec<f32>> {
    if let Some(unit) = Unit::bf16_for(products, weight)
        && !winograd::beats_bf16(g)
    {
        return Some(direct::forward(unit, g, x, weight, bias));
    }
    let unit = Unit::f32();
    if g.is_pointwise() {
        return Some(pointwise(unit, g, x, weight, bias));
    }
    if g.co <= FEW_OUTPUTS && g.stride == 1 {
        return Some(direct::forward(unit, g, x, weight, bias));
    }
    winograd::forward_if_faster(unit, g, x, weight, bias)
}

/// [`forward`] with kernels of one pixel: a product with each image as it is.
fn pointwise(unit: Unit, g: &Geometry, x: &[f32], weight: Stored, bias: &[f32]) -> Vec<f32> {
    let pixels = g.h * g.w;
    let mut y = vec![0f32; g.batch * g.co * pixels];
    for (y, x) in y.chunks_exact_mut(g.co * pixels).zip(x.chunks_exact(g.ci * pixels)) {
        multiply(unit, y, Base::Rows(bias), weight, Right::Plain(Stored::F32(x)), (pixels, g.ci));
    }
    y
}

/// [`forward`] by products with unrolled images.
pub(super) fn unrolled(g: &Geometry, x: &[f32], weight: Stored, bias: &[f32]) -> Vec<f32> {
    if g.batch * blocks(g.oh, tile_rows(g)).len() > WIDENINGS {
        return weight.whole(|weight| forward_tiles(g, x, Stored::F32(weight), bias));
    }
    forward_tiles(g, x, weight, bias)
}

fn forward_tiles(g: &Geometry, x: &[f32], weight: Stored, bias: &[f32]) -> Vec<f32> {
    let (pixels, depth) = (g.oh * g.ow, g.depth());
    let mut y = vec![0f32; g.batch * g.co * pixels];
    let memory = Shared::new(&mut y);
    let tiles = blocks(g.oh, tile_rows(g));
    let channels = blocks(g.co, channel_block(g.co, g.batch * tiles.len()));
    let jobs = (0..g.batch).flat_map(|b| tiles.iter().map(move |t| (b, *t)));
    let jobs: Vec<_> = jobs.flat_map(|(b, t)| channels.iter().map(move |c| (b, t, *c))).collect();
    jobs.into_par_iter().for_each(|(b, (row, rows), (channel, count))| {
        let n = rows * g.ow;
        let start = (b * g.co + channel) * pixels + row * g.ow;
        for c in 0..count {
            // SAFETY: these rows of these channels belong to this job.
            unsafe { memory.slice(start + c * pixels, n) }.fill(bias[channel + c]);
        }
        let image = &x[b * g.ci * g.h * g.w..][..g.ci * g.h * g.w];
        let target = Target { memory, start, row_stride: pixels };
        let widened = if weight.wide().is_some() { 0 } else { count * depth };
        scratch(depth * n + widened, |memory| {
            let (columns, wide) = memory.split_at_mut(depth * n);
            // Nothing, where there is nothing to widen.
            weight.widen(channel * depth, wide);
            let kernel = match weight.wide() {
                Some(weight) => Mat::rows(&weight[channel * depth..], depth),
                None => Mat::rows(wide, depth),
            };
            g.unroll(image, row..row + rows, columns);
            // SAFETY: as above.
            unsafe { product(target, true, (count, n, depth), kernel, Mat::rows(columns, n)) }
        });
    });
    y
}

/// Output pixels from which on the gradient of the input is computed as a convolution: its weights are laid out anew,
/// which few pixels do not make up for.
const TURNED: usize = 512;

/// Input channels turned by one job: their kernels are neighbours, and a cache line has several.
const TURNED_CHANNELS: usize = 16;

/// Gradient of x (B, Ci, H, W) from that of y (B, Co, OH, OW).
pub(super) fn input_gradient(g: &Geometry, gy: &[f32], weight: Stored) -> Vec<f32> {
    let Some(adjoint) = g.adjoint().filter(|_| g.batch * g.oh * g.ow >= TURNED) else {
        return folded_gradient(g, gy, weight);
    };
    scratch(weight.len(), |turned| {
        let jobs = turned.par_chunks_mut(TURNED_CHANNELS * g.co * g.taps()).enumerate();
        jobs.for_each(|(i, out)| g.turned(weight, i * TURNED_CHANNELS, out));
        forward(&adjoint, gy, Stored::F32(turned), &vec![0f32; g.ci], Products::Exact)
    })
}

/// The same as a product with the weights as they lie, whose columns are added to the pixels they belong to.
///
/// Jobs are cut by input channel: a channel's overlapping patches are then added by one thread.
fn folded_gradient(g: &Geometry, gy: &[f32], weight: Stored) -> Vec<f32> {
    let (pixels, depth, taps) = (g.oh * g.ow, g.depth(), g.taps());
    let mut dx = vec![0f32; g.batch * g.ci * g.h * g.w];
    let memory = Shared::new(&mut dx);
    let channels = blocks(g.ci, channel_block(g.ci, g.batch));
    let jobs: Vec<_> = (0..g.batch).flat_map(|b| channels.iter().map(move |c| (b, *c))).collect();
    jobs.into_par_iter().for_each(|(b, (channel, count))| {
        // SAFETY: these channels of this image belong to this job.
        let image = unsafe { memory.slice((b * g.ci + channel) * g.h * g.w, count * g.h * g.w) };
        let width = count * taps;
        let widened = if weight.wide().is_some() { 0 } else { g.co * width };
        scratch(widened + width * tile_rows(g) * g.ow, |memory| {
            let (wide, columns) = memory.split_at_mut(widened);
            for (co, wide) in wide.chunks_exact_mut(width).enumerate() {
                weight.widen(co * depth + channel * taps, wide);
            }
            let kernel = match weight.wide() {
                Some(weight) => Mat::rows(&weight[channel * taps..], depth),
                None => Mat::rows(wide, width),
            };
            for (row, rows) in blocks(g.oh, tile_rows(g)) {
                let n = rows * g.ow;
                let grad = Mat::rows(&gy[b * g.co * pixels + row * g.ow..], pixels);
                let columns = &mut columns[..width * n];
                // SAFETY: the scratch memory is this thread's own.
                unsafe { product(Target::own(columns, n), false, (width, n, g.co), kernel.t(), grad) };
                g.fold(columns, row..row + rows, image);
            }
        });
    });
    dx
}

/// Gradient of the weight (Co, Ci, kh, kw) from that of y (B, Co, OH, OW), summed over batch and pixels.
pub(super) fn weight_gradient(g: &Geometry, gy: &[f32], x: &[f32]) -> Vec<f32> {
    let (pixels, depth, taps) = (g.oh * g.ow, g.depth(), g.taps());
    let mut dw = vec![0f32; g.co * depth];
    let memory = Shared::new(&mut dw);
    blocks(g.ci, channel_block(g.ci, 1)).into_par_iter().for_each(|(channel, count)| {
        let target = Target { memory, start: channel * taps, row_stride: depth };
        for b in 0..g.batch {
            let image = &x[(b * g.ci + channel) * g.h * g.w..][..count * g.h * g.w];
            for (row, rows) in blocks(g.oh, tile_rows(g)) {
                let n = rows * g.ow;
                let grad = Mat::rows(&gy[b * g.co * pixels + row * g.ow..], pixels);
                scratch(count * taps * n, |columns| {
                    g.unroll(image, row..row + rows, columns);
                    let size = (g.co, count * taps, n);
                    // SAFETY: these columns of the gradient belong to this job.
                    unsafe { product(target, b + row > 0, size, grad, Mat::rows(columns, n).t()) };
                });
            }
        }
    });
    dw
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::reference::{geometry, numbers};
    use half::bf16;

    #[test]
    fn kernels_of_one_pixel_agree_with_unrolled_images() {
        for (channels, size) in [((2, 33, 38), (17, 18)), ((1, 1, 1), (1, 1)), ((3, 700, 5), (3, 7))] {
            let g = geometry(channels, size, (1, 1, 0)).unwrap();
            let (x, bias) = (numbers(1, g.batch * g.ci * g.h * g.w), numbers(2, g.co));
            let w = numbers(3, g.co * g.ci);
            let stored: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            for weight in [Stored::F32(&w), Stored::BF16(&stored)] {
                let (one, other) =
                    (pointwise(Unit::f32(), &g, &x, weight, &bias), unrolled(&g, &x, weight, &bias));
                for (one, other) in one.iter().zip(other) {
                    assert!((one - other).abs() <= 4e-6 * (g.ci as f32 + 10.0), "{one} for {other}, {g:?}");
                }
            }
        }
    }
}
