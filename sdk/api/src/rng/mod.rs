//! Randomness is ours, drawn on the CPU, never the device's: the same seed gives the same image everywhere.

mod mt19937;
mod philox;

pub use mt19937::Mt19937;
pub use philox::Philox;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which generator draws the noise. The choice is part of an image's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RngKind {
    /// Mersenne Twister, the same numbers as `torch.randn` on a CPU (A1111 "CPU", ComfyUI, diffusers).
    #[default]
    Cpu,
    /// Philox 4x32-10, the same numbers as `torch.randn` on an NVIDIA GPU (A1111 "GPU" and "NV").
    Gpu,
}

/// A generator of standard normal numbers.
#[derive(Debug, Clone)]
pub enum NormalRng {
    /// See [`RngKind::Cpu`].
    Cpu(Box<Mt19937>),
    /// See [`RngKind::Gpu`].
    Gpu(Philox),
}

impl NormalRng {
    /// A generator of the given kind, seeded.
    pub fn new(kind: RngKind, seed: u64) -> Self {
        match kind {
            RngKind::Cpu => Self::Cpu(Box::new(Mt19937::new(seed))),
            RngKind::Gpu => Self::Gpu(Philox::new(seed)),
        }
    }

    /// Fills `out` with the numbers that one call of `torch.randn` of that size gives.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        match self {
            Self::Cpu(g) => g.fill_normal(out),
            Self::Gpu(g) => g.fill_normal(out),
        }
    }
}
