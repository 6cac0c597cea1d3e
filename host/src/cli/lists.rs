//! The lists: plugins, engines, tasks, samplers, schedules, models.

use super::args::List;
use super::{Studio, say, say_json};
use crate::builtin;
use crate::items::Origin;
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
    found.extend(r.tasks.iter().map(|t| ("task", r.tasks.name_of(t), t.origin.text().to_string())));
    found.extend(r.engines.iter().map(|e| ("engine", r.engines.name_of(e), e.origin.text().to_string())));
    found.extend(r.samplers.iter().map(|s| ("sampler", r.samplers.name_of(s), s.origin.text().to_string())));
    found.extend(
        r.schedules.iter().map(|s| ("schedule", r.schedules.name_of(s), s.origin.text().to_string())),
    );
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
        let about = &e.about;
        let mut tasks: Vec<_> = about.tasks.iter().map(|t| t.task.key.as_str()).collect();
        tasks.sort_unstable();
        let name = studio.registries.engines.name_of(e);
        rows.push(vec![name.clone(), tasks.join(", "), about.title.clone()]);
        // Asking a library for its devices starts it: only when somebody reads the answer.
        let devices = list.action.json().then(|| e.devices().unwrap_or_default());
        values.push(json!({"key": about.key, "name": name, "title": about.title, "summary": about.summary,
            "tasks": tasks, "architectures": about.architectures, "devices": devices,
            "origin": e.origin.text(), "plugin": e.origin.plugin()}));
    }
    show(list, &["ENGINE", "TASKS", "TITLE"], rows, values)
}

/// `atelier tasks list`.
pub fn tasks(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for t in studio.registries.task_infos() {
        let engines: Vec<_> = studio
            .registries
            .engines_for(&t.key)
            .iter()
            .map(|e| studio.registries.engines.name_of(e))
            .collect();
        let on = studio.config.check_task(&t.key).is_ok();
        let by = match (engines.is_empty(), on) {
            (_, false) => "switched off".to_string(),
            (true, _) => "-".to_string(),
            _ => engines.join(", "),
        };
        rows.push(vec![t.key.clone(), by, t.summary.clone()]);
        values.push(
            json!({"key": t.key, "title": t.title, "summary": t.summary, "engines": engines, "enabled": on}),
        );
    }
    show(list, &["TASK", "ENGINES", "WHAT"], rows, values)
}

/// A description, with the name that means it and where it comes from.
fn listed(about: &impl serde::Serialize, name: &str, origin: &Origin) -> Value {
    let mut value = json!(about);
    value["name"] = json!(name);
    value["origin"] = json!(origin.text());
    value["plugin"] = json!(origin.plugin());
    value
}

/// `atelier samplers list`.
pub fn samplers(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let samplers = &studio.registries.samplers;
    for s in samplers {
        let i = &s.about;
        rows.push(vec![samplers.name_of(s), i.title.clone(), i.evaluations.to_string(), i.summary.clone()]);
        values.push(listed(i, &samplers.name_of(s), &s.origin));
    }
    show(list, &["SAMPLER", "TITLE", "EVALS", "WHAT"], rows, values)
}

/// `atelier schedules list`.
pub fn schedules(list: &List, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let schedules = &studio.registries.schedules;
    for s in schedules {
        let i = &s.about;
        rows.push(vec![schedules.name_of(s), i.title.clone(), i.summary.clone()]);
        values.push(listed(i, &schedules.name_of(s), &s.origin));
    }
    show(list, &["SCHEDULE", "TITLE", "WHAT"], rows, values)
}
