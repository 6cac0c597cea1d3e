//! What a sampler must do whatever its formula is, checked from outside through its registration.

use atelier_sdk::rng::{NormalRng, RngKind};
use atelier_sdk::{Error, Keyed, Registry, Result, Run, SampleCtx, Sampler, SamplerReg, inventory};
use serde_json::Value;

/// Values per image of the runs of this kit.
pub const IMAGE: usize = 24;

/// The sampler under `key`, made as the host makes it.
pub fn make(key: &str, options: &Value) -> Box<dyn Sampler> {
    let all = Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().copied()).unwrap();
    let reg = *all.get(key).unwrap();
    assert_eq!(reg.key(), key, "not under an alias");
    (reg.make)(options).unwrap()
}

type Model = Box<dyn FnMut(usize, &[f32], f32, &mut [f32]) -> Result<()>>;

/// A host that counts, and fails on request.
pub struct Probe {
    /// `model(call, x, sigma, out)`.
    pub model: Model,
    /// A generator for each image of the batch.
    pub rngs: Vec<NormalRng>,
    /// Model evaluations so far, and their levels.
    pub evaluated: Vec<f32>,
    /// Calls of `noise`.
    pub noises: usize,
    /// Steps reported as done, in order.
    pub done: Vec<usize>,
    /// Where `noise` and `step_done` fail: the call with this number, from 0.
    pub noise_fails_at: Option<usize>,
    /// See `noise_fails_at`.
    pub step_fails_at: Option<usize>,
}

/// An error that could not be mistaken for another.
pub fn odd_error() -> Error {
    Error::new(atelier_sdk::ErrorKind::Environment, "the probe failed").hint("it was asked to")
}

impl Probe {
    /// A host with `model` and one image per seed.
    pub fn new(
        seeds: &[u64],
        model: impl FnMut(usize, &[f32], f32, &mut [f32]) -> Result<()> + 'static,
    ) -> Self {
        Self {
            model: Box::new(model),
            rngs: seeds.iter().map(|s| NormalRng::new(RngKind::Cpu, *s)).collect(),
            evaluated: Vec::new(),
            noises: 0,
            done: Vec::new(),
            noise_fails_at: None,
            step_fails_at: None,
        }
    }

    /// A host whose data is standard normal, so that the ideal denoiser is known.
    pub fn gaussian(seeds: &[u64]) -> Self {
        Self::new(seeds, |_, x, sigma, out| {
            let shrink = 1.0 / (1.0 + f64::from(sigma).powi(2));
            out.iter_mut().zip(x).for_each(|(o, x)| *o = (f64::from(*x) * shrink) as f32);
            Ok(())
        })
    }
}

impl SampleCtx for Probe {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        assert_eq!(x.len(), out.len());
        assert!(sigma > 0.0, "a model cannot be evaluated at level {sigma}");
        let call = self.evaluated.len();
        self.evaluated.push(sigma);
        (self.model)(call, x, sigma, out)
    }

    fn noise(&mut self, sigma_from: f32, sigma_to: f32, out: &mut [f32]) -> Result<()> {
        assert_ne!(sigma_from, sigma_to);
        self.noises += 1;
        if self.noise_fails_at == Some(self.noises - 1) {
            return Err(odd_error());
        }
        let image = out.len() / self.rngs.len();
        out.chunks_mut(image).zip(&mut self.rngs).for_each(|(o, rng)| rng.fill_normal(o));
        Ok(())
    }

    fn step_done(&mut self, i: usize, _x: &[f32]) -> Result<()> {
        self.done.push(i);
        if self.step_fails_at == Some(i) { Err(odd_error()) } else { Ok(()) }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// `steps + 1` levels from 14 down to `last`, equally spaced in log sigma, with a 0 in place of the last level
/// when `last` is 0.
pub fn levels(steps: usize, last: f32) -> Vec<f32> {
    let end = if last > 0.0 { f64::from(last) } else { 0.05 };
    let ratio = (end / 14.0).ln();
    let mut sigmas: Vec<f32> =
        (0..=steps).map(|i| (14.0 * (ratio * i as f64 / steps as f64).exp()) as f32).collect();
    if last == 0.0 {
        sigmas[steps] = 0.0;
    }
    sigmas
}

/// Starting noise for one image per seed.
pub fn start(seeds: &[u64], sigma: f32, image: usize) -> Vec<f32> {
    let mut x = vec![0f32; seeds.len() * image];
    for (x, seed) in x.chunks_mut(image).zip(seeds) {
        NormalRng::new(RngKind::Cpu, seed + 1000).fill_normal(x);
    }
    x.iter_mut().for_each(|x| *x *= sigma);
    x
}

/// Runs a sampler from `x`.
pub fn run(sampler: &mut dyn Sampler, ctx: &mut Probe, sigmas: &[f32], mut x: Vec<f32>) -> Result<Vec<f32>> {
    let images = ctx.rngs.len();
    let run = Run { sigmas, shape: [images, 1, 1, x.len() / images], extra: &Value::Null };
    sampler.sample(&run, ctx, &mut x)?;
    Ok(x)
}

/// How fast the error against the exact solution for standard normal data, `x(s) = x(S) sqrt((1 + s^2) / (1 + S^2))`,
/// falls when the number of steps doubles.
pub fn convergence(key: &str, options: &Value) -> f64 {
    // Down to 1 only: the first terms of the error change sign near the image, and hide the order.
    let error = |steps| {
        let sigmas = levels(steps, 1.0);
        let x = run(&mut *make(key, options), &mut Probe::gaussian(&[1]), &sigmas, vec![10.0]).unwrap()[0];
        let exact = 10.0 * (2.0f64 / (1.0 + 14.0 * 14.0)).sqrt();
        ((f64::from(x) - exact) / exact).abs()
    };
    let (coarse, fine): (f64, f64) = (error(16), error(64));
    println!("{key} {options}: error {coarse:.2e} with 16 steps, {fine:.2e} with 64");
    (coarse / fine).log2() / 2.0
}
