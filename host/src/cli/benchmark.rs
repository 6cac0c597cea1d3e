//! `atelier benchmark`: seconds per step and memory of a real run, or of the parts of one.

mod compare;
mod report;
mod suites;

use super::args::Benchmark;
use super::{Studio, cancel_on_signal, say, say_json};
use crate::dispatch::{self, Cancel, Compute, Observer};
use crate::machine;
use crate::preset::Preset;
use crate::request::{self, Over, Planned, Request};
use atelier_sdk::{Event, Result, Stage};
use serde_json::{Value, json};
use std::time::Instant;

/// The preset that is measured when none is named.
const DEFAULT_PRESET: &str = "txt2img/basic";

/// Runs the command.
pub fn run(args: &Benchmark, studio: &mut Studio) -> Result<()> {
    if !args.suite.is_empty() {
        return suites::run(args, studio);
    }
    let request = whole(args, studio)?;
    let planned = request::parse_params(&request, &studio.registries, &studio.config, 0)?;
    let compute = compute(args);
    let cancel = cancel_on_signal()?;
    let (watch, facts) = rehearsed(&planned, compute, studio, &cancel)?;
    let mut steps = watch.steps.clone();
    steps.sort_by(f64::total_cmp);
    let median = steps.get(steps.len() / 2).copied().unwrap_or(f64::NAN);
    let model = planned.model.map_or("-", |m| m.spec.key.as_str());
    let result = json!({
        "model": model,
        "fake_weights": compute.fake_weights,
        "device": facts["device"],
        "size": size(&planned),
        "steps": steps.len(),
        "seconds": {"load": watch.load, "encode": watch.encode, "step_median": median,
            "step_min": steps.first(), "step_max": steps.last(), "decode": watch.decode,
            "total": watch.total},
        "peak_memory": machine::peak_memory(),
        "params": planned.plan,
    });
    if args.json {
        return say_json(&result);
    }
    say(format_args!(
        "{} {} on {}: load {:.2} s, prompt {:.2} s, {:.3} s per step (median of {}), decode {:.2} s, peak memory {}",
        model,
        result["size"].as_str().unwrap_or_default(),
        facts["device"].as_str().unwrap_or_default(),
        watch.load,
        watch.encode,
        median,
        steps.len(),
        watch.decode,
        machine::peak_memory().map_or("unknown".into(), machine::human_bytes),
    ))
}

/// The request that is measured as a whole.
fn whole(args: &Benchmark, studio: &mut Studio) -> Result<Request> {
    let mut request = args.asked.request(None, studio)?;
    if request.preset.is_none() {
        request.preset = Some(Preset::load(DEFAULT_PRESET, &studio.paths)?);
    }
    if let Some(model) = &args.fake_weights {
        request.model = Some(model.clone());
        // The preset's size suits the preset's model, not this one: fall back to the model's own.
        for layer in request.preset.iter_mut().flat_map(|p| &mut p.layers) {
            layer.params.shift_remove("width");
            layer.params.shift_remove("height");
        }
    }
    let sides = args.size.iter().flat_map(|n| [format!("width={n}"), format!("height={n}")]);
    let mut over: Vec<Over> =
        std::iter::once(format!("steps={}", args.steps)).chain(sides).map(Over::Set).collect();
    // What was typed goes over these.
    over.append(&mut request.over);
    request.over = over;
    Ok(request)
}

fn compute(args: &Benchmark) -> Compute {
    Compute { fake_weights: args.fake_weights.is_some(), ..args.asked.compute() }
}

/// `512x512`.
fn size(planned: &Planned<'_>) -> String {
    format!("{}x{}", planned.plan["width"], planned.plan["height"])
}

/// Runs a plan by the clock. Gives what the engine says about it as well.
fn rehearsed(
    planned: &Planned<'_>,
    compute: Compute,
    studio: &Studio,
    cancel: &Cancel,
) -> Result<(Stopwatch, Value)> {
    let mut watch = Stopwatch::new();
    let facts = dispatch::rehearse(planned, compute, &studio.registries, &mut watch, cancel)?;
    watch.close();
    watch.total = watch.start.elapsed().as_secs_f64();
    Ok((watch, facts))
}

/// Adds up where the time goes.
struct Stopwatch {
    start: Instant,
    stage: Option<(Stage, Instant)>,
    load: f64,
    encode: f64,
    decode: f64,
    /// Of the whole run, once it is over.
    total: f64,
    steps: Vec<f64>,
}

impl Stopwatch {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            stage: None,
            load: 0.0,
            encode: 0.0,
            decode: 0.0,
            total: 0.0,
            steps: Vec::new(),
        }
    }

    fn close(&mut self) {
        if let Some((stage, since)) = self.stage.take() {
            let seconds = since.elapsed().as_secs_f64();
            match stage {
                Stage::Load => self.load += seconds,
                Stage::Encode => self.encode += seconds,
                Stage::Decode => self.decode += seconds,
                _ => {}
            }
        }
    }
}

impl Observer for Stopwatch {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stage { stage } => {
                self.close();
                self.stage = Some((*stage, Instant::now()));
            }
            Event::Step { seconds, .. } => self.steps.push(*seconds),
            _ => {}
        }
    }
}
