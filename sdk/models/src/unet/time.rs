//! The embedding of timesteps.

use crate::layers::Linear;
use atelier_ops::silu;
use atelier_weights::{Result, Source};
use candle_core::{DType, Tensor};

/// Sinusoidal embedding of timesteps ("Denoising Diffusion Probabilistic Models", Ho et al. 2020).
///
/// `timesteps` (B), not necessarily whole; the result is (B, width) in f32, because 16 bits do not tell neighbouring
/// timesteps apart. Frequency i is 10000^(-i / (width / 2 - freq_shift)); sines come first unless `flip_sin_to_cos`;
/// an odd width gets a zero at the end. Errors: a tensor of another rank.
pub fn timestep_embedding(
    timesteps: &Tensor,
    width: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
) -> candle_core::Result<Tensor> {
    let batch = timesteps.dims1()?;
    let half = width / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| (-(10000f64.ln() as f32) * i as f32 / (half as f64 - freq_shift) as f32).exp())
        .collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), timesteps.device())?;
    let angles = timesteps.to_dtype(DType::F32)?.reshape((batch, 1))?.broadcast_mul(&frequencies)?;
    let (sin, cos) = (angles.sin()?, angles.cos()?);
    let both = if flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
    let embedding = Tensor::cat(&both, 1)?;
    if width % 2 == 1 { embedding.pad_with_zeros(1, 0, 1) } else { Ok(embedding) }
}

/// The two layers between the sinusoids and the residual blocks.
#[derive(Clone, Debug)]
pub(super) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub(super) fn new(source: &Source, inputs: usize, outputs: usize) -> Result<Self> {
        let linear_1 = Linear::new(&source.pp("linear_1"), inputs, outputs)?;
        Ok(Self { linear_1, linear_2: Linear::new(&source.pp("linear_2"), outputs, outputs)? })
    }

    /// (B, inputs) to (B, outputs).
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.linear_2.forward(&silu(&self.linear_1.forward(x)?)?)
    }
}
