//! Every step of every sampler against diffusers' trajectories.
//!
//! The reference states are those of diffusers in f32. DDIM, DPM-Solver++ and UniPC live in its
//! variance-preserving space, where `z = x / sqrt(1 + sigma^2)`; our states are compared there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod golden_files;

use atelier_samplers as _;
use atelier_sdk::{Registry, Result, Run, SampleCtx, SamplerReg, inventory};
use golden_files::Golden;
use serde_json::{Map, Value, json};

/// Largest error of any state, relative to the largest value of that same state.
const TOLERANCE: f64 = 1e-5;

/// Plays the model and the noise of a reference run from its call `first` on, and keeps what it sees.
struct Replay<'a> {
    golden: &'a Golden,
    timesteps: Vec<f32>,
    first: usize,
    v_prediction: bool,
    /// What the model was asked about.
    inputs: Vec<Vec<f32>>,
    /// State after each step.
    states: Vec<Vec<f32>>,
}

impl SampleCtx for Replay<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        let t = f64::from(self.timesteps[self.first + self.inputs.len()]);
        let sigma = f64::from(sigma);
        let scale = (1.0 + sigma * sigma).sqrt();
        for (out, x) in out.iter_mut().zip(x) {
            let x = f64::from(*x);
            let model = 0.9 * (0.7 * x / scale + 0.2 * (0.01 * t).sin()).tanh();
            *out = if self.v_prediction {
                x / (scale * scale) - sigma / scale * model
            } else {
                x - sigma * model
            } as f32;
        }
        self.inputs.push(x.to_vec());
        Ok(())
    }

    fn noise(&mut self, _from: f32, _to: f32, out: &mut [f32]) -> Result<()> {
        let call = self.first + self.states.len();
        out.copy_from_slice(&self.golden.f32s(&format!("noise_{call}")));
        Ok(())
    }

    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()> {
        assert_eq!(i, self.states.len());
        self.states.push(x.to_vec());
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// Key and options of our sampler for a reference.
fn ours(golden: &Golden) -> (&'static str, Value) {
    let set = |pairs: &[(&str, &Value)]| {
        let given = pairs.iter().filter(|(_, v)| !v.is_null());
        Value::Object(given.map(|(k, v)| ((*k).to_owned(), (*v).clone())).collect::<Map<_, _>>())
    };
    let churn = ["s_churn", "s_tmin", "s_noise"].map(|k| (k, golden.step_kwarg(k)));
    match golden.class() {
        "EulerDiscreteScheduler" => ("euler", set(&churn)),
        "HeunDiscreteScheduler" => ("heun", json!({})),
        "EulerAncestralDiscreteScheduler" => ("euler_a", json!({})),
        "DDIMScheduler" => ("ddim", set(&[("eta", golden.step_kwarg("eta"))])),
        "DPMSolverMultistepScheduler" => ("dpmpp_2m", json!({})),
        "UniPCMultistepScheduler" => {
            // diffusers' defaults, which are not ours.
            let or = |key, default: Value| match golden.config(key) {
                Value::Null => default,
                set => set.clone(),
            };
            (
                "unipc",
                json!({"order": or("solver_order", 2.into()), "variant": or("solver_type", "bh2".into())}),
            )
        }
        other => panic!("no sampler for {other}"),
    }
}

/// DDIM's levels: it keeps none, so they follow from its timesteps and the table of its training.
fn ddim_levels(golden: &Golden) -> Vec<f64> {
    let betas = golden.betas();
    let mut product = 1.0;
    let mut abar: Vec<f64> = betas
        .iter()
        .map(|b| {
            product *= 1.0 - b;
            product
        })
        .collect();
    if golden.config("rescale_betas_zero_snr") == &json!(true) {
        // Lin et al. 2023 (arXiv:2305.08891), algorithm 1.
        let root: Vec<f64> = abar.iter().map(|a| a.sqrt()).collect();
        let (first, last) = (root[0], root[root.len() - 1]);
        abar = root.iter().map(|r| ((r - last) * first / (first - last)).powi(2)).collect();
    }
    let sigma = |t: usize| ((1.0 - abar[t]) / abar[t]).sqrt();
    let timesteps = golden.f32s("timesteps");
    let to_one = golden.config("set_alpha_to_one") != &json!(false);
    let last = timesteps[timesteps.len() - 1] as i64 - (betas.len() / golden.steps()) as i64;
    let last = match usize::try_from(last) {
        Ok(t) => sigma(t),
        Err(_) if to_one => 0.0,
        Err(_) => sigma(0),
    };
    timesteps.iter().map(|t| sigma(*t as usize)).chain([last]).collect()
}

/// Runs our sampler along the reference, from its call `first` on; returns the worst error of a state relative
/// to the largest value of that state, and of the whole trajectory.
fn follow(name: &str, first: usize) -> (f64, f64) {
    let golden = Golden::read(name);
    let heun = golden.class() == "HeunDiscreteScheduler";
    let ve = heun || golden.class().starts_with("Euler");
    let sigmas: Vec<f32> = match golden.class() {
        "DDIMScheduler" => ddim_levels(&golden).iter().map(|s| *s as f32).collect(),
        // The reference lists each level once per call: s0 s1 s1 s2 s2 ... 0.
        "HeunDiscreteScheduler" => golden.f32s("sigmas").into_iter().step_by(2).chain([0.0]).collect(),
        _ => golden.f32s("sigmas"),
    };
    assert_eq!(sigmas.len(), golden.steps() + 1);
    let sigmas = &sigmas[first..];
    let scale = |sigma: f32| if ve { 1.0 } else { (1.0 + f64::from(sigma).powi(2)).sqrt() };

    let start = if first == 0 { golden.f32s("x_init") } else { golden.f32s(&format!("x_{}", first - 1)) };
    let mut x: Vec<f32> = start.iter().map(|z| (f64::from(*z) * scale(sigmas[0])) as f32).collect();
    let mut replay = Replay {
        golden: &golden,
        timesteps: golden.f32s("timesteps"),
        first,
        v_prediction: golden.config("prediction_type") == &json!("v_prediction"),
        inputs: Vec::new(),
        states: Vec::new(),
    };
    let (key, options) = ours(&golden);
    let samplers = Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().copied()).unwrap();
    let mut sampler = (samplers.get(key).unwrap().make)(&options).unwrap();
    let run = Run { sigmas, shape: [1, 1, 1, x.len()], extra: &Value::Null };
    sampler.sample(&run, &mut replay, &mut x).unwrap();
    assert_eq!(first + replay.inputs.len(), golden.calls());
    assert_eq!(replay.states.last(), Some(&x));

    // State after each call: of Heun's two, the first is what its second asks about.
    let ours: Vec<(&Vec<f32>, f32)> = if heun {
        (0..golden.calls())
            .map(|c| {
                if c % 2 == 0 && c + 1 < golden.calls() {
                    &replay.inputs[c + 1]
                } else {
                    &replay.states[c / 2]
                }
            })
            .map(|x| (x, 0.0))
            .collect()
    } else {
        replay.states.iter().zip(sigmas[1..].iter().copied()).collect()
    };
    let (mut worst, mut largest_difference) = (0f64, 0f64);
    let mut largest = start.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    for (i, (x, sigma)) in ours.into_iter().enumerate() {
        let theirs = golden.f32s(&format!("x_{}", first + i));
        assert_eq!(x.len(), theirs.len());
        let size = theirs.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
        let difference = x
            .iter()
            .zip(&theirs)
            .map(|(x, z)| (f64::from(*x) / scale(sigma) - f64::from(*z)).abs())
            .fold(0.0, f64::max);
        assert!(x.iter().all(|v| v.is_finite()), "{name}: state {i}");
        worst = worst.max(difference / size);
        largest_difference = largest_difference.max(difference);
        largest = largest.max(size);
    }
    let of_trajectory = largest_difference / largest;
    println!("{name}: {worst:.1e} of the state, {of_trajectory:.1e} of the trajectory");
    (worst, of_trajectory)
}

macro_rules! follows_diffusers {
    ($($name:ident)*) => {
        mod follows_diffusers {
            $(
                #[test]
                fn $name() {
                    let (worst, _) = super::follow(stringify!($name), 0);
                    assert!(worst <= super::TOLERANCE, "{worst:e}");
                }
            )*
        }
    };
}

follows_diffusers! {
    euler euler_karras euler_exponential euler_trailing euler_linspace euler_vpred
    euler_a euler_a_vpred
    ddim ddim_eta1
    heun heun_karras
    dpmpp_2m dpmpp_2m_karras dpmpp_2m_trailing dpmpp_2m_euler_at_final dpmpp_2m_lu dpmpp_2m_vpred
    unipc unipc_karras unipc_vpred
}

#[test]
fn zero_terminal_snr_is_followed_from_its_second_level_on() {
    // Its first level is pure noise, at an infinite sigma: there is no x0 + sigma n to start from. A host that
    // serves such a model caps the level; what the sampler does from the next one on is exact.
    let (worst, _) = follow("ddim_trailing_vpred_zsnr", 1);
    assert!(worst <= TOLERANCE, "{worst:e}");
}
