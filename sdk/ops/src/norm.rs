//! Group and layer normalisation.

use crate::activation::silu_slope;
use crate::composed;
use crate::host::{self, Shared};
use crate::simd::{LANES, multiversion, sigmoid, sum, sum_of_squares, total};
use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Group normalisation (Wu and He 2018).
///
/// `x` is (B, C, ...), `weight` and `bias` (C); each of the `groups` groups of channels of each image gets mean 0 and
/// variance 1 (biased, `eps` added), then weight and bias per channel. Same shape and dtype out.
pub fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    grouped(x, weight, bias, groups, eps, false)
}

/// SiLU of [`group_norm`], in one pass.
pub fn group_norm_silu(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
) -> Result<Tensor> {
    grouped(x, weight, bias, groups, eps, true)
}

/// Layer normalisation over the last dimension (Ba, Kiros and Hinton 2016).
///
/// `x` is (..., C), `weight` and `bias` (C); the variance is the biased one plus `eps`. Same shape and dtype out.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let _span = crate::span!("layer_norm", x = ?x.dims());
    let channels = if x.rank() == 0 { 0 } else { x.dim(D::Minus1)? };
    affine_fits("layer_norm", channels, weight, bias)?;
    if !host::is_native(x) {
        return composed::layer_norm(x, weight, bias, eps);
    }
    // A row is a group whose every element has its own weight and bias.
    let layout =
        Normalised { channels, channels_per_group: channels, plane: 1, eps: eps as f32, silu: false };
    host::prepare(x)?.apply_op3(&host::prepare(weight)?, &host::prepare(bias)?, layout)?.to_dtype(x.dtype())
}

/// Mean and (biased) variance of each group of channels of each image, as [`group_norm`] would take them: of `x`
/// (B, C, ...), B * groups pairs. A measurement: no gradient goes through it.
pub fn group_moments(x: &Tensor, groups: usize) -> Result<Vec<[f64; 2]>> {
    let _span = crate::span!("group_moments", x = ?x.dims(), groups);
    let channels = if x.rank() < 2 { 0 } else { x.dim(1)? };
    if groups == 0 || channels == 0 || channels % groups != 0 || x.elem_count() == 0 {
        bail!("group_moments: {groups} groups of {:?}", x.shape())
    }
    let len = x.elem_count() / (x.dim(0)? * groups);
    if host::is_native(x) {
        return host::with(x, "group_moments", |x| Ok(x.par_chunks(len).map(moments).collect()));
    }
    let x = x.detach().contiguous()?.reshape((x.dim(0)? * groups, len))?;
    let mean = x.mean_keepdim(1)?;
    let variance = x.broadcast_sub(&mean)?.sqr()?.mean(1)?;
    let host = |t: Tensor| t.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec1::<f64>();
    let mean = host(mean.squeeze(1)?.to_dtype(DType::F32)?)?;
    Ok(mean.into_iter().zip(host(variance.to_dtype(DType::F32)?)?).map(|(m, v)| [m, v]).collect())
}

fn moments(group: &[f32]) -> [f64; 2] {
    let n = group.len() as f64;
    // Per-plane partial sums in f64: a group can have a million elements.
    let mean = chunks(group).map(|c| f64::from(sum(c))).sum::<f64>() / n;
    let variance = chunks(group).map(|c| f64::from(sum_of_squares(c, mean as f32))).sum::<f64>() / n;
    [mean, variance]
}

fn grouped(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let _span = crate::span!("group_norm", x = ?x.dims(), groups, silu);
    if x.rank() < 2 {
        bail!("group_norm: {:?} has no channel dimension", x.shape())
    }
    let channels = x.dim(1)?;
    affine_fits("group_norm", channels, weight, bias)?;
    if groups == 0 || channels % groups != 0 {
        bail!("group_norm: {channels} channels do not divide into {groups} groups")
    }
    if !host::is_native(x) {
        return composed::group_norm(x, weight, bias, groups, eps, silu);
    }
    let plane = x.dims()[2..].iter().product();
    let layout = Normalised { channels, channels_per_group: channels / groups, plane, eps: eps as f32, silu };
    host::prepare(x)?.apply_op3(&host::prepare(weight)?, &host::prepare(bias)?, layout)?.to_dtype(x.dtype())
}

fn affine_fits(op: &str, channels: usize, weight: &Tensor, bias: &Tensor) -> Result<()> {
    if channels == 0 || weight.dims() != [channels] || bias.dims() != [channels] {
        bail!("{op}: weight {:?} and bias {:?} for {channels} channels", weight.shape(), bias.shape())
    }
    Ok(())
}

/// Memory is a sequence of groups; a group is `channels_per_group` planes of `plane` elements.
#[derive(Clone, Copy)]
struct Normalised {
    channels: usize,
    channels_per_group: usize,
    plane: usize,
    eps: f32,
    silu: bool,
}

impl Normalised {
    fn group_len(&self) -> usize {
        self.channels_per_group * self.plane
    }

    /// First channel of the group with this number, counted over the batch.
    fn channel(&self, group: usize) -> usize {
        group * self.channels_per_group % self.channels
    }

    /// Groups per job: layer norm has thousands of small ones.
    fn groups_per_job(&self) -> usize {
        (1usize << 14).div_ceil(self.group_len().max(1))
    }

    /// Mean and reciprocal deviation.
    fn statistics(&self, group: &[f32]) -> (f32, f32) {
        let [mean, variance] = moments(group);
        (mean as f32, (1.0 / (variance + f64::from(self.eps)).sqrt()) as f32)
    }

    fn forward_group(&self, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
        let (mean, scale) = self.statistics(x);
        if self.plane == 1 && !self.silu {
            return row_forward(x, weight, bias, mean, scale, y);
        }
        for (c, (x, y)) in x.chunks_exact(self.plane).zip(y.chunks_exact_mut(self.plane)).enumerate() {
            let w = weight[c] * scale;
            plane_forward(x, w, bias[c] - mean * w, self.silu, y);
        }
    }

    /// Gradient of x for one group; with `d_affine`, adds the gradients of its weight and bias.
    fn backward_group(
        &self,
        [x, g, weight, bias]: [&[f32]; 4],
        dx: &mut [f32],
        mut d_affine: Option<(&mut [f32], &mut [f32])>,
    ) {
        let (mean, scale) = self.statistics(x);
        if self.plane == 1 && !self.silu {
            if let Some((dw, db)) = d_affine {
                row_affine(x, g, mean, scale, dw, db);
            }
            return row_backward(x, g, weight, mean, scale, dx);
        }
        let (mut total_g, mut total_gx) = (0f64, 0f64);
        for (c, x) in x.chunks_exact(self.plane).enumerate() {
            let range = c * self.plane..(c + 1) * self.plane;
            let affine = Affine { mean, scale, weight: weight[c], bias: bias[c], silu: self.silu };
            let (sum_g, sum_gx) = plane_gradient(x, &g[range.clone()], affine, &mut dx[range]);
            if let Some((dw, db)) = d_affine.as_mut() {
                dw[c] += sum_gx;
                db[c] += sum_g;
            }
            total_g += f64::from(sum_g * weight[c]);
            total_gx += f64::from(sum_gx * weight[c]);
        }
        let n = x.len() as f64;
        let (mean_g, mean_gx) = ((total_g / n) as f32, (total_gx / n) as f32);
        for (c, x) in x.chunks_exact(self.plane).enumerate() {
            let dx = &mut dx[c * self.plane..(c + 1) * self.plane];
            plane_centre(x, [mean, scale, weight[c], mean_g, mean_gx], dx);
        }
    }
}

fn chunks(group: &[f32]) -> impl Iterator<Item = &[f32]> {
    group.chunks(4096)
}

#[derive(Clone, Copy)]
struct Affine {
    mean: f32,
    scale: f32,
    weight: f32,
    bias: f32,
    silu: bool,
}

multiversion! {
    fn row_forward(x: &[f32], weight: &[f32], bias: &[f32], mean: f32, scale: f32, y: &mut [f32]) {
        for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
            *y = (x - mean) * scale * w + b;
        }
    }
}

multiversion! {
    /// Gradient of a row each of whose elements has its own weight.
    fn row_backward(x: &[f32], g: &[f32], weight: &[f32], mean: f32, scale: f32, dx: &mut [f32]) {
        let n = x.len();
        for (((d, &x), &g), &w) in dx.iter_mut().zip(x).zip(g).zip(weight) { *d = g * w * (x - mean) * scale; }
        let product = sum(dx) / n as f32;
        for ((d, &g), &w) in dx.iter_mut().zip(g).zip(weight) { *d = g * w; }
        let total = sum(dx) / n as f32;
        for (d, &x) in dx.iter_mut().zip(x) {
            *d = scale * (*d - total - (x - mean) * scale * product);
        }
    }
}

multiversion! {
    /// Adds the gradients of a row's weights and biases.
    fn row_affine(x: &[f32], g: &[f32], mean: f32, scale: f32, dw: &mut [f32], db: &mut [f32]) {
        for (((dw, db), &x), &g) in dw.iter_mut().zip(db).zip(x).zip(g) {
            *dw += g * (x - mean) * scale;
            *db += g;
        }
    }
}

multiversion! {
    fn plane_forward(x: &[f32], scale: f32, shift: f32, with_silu: bool, y: &mut [f32]) {
        if with_silu {
            for (y, &x) in y.iter_mut().zip(x) {
                let z = x * scale + shift;
                *y = z * sigmoid::<FUSED>(z);
            }
        } else {
            for (y, &x) in y.iter_mut().zip(x) { *y = x * scale + shift; }
        }
    }
}

multiversion! {
    /// Writes the gradient before the activation; returns its sum, and the sum of its product with the
    /// normalised x.
    fn plane_gradient(x: &[f32], g: &[f32], a: Affine, dz: &mut [f32]) -> (f32, f32) {
        let step = |x: f32, g: f32| {
            let normal = (x - a.mean) * a.scale;
            let g = if a.silu { g * silu_slope::<FUSED>(normal * a.weight + a.bias) } else { g };
            (g, g * normal)
        };
        let (mut sums, mut products) = ([0f32; LANES], [0f32; LANES]);
        let (x_chunks, x_rest) = x.as_chunks::<LANES>();
        let (g_chunks, g_rest) = g.as_chunks::<LANES>();
        let (d_chunks, d_rest) = dz.as_chunks_mut::<LANES>();
        for ((x, g), d) in x_chunks.iter().zip(g_chunks).zip(d_chunks) {
            for i in 0..LANES {
                let (dz, product) = step(x[i], g[i]);
                d[i] = dz;
                sums[i] += dz;
                products[i] += product;
            }
        }
        let (mut sum, mut sum_product) = (total(sums), total(products));
        for ((x, g), d) in x_rest.iter().zip(g_rest).zip(d_rest) {
            let (dz, product) = step(*x, *g);
            *d = dz;
            sum += dz;
            sum_product += product;
        }
        (sum, sum_product)
    }
}

multiversion! {
    /// From the gradient of the affine result to that of x, in place.
    fn plane_centre(x: &[f32], constants: [f32; 5], d: &mut [f32]) {
        let [mean, scale, weight, mean_g, mean_gx] = constants;
        for (d, &x) in d.iter_mut().zip(x) {
            *d = scale * (*d * weight - mean_g - (x - mean) * scale * mean_gx);
        }
    }
}

impl CustomOp3 for Normalised {
    fn name(&self) -> &'static str {
        "normalisation"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = host::elements(s1, l1, self.name())?;
        let weight = host::elements(s2, l2, self.name())?;
        let bias = host::elements(s3, l3, self.name())?;
        let len = self.group_len();
        let mut y = vec![0f32; x.len()];
        if len > 0 {
            let groups = y.par_chunks_mut(len).zip(x.par_chunks(len)).enumerate();
            groups.with_min_len(self.groups_per_job()).for_each(|(group, (y, x))| {
                let channel = self.channel(group);
                self.forward_group(x, &weight[channel..], &bias[channel..], y);
            });
        }
        Ok(host::output(y, l1.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = crate::span!("norm.backward", x = ?x.dims());
        let name = self.name();
        let affine = weight.track_op() || bias.track_op();
        let groups = x.elem_count() / self.group_len().max(1);
        let mut dx = vec![0f32; x.elem_count()];
        // Weight and bias gradients per group, added up over the batch afterwards: tasks share nothing.
        let mut dw = vec![0f32; if affine { groups * self.channels_per_group } else { 0 }];
        let mut db = dw.clone();
        let (w_memory, b_memory, len) = (Shared::new(&mut dw), Shared::new(&mut db), self.group_len());
        host::with(x, name, |x| {
            host::with(grad, name, |g| {
                host::with(weight, name, |weight| {
                    host::with(bias, name, |bias| {
                        let groups = dx.par_chunks_mut(len).enumerate().with_min_len(self.groups_per_job());
                        groups.for_each(|(group, dx)| {
                            let (channel, count) = (self.channel(group), self.channels_per_group);
                            let range = group * len..(group + 1) * len;
                            // SAFETY: each group's part belongs to one task.
                            let d_affine = affine.then(|| unsafe {
                                (w_memory.slice(group * count, count), b_memory.slice(group * count, count))
                            });
                            let data = [&x[range.clone()], &g[range], &weight[channel..], &bias[channel..]];
                            self.backward_group(data, dx, d_affine);
                        });
                        Ok(())
                    })
                })
            })
        })?;
        let per_channel = |data: Vec<f32>| Tensor::from_vec(data, ((), self.channels), x.device())?.sum(0);
        let dw = if weight.track_op() { Some(per_channel(dw)?) } else { None };
        let db = if bias.track_op() { Some(per_channel(db)?) } else { None };
        let dx = if x.track_op() { Some(Tensor::from_vec(dx, x.shape(), x.device())?) } else { None };
        Ok((dx, dw, db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};

    fn affine(channels: usize) -> [Tensor; 2] {
        let weight = (pseudo_normal(2, channels, 0.2) + 1.0).unwrap();
        [weight, pseudo_normal(3, channels, 0.5)]
    }

    #[test]
    fn group_norm_agrees_with_candle_in_f64_and_with_finite_differences() {
        for (channels, groups, height, width) in [(6, 3, 4, 5), (4, 4, 3, 1), (8, 1, 7, 9), (32, 32, 2, 3)] {
            let x = ((pseudo_normal(1, (2, channels, height, width), 2.0) + 0.7).unwrap() * 1.5).unwrap();
            let [w, b] = affine(channels);
            let inputs = [x, w, b];
            for silu in [false, true] {
                agrees_with_f64(&inputs, 2e-5, |t| grouped(&t[0], &t[1], &t[2], groups, 1e-5, silu));
                check(&inputs, |t| grouped(&t[0], &t[1], &t[2], groups, 1e-5, silu));
            }
        }
    }

    #[test]
    fn group_norm_of_single_pixels_agrees_with_candle_in_f64() {
        let [w, b] = affine(6);
        let inputs = [pseudo_normal(1, (2, 6, 1, 1), 2.0), w, b];
        for silu in [false, true] {
            agrees_with_f64(&inputs, 2e-5, |t| grouped(&t[0], &t[1], &t[2], 2, 1e-5, silu));
        }
    }

    #[test]
    fn layer_norm_agrees_with_candle_in_f64_and_with_finite_differences() {
        for channels in [3, 16, 50] {
            let [w, b] = affine(channels);
            let inputs = [pseudo_normal(1, (2, 5, channels), 3.0), w, b];
            agrees_with_f64(&inputs, 2e-5, |t| layer_norm(&t[0], &t[1], &t[2], 1e-5));
            check(&inputs, |t| layer_norm(&t[0], &t[1], &t[2], 1e-5));
        }
    }

    #[test]
    fn moments_of_groups_are_the_same_on_either_path() {
        let x = ((pseudo_normal(1, (2, 6, 5, 7), 2.0) + 100.0).unwrap() * 1.5).unwrap();
        let ours = group_moments(&x, 3).unwrap();
        let composed = group_moments(&x.to_dtype(DType::F64).unwrap(), 3).unwrap();
        assert_eq!(ours.len(), 6);
        for (a, b) in ours.iter().zip(&composed) {
            assert!((a[0] - b[0]).abs() < 1e-4 && (a[1] - b[1]).abs() < 1e-3 * b[1], "{a:?} {b:?}");
        }
        assert!(group_moments(&x, 4).is_err());
    }

    #[test]
    fn a_large_offset_does_not_cost_the_variance_its_digits() {
        let x = (pseudo_normal(1, (1, 4, 64, 64), 1.0) + 1000.0).unwrap();
        let [w, b] = affine(4);
        agrees_with_f64(&[x, w, b], 1e-3, |t| group_norm(&t[0], &t[1], &t[2], 2, 1e-5));
    }

    #[test]
    fn channels_that_do_not_divide_into_groups_are_refused() {
        let [w, b] = affine(6);
        assert!(group_norm(&pseudo_normal(1, (1, 6, 2, 2), 1.0), &w, &b, 4, 1e-5).is_err());
        assert!(group_norm(&pseudo_normal(1, (1, 5, 2, 2), 1.0), &w, &b, 5, 1e-5).is_err());
    }
}
