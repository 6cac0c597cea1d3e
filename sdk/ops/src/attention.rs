//! Multi-head scaled dot-product attention.

mod backward;
mod flash;
mod online;
#[cfg(test)]
mod reference;
mod strip;
mod tiles;

use crate::composed;
use crate::host;
use crate::products;
use crate::wide::Unit;
use backward::{Operands, backward};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// softmax(Q Kᵀ / sqrt(D)) V for each head ("Attention Is All You Need", Vaswani et al. 2017).
///
/// `q` is (B, N, heads * D), `k` and `v` (B, M, heads * D), as the projections give them; so is the result
/// (B, N, heads * D), in q's dtype. With `causal`, query i sees the keys 0..=i only, and N must be M.
/// The N x M scores never exist as a whole; the backward pass computes them anew, tile by tile (FlashAttention, Dao et
/// al. 2022, arXiv:2205.14135). Where [`Products::Bf16`](crate::Products::Bf16) are asked for, queries, keys, values and
/// the weights of these are rounded to bf16; scores and sums stay in f32.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let _span = crate::span!("attention", q = ?q.dims(), k = ?k.dims(), heads);
    let shape = Dims::new(q.shape(), k.shape(), v.shape(), heads, causal)?;
    if !host::is_native(q) {
        return composed::attention(q, k, v, heads, causal);
    }
    let unit = Unit::of(products::of_call(&[q, k, v]));
    let op = Attention { unit, dims: shape, logs: OnceLock::new() };
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

    /// The first keys that a query sees.
    fn seen(&self, query: usize) -> usize {
        if self.causal { query + 1 } else { self.keys }
    }
}

struct Attention {
    unit: Unit,
    dims: Dims,
    /// Of each head's each query: the logarithm of the sum of the exponentials of its scores.
    logs: OnceLock<Vec<f32>>,
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
        let (out, logs) = flash::forward(self.unit, &self.dims, q, k, v);
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
        let [dq, dk, dv] = host::with(q, name, |q| {
            host::with(k, name, |k| {
                host::with(v, name, |v| {
                    host::with(res, name, |output| {
                        host::with(grad, name, |grad| {
                            let operands = Operands { q, k, v, output, grad, logs };
                            Ok(backward(Unit::f32(), &self.dims, &operands))
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
