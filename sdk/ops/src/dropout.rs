//! Dropout whose mask is a function of a number, not of a generator's state.

use crate::host;
use crate::simd::multiversion;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Dropout ("Dropout: A Simple Way to Prevent Neural Networks from Overfitting", Srivastava et al. 2014).
///
/// Each element of `x` becomes 0 with probability `rate`, and is divided by 1 - rate otherwise. Which ones, is decided
/// by `key` and the element's number alone: whoever computes the same again, a recomputed segment for instance, drops
/// the same, on every device. Same shape and dtype out. Errors: a rate outside 0..1.
pub fn dropout(x: &Tensor, rate: f64, key: u64) -> Result<Tensor> {
    let _span = crate::span!("dropout", x = ?x.dims());
    if !(0.0..1.0).contains(&rate) {
        bail!("dropout: a rate of {rate}")
    }
    if rate == 0.0 {
        return Ok(x.clone());
    }
    let mask = Mask { key, keep: threshold(rate), factor: (1.0 / (1.0 - rate)) as f32 };
    if host::is_native(x) {
        return host::prepare(x)?.apply_op1(Dropout(mask))?.to_dtype(x.dtype());
    }
    let mut factors = vec![1f32; x.elem_count()];
    mask.apply(&mut factors);
    let factors = Tensor::from_vec(factors, x.shape(), &Device::Cpu)?;
    x * factors.to_dtype(x.dtype())?.to_device(x.device())?
}

/// The kept ones of 2^32 random numbers.
fn threshold(rate: f64) -> u32 {
    ((1.0 - rate) * 2f64.powi(32)).min(f64::from(u32::MAX)) as u32
}

#[derive(Clone, Copy)]
struct Mask {
    key: u64,
    keep: u32,
    factor: f32,
}

/// Elements of one job.
const CHUNK: usize = 1 << 14;

impl Mask {
    /// Multiplies each element with 0 or the factor.
    fn apply(self, data: &mut [f32]) {
        let jobs = data.par_chunks_mut(CHUNK).enumerate();
        jobs.for_each(|(i, chunk)| apply((i * CHUNK) as u64, self, chunk));
    }
}

multiversion! {
    fn apply(start: u64, mask: Mask, data: &mut [f32]) {
        for (i, v) in data.iter_mut().enumerate() {
            let kept = random(mask.key, start + i as u64) <= mask.keep;
            *v = if kept { *v * mask.factor } else { 0.0 };
        }
    }
}

/// 32 random bits for a key and a count: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) over the sequence
/// that the key starts.
#[inline(always)]
fn random(key: u64, count: u64) -> u32 {
    let mut z = key.wrapping_add((count + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 32) as u32
}

struct Dropout(Mask);

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = host::elements(storage, layout, self.name())?.to_vec();
        self.0.apply(&mut y);
        Ok(host::output(y, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = host::with(grad, self.name(), |g| Ok(g.to_vec()))?;
        self.0.apply(&mut dx);
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees_with_f64, check, pseudo_normal};
    use candle_core::DType;

    #[test]
    fn dropout_agrees_with_candle_in_f64_and_with_finite_differences() {
        let x = pseudo_normal(1, (7, 33), 1.0);
        agrees_with_f64(std::slice::from_ref(&x), 1e-6, |t| dropout(&t[0], 0.3, 5));
        check(&[x], |t| dropout(&t[0], 0.3, 5));
    }

    #[test]
    fn as_many_are_dropped_as_the_rate_says_and_the_mean_stays() {
        let ones = Tensor::ones((100, 1000), DType::F32, &Device::Cpu).unwrap();
        for rate in [0.05, 0.5, 0.9] {
            let y = dropout(&ones, rate, 3).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let dropped = y.iter().filter(|v| **v == 0.0).count() as f64 / y.len() as f64;
            assert!((dropped - rate).abs() < 0.005, "{dropped} for {rate}");
            let mean = y.iter().map(|v| f64::from(*v)).sum::<f64>() / y.len() as f64;
            assert!((mean - 1.0).abs() < 0.03, "{mean}");
        }
    }

    #[test]
    fn another_key_drops_others_and_the_same_the_same() {
        let x = pseudo_normal(1, 1000, 1.0);
        let run = |key| dropout(&x, 0.5, key).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(run(1), run(1));
        let (a, b) = (run(1), run(2));
        let same = a.iter().zip(&b).filter(|(a, b)| (**a == 0.0) == (**b == 0.0)).count();
        assert!((400..600).contains(&same), "{same} of 1000 as if the keys had nothing to do with it");
    }

    #[test]
    fn no_rate_is_no_change_and_a_rate_of_one_is_refused() {
        let x = pseudo_normal(1, 10, 1.0);
        assert_eq!(dropout(&x, 0.0, 1).unwrap().id(), x.id());
        assert!(dropout(&x, 1.0, 1).is_err());
        assert!(dropout(&x, -0.1, 1).is_err());
    }
}
