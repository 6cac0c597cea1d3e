//! How much of an image is left at each timestep, and what the network is to answer.

use super::{Error, same_len};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise (Ho et al. 2020).
    #[default]
    Epsilon,
    /// The velocity (Salimans and Ho 2022).
    VPrediction,
}

/// The forward process: `x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise`.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseTable {
    alphas: Vec<f64>,
}

impl NoiseTable {
    /// A table of the shares of the image's variance that are left at each timestep, `alphas_cumprod`.
    ///
    /// # Errors
    /// No timesteps, or a share that is not in 0 to 1.
    pub fn new(alphas_cumprod: Vec<f64>) -> Result<Self, Error> {
        if alphas_cumprod.is_empty() {
            return Err(Error::Empty);
        }
        match alphas_cumprod.iter().position(|a| !(0.0..=1.0).contains(a)) {
            Some(timestep) => Err(Error::Alpha { timestep, value: alphas_cumprod[timestep] }),
            None => Ok(Self { alphas: alphas_cumprod }),
        }
    }

    /// Number of timesteps.
    #[expect(clippy::len_without_is_empty, reason = "a table has at least one timestep")]
    pub fn len(&self) -> usize {
        self.alphas.len()
    }

    fn alpha(&self, timestep: usize) -> Result<f64, Error> {
        self.alphas.get(timestep).copied().ok_or(Error::Timestep { timestep, len: self.alphas.len() })
    }

    /// The factors of image and noise at a timestep.
    ///
    /// # Errors
    /// A timestep outside of the table.
    pub fn factors(&self, timestep: usize) -> Result<[f32; 2], Error> {
        let alpha = self.alpha(timestep)?;
        Ok([alpha.sqrt() as f32, (1.0 - alpha).sqrt() as f32])
    }

    /// The signal-to-noise ratio at a timestep: `a / (1 - a)`.
    ///
    /// # Errors
    /// A timestep outside of the table.
    pub fn snr(&self, timestep: usize) -> Result<f64, Error> {
        let alpha = self.alpha(timestep)?;
        Ok(alpha / (1.0 - alpha))
    }

    /// The image `x` with the noise of a timestep, into `out`.
    ///
    /// # Errors
    /// A timestep outside of the table; slices of different lengths.
    pub fn add_noise(&self, x: &[f32], noise: &[f32], timestep: usize, out: &mut [f32]) -> Result<(), Error> {
        let [image, other] = self.factors(timestep)?;
        combine([image, other], [x, noise], out)
    }

    /// What the network is to predict, into `out`.
    ///
    /// # Errors
    /// A timestep outside of the table; slices of different lengths.
    pub fn target(
        &self,
        prediction: Prediction,
        x: &[f32],
        noise: &[f32],
        timestep: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let [image, other] = self.factors(timestep)?;
        match prediction {
            Prediction::Epsilon => combine([0.0, 1.0], [x, noise], out),
            Prediction::VPrediction => combine([-other, image], [x, noise], out),
        }
    }
}

fn combine(factors: [f32; 2], [x, noise]: [&[f32]; 2], out: &mut [f32]) -> Result<(), Error> {
    same_len("noise", x.len(), noise.len())?;
    same_len("result", x.len(), out.len())?;
    for ((out, x), noise) in out.iter_mut().zip(x).zip(noise) {
        *out = factors[0] * x + factors[1] * noise;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Weighting;
    use super::*;
    use serde_json::Value;

    fn fixture() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/noise_table.json")).unwrap()
    }

    fn numbers(v: &Value) -> Vec<f64> {
        v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn floats(v: &Value) -> Vec<f32> {
        numbers(v).into_iter().map(|v| v as f32).collect()
    }

    /// With the f32 that diffusers has.
    fn table(data: &Value) -> NoiseTable {
        NoiseTable::new(floats(&data["alphas_cumprod"]).into_iter().map(f64::from).collect()).unwrap()
    }

    #[test]
    fn ratios_and_weights_are_those_of_diffusers() {
        let data = fixture();
        let table = table(&data);
        let min_snr = Weighting::MinSnr { gamma: 5.0 };
        for (i, t) in numbers(&data["timesteps"]).into_iter().map(|t| t as usize).enumerate() {
            let snr = table.snr(t).unwrap();
            let close = |key: &str, got: f64| {
                let expected = data[key][i].as_f64().unwrap();
                assert!((got / expected - 1.0).abs() < 1e-6, "{key} at {t}: {got} {expected}");
            };
            close("snr", snr);
            close("min_snr5_eps", min_snr.weight(snr, Prediction::Epsilon));
            close("min_snr5_v", min_snr.weight(snr, Prediction::VPrediction));
        }
    }

    #[test]
    fn noisy_images_and_velocities_are_those_of_diffusers() {
        let data = fixture();
        let table = table(&data);
        let pair = &data["pair"];
        for (i, t) in numbers(&pair["t"]).into_iter().map(|t| t as usize).enumerate() {
            let [x, noise] = ["x", "noise"].map(|key| floats(&pair[key][i]));
            let mut out = vec![0.0; x.len()];
            let close = |out: &[f32], key: &str| {
                for (a, b) in out.iter().zip(floats(&pair[key][i])) {
                    assert!((a - b).abs() < 1e-6 * b.abs().max(0.1), "{key}: {a} {b}");
                }
            };
            table.add_noise(&x, &noise, t, &mut out).unwrap();
            close(&out, "add_noise");
            table.target(Prediction::VPrediction, &x, &noise, t, &mut out).unwrap();
            close(&out, "velocity");
            table.target(Prediction::Epsilon, &x, &noise, t, &mut out).unwrap();
            assert_eq!(out, noise);
        }
    }

    #[test]
    fn the_ends_of_a_process_are_the_image_and_the_noise() {
        let table = NoiseTable::new(vec![1.0, 0.0]).unwrap();
        let mut out = [0.0];
        table.add_noise(&[2.0], &[3.0], 0, &mut out).unwrap();
        assert_eq!(out, [2.0]);
        table.add_noise(&[2.0], &[3.0], 1, &mut out).unwrap();
        assert_eq!(out, [3.0]);
        assert_eq!((table.snr(0), table.snr(1)), (Ok(f64::INFINITY), Ok(0.0)));
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        assert_eq!(NoiseTable::new(vec![]), Err(Error::Empty));
        let e = NoiseTable::new(vec![0.5, 1.5]).unwrap_err();
        assert_eq!(e.to_string(), "the share of the image at timestep 1 is 1.5, not in 0 to 1");
        assert!(NoiseTable::new(vec![f64::NAN]).is_err());
        let table = NoiseTable::new(vec![0.5]).unwrap();
        assert_eq!(table.snr(1).unwrap_err().to_string(), "timestep 1 is not one of 0 to 0");
        assert!(matches!(table.add_noise(&[1.0], &[], 0, &mut [0.0]), Err(Error::Shape { .. })));
        assert!(matches!(table.add_noise(&[1.0], &[1.0], 0, &mut []), Err(Error::Shape { .. })));
    }
}
