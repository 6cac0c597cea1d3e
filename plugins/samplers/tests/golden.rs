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
        // Every reference draws after the evaluation of the same call.
        let call = self.first + self.inputs.len() - 1;
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
        "DDPMScheduler" => ("ddpm", json!({})),
        "PNDMScheduler" => ("pndm", json!({})),
        "LMSDiscreteScheduler" => ("lms", json!({})),
        "KDPM2DiscreteScheduler" => ("dpm2", json!({})),
        "KDPM2AncestralDiscreteScheduler" => ("dpm2_a", json!({})),
        "DPMSolverSDEScheduler" => ("dpmpp_sde", json!({})),
        "DEISMultistepScheduler" => ("deis", json!({})),
        "LCMScheduler" => ("lcm", json!({})),
        "TCDScheduler" => ("tcd", set(&[("eta", golden.step_kwarg("eta"))])),
        "DPMSolverMultistepScheduler" if golden.config("algorithm_type") == &json!("sde-dpmsolver++") => {
            ("dpmpp_2m_sde", json!({}))
        }
        // Without noise, with the lower orders that diffusers has at both ends of so short a run.
        "DPMSolverMultistepScheduler" if golden.config("solver_order") == &json!(3) => {
            ("dpmpp_3m_sde", json!({"eta": 0.0, "solver_type": "midpoint", "lower_order_final": true}))
        }
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

/// Levels of schedulers that keep none: they follow from the timesteps and the table of the training.
fn levels_of_timesteps(golden: &Golden) -> Vec<f64> {
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
    let mut timesteps = golden.f32s("timesteps");
    // PLMS evaluates twice at its second level.
    timesteps.dedup();
    let to_one = golden.config("set_alpha_to_one") != &json!(false);
    let last = timesteps[timesteps.len() - 1] as i64 - (betas.len() / golden.steps()) as i64;
    let last = match (golden.class(), usize::try_from(last)) {
        // Its last step gives the image; TCD's goes to timestep 0.
        ("LCMScheduler", _) => 0.0,
        ("TCDScheduler", _) => sigma(0),
        (_, Ok(t)) => sigma(t),
        (_, Err(_)) if to_one => 0.0,
        (_, Err(_)) => sigma(0),
    };
    timesteps.iter().map(|t| sigma(*t as usize)).chain([last]).collect()
}

/// How the calls of a reference lie in the steps of a run.
#[derive(Clone, Copy, PartialEq)]
enum Calls {
    /// One for each step.
    One,
    /// Two for each step but the last: the state after the first is what the second asks about.
    Two,
    /// Two for the first step, then one.
    TwoAtFirst,
}

impl Calls {
    fn of(golden: &Golden) -> Self {
        match golden.class() {
            "HeunDiscreteScheduler"
            | "KDPM2DiscreteScheduler"
            | "KDPM2AncestralDiscreteScheduler"
            | "DPMSolverSDEScheduler" => Self::Two,
            "PNDMScheduler" => Self::TwoAtFirst,
            _ => Self::One,
        }
    }

    /// Our state after each call, with its level.
    fn states<'a>(self, replay: &'a Replay<'_>, sigmas: &[f32]) -> Vec<(&'a Vec<f32>, f32)> {
        let state = |i: usize| (&replay.states[i], sigmas[i + 1]);
        (0..replay.inputs.len())
            .map(|call| match self {
                // The level between is not known here, and not needed: these live in our space.
                Self::Two if call % 2 == 0 && call + 1 < replay.inputs.len() => {
                    (&replay.inputs[call + 1], 0.0)
                }
                Self::Two => state(call / 2),
                Self::TwoAtFirst if call == 0 => (&replay.inputs[1], sigmas[1]),
                Self::TwoAtFirst => state(call - 1),
                Self::One => state(call),
            })
            .collect()
    }
}

/// Whether a reference lives in our space.
fn is_ve(golden: &Golden) -> bool {
    let ve = ["Euler", "Heun", "KDPM2", "LMS", "DPMSolverSDE"];
    ve.iter().any(|class| golden.class().starts_with(class))
}

/// Runs our sampler along the reference, from its call `first` on; returns the worst error of a state relative
/// to the largest value of that state, and of the whole trajectory.
fn follow(name: &str, first: usize) -> (f64, f64) {
    let golden = Golden::read(name);
    let (calls, ve) = (Calls::of(&golden), is_ve(&golden));
    let sigmas: Vec<f32> = match golden.class() {
        "DDIMScheduler" | "DDPMScheduler" | "PNDMScheduler" | "LCMScheduler" | "TCDScheduler" => {
            levels_of_timesteps(&golden).iter().map(|s| *s as f32).collect()
        }
        // These list each level once per call: s0 s1 s1 s2 s2 ... 0.
        _ if calls == Calls::Two => {
            golden.f32s("sigmas").into_iter().step_by(2).take(golden.steps()).chain([0.0]).collect()
        }
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
    let run = Run { sigmas, shape: [1, 1, 1, x.len()], extra: &Value::Null };
    sampler(key, &options).sample(&run, &mut replay, &mut x).unwrap();
    assert_eq!(first + replay.inputs.len(), golden.calls());
    assert_eq!(replay.states.last(), Some(&x));

    let ours = calls.states(&replay, sigmas);
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
    ddpm pndm lms lms_karras kdpm2 kdpm2_a
    dpmpp_sde dpmpp_sde_karras dpmpp_2m_sde dpmpp_2m_sde_karras dpmpp_3m
    deis lcm lcm_8 tcd euler_beta
}

#[test]
fn zero_terminal_snr_is_followed_from_its_second_level_on() {
    // Its first level is pure noise, at an infinite sigma: there is no x0 + sigma n to start from. A host that
    // serves such a model caps the level; what the sampler does from the next one on is exact.
    let (worst, _) = follow("ddim_trailing_vpred_zsnr", 1);
    assert!(worst <= TOLERANCE, "{worst:e}");
}

/// Our sampler by key, made.
fn sampler(key: &str, options: &Value) -> Box<dyn atelier_sdk::Sampler> {
    let samplers = Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().copied()).unwrap();
    (samplers.get(key).unwrap().make)(options).unwrap()
}

fn error_of_state(ours: &[f32], scale: f64, theirs: &[f32]) -> f64 {
    let size = theirs.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    let apart = ours.iter().zip(theirs).map(|(x, z)| (f64::from(*x) / scale - f64::from(*z)).abs());
    apart.fold(0.0, f64::max) / size
}

/// The reference takes its second evaluation at the next level of the run, so that two of its steps are one of
/// ours, with the option `r` that puts the middle there. It ends with two steps of order 1, which have no middle.
fn follow_in_pairs(name: &str) -> f64 {
    let golden = Golden::read(name);
    let (sigmas, timesteps) = (golden.f32s("sigmas"), golden.f32s("timesteps"));
    let vp = |sigma: f32| (1.0 + f64::from(sigma).powi(2)).sqrt();
    let log = |i: usize| f64::from(sigmas[i]).ln();
    let mut x: Vec<f32> =
        golden.f32s("x_init").iter().map(|z| (f64::from(*z) * vp(sigmas[0])) as f32).collect();
    let mut worst = 0f64;
    for (i, order) in [(0, 2), (2, 2), (4, 2), (6, 2), (8, 1), (9, 1)] {
        let r = if order == 2 { (log(i + 1) - log(i)) / (log(i + 2) - log(i)) } else { 0.5 };
        let run = [sigmas[i], sigmas[i + order]];
        let mut replay = Replay {
            golden: &golden,
            timesteps: timesteps.clone(),
            first: i,
            v_prediction: false,
            inputs: Vec::new(),
            states: Vec::new(),
        };
        let (key, options) =
            if order == 2 { ("dpmpp_2s_a", json!({"eta": 0.0, "r": r})) } else { ("dpmpp_2m", json!({})) };
        let run = Run { sigmas: &run, shape: [1, 1, 1, x.len()], extra: &Value::Null };
        sampler(key, &options).sample(&run, &mut replay, &mut x).unwrap();
        if order == 2 {
            let middle = golden.f32s(&format!("x_{i}"));
            worst = worst.max(error_of_state(&replay.inputs[1], vp(sigmas[i + 1]), &middle));
        }
        let end = golden.f32s(&format!("x_{}", i + order - 1));
        worst = worst.max(error_of_state(&x, vp(sigmas[i + order]), &end));
    }
    println!("{name}: {worst:.1e} of the state");
    worst
}

#[test]
fn two_steps_of_the_single_step_solver_are_one_of_dpmpp_2s_without_noise() {
    assert!(follow_in_pairs("dpmpp_2s") <= TOLERANCE);
    assert!(follow_in_pairs("dpmpp_2s_karras") <= TOLERANCE);
}

/// A flow model: `z = (1 - s) x0 + s n`, so that in our space `x = z / (1 - s)` at the level `s / (1 - s)`.
struct Flow {
    timesteps: Vec<f32>,
    states: Vec<Vec<f32>>,
}

impl SampleCtx for Flow {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        let t = f64::from(self.timesteps[self.states.len() + 1]);
        let s = f64::from(sigma) / (1.0 + f64::from(sigma));
        for (out, x) in out.iter_mut().zip(x) {
            let z = f64::from(*x) * (1.0 - s);
            *out = (z - s * 0.9 * (0.7 * z + 0.2 * (0.01 * t).sin()).tanh()) as f32;
        }
        Ok(())
    }
    fn noise(&mut self, _from: f32, _to: f32, _out: &mut [f32]) -> Result<()> {
        panic!("Euler draws no noise");
    }
    fn step_done(&mut self, _i: usize, x: &[f32]) -> Result<()> {
        self.states.push(x.to_vec());
        Ok(())
    }
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_flow_is_followed_from_its_second_level_on() {
    // Its first is pure noise, at an infinite level of our space.
    let golden = Golden::read("flow_euler");
    let flow = golden.f32s("sigmas");
    let sigmas: Vec<f32> = flow[1..].iter().map(|s| s / (1.0 - s)).collect();
    let start = golden.f32s("x_0");
    let mut x: Vec<f32> = start.iter().map(|z| z / (1.0 - flow[1])).collect();
    let mut ctx = Flow { timesteps: golden.f32s("timesteps"), states: Vec::new() };
    let run = Run { sigmas: &sigmas, shape: [1, 1, 1, x.len()], extra: &Value::Null };
    sampler("euler", &json!({})).sample(&run, &mut ctx, &mut x).unwrap();
    let error = |(i, x): (usize, &Vec<f32>)| {
        let theirs = golden.f32s(&format!("x_{}", i + 1));
        error_of_state(x, 1.0 / (1.0 - f64::from(flow[i + 2])), &theirs)
    };
    assert_eq!(ctx.states.len() + 1, golden.steps());
    let worst = ctx.states.iter().enumerate().map(error).fold(0.0, f64::max);
    println!("flow_euler: {worst:.1e} of the state");
    assert!(worst <= TOLERANCE, "{worst:e}");
}
