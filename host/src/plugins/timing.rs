//! What the boundary costs: the same sampler in this process, on a thread, in a process of its own.

use super::manifest::Isolation;
use super::open;
use super::plugin::Plugin;
use atelier_sdk::{Result, Run, SampleCtx, Sampler};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Latents of Stable Diffusion at 512x512.
const LATENTS: [usize; 4] = [1, 4, 64, 64];
const STEPS: usize = 30;
const RUNS: usize = 200;

/// Median times.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// The sampler that was timed.
    pub sampler: String,
    /// Opening the library in this process for the first time: digest, dlopen, checks.
    pub load_ms: f64,
    /// Starting a process until its sampler is there.
    pub start_process_ms: f64,
    /// A step of one value in this process: the boundary alone.
    pub direct_ns: f64,
    /// A step of 4x64x64 latents in this process: mostly the sampler's own arithmetic.
    pub direct_us: f64,
    /// A step of 4x64x64 latents on a thread.
    pub thread_us: f64,
    /// A step of 4x64x64 latents in a process of its own.
    pub process_us: f64,
}

/// Times the first deterministic sampler of a library; none if it has no such sampler.
///
/// # Errors
/// The library cannot be used in this process, or the sampler fails.
pub fn time(plugin: &Plugin) -> Result<Option<Timing>> {
    let Some(sampler) = plugin.description.samplers.iter().find(|s| !s.stochastic) else { return Ok(None) };
    let (key, options) = (sampler.key.as_str(), json!({}));
    let began = Instant::now();
    let library = open::in_this_process(&plugin.copy, &plugin.sha256, &plugin.build_info)?;
    let load_ms = millis(began.elapsed());
    let mut direct = library.sampler(key, &options)?;
    let isolated = |isolation| -> Result<(f64, Box<dyn Sampler>)> {
        let plugin = Arc::new(Plugin { isolation, ..plugin.clone() });
        let began = Instant::now();
        let sampler = plugin.sampler(key, &options)?;
        Ok((millis(began.elapsed()), sampler))
    };
    let (_, mut thread) = isolated(Isolation::Thread)?;
    let (start_process_ms, mut process) = isolated(Isolation::Process)?;
    Ok(Some(Timing {
        sampler: key.into(),
        load_ms,
        start_process_ms,
        direct_ns: step(direct.as_mut(), [1; 4])? * 1e9,
        direct_us: step(direct.as_mut(), LATENTS)? * 1e6,
        thread_us: step(thread.as_mut(), LATENTS)? * 1e6,
        process_us: step(process.as_mut(), LATENTS)? * 1e6,
    }))
}

fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// A model that costs nothing.
struct Idle;

impl SampleCtx for Idle {
    fn denoise(&mut self, _: &[f32], _: f32, out: &mut [f32]) -> Result<()> {
        // Told apart from "never written" by the compiler, at the cost of one store.
        out[0] = 0.0;
        Ok(())
    }
    fn noise(&mut self, _: f32, _: f32, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        Ok(())
    }
    fn step_done(&mut self, _: usize, _: &[f32]) -> Result<()> {
        Ok(())
    }
    fn cancelled(&self) -> bool {
        false
    }
}

/// Median seconds of a step.
fn step(sampler: &mut dyn Sampler, shape: [usize; 4]) -> Result<f64> {
    let sigmas: Vec<f32> = (0..=STEPS).map(|i| 14.0 * (1.0 - i as f32 / STEPS as f32)).collect();
    let run = Run { sigmas: &sigmas, shape, extra: &Value::Null };
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let mut x = vec![1f32; shape.iter().product()];
        let began = Instant::now();
        sampler.sample(&run, &mut Idle, &mut x)?;
        times.push(began.elapsed().as_secs_f64() / STEPS as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}
