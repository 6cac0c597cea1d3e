//! Runs a plan: the only place that calls engines, and the only one that logs a failed run.

use crate::found::Found;
use crate::inputs::Inputs;
use crate::profile::TARGET;
use crate::registries::Registries;
use crate::request::Planned;
use crate::sink::{RunFolder, Status};
use crate::{builtin, json, machine};
use atelier_sdk::engine::FoundFile;
use atelier_sdk::{
    Device, Dtype, EngineCtx, Error, ErrorKind, Event, Image, LoadRequest, PreviewOf, Result, Sampler,
    Schedule, Session, guard,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who watches a run: a terminal, a web page.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event);
    /// An image was saved.
    fn saved(&mut self, _path: &Path) {}
    /// An image in work looks like this now. The file is there until the next preview takes its place.
    fn preview(&mut self, _path: &Path, _of: PreviewOf) {}
}

/// A flag that asks a run to stop after the step it is in.
pub type Cancel = Arc<AtomicBool>;

/// Where and how to compute.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compute {
    /// The device.
    pub device: Device,
    /// The number format.
    pub dtype: Dtype,
    /// Random weights instead of the model's files.
    pub fake_weights: bool,
}

impl Compute {
    /// On the processor: for work that no other device does.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, ..Self::default() }
    }
}

/// What a finished run left.
#[derive(Debug)]
pub struct Outcome {
    /// Its folder.
    pub dir: PathBuf,
    /// Its images.
    pub images: Vec<PathBuf>,
    /// What the engine said about it.
    pub facts: Value,
    /// The digests of the model's files, by what each is for.
    pub model_files: BTreeMap<String, String>,
}

/// Runs a plan and keeps what it makes below `outputs`.
///
/// # Errors
/// Whatever stopped it; it has been logged, with everything that is needed to understand it, and stands in
/// the run's ledger.
pub fn run(
    planned: &Planned<'_>,
    compute: Compute,
    outputs: &Path,
    registries: &Registries,
    observer: &mut dyn Observer,
    cancel: &Cancel,
) -> Result<Outcome> {
    let device = compute.device.to_string();
    let changes: Vec<String> = planned
        .layers
        .changes()
        .into_iter()
        .map(|(p, v, s)| format!("{}={} ({s})", &p[1..], json::brief(v)))
        .collect();
    tracing::info!(
        task = planned.task,
        engine = planned.engine_name,
        model = planned.model.map(|m| m.spec.key.as_str()),
        preset = planned.preset,
        device,
        changes = changes.join(", "),
        "run"
    );
    let result = RunFolder::create(outputs, planned, registries, &device).and_then(|folder| {
        let mut keep = Keep { folder, inputs: &planned.inputs, registries, observer };
        let result = perform(planned, compute, registries, &mut keep, cancel);
        keep.close(result)
    });
    result.map_err(|e| report(planned, &device, e))
}

/// Runs a plan without keeping anything: for benchmarks.
///
/// # Errors
/// Whatever stopped it.
pub fn rehearse(
    planned: &Planned<'_>,
    compute: Compute,
    registries: &Registries,
    observer: &mut dyn Observer,
    cancel: &Cancel,
) -> Result<Value> {
    let result = perform(planned, compute, registries, &mut Watch(observer), cancel);
    result.map_err(|e| report(planned, &compute.device.to_string(), e))
}

/// Runs a plan that makes no images and writes where it was told to: no run folder is made for it.
///
/// # Errors
/// Whatever stopped it; an image.
pub fn run_tool(
    planned: &Planned<'_>,
    compute: Compute,
    registries: &Registries,
    observer: &mut dyn Observer,
    cancel: &Cancel,
) -> Result<Value> {
    let result = perform(planned, compute, registries, &mut Tool(observer), cancel);
    result.map_err(|e| report(planned, &compute.device.to_string(), e))
}

/// What becomes of events and images.
trait Output {
    fn event(&mut self, event: &Event) -> Result<()>;
    /// An image, and where it is to stand if not among those of the run.
    fn image(&mut self, image: &Image, alone: &Value, place: Option<PathBuf>) -> Result<()>;
    /// Previews are for those who watch a run that is kept.
    fn preview(&mut self, _: &Image, _: PreviewOf) -> Result<()> {
        Ok(())
    }
    /// The adapters found so far.
    fn loras(&mut self, _: Value) {}
}

struct Keep<'a> {
    folder: RunFolder,
    inputs: &'a Inputs,
    registries: &'a Registries,
    observer: &'a mut dyn Observer,
}

impl Keep<'_> {
    fn close(mut self, result: Result<Value>) -> Result<Outcome> {
        let (status, error) = match &result {
            Ok(_) => (Status::Done, None),
            Err(e) if e.kind() == ErrorKind::Cancelled => (Status::Cancelled, None),
            Err(e) => (Status::Failed, Some(describe(e))),
        };
        let written = self.folder.finish(status, result.as_ref().ok(), error.as_ref());
        // The run's own error says more than a ledger that could not be written because of it.
        let facts = result?;
        written?;
        let images = self.folder.images().to_vec();
        let model_files = self.folder.model_files();
        Ok(Outcome { dir: self.folder.dir().to_path_buf(), images, facts, model_files })
    }
}

impl Output for Keep<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.observer.event(event);
        self.folder.event(event)
    }
    fn image(&mut self, image: &Image, alone: &Value, place: Option<PathBuf>) -> Result<()> {
        self.folder.note("inputs", self.inputs.record()?);
        let path = self.folder.image(image, alone, place, self.registries)?;
        self.observer.saved(&path);
        Ok(())
    }
    fn preview(&mut self, image: &Image, of: PreviewOf) -> Result<()> {
        let path = self.folder.preview(image, of)?;
        self.observer.preview(&path, of);
        Ok(())
    }
    fn loras(&mut self, record: Value) {
        self.folder.note("loras", record);
    }
}

struct Watch<'a>(&'a mut dyn Observer);

impl Output for Watch<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.event(event);
        Ok(())
    }
    fn image(&mut self, _: &Image, _: &Value, _: Option<PathBuf>) -> Result<()> {
        Ok(())
    }
}

struct Tool<'a>(&'a mut dyn Observer);

impl Output for Tool<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.event(event);
        Ok(())
    }
    fn image(&mut self, _: &Image, _: &Value, _: Option<PathBuf>) -> Result<()> {
        Err(Error::internal("a task that keeps no images gave one"))
    }
}

/// The services an engine gets.
struct Services<'a> {
    registries: &'a Registries,
    inputs: &'a Inputs,
    output: &'a mut dyn Output,
    cancel: &'a AtomicBool,
    found: Found,
}

impl EngineCtx for Services<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        self.output.event(&event)?;
        if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
    fn sampler(&mut self, key: &str, options: &Value) -> Result<Box<dyn Sampler>> {
        self.registries.sampler(key)?.make(options)
    }
    fn schedule(&mut self, key: &str, options: &Value) -> Result<Box<dyn Schedule>> {
        self.registries.schedule(key)?.make(options)
    }
    fn input_image(&mut self, field: &str) -> Result<Image> {
        self.inputs.read_image(field)
    }
    fn input_picture(&mut self, field: &str, name: &str) -> Result<Image> {
        self.inputs.read_picture(field, name)
    }
    fn input_bytes(&mut self, field: &str) -> Result<Vec<u8>> {
        self.inputs.read_bytes(field)
    }
    fn find_file(&mut self, kind: &str, name: &str) -> Result<FoundFile> {
        self.found.find(kind, name, self.registries, self.inputs)
    }
    fn image(&mut self, image: Image, alone: Value) -> Result<()> {
        self.output.loras(self.found.record());
        self.output.image(&image, &alone, None)
    }
    fn image_named(&mut self, image: Image, alone: Value, field: &str, name: &str) -> Result<()> {
        let place = self.inputs.place(field, name)?;
        self.output.loras(self.found.record());
        self.output.image(&image, &alone, Some(place))
    }
    fn preview(&mut self, image: Image, of: PreviewOf) -> Result<()> {
        self.output.preview(&image, of)?;
        if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }
}

fn perform(
    planned: &Planned<'_>,
    compute: Compute,
    registries: &Registries,
    output: &mut dyn Output,
    cancel: &Cancel,
) -> Result<Value> {
    let device_name = compute.device.to_string();
    let kind = device_name.split(':').next().unwrap_or_default();
    if let Some(e) = builtin::not_compiled_in("device", kind) {
        return Err(e);
    }
    let mut services =
        Services { registries, inputs: &planned.inputs, output, cancel, found: Found::default() };
    guard(&format!("engine `{}`", planned.engine_name), || {
        let engine = planned.engine.make()?;
        let request = LoadRequest {
            model: planned.model.map(|m| &m.spec),
            device: compute.device,
            dtype: compute.dtype,
            fake_weights: compute.fake_weights,
        };
        let mut session: Box<dyn Session> = {
            let _span = tracing::trace_span!(target: TARGET, "load");
            engine.load(&request, &mut services)?
        };
        let _span = tracing::trace_span!(target: TARGET, "run", task = planned.task);
        let mut facts = session.run(&planned.task, &planned.plan, &mut services)?;
        facts["device"] = json!(session.describe());
        facts["peak_memory"] = json!(machine::peak_memory());
        Ok(facts)
    })
}

/// Logs a failed run, once.
fn report(planned: &Planned<'_>, device: &str, e: Error) -> Error {
    if e.kind() == ErrorKind::Cancelled {
        tracing::info!(task = planned.task, "stopped on request");
        return e;
    }
    tracing::error!(
        task = planned.task,
        engine = planned.engine_name,
        model = planned.model.map(|m| m.spec.key.as_str()),
        preset = planned.preset,
        device,
        options = %planned.plan,
        causes = ?e.chain(),
        kind = ?e.kind(),
        // With backtraces, where a library took one.
        debug = (!e.kind().is_expected()).then(|| format!("{e:?}")),
        "run failed"
    );
    e
}

fn describe(e: &Error) -> Value {
    json!({"kind": e.kind(), "causes": e.chain(), "hints": e.hints()})
}
