//! The lists: plugins, engines, tasks, samplers, schedules, models.

use super::args::List;
use super::{Studio, say, say_json};
use crate::builtin;
use atelier_sdk::Result;
use serde_json::{Value, json};

/// Prints rows in aligned columns.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let width =
        |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([head[i].len()]).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}", w = *w)).collect();
        padded.join("  ").trim_end().to_string()
    };
    say(line(&head.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
    rows.iter().try_for_each(|r| say(line(r)))
}

fn show(list: &List, head: &[&str], rows: Vec<Vec<String>>, values: Vec<Value>) -> Result<()> {
    if list.action.json() { say_json(&Value::Array(values)) } else { table(head, rows) }
}

/// `atelier plugins list`: everything that is plugged in, and what was left out of the build.
pub fn plugins(list: &List, studio: &Studio) -> Result<()> {
    let r = &studio.registries;
    let mut found: Vec<(&str, String, String)> = Vec::new();
    found.extend(r.tasks.iter().map(|t| ("task", t.info.key.to_string(), t.origin.to_string())));
    found.extend(r.engines.iter().map(|e| ("engine", e.info.key.to_string(), e.origin.to_string())));
    found.extend(r.samplers.iter().map(|s| ("sampler", s.info.key.to_string(), s.origin.to_string())));
    found.extend(r.schedules.iter().map(|s| ("schedule", s.info.key.to_string(), s.origin.to_string())));
    found.extend(r.models.iter().map(|m| ("model", m.spec.key.clone(), m.origin.clone())));
    let left_out = builtin::OPTIONAL.iter().filter(|o| !o.compiled && o.kind != "device");
    let mut rows: Vec<Vec<String>> =
        found.iter().map(|(k, key, o)| vec![k.to_string(), key.clone(), o.clone()]).collect();
    let mut values: Vec<Value> = found
        .iter()
        .map(|(k, key, o)| json!({"kind": k, "key": key, "origin": o, "compiled": true}))
        .collect();
    for o in left_out {
        rows.push(vec![
            o.kind.into(),
            o.key.into(),
            format!("not compiled in: rebuild with `--features {}`", o.feature),
        ]);
        values.push(json!({"kind": o.kind, "key": o.key, "feature": o.feature, "compiled": false}));
    }
    show(list, &["KIND", "KEY", "FROM"], rows, values)
}

/// `atelier engines list`.
pub fn engines(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for e in &studio.registries.engines {
        let mut tasks: Vec<_> = e.tasks.iter().map(|t| t.task.key).collect();
        tasks.sort_unstable();
        rows.push(vec![e.info.key.into(), tasks.join(", "), e.info.title.into()]);
        values.push(json!({"key": e.info.key, "title": e.info.title, "summary": e.info.summary,
            "tasks": tasks, "architectures": e.info.architectures, "devices": (e.devices)(), "origin": e.origin}));
    }
    show(list, &["ENGINE", "TASKS", "TITLE"], rows, values)
}

/// `atelier tasks list`.
pub fn tasks(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for t in studio.registries.task_infos() {
        let engines: Vec<_> = studio.registries.engines_for(t.key).iter().map(|e| e.info.key).collect();
        let on = studio.config.check_task(t.key).is_ok();
        let by = match (engines.is_empty(), on) {
            (_, false) => "switched off".to_string(),
            (true, _) => "-".to_string(),
            _ => engines.join(", "),
        };
        rows.push(vec![t.key.into(), by, t.summary.into()]);
        values.push(
            json!({"key": t.key, "title": t.title, "summary": t.summary, "engines": engines, "enabled": on}),
        );
    }
    show(list, &["TASK", "ENGINES", "WHAT"], rows, values)
}

/// `atelier samplers list`.
pub fn samplers(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for s in &studio.registries.samplers {
        let i = s.info;
        rows.push(vec![i.key.into(), i.title.into(), i.evaluations.to_string(), i.summary.into()]);
        let mut value = json!(i);
        value["origin"] = json!(s.origin);
        value["options_schema"] = (s.schema)();
        values.push(value);
    }
    show(list, &["SAMPLER", "TITLE", "EVALS", "WHAT"], rows, values)
}

/// `atelier schedules list`.
pub fn schedules(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for s in &studio.registries.schedules {
        rows.push(vec![s.info.key.into(), s.info.title.into(), s.info.summary.into()]);
        let mut value = json!(s.info);
        value["origin"] = json!(s.origin);
        value["options_schema"] = (s.schema)();
        values.push(value);
    }
    show(list, &["SCHEDULE", "TITLE", "WHAT"], rows, values)
}

/// `atelier models list`.
pub fn models(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for m in &studio.registries.models {
        let present = m.spec.path.as_ref().is_some_and(|p| p.exists());
        let state = match (&m.spec.path, present) {
            (Some(p), true) => p.display().to_string(),
            (Some(p), false) => format!("missing: {}", p.display()),
            (None, _) => "no files: for benchmarks with random weights".to_string(),
        };
        rows.push(vec![m.spec.key.clone(), m.spec.architecture.clone(), m.spec.title.clone(), state]);
        let mut value = json!(m.spec);
        value["present"] = json!(present);
        value["origin"] = json!(m.origin);
        values.push(value);
    }
    show(list, &["MODEL", "ARCHITECTURE", "TITLE", "FILES"], rows, values)
}
