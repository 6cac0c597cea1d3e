//! The diffusion process of a model: its noise levels and what its network predicts.

use atelier_sdk::{Error, ErrorKind, NoiseLevels, Result, ResultExt};
use serde::Deserialize;
use std::path::Path;

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise (Ho et al. 2020).
    #[default]
    Epsilon,
    /// The velocity (Salimans and Ho 2022).
    VPrediction,
    /// The clean sample.
    Sample,
}

impl Prediction {
    /// By diffusers' names: `epsilon`, `v_prediction`, `sample`.
    ///
    /// # Errors
    /// Another name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "epsilon" => Ok(Self::Epsilon),
            "v_prediction" => Ok(Self::VPrediction),
            "sample" => Ok(Self::Sample),
            other => Err(Error::invalid(format!("`prediction_type` is `{other}`"))
                .hint("known are: epsilon, v_prediction, sample")),
        }
    }
}

/// `scheduler/scheduler_config.json`, as far as it describes the model and not a sampler.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct SchedulerConfig {
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    num_train_timesteps: usize,
    prediction_type: Prediction,
    trained_betas: Option<Vec<f64>>,
    rescale_betas_zero_snr: bool,
}

impl Default for SchedulerConfig {
    /// Stable Diffusion 1.x.
    fn default() -> Self {
        Self {
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: "scaled_linear".into(),
            num_train_timesteps: 1000,
            prediction_type: Prediction::Epsilon,
            trained_betas: None,
            rescale_betas_zero_snr: false,
        }
    }
}

/// Most training timesteps accepted.
const MAX_TIMESTEPS: usize = 100_000;

/// Noise levels and prediction of a model.
#[derive(Debug, Clone)]
pub struct Process {
    /// The levels it was trained on.
    pub levels: NoiseLevels,
    /// What its network predicts.
    pub prediction: Prediction,
}

/// Coefficients of the estimate `D = skip * x + out * F(scale * x, t)` of the clean sample, from a network
/// `F` (Karras et al. 2022, equation 7, for a variance-preserving network).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// Factor of the input before the network.
    pub scale: f64,
    /// Factor of the input in the estimate.
    pub skip: f64,
    /// Factor of the network's output in the estimate.
    pub out: f64,
}

impl Process {
    /// Stable Diffusion 1.x: scaled-linear betas from 0.00085 to 0.012, epsilon.
    ///
    /// # Errors
    /// Never in practice; the levels are checked like any other.
    pub fn sd1() -> Result<Self> {
        Self::from_config(&SchedulerConfig::default())
    }

    /// Reads a diffusers `scheduler_config.json`.
    ///
    /// # Errors
    /// Missing, not JSON, or a schedule of betas that is not known.
    pub fn read(file: &Path) -> Result<Self> {
        let say = || format!("cannot read {}", file.display());
        let text = std::fs::read_to_string(file).map_err(|e| Error::io(say(), e))?;
        let config: SchedulerConfig = serde_json::from_str(&text).kind(ErrorKind::Corrupt, say)?;
        Self::from_config(&config).map_err(|e| e.context(format!("in {}", file.display())))
    }

    fn from_config(config: &SchedulerConfig) -> Result<Self> {
        let n = config.num_train_timesteps;
        if !(2..=MAX_TIMESTEPS).contains(&n) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("`num_train_timesteps` is {n}, not one of 2 to {MAX_TIMESTEPS}"),
            ));
        }
        if config.rescale_betas_zero_snr {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "`rescale_betas_zero_snr` is set: the model starts from an infinite noise level",
            ));
        }
        let betas = match (&config.trained_betas, config.beta_schedule.as_str()) {
            (Some(betas), _) => betas.clone(),
            (_, "scaled_linear") => NoiseLevels::scaled_linear_betas(config.beta_start, config.beta_end, n),
            (_, "linear") => NoiseLevels::linear_betas(config.beta_start, config.beta_end, n),
            (_, other) => {
                return Err(Error::new(ErrorKind::Unsupported, format!("`beta_schedule` is `{other}`"))
                    .hint("known are: scaled_linear, linear"));
            }
        };
        let levels = NoiseLevels::from_betas(&betas)?;
        Ok(Self { levels, prediction: config.prediction_type })
    }

    /// The coefficients at a level.
    pub fn coefficients(&self, sigma: f64) -> Coefficients {
        let norm = (sigma * sigma + 1.0).sqrt();
        let scale = 1.0 / norm;
        let (skip, out) = match self.prediction {
            Prediction::Epsilon => (1.0, -sigma),
            Prediction::VPrediction => (scale * scale, -sigma * scale),
            Prediction::Sample => (0.0, 1.0),
        };
        Coefficients { scale, skip, out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network that knows the answer must give the answer back.
    #[test]
    fn the_estimate_of_a_perfect_network_is_the_clean_sample() {
        let (x0, noise, sigma) = (0.7f64, -1.3f64, 2.5f64);
        let x = x0 + sigma * noise;
        let alpha = 1.0 / (1.0 + sigma * sigma).sqrt();
        let network = |p: Prediction| match p {
            Prediction::Epsilon => noise,
            Prediction::VPrediction => alpha * noise - sigma * alpha * x0,
            Prediction::Sample => x0,
        };
        for p in [Prediction::Epsilon, Prediction::VPrediction, Prediction::Sample] {
            let process = Process { prediction: p, ..Process::sd1().unwrap() };
            let c = process.coefficients(sigma);
            assert!((c.skip * x + c.out * network(p) - x0).abs() < 1e-12, "{p:?}");
            assert!((c.scale - alpha).abs() < 1e-12);
        }
    }

    #[test]
    fn an_unknown_schedule_or_an_absurd_length_is_refused() {
        let dir = std::env::temp_dir().join(format!("atelier-process-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("scheduler_config.json");
        for (text, expected) in [
            (r#"{"beta_schedule": "spiral"}"#, "spiral"),
            (r#"{"num_train_timesteps": 9000000000}"#, "9000000000"),
            (r#"{"beta_start": -1}"#, "beta"),
            (r#"{"rescale_betas_zero_snr": true}"#, "infinite"),
            ("{", "cannot read"),
        ] {
            std::fs::write(&file, text).unwrap();
            let e = Process::read(&file).unwrap_err();
            assert!(e.chain().join(" ").contains(expected), "{text}: {:?}", e.chain());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
