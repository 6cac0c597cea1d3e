//! Beta: levels at the quantiles of a beta distribution.

use super::{Compat, Ends, at_timesteps, lerp, ramp, then_zero};
use atelier_sdk::{Error, NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Beta`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BetaOptions {
    /// First parameter of the distribution: below 1 it crowds the levels at the end.
    #[schemars(range(min = 0.05, max = 10.0))]
    pub alpha: f64,
    /// Second parameter: below 1 it crowds the levels at the start.
    #[schemars(range(min = 0.05, max = 10.0))]
    pub beta: f64,
    /// Lowest level before 0; the model's own when absent. Not for `comfy`.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_min: Option<f64>,
    /// Highest level; the model's own when absent. Not for `comfy`.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_max: Option<f64>,
    /// Whose definition: A1111 takes quantiles of the levels, ComfyUI of the timesteps, without the lowest.
    pub compat: Compat,
}

impl Default for BetaOptions {
    fn default() -> Self {
        Self { alpha: 0.6, beta: 0.6, sigma_min: None, sigma_max: None, compat: Compat::A1111 }
    }
}

/// Quantiles of the beta distribution, by default with both parameters 0.6, so that the steps are small at the
/// start and at the end.
///
/// Source: Lee et al. 2024, "Beta Sampling is All You Need" (arXiv:2407.12173); A1111 "Beta", which is diffusers'
/// `use_beta_sigmas`; ComfyUI `beta_scheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Beta {
    options: BetaOptions,
    ends: Ends,
}

impl Schedule for Beta {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let quantile = |u: f64| quantile(1.0 - u, self.options.alpha, self.options.beta);
        if self.options.compat == Compat::Comfy {
            let top = (levels.len() - 1) as f64;
            let timesteps = || (0..steps).map(|i| top * quantile(i as f64 / steps as f64));
            return at_timesteps(timesteps().map(f64::round_ties_even), timesteps(), levels);
        }
        let (min, max) = self.ends.of(levels)?;
        then_zero(ramp(steps).map(|u| lerp(min, max, quantile(u))))
    }
}

/// Where the distribution function of the beta distribution has the value `p`: by bisection, because the
/// function is steep at both ends.
fn quantile(p: f64, a: f64, b: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    // Exactly, so that a tie of timesteps rounds as one.
    if a == b && p == 0.5 {
        return 0.5;
    }
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..100 {
        let mid = 0.5 * (low + high);
        if distribution(mid, a, b) < p { low = mid } else { high = mid }
    }
    0.5 * (low + high)
}

/// The distribution function: the regularised incomplete beta function (NIST DLMF 8.17), by its power series
/// `x^a (1 - x)^b / (a B(a, b)) (1 + sum_n x^n (a + b)_n / (a + 1)_n)`, on the side where that converges fast.
fn distribution(x: f64, a: f64, b: f64) -> f64 {
    if x > 0.5 {
        return 1.0 - distribution(1.0 - x, b, a);
    }
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 0..500 {
        term *= x * (a + b + f64::from(n)) / (a + 1.0 + f64::from(n));
        sum += term;
        if term < 1e-17 * sum {
            break;
        }
    }
    let log_beta = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    sum * (a * x.ln() + b * (1.0 - x).ln() - log_beta).exp() / a
}

/// The logarithm of the gamma function, for `x` above 0: Stirling's series (NIST DLMF 5.11.1) far out, and the
/// recurrence from there.
fn ln_gamma(x: f64) -> f64 {
    let far = x + 12.0;
    let product: f64 = (0..12).map(|i| (x + f64::from(i)).ln()).sum();
    let inverse = 1.0 / far;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0
            - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (far - 0.5) * far.ln() - far + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - product
}

impl SchedulePlugin for Beta {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "beta",
        title: "Beta",
        summary: "Small steps at the start and at the end, large ones between.",
        aliases: &[],
        source: "Lee et al. 2024 (arXiv:2407.12173); A1111 Beta, ComfyUI beta_scheduler",
    };
    type Options = BetaOptions;

    fn new(options: BetaOptions) -> Result<Self> {
        for (name, value) in [("alpha", options.alpha), ("beta", options.beta)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::invalid(format!("`{name}` is {value}, but must be above 0")));
            }
        }
        if options.compat == Compat::Comfy && (options.sigma_min.is_some() || options.sigma_max.is_some()) {
            return Err(Error::invalid("ComfyUI's beta schedule has no `sigma_min` or `sigma_max`")
                .hint("leave them out, or take `compat` a1111"));
        }
        Ok(Self { ends: Ends::new(options.sigma_min, options.sigma_max)?, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function_has_its_known_values() {
        for (x, value) in [(1.0, 0.0), (5.0, 24f64.ln()), (0.5, 0.5 * std::f64::consts::PI.ln())] {
            assert!((ln_gamma(x) - value).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn distributions_with_a_closed_form_are_met() {
        for p in [0.001, 0.2, 0.5, 0.9, 0.999] {
            // Uniform, a power, and the arcsine distribution.
            assert!((quantile(p, 1.0, 1.0) - p).abs() < 1e-12, "{p}");
            assert!((quantile(p, 3.0, 1.0) - p.cbrt()).abs() < 1e-12, "{p}");
            let arcsine = (std::f64::consts::FRAC_PI_2 * p).sin().powi(2);
            assert!((quantile(p, 0.5, 0.5) - arcsine).abs() < 1e-12, "{p}");
        }
    }
}
