//! Which optimiser, and its settings.

use super::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How parameters follow their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW(AdamWConfig),
    /// The sign of a momentum; wants about a tenth of AdamW's learning rate (Chen et al. 2023).
    Lion(LionConfig),
    /// Adam that finds its learning rate itself; set the learning rate to 1 (Mishchenko and Defazio 2023).
    Prodigy(ProdigyConfig),
}

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// How much of the means of gradient and squared gradient is kept at each step.
    pub betas: [f64; 2],
    /// Added to the root of the mean square, against division by zero.
    pub eps: f64,
    /// Share of a weight, times the learning rate, taken off at each step.
    pub weight_decay: f64,
}

/// Settings of Lion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LionConfig {
    /// Share of the momentum in the step, and share of it kept.
    pub betas: [f64; 2],
    /// Share of a weight, times the learning rate, taken off at each step.
    pub weight_decay: f64,
}

/// Settings of Prodigy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProdigyConfig {
    /// How much of the means of gradient and squared gradient is kept at each step.
    pub betas: [f64; 2],
    /// How much of the estimate's own means is kept; without it the root of the second of `betas`.
    pub beta3: Option<f64>,
    /// Added to the root of the mean square, in proportion to the estimate.
    pub eps: f64,
    /// Share of a weight, times the learning rate, taken off at each step.
    pub weight_decay: f64,
    /// Whether the decay acts on the weights, as in AdamW, or is added to the gradients.
    pub decouple: bool,
    /// Whether the means are corrected for having started at zero.
    pub use_bias_correction: bool,
    /// Whether the estimate disregards the learning rate of a warm-up.
    pub safeguard_warmup: bool,
    /// First estimate of the learning rate.
    pub d0: f64,
    /// Factor of the estimate; 0.5 or 2 are sensible where 1 is not right.
    pub d_coef: f64,
    /// Most that the estimate may grow by in one step, as a factor; without it as much as it likes.
    pub growth_rate: Option<f64>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.99], weight_decay: 0.0 }
    }
}

impl Default for ProdigyConfig {
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            beta3: None,
            eps: 1e-8,
            weight_decay: 0.0,
            decouple: true,
            use_bias_correction: false,
            safeguard_warmup: false,
            d0: 1e-6,
            d_coef: 1.0,
            growth_rate: None,
        }
    }
}

impl OptimizerConfig {
    /// The name in presets and checkpoints.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Lion(_) => "lion",
            Self::Prodigy(_) => "prodigy",
        }
    }

    /// The weight decay of groups that have none of their own.
    pub const fn weight_decay(&self) -> f64 {
        match self {
            Self::AdamW(c) => c.weight_decay,
            Self::Lion(c) => c.weight_decay,
            Self::Prodigy(c) => c.weight_decay,
        }
    }

    /// Checks every setting for its range.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        share("weight_decay", self.weight_decay(), f64::INFINITY)?;
        match self {
            Self::AdamW(c) => {
                betas(&c.betas)?;
                positive("eps", c.eps)
            }
            Self::Lion(c) => betas(&c.betas),
            Self::Prodigy(c) => {
                betas(&c.betas)?;
                c.beta3.map_or(Ok(()), |b| share("beta3", b, 1.0))?;
                positive("eps", c.eps)?;
                positive("d0", c.d0)?;
                positive("d_coef", c.d_coef)?;
                c.growth_rate.map_or(Ok(()), |g| range("growth_rate", g, g >= 1.0, "at least 1"))
            }
        }
    }
}

fn betas(betas: &[f64; 2]) -> Result<(), Error> {
    betas.iter().try_for_each(|b| share("betas", *b, 1.0))
}

pub(super) fn share(name: &'static str, value: f64, below: f64) -> Result<(), Error> {
    let must = if below == 1.0 { "at least 0 and below 1" } else { "at least 0" };
    range(name, value, (0.0..below).contains(&value), must)
}

pub(super) fn positive(name: &'static str, value: f64) -> Result<(), Error> {
    range(name, value, value > 0.0 && value.is_finite(), "above 0")
}

pub(super) fn range(name: &'static str, value: f64, fits: bool, must: &'static str) -> Result<(), Error> {
    if fits { Ok(()) } else { Err(Error::Setting { name, value, must }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_given_have_the_usual_values() {
        let read = |text| serde_json::from_str::<OptimizerConfig>(text);
        assert_eq!(read(r#"{"kind": "adamw"}"#).unwrap(), OptimizerConfig::default());
        let prodigy = ProdigyConfig { d_coef: 2.0, ..ProdigyConfig::default() };
        let read_prodigy = read(r#"{"kind": "prodigy", "d_coef": 2.0}"#).unwrap();
        assert_eq!(read_prodigy, OptimizerConfig::Prodigy(prodigy));
        assert!(read(r#"{"kind": "lion", "eps": 1.0}"#).unwrap_err().to_string().contains("eps"));
        assert!(read(r#"{"kind": "sgd"}"#).is_err());
    }

    #[test]
    fn a_configuration_survives_json() {
        for c in [
            OptimizerConfig::default(),
            OptimizerConfig::Lion(LionConfig::default()),
            OptimizerConfig::Prodigy(ProdigyConfig { growth_rate: Some(1.02), ..ProdigyConfig::default() }),
        ] {
            assert!(c.check().is_ok());
            let json = serde_json::to_value(c).unwrap();
            assert_eq!(json["kind"], c.name());
            assert_eq!(serde_json::from_value::<OptimizerConfig>(json).unwrap(), c);
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let adamw = |betas, eps, weight_decay| {
            OptimizerConfig::AdamW(AdamWConfig { betas, eps, weight_decay }).check().unwrap_err().to_string()
        };
        assert_eq!(adamw([0.9, 1.0], 1e-8, 0.0), "`betas` is 1, and must be at least 0 and below 1");
        assert_eq!(adamw([0.9, 0.9], 0.0, 0.0), "`eps` is 0, and must be above 0");
        assert_eq!(adamw([0.9, 0.9], 1e-8, -1.0), "`weight_decay` is -1, and must be at least 0");
        assert!(adamw([f64::NAN, 0.9], 1e-8, 0.0).contains("NaN"));
        let growth = OptimizerConfig::Prodigy(ProdigyConfig { growth_rate: Some(0.5), ..Default::default() });
        assert!(growth.check().is_err());
    }
}
