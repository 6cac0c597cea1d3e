//! `atelier doctor`: does this build work on this machine?

use super::args::Doctor;
use super::{Studio, logging, say, say_json};
use crate::{builtin, fsx, machine};
use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::{Error, ErrorKind, Result};
use serde_json::{Value, json};

/// Runs the command. Ends with an error if something that every run needs is broken.
pub fn run(args: &Doctor, studio: &Studio) -> Result<()> {
    let memory = machine::memory();
    let writable = fsx::check_writable(&args.out);
    let models: Vec<Value> = studio.registries.models.iter().map(model_state).collect();
    let devices: Vec<Value> = devices(studio);
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "features": builtin::features(),
        "switched": studio.config.features(),
        "settings": studio.config.file(),
        "configs": studio.paths.configs,
        "cores": machine::cores(),
        "memory": memory.map(|(total, available)| json!({"total": total, "available": available})),
        "devices": devices,
        "models": models,
        "outputs": {"folder": args.out, "writable": writable.is_ok(),
                    "problem": writable.as_ref().err().map(|e| e.chain().join(": "))},
        "log": logging::file(),
    });
    if args.json {
        say_json(&report)?
    } else {
        print(&report, memory)?
    }
    verdict(studio, writable)
}

fn verdict(studio: &Studio, writable: Result<()>) -> Result<()> {
    writable?;
    if studio.paths.configs.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "no config folder was found")
            .hint("name one with `--configs DIR` or ATELIER_CONFIGS"));
    }
    Ok(())
}

fn devices(studio: &Studio) -> Vec<Value> {
    let all = studio.registries.engines.iter().flat_map(|e| {
        // An engine that cannot tell its devices has none that can be used.
        let failed = |e: Error| {
            vec![DeviceInfo { device: "none".into(), available: false, detail: e.chain().join(": ") }]
        };
        e.devices().unwrap_or_else(failed).into_iter().map(|d| {
            json!({"engine": e.about.key, "device": d.device, "available": d.available, "detail": d.detail})
        })
    });
    all.collect()
}

fn model_state(m: &atelier_sdk::model::ModelItem) -> Value {
    let state = match &m.spec.path {
        None => "no files".to_string(),
        Some(p) if p.exists() => "found".to_string(),
        Some(_) if !m.spec.files.is_empty() => format!("not here: atelier models pull {}", m.spec.key),
        Some(p) => format!("missing: {}", p.display()),
    };
    json!({"key": m.spec.key, "path": m.spec.path, "state": state})
}

fn print(report: &Value, memory: Option<(u64, u64)>) -> Result<()> {
    let memory = memory.map_or("unknown memory".to_string(), |(total, free)| {
        format!("{} of memory, {} free", machine::human_bytes(total), machine::human_bytes(free))
    });
    let text = |p: &str| match report.pointer(p) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(a)) => a.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Some(Value::Null) | None => "none".into(),
        Some(v) => v.to_string(),
    };
    say(format_args!("atelier   {} for {}", text("/version"), text("/target")))?;
    say(format_args!("features  {}", text("/features")))?;
    say(format_args!("settings  {} {}", text("/settings"), switches(report)))?;
    say(format_args!("configs   {}", text("/configs")))?;
    say(format_args!("machine   {} cores, {memory}", text("/cores")))?;
    for d in report["devices"].as_array().into_iter().flatten() {
        let word = if d["available"] == true { "ok" } else { "--" };
        let (device, detail) = (d["device"].as_str(), d["detail"].as_str());
        say(format_args!("device    {word} {}: {}", device.unwrap_or_default(), detail.unwrap_or_default()))?;
    }
    for m in report["models"].as_array().into_iter().flatten() {
        let (key, state) = (m["key"].as_str(), m["state"].as_str());
        say(format_args!("model     {}: {}", key.unwrap_or_default(), state.unwrap_or_default()))?;
    }
    let writable = if report["outputs"]["writable"] == true { "writable" } else { "NOT writable" };
    say(format_args!("outputs   {}: {writable}", text("/outputs/folder")))?;
    say(format_args!("log       {}", text("/log")))
}

fn switches(report: &Value) -> String {
    let all = report["switched"].as_object().into_iter().flatten();
    all.map(|(k, v)| format!("{k}={}", if v == &Value::Bool(true) { "on" } else { "off" }))
        .collect::<Vec<_>>()
        .join(" ")
}
