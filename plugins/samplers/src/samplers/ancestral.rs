//! What samplers with ancestral noise share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of samplers that go down past the target and back up to it with fresh noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AncestralOptions {
    /// Share of fresh noise in each step: 0 adds none, 1 is the full reverse diffusion.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
}

impl Default for AncestralOptions {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

/// Splits the way from `sigma` to `sigma_next` in two: the level to go down to without noise, and how much
/// fresh noise then brings it up to `sigma_next`. `eta` 0 adds none, 1 as much as the reverse diffusion does.
pub(crate) fn ancestral(sigma: f64, sigma_next: f64, eta: f64) -> (f64, f64) {
    let posterior = sigma_next / sigma * (sigma * sigma - sigma_next * sigma_next).sqrt();
    let up = (eta * posterior).min(sigma_next);
    ((sigma_next * sigma_next - up * up).sqrt(), up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestral_split_keeps_the_variance_of_the_level() {
        for eta in [0.0, 0.3, 1.0] {
            let (down, up) = ancestral(2.0, 1.5, eta);
            assert!((down * down + up * up - 2.25).abs() < 1e-12);
        }
        assert_eq!(ancestral(2.0, 1.5, 0.0), (1.5, 0.0));
        assert_eq!(ancestral(2.0, 0.0, 1.0), (0.0, 0.0));
        assert_eq!(ancestral(2.0, 1.5, 9.0), (0.0, 1.5));
    }
}
