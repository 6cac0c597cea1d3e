//! Where runs leave what they make: one folder each, nothing half-written.
//!
//! ```text
//! outputs/20261122-101530-txt2img-mini/
//!   run.json       the ledger: what was asked, how it stands, what was made
//!   events.jsonl   everything the engine reported
//!   00001.png      an image, with its metadata inside
//!   00001.json     the same metadata beside it
//!   preview.png    the image in work as it looked at the last preview, if there were any
//! ```
//!
//! A request may name another folder for its images, where each has a name of its own, with its metadata beside it.

use crate::a1111;
use crate::digests;
use crate::found;
use crate::fsx;
use crate::json;
use crate::pngmeta::{self, A1111_KEY, ATELIER_KEY};
use crate::registries::Registries;
use crate::request::Planned;
use atelier_sdk::model::ModelItem;
use atelier_sdk::{Error, ErrorKind, Event, Image, PreviewOf, Result, ResultExt};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Version of run.json and of the images' metadata.
pub const SCHEMA_VERSION: u64 = 1;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not yet.
    Running,
    /// As planned.
    Done,
    /// On request.
    Cancelled,
    /// With an error.
    Failed,
}

/// The folder of one run.
#[derive(Debug)]
pub struct RunFolder {
    dir: PathBuf,
    events: File,
    metadata: Map<String, Value>,
    model: String,
    images: Vec<PathBuf>,
    /// The files of the model that were told and are not in the metadata yet: what each is for, and where it is.
    untold: Vec<(String, PathBuf)>,
}

impl RunFolder {
    /// Makes a fresh folder below `root` and its ledger.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn create(root: &Path, planned: &Planned<'_>, registries: &Registries, device: &str) -> Result<Self> {
        let by = planned.model.map_or(&planned.engine.about.key, |m| &m.spec.key);
        let dir = fresh_folder(root, &planned.task, by)?;
        let events = dir.join("events.jsonl");
        let events =
            File::create(&events).map_err(|e| Error::io(format!("cannot write {}", events.display()), e))?;
        let metadata = metadata(planned, registries, device);
        let model = planned.model.map(|m| m.spec.key.clone()).unwrap_or_default();
        let folder = Self { dir, events, metadata, model, images: Vec::new(), untold: Vec::new() };
        folder.ledger(Status::Running, None)?;
        Ok(folder)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The images so far.
    pub fn images(&self) -> &[PathBuf] {
        &self.images
    }

    /// Adds something to the metadata of what is still to come, if there is anything to say.
    pub fn note(&mut self, key: &str, value: Value) {
        if value.as_object().is_some_and(|map| !map.is_empty()) {
            self.metadata.insert(key.into(), value);
        }
    }

    /// The digests of the model's files, by what each is for; known once there is an image.
    pub fn model_files(&self) -> BTreeMap<String, String> {
        digests_of(&Value::Object(self.metadata.clone()))
    }

    /// Reading files of gigabytes takes seconds, once: the first image waits for it, not the start.
    fn tell_files(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        let files = self.untold.drain(..).map(|(role, path)| file_record(&role, &path));
        if let Some(Value::Object(model)) = self.metadata.get_mut("model")
            && let Value::Array(told) = model.entry("files").or_insert_with(|| json!([]))
        {
            // One more may come into use after the first image.
            told.extend(files);
        }
    }

    /// Adds a line to events.jsonl.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        if let Event::File { role, path } = event {
            self.untold.push((role.clone(), path.clone()));
        }
        self.line(serde_json::to_value(event).internal("an event that is not JSON")?)
    }

    fn line(&mut self, mut line: Value) -> Result<()> {
        line["time"] = json!(Timestamp::now().to_string());
        writeln!(self.events, "{line}").map_err(|e| fsx::cannot_write(&self.dir.join("events.jsonl"), e))
    }

    /// Keeps an image, in the folder or at its own place: its sidecar first, then the PNG, each whole or not at all. An
    /// image that is there therefore always has its metadata.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn image(
        &mut self,
        image: &Image,
        alone: &Value,
        place: Option<PathBuf>,
        registries: &Registries,
    ) -> Result<PathBuf> {
        self.tell_files();
        let number = self.images.len() + 1;
        let path = place.unwrap_or_else(|| self.dir.join(format!("{number:05}.png")));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| fsx::cannot_write(folder, e))?;
        }
        let mut metadata = self.metadata.clone();
        if let (Some(Value::Object(params)), Value::Object(alone)) = (metadata.get_mut("params"), alone) {
            json::merge(params, alone);
        }
        metadata.insert("created".into(), json!(Timestamp::now().to_string()));
        let params = metadata.get("params").and_then(Value::as_object).cloned().unwrap_or_default();
        let loras = metadata.get("loras").and_then(Value::as_object);
        let loras = loras.map(|loras| found::used(loras, &params)).unwrap_or_default();
        match loras.is_empty() {
            true => metadata.remove("loras"),
            false => metadata.insert("loras".into(), Value::Object(loras.clone())),
        };
        let own = Value::Object(metadata);
        let hash = digests_of(&own).remove("unet");
        let model = a1111::Model { name: &self.model, sha256: hash.as_deref() };
        let a1111 = a1111::format(&params, model, &loras, &registries.samplers, &registries.schedules);
        let own_text = own.to_string();
        let mut texts = vec![(ATELIER_KEY, own_text.as_str())];
        // A1111's text is about a prompt.
        if params.contains_key("prompt") {
            texts.insert(0, (A1111_KEY, a1111.as_str()));
        }
        let png = pngmeta::encode(image, &texts)?;
        write_json(&path.with_extension("json"), &own)?;
        fsx::write_atomic(&path, &png)?;
        self.images.push(path.clone());
        // Not into the ledger each time: of a run of thousands it would be rewritten as often.
        self.line(json!({"event": "saved", "file": path.file_name().and_then(|n| n.to_str())}))?;
        Ok(path)
    }

    /// Keeps what an image in work looks like, in place of what was kept before.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn preview(&mut self, image: &Image, of: PreviewOf) -> Result<PathBuf> {
        const NAME: &str = "preview.png";
        let path = self.dir.join(NAME);
        fsx::write_atomic(&path, &pngmeta::encode(image, &[])?)?;
        self.line(
            json!({"event": "preview", "file": NAME, "image": of.image, "step": of.step, "steps": of.steps}),
        )?;
        Ok(path)
    }

    /// Writes how the run ended and what it made.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn finish(&mut self, status: Status, facts: Option<&Value>, error: Option<&Value>) -> Result<()> {
        if let Some(facts) = facts {
            self.metadata.insert("facts".into(), facts.clone());
        }
        self.ledger(status, error)
    }

    fn ledger(&self, status: Status, error: Option<&Value>) -> Result<()> {
        let mut ledger = self.metadata.clone();
        ledger.insert("status".into(), json!(status));
        // One that stands elsewhere is named by its whole path.
        let name = |p: &PathBuf| p.strip_prefix(&self.dir).unwrap_or(p).to_str().map(str::to_string);
        let names: Vec<_> = self.images.iter().filter_map(name).collect();
        ledger.insert("images".into(), json!(names));
        if let Some(error) = error {
            ledger.insert("error".into(), error.clone());
        }
        write_json(&self.dir.join("run.json"), &Value::Object(ledger))
    }
}

/// One file of the model. An image is not lost because a file of its model cannot be read any more.
fn file_record(role: &str, path: &Path) -> Value {
    // Not the whole path: pictures are shared, and folders are nobody else's business.
    let name = path.file_name().map(|name| name.to_string_lossy());
    match digests::of_file(path) {
        Ok(sha256) => json!({"role": role, "file": name, "sha256": sha256}),
        Err(e) => {
            tracing::warn!(path = %path.display(), causes = ?e.chain(), "a file of the model has no digest");
            json!({"role": role, "file": name, "error": e.chain()})
        }
    }
}

/// The digests of the files of model and adapters, by what each is for. Of a network in several files the first stands for it.
fn digests_of(metadata: &Value) -> BTreeMap<String, String> {
    let files = metadata["model"]["files"].as_array().into_iter().flatten().rev();
    let files = files.filter_map(|f| Some((f["role"].as_str()?.into(), f["sha256"].as_str()?.into())));
    let loras = metadata["loras"].as_object().into_iter().flatten();
    let loras = loras.filter_map(|(name, f)| Some((format!("LoRA {name}"), f["sha256"].as_str()?.into())));
    files.chain(loras).collect()
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).internal("metadata that is not JSON")?;
    text.push('\n');
    fsx::write_atomic(path, text.as_bytes())
}

fn fresh_folder(root: &Path, task: &str, model: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(root).map_err(|e| fsx::cannot_write(root, e))?;
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let name = format!("{stamp}-{task}-{model}");
    for n in 1..1000 {
        let dir = root.join(if n == 1 { name.clone() } else { format!("{name}-{n}") });
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            // Another run began within the same second.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(fsx::cannot_write(&dir, e)),
        }
    }
    Err(Error::new(ErrorKind::Environment, format!("too many runs named {name} in {}", root.display())))
}

fn metadata(planned: &Planned<'_>, registries: &Registries, device: &str) -> Map<String, Value> {
    // A model named by its path is found again by that path, a described one by its key.
    let model = planned.model.map(|ModelItem { spec, origin }| {
        let path = (origin == crate::registries::LOCAL).then_some(spec.path.as_ref()).flatten();
        json!({"key": spec.key, "path": path, "parts": spec.parts, "prediction_type": spec.prediction_type,
            "license": spec.license, "sha256": spec.sha256})
    });
    let mut plugins = Map::from_iter([(planned.engine_name.clone(), planned.engine.origin.record())]);
    let chosen = |field: &str| planned.plan[field].as_str();
    let sampler = chosen("sampler").and_then(|s| Some((s, &registries.samplers.find(s)?.origin)));
    let schedule = chosen("schedule").and_then(|s| Some((s, &registries.schedules.find(s)?.origin)));
    for (key, origin) in sampler.into_iter().chain(schedule) {
        plugins.insert(key.to_string(), origin.record());
    }
    let value = json!({
        "schema_version": SCHEMA_VERSION,
        "atelier": env!("CARGO_PKG_VERSION"),
        "task": planned.task,
        "engine": planned.engine_name,
        "model": model,
        "preset": planned.preset,
        "device": device,
        "plugins": plugins,
        "params": planned.plan,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The request that made an image, from its own metadata or from A1111's text.
#[derive(Debug)]
pub struct Recorded {
    /// The task.
    pub task: String,
    /// The engine, if recorded.
    pub engine: Option<String>,
    /// The model, if recorded.
    pub model: Option<String>,
    /// The parameters.
    pub params: Map<String, Value>,
    /// Settings of another program that have no counterpart here.
    pub left_out: Vec<String>,
    /// The libraries that had a part in it: name and digest.
    pub plugins: Vec<(String, String)>,
    /// The digests of the model's files, by what each is for.
    pub model_files: BTreeMap<String, String>,
}

/// Reads the request back from an image (or its sidecar).
///
/// # Errors
/// Not a PNG or sidecar, no metadata in it, or metadata of a newer version.
pub fn read_back(path: &Path, registries: &Registries) -> Result<Recorded> {
    if path.extension().is_some_and(|e| e == "json") {
        let text = fsx::read_text("metadata", path)?;
        return from_own(&text).map_err(|e| e.context(format!("in {}", path.display())));
    }
    let texts = pngmeta::read_texts(path)?;
    let find = |key: &str| texts.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    if let Some(text) = find(ATELIER_KEY) {
        return from_own(text).map_err(|e| e.context(format!("in the metadata of {}", path.display())));
    }
    if let Some(text) = find(A1111_KEY) {
        let (params, left_out) = a1111::parse(text, &registries.samplers, &registries.schedules)
            .map_err(|e| e.context(format!("in {}", path.display())))?;
        return Ok(Recorded {
            task: "txt2img".into(),
            engine: None,
            model: None,
            params,
            left_out,
            plugins: Vec::new(),
            model_files: BTreeMap::new(),
        });
    }
    Err(Error::new(ErrorKind::Corrupt, format!("{} holds no record of how it was made", path.display()))
        .hint("atelier's and A1111's images do, unless a program has removed it"))
}

/// The plugin libraries that the metadata names.
fn libraries(metadata: &Value) -> Vec<(String, String)> {
    let all = metadata["plugins"].as_object().into_iter().flatten();
    all.filter_map(|(_, p)| Some((p["plugin"].as_str()?.into(), p["sha256"].as_str()?.into()))).collect()
}

fn from_own(text: &str) -> Result<Recorded> {
    let value: Value = serde_json::from_str(text).kind(ErrorKind::Corrupt, || "damaged metadata".into())?;
    crate::config::check_version("metadata", &value, SCHEMA_VERSION)?;
    let text_at = |p: &str| value.pointer(p).and_then(Value::as_str).map(str::to_string);
    let missing = || Error::new(ErrorKind::Corrupt, "the metadata has no task or no parameters");
    let task = text_at("/task").ok_or_else(missing)?;
    let params = value.get("params").and_then(Value::as_object).cloned().ok_or_else(missing)?;
    Ok(Recorded {
        task,
        engine: text_at("/engine"),
        model: text_at("/model/path").or_else(|| text_at("/model/key")),
        params,
        left_out: Vec::new(),
        plugins: libraries(&value),
        model_files: digests_of(&value),
    })
}
