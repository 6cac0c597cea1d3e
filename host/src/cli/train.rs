//! `atelier train`: the tasks of the LoRA trainer under a name of their own.

use super::args::{Asked, Search, Train, TrainAction};
use super::{Studio, say, say_json, text, tool};
use crate::layers::Source;
use crate::request::{Over, Request};
use crate::{fsx, yaml};
use atelier_sdk::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Sections of a `train_config.yaml`; their fields are parameters of the same names.
const SECTIONS: [&str; 3] = ["model", "training", "data"];
/// The field of the section `model` that names the model.
const BASE: &str = "base";

/// Runs the command.
pub fn run(args: &Train, studio: &mut Studio) -> Result<()> {
    match &args.action {
        Some(TrainAction::Search(search)) => run_search(search, studio),
        None => run_training(args, studio),
    }
}

fn run_training(args: &Train, studio: &mut Studio) -> Result<()> {
    let mut request =
        base_request(&args.asked, args.resume.as_deref(), args.train_config.as_deref(), studio)?;
    let mut typed = Map::new();
    if let Some(folder) = args.resume.as_deref().or(args.out.as_deref()) {
        typed.insert("out".into(), text(folder)?);
    }
    if args.resume.is_some() {
        typed.insert("resume".into(), true.into());
    }
    if args.dry_run {
        typed.insert("dry_run".into(), true.into());
    }
    request.over.push(Over::Map(typed, Source::CommandLine, String::new()));
    default_task(&mut request, "train-lora");
    let facts = tool::perform(&request, args.asked.compute(), args.json, studio)?;
    if args.json {
        return say_json(&facts);
    }
    if args.dry_run { say_estimate(&facts) } else { say_training(&facts) }
}

fn run_search(args: &Search, studio: &mut Studio) -> Result<()> {
    let mut request = base_request(&args.asked, None, None, studio)?;
    let mut typed = Map::new();
    if let Some(folder) = &args.out {
        typed.insert("out".into(), text(folder)?);
    }
    let lists = [("ranks", json!(args.ranks)), ("rates", json!(args.rates)), ("epochs", json!(args.epochs))];
    for (name, list) in lists {
        if list != json!([]) {
            typed.insert(name.into(), list);
        }
    }
    if let Some(n) = args.prototype {
        typed.insert("prototype".into(), n.into());
    }
    request.over.push(Over::Map(typed, Source::CommandLine, String::new()));
    request.task = Some("train-search".into());
    let facts = tool::perform(&request, args.asked.compute(), args.json, studio)?;
    if args.json {
        return say_json(&facts);
    }
    say(facts["table"].as_str().unwrap_or_default().trim_end())?;
    say(format_args!("best: {}", shown(&facts, "/best/name")))?;
    say(shown(&facts, "/preset"))
}

/// The request of a training: what an earlier run recorded, or a configuration, below what was typed.
fn base_request(
    asked: &Asked,
    resume: Option<&Path>,
    config: Option<&Path>,
    studio: &mut Studio,
) -> Result<Request> {
    let mut below = Request::default();
    if let Some(folder) = resume {
        below = recorded(&folder.join("run.json"), studio)?;
    }
    if let Some(path) = config {
        let (model, over) = configured(path)?;
        below.model = model.map(|m| named_model(&m, studio)).transpose()?.or(below.model);
        below.over.push(over);
    }
    let typed = asked.request(None, studio)?;
    below.over.extend(typed.over);
    Ok(Request {
        preset: typed.preset,
        task: typed.task.or(below.task),
        engine: typed.engine.or(below.engine),
        model: typed.model.or(below.model),
        over: below.over,
    })
}

fn default_task(request: &mut Request, task: &str) {
    if request.task.is_none() && request.preset.as_ref().is_none_or(|p| p.task.is_none()) {
        request.task = Some(task.into());
    }
}

/// What a training in a folder was asked for.
fn recorded(path: &Path, studio: &mut Studio) -> Result<Request> {
    let no_training = || format!("there is no training to go on with: {} cannot be read", path.display());
    let bytes = std::fs::read(path).map_err(|e| Error::io(no_training(), e))?;
    let record: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, no_training()).because(e))?;
    let Some(params) = record["params"].as_object() else {
        return Err(Error::new(ErrorKind::Corrupt, no_training()));
    };
    let key = record["model"].as_str().filter(|key| studio.registries.models.find(key).is_some());
    let model = match (key, record["model_path"].as_str()) {
        (Some(key), _) => Some(key.to_string()),
        (None, Some(path)) => Some(studio.registries.adopt_model(path)?),
        (None, None) => None,
    };
    let source = Source::Like(path.display().to_string());
    Ok(Request {
        task: Some("train-lora".into()),
        model,
        over: vec![Over::Map(params.clone(), source, String::new())],
        ..Request::default()
    })
}

/// The model that a `train_config.yaml` names, and its parameters.
fn configured(path: &Path) -> Result<(Option<String>, Over)> {
    let file = fsx::read_text("training configuration", path)?;
    let here = || format!("in {}", path.display());
    let Value::Object(sections) = yaml::parse(&file).map_err(|e| e.context(here()))? else {
        return Err(Error::invalid(format!("{} is not a mapping of sections", path.display())));
    };
    let (mut model, mut params) = (None, Map::new());
    for (section, fields) in sections {
        if !SECTIONS.contains(&section.as_str()) {
            return Err(Error::invalid(format!("{} has a section `{section}`", path.display()))
                .hint(format!("its sections are: {}", SECTIONS.join(", "))));
        }
        let Value::Object(fields) = fields else {
            return Err(Error::invalid(format!("{}: `{section}` is not a mapping", path.display())));
        };
        for (field, value) in fields {
            match (section.as_str(), field.as_str(), &value) {
                ("model", BASE, Value::String(name)) => model = Some(name.clone()),
                _ => drop(params.insert(field, typed(value))),
            }
        }
    }
    let source = Source::File { path: path.display().to_string(), line: None };
    Ok((model, Over::Map(params, source, file)))
}

/// The model of a key, a path, or a repository of the hub that a description pulls from.
fn named_model(name: &str, studio: &mut Studio) -> Result<String> {
    let pulls = |m: &atelier_sdk::model::ModelItem| {
        let mut hubs = m.spec.files.iter().flat_map(|f| &f.from).filter_map(|mirror| mirror.hub.as_deref());
        hubs.any(|hub| same_repository(hub, name))
    };
    match studio.registries.models.iter().find(|m| pulls(m)) {
        Some(found) if !Path::new(name).exists() => Ok(found.spec.key.clone()),
        _ => studio.registries.adopt_model(name),
    }
}

/// Repositories move from owner to owner; their own names stay.
fn same_repository(a: &str, b: &str) -> bool {
    let name = |r: &str| r.rsplit('/').next().unwrap_or_default().to_lowercase();
    b.matches('/').count() == 1 && name(a) == name(b)
}

/// YAML 1.2 has `1e-4` as a number; parsers of the older version give a text.
fn typed(value: Value) -> Value {
    let number = value.as_str().filter(|s| s.starts_with(|c: char| c.is_ascii_digit()));
    match number.and_then(|s| s.parse::<f64>().ok()).and_then(serde_json::Number::from_f64) {
        Some(number) => Value::Number(number),
        None => value,
    }
}

fn shown(facts: &Value, pointer: &str) -> String {
    facts.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn words(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn gib(bytes: &Value) -> String {
    format!("{:.2} GiB", bytes.as_f64().unwrap_or_default() / f64::from(1u32 << 30))
}

fn say_data(f: &Value) -> Result<()> {
    say(format_args!(
        "{} training images ({} left out), {} validation images; {} modules, {} numbers to train",
        f["data"]["train"], f["data"]["rejected"], f["data"]["val"], f["modules"], f["trained"]
    ))
}

fn say_estimate(f: &Value) -> Result<()> {
    say_data(f)?;
    let seconds = |name: &str| f[name].as_f64().unwrap_or_default();
    say(format_args!(
        "{} steps of {:.2} s: about {}; memory {} (measured in one step)",
        f["steps"],
        seconds("seconds_per_step"),
        words(seconds("seconds_in_all")),
        gib(&f["peak_memory"])
    ))?;
    say("nothing was kept (--dry-run)")
}

fn say_training(f: &Value) -> Result<()> {
    say_data(f)?;
    say(format_args!(
        "{} steps in {}, memory {}; training loss {:.4}",
        f["steps"],
        words(f["seconds"].as_f64().unwrap_or_default()),
        gib(&f["peak_memory"]),
        f["train_loss"].as_f64().unwrap_or_default()
    ))?;
    if let (Some(first), Some(best)) = (f["val"]["first"].as_f64(), f["val"]["best"].as_f64()) {
        let change = 100.0 * (best / first - 1.0);
        say(format_args!(
            "validation loss {first:.5} before, {best:.5} at best (step {}): {change:+.1} %",
            f["val"]["best_step"]
        ))?;
    }
    for file in f["exports"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say(file)?;
    }
    Ok(())
}
