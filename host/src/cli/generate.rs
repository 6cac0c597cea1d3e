//! `atelier generate`.

use super::args::{Asked, Generate};
use super::progress::Progress;
use super::{Studio, cancel_on_signal, say, say_json};
use crate::dispatch::{self, Compute};
use crate::layers::Source;
use crate::preset::Preset;
use crate::request::{self, Over, Planned, Request};
use crate::{fsx, json, sink};
use atelier_sdk::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

impl Asked {
    /// The request as typed, over what `--like` recorded.
    pub fn request(&self, like: Option<&Path>, studio: &mut Studio) -> Result<Request> {
        let mut request = Request::default();
        if let Some(name) = &self.preset {
            request.preset = Some(Preset::load(name, &studio.paths)?);
        }
        if let Some(path) = like {
            let recorded = sink::read_back(path, &studio.registries)?;
            for name in &recorded.left_out {
                tracing::warn!(
                    setting = name,
                    "a setting of the image has no counterpart here and is left out"
                );
            }
            for (name, sha256) in &recorded.plugins {
                warn_about(name, sha256, studio);
            }
            request.task = Some(recorded.task);
            request.engine = recorded.engine;
            request.model = recorded.model;
            let source = Source::Like(path.display().to_string());
            request.over.push(Over::Map(recorded.params, source, String::new()));
        }
        request.task = self.task.clone().or(request.task);
        request.engine = self.engine.clone().or(request.engine);
        let model = self.model.clone().or(request.model);
        request.model = model.map(|m| studio.registries.adopt_model(&m)).transpose()?;
        for path in &self.param_file {
            request.over.push(request::param_file(path)?);
        }
        request.over.extend(self.set.iter().cloned().map(Over::Set));
        Ok(request)
    }

    /// Where and how to compute.
    pub fn compute(&self) -> Compute {
        Compute { device: self.device, dtype: self.dtype, fake_weights: false }
    }
}

/// Says so when a plugin that made an image is not here, or not the same.
fn warn_about(name: &str, sha256: &str, studio: &Studio) {
    let brief = &sha256[..sha256.len().min(12)];
    match studio.registries.plugins.iter().find(|p| p.name == name) {
        Some(p) if p.sha256 == sha256 => {}
        Some(_) => {
            eprintln!("warning: plugin `{name}` is not the one that made the image (sha256 {brief}...)")
        }
        None => eprintln!(
            "warning: plugin `{name}` (sha256 {brief}...), which made the image, is not in use here"
        ),
    }
}

/// Says so when a file of the model is not the one that made the image.
fn warn_about_files(recorded: &BTreeMap<String, String>, used: &BTreeMap<String, String>) {
    for (role, sha256) in used {
        if let Some(other) = recorded.get(role).filter(|other| *other != sha256) {
            let brief = |sha256: &str| sha256.chars().take(12).collect::<String>();
            eprintln!(
                "warning: the model's {role} (sha256 {}...) is not the one that made the image ({}...)",
                brief(sha256),
                brief(other)
            );
        }
    }
}

/// Runs the command.
pub fn run(args: &Generate, studio: &mut Studio) -> Result<()> {
    let request = args.asked.request(args.like.as_deref(), studio)?;
    if request.preset.is_none() && args.like.is_none() && request.task.is_none() {
        return Err(Error::invalid("nothing is asked for")
            .hint("try `--preset txt2img/basic`; `atelier presets list` shows all"));
    }
    let planned = request::parse_params(&request, &studio.registries, &studio.config, request::entropy()?)?;
    if args.dry_run {
        return show(&planned, args.json);
    }
    fsx::check_writable(&args.out)?;
    let cancel = cancel_on_signal()?;
    let mut progress = Progress::new(args.json);
    let result =
        dispatch::run(&planned, args.asked.compute(), &args.out, &studio.registries, &mut progress, &cancel);
    for warning in progress.finish() {
        eprintln!("warning: {warning}");
    }
    let outcome = result?;
    if let Some(path) = &args.like {
        warn_about_files(&sink::read_back(path, &studio.registries)?.model_files, &outcome.model_files);
    }
    if args.json {
        return say_json(
            &json!({"folder": outcome.dir, "images": outcome.images, "facts": outcome.facts, "params": planned.plan}),
        );
    }
    Ok(())
}

/// Prints a plan: every parameter with who set it.
fn show(planned: &Planned<'_>, as_json: bool) -> Result<()> {
    if as_json {
        return say_json(&json!({
            "task": planned.task, "engine": planned.engine_name, "model": planned.model.map(|m| &m.spec.key),
            "preset": planned.preset, "params": planned.plan,
        }));
    }
    say(format_args!("task   {}", planned.task))?;
    say(format_args!("engine {}", planned.engine_name))?;
    say(format_args!("model  {}", planned.model.map_or("-", |m| m.spec.key.as_str())))?;
    let Some(plan) = planned.plan.as_object() else { return Ok(()) };
    for (pointer, value) in json::leaves(plan) {
        let source = planned.layers.source(&pointer).map(Source::to_string);
        let drawn = planned.layers.values().pointer_value(&pointer) != Some(value);
        let note = if drawn { ", then planned" } else { "" };
        say(format_args!(
            "  {:<20} {:<30} {}{note}",
            &pointer[1..],
            json::brief(value),
            source.unwrap_or_else(|| "plan".into())
        ))?;
    }
    Ok(())
}

trait PointerValue {
    fn pointer_value(&self, pointer: &str) -> Option<&Value>;
}

impl PointerValue for serde_json::Map<String, Value> {
    fn pointer_value(&self, pointer: &str) -> Option<&Value> {
        let mut parts = pointer.split('/').skip(1);
        let mut at = self.get(parts.next()?)?;
        for part in parts {
            at = at.get(part)?;
        }
        Some(at)
    }
}
