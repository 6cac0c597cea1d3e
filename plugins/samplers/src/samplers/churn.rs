//! Churn: raising the noise before a step, the stochastic part of Karras et al. 2022.

use super::combine;
use atelier_sdk::{Error, Result, SampleCtx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the samplers of Karras et al. 2022 (arXiv:2206.00364), Algorithm 2. Without churn they are
/// deterministic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// How much noise is added over the whole run; 0 adds none.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub s_churn: f64,
    /// Noise is added only at levels from here up.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub s_tmin: f64,
    /// Noise is added only at levels up to here; no limit when absent.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub s_tmax: Option<f64>,
    /// Scale of the added noise; slightly above 1 makes up for detail that the model loses.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
}

impl Default for Churn {
    fn default() -> Self {
        Self { s_churn: 0.0, s_tmin: 0.0, s_tmax: None, s_noise: 1.0 }
    }
}

impl Churn {
    /// These options, if a level can lie within their limits.
    pub(crate) fn checked(self) -> Result<Self> {
        match self.s_tmax {
            Some(max) if max < self.s_tmin => Err(Error::invalid(format!(
                "no level lies between `s_tmin` {} and `s_tmax` {max}",
                self.s_tmin
            ))
            .hint("make `s_tmax` larger, or leave it out for no limit")),
            _ => Ok(self),
        }
    }

    /// Raises `x` from `sigma` to the level that is returned, which is `sigma` itself where nothing is added.
    /// `n` receives the noise.
    pub(crate) fn raise(
        &self,
        sigma: f32,
        steps: usize,
        ctx: &mut dyn SampleCtx,
        x: &mut [f32],
        n: &mut Vec<f32>,
    ) -> Result<f32> {
        let (s, max) = (f64::from(sigma), self.s_tmax.unwrap_or(f64::INFINITY));
        let within = self.s_tmin <= s && s <= max;
        // The paper's bound: no more new noise than there already is.
        let gamma = if within { (self.s_churn / steps as f64).min(2f64.sqrt() - 1.0) } else { 0.0 };
        if gamma <= 0.0 {
            return Ok(sigma);
        }
        let raised = (s * (1.0 + gamma)) as f32;
        n.resize(x.len(), 0.0);
        ctx.noise(sigma, raised, n)?;
        let added = (f64::from(raised).powi(2) - s * s).sqrt();
        combine(x, 1.0, [(self.s_noise * added, n)]);
        Ok(raised)
    }
}
