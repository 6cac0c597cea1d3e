//! The tests that a plugin author writes, in a crate that depends on the sdk alone.
#![cfg(feature = "testkit")]

use atelier_sdk::schemars::JsonSchema;
use atelier_sdk::serde::{Deserialize, Serialize};
use atelier_sdk::{Error, NoiseLevels, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use atelier_sdk::{Schedule, ScheduleInfo, SchedulePlugin};

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields, crate = "atelier_sdk::serde")]
#[schemars(crate = "atelier_sdk::schemars")]
struct TangentOptions {
    /// Whether the tangent is that at the middle of the step.
    middle: bool,
}

/// A straight step along the tangent at its start, or at its middle.
struct Tangent(TangentOptions);

impl Sampler for Tangent {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let possible = run.sigmas.iter().all(|s| s.is_finite() && *s >= 0.0);
        if !possible || !run.sigmas.windows(2).all(|w| w[0] > w[1]) {
            return Err(Error::invalid("the levels of a run must be finite and descend"));
        }
        let mut d = vec![0f32; x.len()];
        for (i, pair) in run.sigmas.windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            let step = |x: &[f32], d: &[f32], at: f32, way: f32| -> Vec<f32> {
                x.iter().zip(d).map(|(x, d)| (x - d) / at * way).collect()
            };
            ctx.denoise(x, from, &mut d)?;
            let mut way = step(x, &d, from, to - from);
            if self.0.middle && to > 0.0 {
                let middle = (from * to).sqrt();
                let half = step(x, &d, from, middle - from);
                let half: Vec<f32> = x.iter().zip(half).map(|(x, h)| x + h).collect();
                ctx.denoise(&half, middle, &mut d)?;
                // The tangent belongs to ln sigma, whose middle this is.
                way = step(&half, &d, 1.0, (to / from).ln());
            }
            x.iter_mut().zip(way).for_each(|(x, w)| *x += w);
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Tangent {
    const INFO: SamplerInfo = SamplerInfo {
        key: "tangent",
        title: "Tangent",
        summary: "A straight step.",
        aliases: &[],
        evaluations: 1,
        order: 1,
        stochastic: false,
        source: "Euler",
    };
    type Options = TangentOptions;

    fn new(options: TangentOptions) -> Result<Self> {
        Ok(Self(options))
    }
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields, crate = "atelier_sdk::serde")]
#[schemars(crate = "atelier_sdk::schemars")]
struct LineOptions {
    /// The highest level; the model's own when absent.
    sigma_max: Option<f64>,
}

/// Equal steps in sigma.
struct Line(LineOptions);

impl Schedule for Line {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let max = self.0.sigma_max.unwrap_or(levels.max());
        Ok((0..=steps).map(|i| (max * (1.0 - i as f64 / steps as f64)) as f32).collect())
    }
}

impl SchedulePlugin for Line {
    const INFO: ScheduleInfo =
        ScheduleInfo { key: "line", title: "Line", summary: "A line.", aliases: &[], source: "" };
    type Options = LineOptions;

    fn new(options: LineOptions) -> Result<Self> {
        Ok(Self(options))
    }
}

atelier_sdk::sampler_conformance!(Tangent);
atelier_sdk::sampler_conformance!(mod middle, Tangent, {"middle": true}, order = 2, evaluations = 2);
atelier_sdk::schedule_conformance!(Line);
atelier_sdk::schedule_conformance!(mod lower, Line, {"sigma_max": 5.0});
