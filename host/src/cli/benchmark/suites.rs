//! The parts of a model's work, each measured by itself.

use super::super::args::{Benchmark, Suite};
use super::super::progress::Progress;
use super::super::{Studio, cancel_on_signal, say_json};
use super::compare::{self, Comparison};
use super::report::{Line, Machine, MemoryOf, Report, SCHEMA_VERSION, Seconds};
use super::{DEFAULT_PRESET, compute, rehearsed, size, whole};
use crate::dispatch::{self, Cancel};
use crate::layers::Source;
use crate::preset::Preset;
use crate::request::{self, Over, Planned, Request};
use crate::{fsx, machine};
use atelier_sdk::{Error, Result, ResultExt};
use serde_json::{Map, Value, json};

/// The task that measures a network by itself.
const TASK: &str = "benchmark";

impl Suite {
    /// As it is typed.
    fn name(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Vae => "vae",
            Self::Text => "text",
            Self::Upscale => "upscale",
            Self::Train => "train",
            Self::E2e => "e2e",
        }
    }

    /// What the engine is asked for, one after the other; a request as a whole is none of it.
    fn works(self) -> &'static [&'static str] {
        match self {
            Self::Unet => &["unet"],
            Self::Vae => &["vae_decode", "vae_encode"],
            Self::Text => &["text"],
            Self::Upscale => &["rrdb", "srvgg"],
            Self::Train => &["train"],
            Self::E2e => &[],
        }
    }
}

/// Measures the suites that are asked for.
pub fn run(args: &Benchmark, studio: &mut Studio) -> Result<()> {
    let has_whole = args.suite.contains(&Suite::E2e);
    let sets = !args.asked.set.is_empty() || !args.asked.param_file.is_empty();
    if sets && !has_whole {
        return Err(Error::invalid("parameters are given, and no suite has a request that they belong to")
            .hint("they are for the suite `e2e`; other suites know --size and --runs"));
    }
    // Before anything is measured: what is wrong here would be found out too late.
    let then = args.compare.as_deref().map(compare::read).transpose()?;
    args.out.as_deref().map_or(Ok(()), fsx::folder_for)?;
    let request = has_whole.then(|| whole(args, studio)).transpose()?;
    let model = match &request {
        Some(request) => model_of(request),
        None => model(args, studio)?,
    };
    let studio = &*studio;
    let planned = request
        .as_ref()
        .map(|request| request::parse_params(request, &studio.registries, &studio.config, 0))
        .transpose()?;
    let bench = Bench { args, studio, model, planned, cancel: cancel_on_signal()? };
    let report = bench.report()?;
    let comparison = then.as_ref().map(|then| compare::compare(&report, then));
    finish(args, &report, comparison.as_ref())
}

/// Prints and writes what was measured.
fn finish(args: &Benchmark, report: &Report, comparison: Option<&Comparison>) -> Result<()> {
    let mut document = serde_json::to_value(report).internal("a report that is not JSON")?;
    for warning in comparison.iter().flat_map(|c| &c.warnings) {
        eprintln!("warning: {warning}");
    }
    if let (Some(comparison), Some(path)) = (comparison, &args.compare) {
        document["compared"] = json!({
            "with": path, "ratios": comparison.ratios, "warnings": comparison.warnings,
        });
    }
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&document).internal("a report that is not JSON")?;
        fsx::write_atomic(path, text.as_bytes())?;
    }
    if args.json {
        return say_json(&document);
    }
    report.say(comparison.map(|c| c.ratios.as_slice()))
}

/// The model that a request means, as far as it says so.
fn model_of(request: &Request) -> Option<String> {
    request.model.clone().or_else(|| request.preset.as_ref().and_then(|p| p.model.clone()))
}

/// The model whose networks are measured where there is no request as a whole.
fn model(args: &Benchmark, studio: &mut Studio) -> Result<Option<String>> {
    if let Some(model) = &args.fake_weights {
        return Ok(Some(model.clone()));
    }
    if let Some(model) = &args.asked.model {
        return studio.registries.adopt_model(model).map(Some);
    }
    let preset = args.asked.preset.as_deref().unwrap_or(DEFAULT_PRESET);
    Ok(Preset::load(preset, &studio.paths)?.model)
}

struct Bench<'a> {
    args: &'a Benchmark,
    studio: &'a Studio,
    model: Option<String>,
    /// The request of the suite `e2e`.
    planned: Option<Planned<'a>>,
    cancel: Cancel,
}

impl Bench<'_> {
    fn report(&self) -> Result<Report> {
        let processor = self.work("peak")?;
        let of = |field: &str| processor[field].as_f64().unwrap_or_default();
        let machine = Machine {
            processor: machine::processor(),
            cores: machine::cores(),
            threads: processor["threads"].as_u64().unwrap_or_default(),
            peak_one: of("peak_one"),
            peak: of("peak"),
        };
        let mut lines = Vec::new();
        for suite in &self.args.suite {
            for work in suite.works() {
                lines.push(self.with_memory(|| self.part(*suite, work))?);
            }
            if let (Suite::E2e, Some(planned)) = (suite, &self.planned) {
                lines.push(self.with_memory(|| self.e2e(planned))?);
            }
        }
        Ok(Report {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            machine,
            model: self.model.clone(),
            fake_weights: self.args.fake_weights.is_some(),
            lines,
        })
    }

    /// A line, with the peak of the memory that it alone took where the system can tell.
    fn with_memory(&self, line: impl FnOnce() -> Result<Line>) -> Result<Line> {
        let reset = machine::reset_peak_memory();
        let line = line()?;
        Ok(Line { peak_memory_of: if reset { MemoryOf::Line } else { MemoryOf::Process }, ..line })
    }

    /// What the engine measures.
    fn part(&self, suite: Suite, work: &str) -> Result<Line> {
        let facts = self.work(work)?;
        let read = |field: &str| facts[field].clone();
        let wrong = "an engine that measures otherwise";
        let seconds: Vec<f64> = serde_json::from_value(read("seconds")).internal(wrong)?;
        let peaks: Option<[f64; 2]> = serde_json::from_value(read("peaks")).internal(wrong)?;
        let name = facts["name"].as_str().unwrap_or(work).to_string();
        let operations = facts["operations"]["total"].as_u64();
        Ok(Line::new((suite.name(), name), &facts, Seconds::of(seconds)?, operations, peaks))
    }

    /// Asks the engine to measure something.
    fn work(&self, work: &str) -> Result<Value> {
        let mut params =
            Map::from_iter([("work".to_string(), json!(work)), ("runs".to_string(), json!(self.args.runs))]);
        if let Some(size) = self.args.size {
            params.insert("width".into(), json!(size));
            params.insert("height".into(), json!(size));
        }
        let over = vec![Over::Map(params, Source::CommandLine, String::new())];
        let model = self.model.clone();
        let request = Request { task: Some(TASK.into()), model, over, ..Request::default() };
        let (registries, config) = (&self.studio.registries, &self.studio.config);
        let planned = request::parse_params(&request, registries, config, 0)?;
        let mut progress = Progress::new(self.args.json);
        let result =
            dispatch::run_tool(&planned, compute(self.args), registries, &mut progress, &self.cancel);
        for warning in progress.finish() {
            eprintln!("warning: {warning}");
        }
        result
    }

    /// A request as a whole, loading included.
    fn e2e(&self, planned: &Planned<'_>) -> Result<Line> {
        let before = self.work("peak")?;
        let (mut seconds, mut facts) = (Vec::new(), Value::Null);
        for _ in 0..self.args.runs {
            let (watch, said) = rehearsed(planned, compute(self.args), self.studio, &self.cancel)?;
            seconds.push(watch.total);
            facts = said;
        }
        let after = self.work("peak")?;
        let on_processor = facts["device"].as_str().is_some_and(|device| device.starts_with("cpu"));
        let peaks = before["peak"].as_f64().zip(after["peak"].as_f64()).filter(|_| on_processor);
        let peaks = peaks.map(|(before, after)| [before, after]);
        facts["made_up"] = json!(self.args.fake_weights.is_some());
        let name = format!("{}, {} steps, {}", planned.task, planned.plan["steps"], size(planned));
        let operations = facts["operations"].as_u64();
        Ok(Line::new((Suite::E2e.name(), name), &facts, Seconds::of(seconds)?, operations, peaks))
    }
}
