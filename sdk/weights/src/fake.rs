//! Made-up weights for benchmarks: the cost of a network does not depend on their values.

use crate::error::{Error, Result};
use crate::source::Provider;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// Deterministic weights of whatever shape is asked for.
///
/// Matrices and kernels are close to N(0, 1 / inputs), so that activations keep their size; one-dimensional weights
/// (norms) are 1 and biases 0.
pub(crate) struct Fake {
    pub(crate) seed: u64,
}

/// SplitMix64 (Steele, Lea and Flood 2014) of a counter.
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number of mean 0 and variance 1: the sum of four 16-bit uniform numbers (Irwin-Hall), close to normal.
fn normal(counter: u64) -> f32 {
    const MEAN: f32 = 4.0 * 65535.0 / 2.0;
    const INV_DEVIATION: f32 = 1.0 / 37837.2; // sqrt(4 * 65536² / 12)
    let bits = mix(counter);
    let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    (sum as f32 - MEAN) * INV_DEVIATION
}

/// FNV-1a: another stream for every name.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl Provider for Fake {
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let made = || -> candle_core::Result<Tensor> {
            let tensor = match shape {
                [n] if name.ends_with("bias") => Tensor::zeros(*n, DType::F32, &Device::Cpu)?,
                [n] => Tensor::ones(*n, DType::F32, &Device::Cpu)?,
                _ => {
                    let count: usize = shape.iter().product();
                    let inputs: usize = shape.iter().skip(1).product();
                    let scale = 1.0 / (inputs.max(1) as f32).sqrt();
                    let start = hash(name) ^ mix(self.seed);
                    let mut data = vec![0f32; count];
                    data.par_iter_mut()
                        .enumerate()
                        .with_min_len(1 << 14)
                        .for_each(|(i, v)| *v = normal(start.wrapping_add(i as u64)) * scale);
                    Tensor::from_vec(data, shape, &Device::Cpu)?
                }
            };
            tensor.to_dtype(dtype)?.to_device(device)
        };
        made().map_err(|source| Error::Tensor {
            place: "made-up weights".into(),
            tensor: name.into(),
            source: Box::new(source),
        })
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
        let t = Fake { seed }.tensor(name, shape, DType::F32, &Device::Cpu).unwrap();
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn weights_have_the_variance_that_keeps_activations_in_size() {
        let w = get(1, "a.weight", &[256, 64, 3, 3]);
        let n = w.len() as f64;
        let mean = w.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = w.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n * 576.0;
        assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 0.01, "mean {mean}, variance {variance}");
    }

    #[test]
    fn names_and_seeds_give_different_weights_and_the_same_name_the_same() {
        let a = get(1, "a.weight", &[4, 4]);
        assert_eq!(a, get(1, "a.weight", &[4, 4]));
        assert_ne!(a, get(1, "b.weight", &[4, 4]));
        assert_ne!(a, get(2, "a.weight", &[4, 4]));
    }

    #[test]
    fn norms_change_nothing() {
        assert_eq!(get(1, "norm.weight", &[3]), [1.0; 3]);
        assert_eq!(get(1, "norm.bias", &[3]), [0.0; 3]);
    }
}
