//! Multi-head scaled dot-product attention.

use crate::composed;
use crate::host::{self, Shared, blocks, scratch};
use crate::matmul::{Mat, Target, product};
use crate::simd::{dot, exp_row, multiversion, scale};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// softmax(Q Kᵀ / sqrt(D)) V for each head ("Attention Is All You Need", Vaswani et al. 2017).
///
/// `q` is (B, N, heads * D), `k` and `v` (B, M, heads * D), as the projections give them; so is the result
/// (B, N, heads * D), in q's dtype. With `causal`, query i sees the keys 0..=i only, and N must be M.
/// The N x M scores never exist as a whole; the backward pass computes them anew.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let shape = Dims::new(q.shape(), k.shape(), v.shape(), heads, causal)?;
    if !host::is_native(q) {
        return composed::attention(q, k, v, heads, causal);
    }
    host::prepare(q)?.apply_op3(&host::prepare(k)?, &host::prepare(v)?, Attention(shape))?.to_dtype(q.dtype())
}

#[derive(Clone, Copy)]
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

    /// Queries of one block. Larger blocks repack keys and values less often, smaller ones stay in the cache.
    fn block(&self) -> usize {
        const SCORES: usize = 1 << 19;
        let rows = (SCORES / self.keys).clamp(16, 1024).min(self.queries.max(1));
        // Few heads (the VAE has one): smaller blocks, so that every thread has some.
        let per_head = host::wanted_jobs().div_ceil(self.batch * self.heads);
        rows.min(self.queries.div_ceil(per_head).max(16))
    }

    /// Offset of the first element of a head's row `row`, in a tensor of `rows` rows.
    fn at(&self, head: usize, row: usize, rows: usize) -> usize {
        let (b, h) = (head / self.heads, head % self.heads);
        (b * rows + row) * self.channels() + h * self.width
    }

    fn query<'a>(&self, data: &'a [f32], head: usize, row: usize) -> Mat<'a> {
        Mat::rows(&data[self.at(head, row, self.queries)..], self.channels())
    }

    fn key<'a>(&self, data: &'a [f32], head: usize) -> Mat<'a> {
        Mat::rows(&data[self.at(head, 0, self.keys)..], self.channels())
    }

    /// The keys of every head, transposed: (B * heads, D, M). As the products take them without repacking.
    fn transposed_keys(&self, k: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; k.len()];
        out.par_chunks_mut(self.width * self.keys).enumerate().for_each(|(head, out)| {
            let start = self.at(head, 0, self.keys);
            for (row, k) in k[start..].chunks(self.channels()).take(self.keys).enumerate() {
                for (column, value) in k[..self.width].iter().enumerate() {
                    out[column * self.keys + row] = *value;
                }
            }
        });
        out
    }

    /// One head of [`Self::transposed_keys`].
    fn transposed_key<'a>(&self, transposed: &'a [f32], head: usize) -> Mat<'a> {
        Mat::rows(&transposed[head * self.width * self.keys..], self.keys)
    }

    fn query_target(&self, memory: Shared, head: usize, row: usize) -> Target {
        Target { memory, start: self.at(head, row, self.queries), row_stride: self.channels() }
    }

    fn key_target(&self, memory: Shared, head: usize) -> Target {
        Target { memory, start: self.at(head, 0, self.keys), row_stride: self.channels() }
    }

    /// Exponentials of the scores of the queries `start..start + rows` of one head, into `p` (rows x keys), and their
    /// sums, by which they are to be divided.
    fn exponentials(&self, q: Mat, k: Mat, start: usize, p: &mut [f32], sums: &mut [f32]) {
        let size = (sums.len(), self.keys, self.width);
        // SAFETY: `p` is borrowed exclusively.
        unsafe { product(Target::own(p, self.keys), false, size, q, k, self.scale()) };
        for (row, (p, sum)) in p.chunks_exact_mut(self.keys).zip(sums).enumerate() {
            let seen = if self.causal { start + row + 1 } else { self.keys };
            let (seen, hidden) = p.split_at_mut(seen);
            *sum = exp_row(seen);
            hidden.fill(0.0);
        }
    }
}

multiversion! {
    /// d score = scale * p * (d weight - sum(p * d weight)), in place of the d weights.
    fn softmax_row_back(p: &[f32], d: &mut [f32], total: f32, scale: f32) {
        for (d, &p) in d.iter_mut().zip(p) { *d = scale * p * (*d - total); }
    }
}

struct Attention(Dims);

impl Attention {
    /// Gradients of q, k, v of one head.
    fn head_back(&self, head: usize, [q, k, v, g]: [&[f32]; 4], [dq, dk, dv]: [Shared; 3]) {
        let d = &self.0;
        let block = d.block();
        scratch((2 * d.keys + 1) * block, |memory| {
            let (sums, memory) = memory.split_at_mut(block);
            let (p, ds) = memory.split_at_mut(block * d.keys);
            for (start, rows) in blocks(d.queries, block) {
                d.exponentials(d.query(q, head, start), d.key(k, head).t(), start, p, &mut sums[..rows]);
                for (p, sum) in p.chunks_exact_mut(d.keys).zip(&sums[..rows]) {
                    scale(p, 1.0 / sum);
                }
                let grad = d.query(g, head, start);
                // SAFETY: scratch is this thread's own; the rows of this head in dq, dk, dv belong to this task.
                unsafe {
                    product(
                        Target::own(ds, d.keys),
                        false,
                        (rows, d.keys, d.width),
                        grad,
                        d.key(v, head).t(),
                        1.0,
                    );
                    let size = (d.keys, d.width, rows);
                    product(d.key_target(dv, head), start > 0, size, Mat::rows(p, d.keys).t(), grad, 1.0);
                    for (p, ds) in p.chunks_exact(d.keys).zip(ds.chunks_exact_mut(d.keys)).take(rows) {
                        softmax_row_back(p, ds, dot(p, ds), d.scale());
                    }
                    let ds = Mat::rows(ds, d.keys);
                    let target = d.query_target(dq, head, start);
                    product(target, false, (rows, d.width, d.keys), ds, d.key(k, head), 1.0);
                    product(d.key_target(dk, head), start > 0, size, ds.t(), d.query(q, head, start), 1.0);
                }
            }
        });
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
        let d = &self.0;
        let block = d.block();
        let transposed = d.transposed_keys(k);
        let mut out = vec![0f32; q.len()];
        let memory = Shared::new(&mut out);
        let jobs: Vec<_> = (0..d.batch * d.heads)
            .flat_map(|head| blocks(d.queries, block).into_iter().map(move |b| (head, b)))
            .collect();
        jobs.into_par_iter().for_each(|(head, (start, rows))| {
            scratch(rows * (d.keys + 1), |scores| {
                let (sums, p) = scores.split_at_mut(rows);
                d.exponentials(d.query(q, head, start), d.transposed_key(&transposed, head), start, p, sums);
                let size = (rows, d.width, d.keys);
                let target = d.query_target(memory, head, start);
                // SAFETY: these rows of this head belong to this job.
                unsafe { product(target, false, size, Mat::rows(p, d.keys), d.key(v, head), 1.0) };
                for (row, sum) in sums.iter().enumerate() {
                    // SAFETY: as above.
                    scale(
                        unsafe { memory.slice(target.start + row * target.row_stride, d.width) },
                        1.0 / sum,
                    );
                }
            });
        });
        Ok(host::output(out, l1.shape()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let name = self.name();
        let mut dq = vec![0f32; q.elem_count()];
        let mut dk = vec![0f32; k.elem_count()];
        let mut dv = vec![0f32; v.elem_count()];
        let targets = [Shared::new(&mut dq), Shared::new(&mut dk), Shared::new(&mut dv)];
        host::with(q, name, |q| {
            host::with(k, name, |k| {
                host::with(v, name, |v| {
                    host::with(grad, name, |g| {
                        (0..self.0.batch * self.0.heads)
                            .into_par_iter()
                            .for_each(|head| self.head_back(head, [q, k, v, g], targets));
                        Ok(())
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
