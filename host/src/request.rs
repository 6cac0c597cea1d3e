//! From what was asked to a plan: layers, validation, planning.

use crate::config::Config;
use crate::inputs::Inputs;
use crate::items::EngineItem;
use crate::layers::{Layers, Source};
use crate::preset::Preset;
use crate::registries::{LOCAL, Registries};
use crate::validate::{self, Finding};
use crate::{schema, yaml};
use atelier_sdk::model::ModelItem;
use atelier_sdk::params::{X_CONFIG, X_FILE, X_REGISTRY};
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, PlanCtx, Result, ResultExt, Violation};
use serde_json::{Map, Value};
use std::path::Path;

/// What a person asked for, before any of it was checked.
#[derive(Debug, Default)]
pub struct Request {
    /// The preset.
    pub preset: Option<Preset>,
    /// Task, if not the preset's.
    pub task: Option<String>,
    /// Engine, if not the preset's.
    pub engine: Option<String>,
    /// Model, if not the preset's.
    pub model: Option<String>,
    /// Parameters over the preset's, in order.
    pub over: Vec<Over>,
}

/// Parameters from somewhere.
#[derive(Debug)]
pub enum Over {
    /// A mapping of parameters, with the source of each.
    Map(Map<String, Value>, Source, String),
    /// `field=value` as typed; the schema tells the type.
    Set(String),
}

/// A checked request, ready to run.
#[derive(Debug)]
pub struct Planned<'a> {
    /// The engine.
    pub engine: &'a EngineItem,
    /// The name that means it.
    pub engine_name: String,
    /// The task.
    pub task: String,
    /// The model; none for an engine that needs none.
    pub model: Option<&'a ModelItem>,
    /// The preset's name.
    pub preset: Option<String>,
    /// The parameters to run, complete.
    pub plan: Value,
    /// The parameters as asked, with who set each.
    pub layers: Layers,
    /// The files that the plan names.
    pub inputs: Inputs,
}

impl Request {
    /// Task, engine and model that the request means.
    ///
    /// # Errors
    /// None of task and preset is given, or a name is unknown or not compiled in.
    pub fn target<'a>(&self, registries: &'a Registries) -> Result<(&'a EngineItem, String)> {
        let preset = self.preset.as_ref();
        let task = self.task.clone().or_else(|| preset.and_then(|p| p.task.clone())).ok_or_else(|| {
            Error::invalid("no task is given").hint("name a preset with `--preset`, or a task with `--task`")
        })?;
        let engine = self.engine.as_deref().or_else(|| preset.and_then(|p| p.engine.as_deref()));
        let reg = match engine {
            Some(key) => registries.engine_task(key, &task)?.0,
            None => registries.only_engine_for(&task)?,
        };
        Ok((reg, task))
    }

    fn model<'a>(&self, registries: &'a Registries, engine: &EngineItem) -> Result<Option<&'a ModelItem>> {
        let about = &engine.about;
        let named = self.model.as_deref().or_else(|| self.preset.as_ref().and_then(|p| p.model.as_deref()));
        // What stands behind a path is for the engine to find out.
        let unknown = |m: &ModelItem| m.origin == LOCAL && !about.architectures.is_empty();
        let fits = |m: &&ModelItem| unknown(m) || about.architectures.contains(&m.spec.architecture);
        let Some(key) = named else {
            if about.architectures.is_empty() {
                return Ok(None);
            }
            return match registries.models.iter().filter(fits).collect::<Vec<_>>().as_slice() {
                [one] => Ok(Some(one)),
                _ => Err(Error::invalid("no model is given").hint("name one with `model:` or `--model`")),
            };
        };
        let model = registries.model(key)?;
        if !fits(&model) {
            return Err(Error::invalid(format!(
                "engine `{}` cannot load model `{key}`, whose architecture is `{}`",
                about.key, model.spec.architecture
            ))
            .hint(match about.architectures.is_empty() {
                true => "it works without a model: leave out `model`".to_string(),
                false => format!("it loads: {}", about.architectures.join(", ")),
            }));
        }
        Ok(Some(model))
    }
}

/// A request that its schema accepts.
struct Checked<'a> {
    engine: &'a EngineItem,
    engine_name: String,
    task: String,
    model: Option<&'a ModelItem>,
    schema: Value,
    layers: Layers,
}

fn checked<'a>(request: &Request, registries: &'a Registries, config: &Config) -> Result<Checked<'a>> {
    let overrides = &config.plugins().overrides;
    let named =
        request.engine.as_deref().or_else(|| request.preset.as_ref().and_then(|p| p.engine.as_deref()));
    named.map_or(Ok(()), |name| registries.check_override(name, overrides))?;
    let (engine, task) = request.target(registries)?;
    config.check_task(&task)?;
    let engine_name = registries.engines.name_of(engine);
    let (_, engine_task) = registries.engine_task(&engine_name, &task)?;
    let model = request.model(registries, engine)?;
    let schema = schema::of(engine_task, registries);
    let mut layers = layered(request, &schema, model)?;
    for (field, about) in schema["properties"].as_object().into_iter().flatten() {
        let chosen = layers.values().get(field).and_then(Value::as_str);
        if let Some(name) = chosen.filter(|_| about.get(X_REGISTRY).is_some()) {
            registries.check_override(name, overrides)?;
        }
    }
    layers.rewrite(|name, value| canonical_name(&schema, name, value, registries));
    let mut findings = validate::check(&schema, &layers)?;
    findings.extend(check_options(&schema, &layers, registries)?);
    findings.extend(check_configs(&schema, &layers, registries));
    if !findings.is_empty() {
        let refused = refuse(&engine_name, &task, &findings);
        return Err(explain_choices(&schema, &layers, registries, refused));
    }
    Ok(Checked { engine, engine_name, task, model, schema, layers })
}

impl Checked<'_> {
    fn plan(&self, entropy: u64) -> Result<Result<Value, Vec<Violation>>> {
        self.engine.plan(&self.task, Value::Object(self.layers.values().clone()), &PlanCtx { entropy })
    }

    fn refuse(&self, violations: Vec<Violation>) -> Error {
        refuse(&self.engine_name, &self.task, &validate::with_sources(violations, &self.layers))
    }
}

/// Checks a request and plans it: the one way from anything a person wrote to something that runs.
///
/// # Errors
/// Unknown names, a switched-off task, and all violations of the schema and the plan's rules at once.
pub fn parse_params<'a>(
    request: &Request,
    registries: &'a Registries,
    config: &Config,
    entropy: u64,
) -> Result<Planned<'a>> {
    let checked = checked(request, registries, config)?;
    let plan = checked.plan(entropy)?.map_err(|v| checked.refuse(v))?;
    let inputs = Inputs::new(&checked.schema, &plan);
    let wrong = inputs.check();
    if !wrong.is_empty() {
        return Err(checked.refuse(wrong));
    }
    let preset = request.preset.as_ref().map(|p| p.name.clone());
    let Checked { engine, engine_name, task, model, layers, .. } = checked;
    Ok(Planned { engine, engine_name, task, model, preset, plan, layers, inputs })
}

/// The files that a request still has to name, or that are still to be there, if that is all it lacks: a preset for
/// img2img is right without one, and one for training before its set is made.
pub fn lacks_only_files(request: &Request, registries: &Registries, config: &Config) -> Option<Vec<String>> {
    let checked = checked(request, registries, config).ok()?;
    let violations = match checked.plan(0).ok()? {
        Ok(plan) => Inputs::new(&checked.schema, &plan).check(),
        Err(violations) => violations,
    };
    let is_open_file = |v: &Violation| {
        let name = v.pointer.strip_prefix('/')?;
        let field = schema::field(&checked.schema, &[name])?;
        let value = checked.layers.values().get(name).and_then(Value::as_str).unwrap_or_default();
        let open = value.is_empty() || !Path::new(value).exists();
        (open && field.get(X_FILE).is_some()).then(|| name.to_string())
    };
    violations.iter().map(is_open_file).collect()
}

fn refuse(engine: &str, task: &str, findings: &[Finding]) -> Error {
    validate::error(findings).hint(format!("`atelier schema {engine} {task}` describes every field"))
}

fn layered(request: &Request, schema: &Value, model: Option<&ModelItem>) -> Result<Layers> {
    let mut layers = Layers::default();
    layers.push(&schema::defaults(schema), |_| Source::Default);
    let known = |key: &String| schema::field(schema, &[key]).is_some();
    if let Some(ModelItem { spec, .. }) = model {
        let suits: Map<String, Value> =
            spec.defaults.iter().filter(|(k, _)| known(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
        layers.push(&suits, |_| Source::Model(spec.key.clone()));
    }
    for layer in request.preset.iter().flat_map(|p| &p.layers) {
        layers.push(&layer.params, |p| layer.source(p));
    }
    for over in &request.over {
        match over {
            Over::Map(map, source, text) => layers.push(map, |p| with_line(source, text, p)),
            Over::Set(assignment) => {
                layers.push(&parse_set(assignment, schema)?, |_| Source::CommandLine);
            }
        }
    }
    Ok(layers)
}

fn with_line(source: &Source, text: &str, pointer: &str) -> Source {
    match source {
        Source::File { path, .. } => {
            let keys: Vec<&str> = pointer.split('/').skip(1).collect();
            Source::File { path: path.clone(), line: yaml::line_of(text, &keys) }
        }
        other => other.clone(),
    }
}

/// Reads `field=value` or `outer.inner=value`, typed as the schema says.
fn parse_set(assignment: &str, schema: &Value) -> Result<Map<String, Value>> {
    let Some((field, text)) = assignment.split_once('=') else {
        return Err(Error::invalid(format!("`--set {assignment}` has no `=`"))
            .hint("write `--set field=value`, for example `--set steps=20`"));
    };
    let path: Vec<&str> = field.trim().split('.').collect();
    if path.iter().any(|p| p.is_empty()) {
        return Err(Error::invalid(format!("`--set {assignment}` names no field")));
    }
    let mut value = typed(text, schema::field(schema, &path))
        .map_err(|e| e.context(format!("in `--set {assignment}`")))?;
    for key in path.iter().skip(1).rev() {
        value = Value::Object(Map::from_iter([(key.to_string(), value)]));
    }
    Ok(Map::from_iter([(path[0].to_string(), value)]))
}

/// A value as typed on a command line. A text field takes the text as it is; anything else is read as YAML,
/// and what does not fit the schema is left for validation to describe.
fn typed(text: &str, field: Option<&Value>) -> Result<Value> {
    let types = field.map(schema::types).unwrap_or_default();
    if types.contains(&"string") {
        return Ok(Value::String(text.to_string()));
    }
    yaml::parse(text)
}

/// Options of a chosen plugin are checked against that plugin's own schema.
fn check_options(schema: &Value, layers: &Layers, registries: &Registries) -> Result<Vec<Finding>> {
    let mut out = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let Some(chooser) = field.get(schema::X_OPTIONS_OF).and_then(Value::as_str) else { continue };
        let Some(key) = layers.values().get(chooser).and_then(Value::as_str) else { continue };
        let Some(Value::Object(options)) = layers.values().get(name) else { continue };
        let kind = schema["properties"][chooser].get(X_REGISTRY).and_then(Value::as_str);
        let Some(own) = options_schema(registries, kind, key) else { continue };
        let mut inner = Layers::default();
        inner.push(options, |_| Source::Default);
        let violations = validate::check(&own, &inner)?.into_iter().map(|f| Violation {
            pointer: format!("/{name}{}", f.violation.pointer),
            message: format!("{} of `{key}`", f.violation.message),
            hint: f.violation.hint,
        });
        out.extend(validate::with_sources(violations.collect(), layers));
    }
    Ok(out)
}

/// Names in config folders that are not there, which [`canonical_name`] left as they are.
fn check_configs(schema: &Value, layers: &Layers, registries: &Registries) -> Vec<Finding> {
    let mut out = Vec::new();
    for (field, about) in schema["properties"].as_object().into_iter().flatten() {
        let Some(sub) = about.get(X_CONFIG).and_then(Value::as_str) else { continue };
        // What is no folder there is a path, whose absence is told with all others'.
        if about[X_FILE] == "path" {
            continue;
        }
        let Some(name) = layers.values().get(field).and_then(Value::as_str) else { continue };
        if name.is_empty() || name.contains(['/', '\\', '.']) {
            continue;
        }
        let there: Vec<String> = registries.paths.yaml_files(sub).into_iter().map(|f| f.0).collect();
        let near = nearest(name, there.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`? "));
        let hint = format!(
            "{}there are: {}; or give the path of a .yaml file",
            near.unwrap_or_default(),
            there.join(", ")
        );
        let violation = Violation::new(
            format!("/{field}"),
            format!("there is no `{name}` in {sub}/ of the config folders"),
        );
        out.extend(validate::with_sources(vec![violation.hint(hint)], layers));
    }
    out
}

fn options_schema(registries: &Registries, kind: Option<&str>, key: &str) -> Option<Value> {
    match kind? {
        "sampler" => registries.samplers.find(key).map(|s| s.about.options_schema.clone()),
        "schedule" => registries.schedules.find(key).map(|s| s.about.options_schema.clone()),
        _ => None,
    }
}

/// The key of a plugin that a field names by an alias, so that schema, plan and metadata know one name for it.
fn canonical_name(schema: &Value, field: &str, value: &Value, registries: &Registries) -> Option<Value> {
    let name = value.as_str()?;
    if let Some(sub) = schema["properties"][field].get(X_CONFIG).and_then(Value::as_str) {
        let file = registries.paths.yaml_files(sub).into_iter().find(|(n, _)| n == name).map(|(_, p)| p);
        let is_path = schema["properties"][field][X_FILE] == "path";
        let folder = || registries.paths.folder(sub, name).filter(|_| !Path::new(name).exists());
        let path = if is_path { folder() } else { file };
        return Some(path?.to_str()?.into());
    }
    let key = match schema["properties"][field].get(X_REGISTRY)?.as_str()? {
        "sampler" => registries.samplers.name_of(registries.samplers.find(name)?),
        "schedule" => registries.schedules.name_of(registries.schedules.find(name)?),
        _ => return None,
    };
    Some(key.into())
}

/// Adds what libraries that are not in use have to do with names that mean nothing.
fn explain_choices(schema: &Value, layers: &Layers, registries: &Registries, mut e: Error) -> Error {
    for (field, about) in schema["properties"].as_object().into_iter().flatten() {
        let kind = about.get(X_REGISTRY).and_then(Value::as_str).unwrap_or_default();
        let Some(name) = layers.values().get(field).and_then(Value::as_str) else { continue };
        let unknown = match kind {
            "sampler" => registries.samplers.find(name).is_none(),
            "schedule" => registries.schedules.find(name).is_none(),
            _ => false,
        };
        if unknown {
            e = registries.explain(kind, name, e);
        }
    }
    e
}

/// Reads a file of parameters: YAML or JSON, a mapping.
///
/// # Errors
/// Unreadable, or not a mapping.
pub fn param_file(path: &std::path::Path) -> Result<Over> {
    let text = crate::fsx::read_text("parameter file", path)?;
    let here = || format!("in {}", path.display());
    match yaml::parse(&text).map_err(|e| e.context(here()))? {
        Value::Object(map) => {
            let source = Source::File { path: path.display().to_string(), line: None };
            Ok(Over::Map(map, source, text))
        }
        _ => Err(Error::invalid(format!("{} is not a mapping of parameters", path.display()))),
    }
}

/// Fresh randomness for seeds.
///
/// # Errors
/// The system has none to give.
pub fn entropy() -> Result<u64> {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds its hash maps from the system's generator.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    hasher.write_u128(now.kind(ErrorKind::Environment, || "the clock is before 1970".into())?.as_nanos());
    Ok(hasher.finish())
}
