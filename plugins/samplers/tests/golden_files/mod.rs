//! Reading the reference files: `ATELIER_GOLDEN_DIR`, or the ones of the repository.
#![allow(dead_code, reason = "each test binary uses its part")]

use atelier_sdk::NoiseLevels;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::PathBuf;

/// Numbers of steps for which every file has a grid.
pub const GRIDS: [usize; 9] = [1, 2, 4, 5, 10, 20, 25, 30, 50];

fn dir() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden");
    std::env::var_os("ATELIER_GOLDEN_DIR").map_or(own, PathBuf::from)
}

fn bytes(file: &str) -> Vec<u8> {
    let path = dir().join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn tensor(bytes: &[u8], name: &str) -> Option<Vec<f32>> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let view = file.tensor(name).ok()?;
    assert_eq!(view.dtype(), Dtype::F32, "{name}");
    Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// A table of the reference's training process.
pub fn table(name: &str) -> Vec<f32> {
    tensor(&bytes("schedule_tables.safetensors"), name).unwrap_or_else(|| panic!("there is no `{name}`"))
}

/// Levels from the reference's own table of cumulative alphas. It is f32, so that `1 - abar`, and with it the
/// lowest level, is off by 1.3e-5 from what the betas say.
pub fn rounded_levels() -> NoiseLevels {
    let abar = table("alphas_cumprod");
    let sigma = |a: f32| ((1.0 - f64::from(a)) / f64::from(a)).sqrt();
    NoiseLevels::new(abar.into_iter().map(sigma).collect()).unwrap()
}

/// One reference scheduler: its configuration, grids and trajectory.
pub struct Golden {
    name: String,
    bytes: Vec<u8>,
    info: Value,
}

impl Golden {
    /// Reads `schedulers/<name>.safetensors` and its entry of the index.
    pub fn read(name: &str) -> Self {
        let bytes_of = bytes(&format!("schedulers/{name}.safetensors"));
        let index: Value = serde_json::from_slice(&bytes("schedulers/index.json")).unwrap();
        Self { name: name.into(), bytes: bytes_of, info: index["schedulers"][name].clone() }
    }

    /// The class of diffusers that made it.
    pub fn class(&self) -> &str {
        self.info["class"].as_str().unwrap()
    }

    /// A value of its configuration.
    pub fn config(&self, key: &str) -> &Value {
        &self.info["config"][key]
    }

    /// An argument of its `step`.
    pub fn step_kwarg(&self, key: &str) -> &Value {
        &self.info["step_kwargs"][key]
    }

    /// Number of steps of the trajectory.
    pub fn steps(&self) -> usize {
        self.info["steps"].as_u64().unwrap() as usize
    }

    /// Number of model calls of the trajectory.
    pub fn calls(&self) -> usize {
        self.info["calls"].as_u64().unwrap() as usize
    }

    /// A tensor.
    pub fn f32s(&self, name: &str) -> Vec<f32> {
        tensor(&self.bytes, name).unwrap_or_else(|| panic!("{} has no `{name}`", self.name))
    }

    /// Betas of its training.
    pub fn betas(&self) -> Vec<f64> {
        let number = |key| self.config(key).as_f64().unwrap();
        let (start, end) = (number("beta_start"), number("beta_end"));
        let n = self.config("num_train_timesteps").as_u64().unwrap() as usize;
        match self.config("beta_schedule").as_str().unwrap() {
            "scaled_linear" => NoiseLevels::scaled_linear_betas(start, end, n),
            "linear" => NoiseLevels::linear_betas(start, end, n),
            other => panic!("unknown betas `{other}`"),
        }
    }
}
