//! Multi-head scaled dot-product attention.

mod flash;
mod online;
#[cfg(test)]
mod reference;
mod strip;
mod tiles;

use crate::composed;
use crate::host::{self, Shared, blocks, scratch};
use crate::matmul::{Mat, Target, product};
use crate::simd::{dot, exp, multiversion};
use crate::wide::Unit;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::OnceLock;

/// softmax(Q Kᵀ / sqrt(D)) V for each head ("Attention Is All You Need", Vaswani et al. 2017).
///
/// `q` is (B, N, heads * D), `k` and `v` (B, M, heads * D), as the projections give them; so is the result
/// (B, N, heads * D), in q's dtype. With `causal`, query i sees the keys 0..=i only, and N must be M.
/// The N x M scores never exist as a whole; the backward pass computes them anew, tile by tile (FlashAttention, Dao et
/// al. 2022, arXiv:2205.14135).
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let _span = crate::span!("attention", q = ?q.dims(), k = ?k.dims(), heads);
    let shape = Dims::new(q.shape(), k.shape(), v.shape(), heads, causal)?;
    if !host::is_native(q) {
        return composed::attention(q, k, v, heads, causal);
    }
    let op = Attention { dims: shape, logs: OnceLock::new() };
    host::prepare(q)?.apply_op3(&host::prepare(k)?, &host::prepare(v)?, op)?.to_dtype(q.dtype())
}

#[derive(Clone, Copy, Debug)]
struct Dims {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    /// Channels of one head.
    width: usize,
    causal: bool,
}

impl Dims {
    fn new(q: &Shape, k: &Shape, v: &Shape, heads: usize, causal: bool) -> Result<Self> {
        let (batch, queries, channels) = q.dims3()?;
        let (key_batch, keys, key_channels) = k.dims3()?;
        if heads == 0 || channels == 0 || channels % heads != 0 {
            bail!("attention: {channels} channels do not divide into {heads} heads")
        }
        if k != v || key_batch != batch || key_channels != channels || keys == 0 {
            bail!("attention: q {q:?}, k {k:?}, v {v:?} do not belong together")
        }
        if causal && queries != keys {
            bail!("attention: a causal mask needs as many keys as queries, got {keys} and {queries}")
        }
        Ok(Self { batch, queries, keys, heads, width: channels / heads, causal })
    }

    fn channels(&self) -> usize {
        self.heads * self.width
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Offset of the first element of a head's row `row`, in a tensor of `rows` rows.
    fn at(&self, head: usize, row: usize, rows: usize) -> usize {
        let (b, h) = (head / self.heads, head % self.heads);
        (b * rows + row) * self.channels() + h * self.width
    }

    fn query<'a>(&self, data: &'a [f32], head: usize, row: usize) -> Mat<'a> {
        Mat::rows(&data[self.at(head, row, self.queries)..], self.channels())
    }

    fn key<'a>(&self, data: &'a [f32], head: usize, row: usize) -> Mat<'a> {
        Mat::rows(&data[self.at(head, row, self.keys)..], self.channels())
    }

    fn query_target(&self, memory: Shared, head: usize, row: usize) -> Target {
        Target { memory, start: self.at(head, row, self.queries), row_stride: self.channels() }
    }

    fn key_target(&self, memory: Shared, head: usize, row: usize) -> Target {
        Target { memory, start: self.at(head, row, self.keys), row_stride: self.channels() }
    }

    /// The first keys that a query sees.
    fn seen(&self, query: usize) -> usize {
        if self.causal { query + 1 } else { self.keys }
    }

    /// Rows of one head, (keys, D), as (D, keys).
    fn transpose_head(&self, data: &[f32], head: usize, out: &mut [f32]) {
        let start = self.at(head, 0, self.keys);
        for (row, data) in data[start..].chunks(self.channels()).take(self.keys).enumerate() {
            for (column, value) in data[..self.width].iter().enumerate() {
                out[column * self.keys + row] = *value;
            }
        }
    }
}

multiversion! {
    /// From a row of scores and of the gradients of their weights: the weights, and the gradients of the scores before
    /// their scale. `log` is the logarithm of the sum of the scores' exponentials, `total` the sum of weights times
    /// gradients.
    fn weights_row(p: &mut [f32], d: &mut [f32], log: f32, total: f32, scale: f32) {
        for (p, d) in p.iter_mut().zip(d) {
            *p = exp::<FUSED>(*p - log);
            *d = scale * *p * (*d - total);
        }
    }
}

struct Attention {
    dims: Dims,
    /// Of each head's each query: the logarithm of the sum of the exponentials of its scores.
    logs: OnceLock<Vec<f32>>,
}

/// Queries and keys of a tile: two of them stay in the cache of one core.
const TILE: (usize, usize) = (128, 512);

/// What the backward pass reads.
struct Operands<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    output: &'a [f32],
    grad: &'a [f32],
}

impl Attention {
    /// Gradients of q, k, v of one head.
    fn head_back(&self, head: usize, o: &Operands, logs: &[f32], [dq, dk, dv]: [Shared; 3]) {
        let d = &self.dims;
        let (tile_rows, tile_keys) = (TILE.0.min(d.queries), TILE.1.min(d.keys));
        let (heads, tile) = (d.width * d.keys, tile_rows * tile_keys);
        scratch(2 * heads + 2 * tile, |memory| {
            let (kt, memory) = memory.split_at_mut(heads);
            let (vt, memory) = memory.split_at_mut(heads);
            let (p, ds) = memory.split_at_mut(tile);
            d.transpose_head(o.k, head, kt);
            d.transpose_head(o.v, head, vt);
            for (start, rows) in blocks(d.queries, tile_rows) {
                let (q, grad) = (d.query(o.q, head, start), d.query(o.grad, head, start));
                let totals = self.totals(head, o, start, rows);
                for (first, keys) in blocks(d.keys, tile_keys) {
                    let size = (rows, keys, d.width);
                    // SAFETY: scratch is this thread's own; the rows of this head in dq, dk, dv belong to this task.
                    unsafe {
                        let (kt, vt) = (Mat::rows(&kt[first..], d.keys), Mat::rows(&vt[first..], d.keys));
                        product(Target::own(p, keys), false, size, q, kt, d.scale());
                        product(Target::own(ds, keys), false, size, grad, vt, 1.0);
                    }
                    let (p, ds) = (&mut p[..rows * keys], &mut ds[..rows * keys]);
                    let tile_rows = p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys));
                    for (row, (p, ds)) in tile_rows.enumerate() {
                        let seen = d.seen(start + row).saturating_sub(first).min(keys);
                        weights_row(
                            &mut p[..seen],
                            &mut ds[..seen],
                            logs[start + row],
                            totals[row],
                            d.scale(),
                        );
                        p[seen..].fill(0.0);
                        ds[seen..].fill(0.0);
                    }
                    let (p, ds, size) = (Mat::rows(p, keys), Mat::rows(ds, keys), (keys, d.width, rows));
                    // SAFETY: as above.
                    unsafe {
                        product(d.key_target(dv, head, first), start > 0, size, p.t(), grad, 1.0);
                        product(d.key_target(dk, head, first), start > 0, size, ds.t(), q, 1.0);
                        let (target, key) = (d.query_target(dq, head, start), d.key(o.k, head, first));
                        product(target, first > 0, (rows, d.width, keys), ds, key, 1.0);
                    }
                }
            }
        });
    }

    /// The sum of weights times their gradients of each query, which is that of results times gradients.
    fn totals(&self, head: usize, o: &Operands, start: usize, rows: usize) -> Vec<f32> {
        let d = &self.dims;
        let row = |row: usize| {
            let range = d.at(head, row, d.queries)..d.at(head, row, d.queries) + d.width;
            dot(&o.output[range.clone()], &o.grad[range])
        };
        (start..start + rows).map(row).collect()
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
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
        let q = host::elements(s1, l1, self.name())?;
        let k = host::elements(s2, l2, self.name())?;
        let v = host::elements(s3, l3, self.name())?;
        let (out, logs) = flash::forward(Unit::f32(), &self.dims, q, k, v);
        // An operation runs once; if it should run again, it gives the same.
        let _ = self.logs.set(logs);
        Ok(host::output(out, l1.shape()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = crate::span!("attention.backward", q = ?q.dims(), k = ?k.dims(), heads = self.dims.heads);
        let name = self.name();
        let Some(logs) = self.logs.get() else { bail!("attention: backward before forward") };
        let queries = self.dims.queries;
        let mut dq = vec![0f32; q.elem_count()];
        let mut dk = vec![0f32; k.elem_count()];
        let mut dv = vec![0f32; v.elem_count()];
        let targets = [Shared::new(&mut dq), Shared::new(&mut dk), Shared::new(&mut dv)];
        let all = |o: &Operands| {
            let heads = (0..self.dims.batch * self.dims.heads).into_par_iter();
            heads.for_each(|head| self.head_back(head, o, &logs[head * queries..][..queries], targets));
        };
        host::with(q, name, |q| {
            host::with(k, name, |k| {
                host::with(v, name, |v| {
                    host::with(res, name, |output| {
                        host::with(grad, name, |grad| {
                            all(&Operands { q, k, v, output, grad });
                            Ok(())
                        })
                    })
                })
            })
        })?;
        let wanted = |t: &Tensor, data: Vec<f32>| -> Result<Option<Tensor>> {
            t.track_op().then(|| Tensor::from_vec(data, t.shape(), t.device())).transpose()
        };
        Ok((wanted(q, dq)?, wanted(k, dk)?, wanted(v, dv)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};

    fn qkv(batch: usize, queries: usize, keys: usize, channels: usize) -> [Tensor; 3] {
        [
            pseudo_normal(1, (batch, queries, channels), 1.0),
            pseudo_normal(2, (batch, keys, channels), 1.0),
            pseudo_normal(3, (batch, keys, channels), 1.0),
        ]
    }

    #[test]
    fn attention_agrees_with_candle_in_f64_and_with_finite_differences() {
        for (batch, queries, keys, heads, width) in
            [(2, 5, 7, 3, 4), (1, 33, 77, 2, 5), (1, 600, 1100, 1, 8), (1, 1, 1, 1, 1)]
        {
            let inputs = qkv(batch, queries, keys, heads * width);
            agrees_with_f64(&inputs[..], 2e-5, |t| attention(&t[0], &t[1], &t[2], heads, false));
            if queries < 100 && keys > 1 {
                check(&inputs[..], |t| attention(&t[0], &t[1], &t[2], heads, false));
            }
        }
    }

    #[test]
    fn causal_attention_agrees_with_candle_in_f64_and_with_finite_differences() {
        let inputs = qkv(2, 19, 19, 12);
        agrees_with_f64(&inputs[..], 1e-5, |t| attention(&t[0], &t[1], &t[2], 3, true));
        check(&inputs[..], |t| attention(&t[0], &t[1], &t[2], 3, true));
    }

    #[test]
    fn the_first_query_of_causal_attention_sees_the_first_value_only() {
        let [q, k, v] = qkv(1, 6, 6, 4);
        let out = attention(&q, &k, &v, 2, true).unwrap();
        let first = |t: &Tensor| t.narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (got, want) in first(&out).iter().zip(first(&v)) {
            assert!((got - want).abs() < 1e-6);
        }
    }

    #[test]
    fn operands_that_do_not_belong_together_are_refused() {
        let [q, k, v] = qkv(1, 6, 7, 8);
        assert!(attention(&q, &k, &v, 3, false).is_err(), "8 channels in 3 heads");
        assert!(attention(&q, &k, &q, 2, false).is_err(), "6 values for 7 keys");
        assert!(attention(&q, &k, &v, 2, true).is_err(), "a causal mask with 6 queries and 7 keys");
    }
}
