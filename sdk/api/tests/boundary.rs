//! Everything that crosses the boundary, in one process: the items of this test as a library would offer them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use atelier_sdk::remote::RemoteLibrary;
use atelier_sdk::{
    Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, Error, ErrorKind, Event, Image, LoadRequest,
    ModelSpec, NoiseLevels, PixelFormat, PlanCtx, PreviewOf, Result, Run, SampleCtx, Sampler, SamplerInfo,
    SamplerPlugin, Schedule, ScheduleInfo, SchedulePlugin, Session, Stage, Step, StepPlugin, TaskInfo,
    TaskParams, Violation,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct NoOptions {}

const fn info(key: &'static str) -> SamplerInfo {
    SamplerInfo {
        key,
        title: "Test",
        summary: "For a test.",
        aliases: &["another name"],
        evaluations: 1,
        order: 1,
        stochastic: false,
        source: "here",
    }
}

/// Euler by the adapter.
struct ByStep;

impl StepPlugin for ByStep {
    const INFO: SamplerInfo = info("by_step");
    type Options = NoOptions;
    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }
    fn step(&mut self, s: &Step<'_>, x: &mut [f32]) -> Result<()> {
        assert!(s.noise.is_empty());
        let q = s.sigma_next / s.sigma;
        x.iter_mut().zip(s.denoised).for_each(|(x, d)| *x = q * *x + (1.0 - q) * d);
        Ok(())
    }
}

/// Adds the noise that it is given.
struct Noisy;

impl StepPlugin for Noisy {
    const INFO: SamplerInfo = SamplerInfo { aliases: &[], stochastic: true, ..info("noisy") };
    const WANTS_NOISE: bool = true;
    type Options = NoOptions;
    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }
    fn step(&mut self, s: &Step<'_>, x: &mut [f32]) -> Result<()> {
        assert_eq!(s.noise.is_empty(), s.sigma_next == 0.0);
        x.iter_mut().zip(s.noise).for_each(|(x, n)| *x += n);
        Ok(())
    }
}

/// Panics when it is told to, by a negative value.
struct Fragile;

impl Sampler for Fragile {
    fn sample(&mut self, _: &Run<'_>, _: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        assert!(x[0] >= 0.0, "told to");
        Ok(())
    }
}

impl SamplerPlugin for Fragile {
    const INFO: SamplerInfo = SamplerInfo { aliases: &[], ..info("fragile") };
    type Options = NoOptions;
    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }
}

struct Halves;

impl Schedule for Halves {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let level = |i: usize| (levels.max() * 0.5f64.powi(i as i32)) as f32;
        Ok((0..steps).map(level).chain([0.0]).collect())
    }
}

impl SchedulePlugin for Halves {
    const INFO: ScheduleInfo =
        ScheduleInfo { key: "halves", title: "Halves", summary: "For a test.", aliases: &[], source: "here" };
    type Options = NoOptions;
    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }
}

const TASK: TaskInfo = TaskInfo { key: "test-task", title: "Test", summary: "For a test." };

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Params {
    sampler: String,
    seed: Option<u64>,
}

impl TaskParams for Params {
    const TASK: &'static TaskInfo = &TASK;
    fn plan(mut self, ctx: &PlanCtx) -> Result<Self, Vec<Violation>> {
        if self.sampler.is_empty() {
            return Err(vec![Violation::new("/sampler", "none").hint("name one")]);
        }
        self.seed.get_or_insert(ctx.entropy);
        Ok(self)
    }
}

struct TestEngine;

impl Engine for TestEngine {
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        ctx.event(Event::Stage { stage: Stage::Load })?;
        Ok(Box::new(TestSession(request.model()?.key.clone())))
    }
}

struct TestSession(String);

impl Session for TestSession {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let image = ctx.input_image("image")?;
        let bytes = ctx.input_bytes("file")?;
        let levels = NoiseLevels::new(vec![1.0, 2.0, 8.0])?;
        let sigmas = ctx.schedule("halves", &Value::Null)?.sigmas(3, &levels)?;
        let mut sampler = ctx.sampler(plan["sampler"].as_str().unwrap_or_default(), &json!({}))?;
        let mut x = vec![1f32; 2];
        let extra = json!({"parameterization": "ve"});
        sampler.sample(
            &Run { sigmas: &sigmas, shape: [1, 1, 1, 2], extra: &extra },
            &mut Zero::default(),
            &mut x,
        )?;
        ctx.preview(image.clone(), PreviewOf { image: 1, step: 2, steps: 3 })?;
        ctx.image(image, json!({"bytes": bytes}))?;
        Ok(json!({"task": task, "model": self.0, "sigmas": sigmas, "x": x, "cancelled": ctx.cancelled()}))
    }
    fn describe(&self) -> String {
        "test f32".into()
    }
}

fn make() -> Result<Box<dyn Engine>> {
    Ok(Box::new(TestEngine))
}

const ENGINE: EngineReg = EngineReg {
    info: &EngineInfo { key: "test-engine", title: "Test", summary: "For a test.", architectures: &["x"] },
    tasks: &[EngineTask::of::<Params>()],
    devices: Vec::new,
    make,
    origin: "test",
};

atelier_sdk::export_plugin! {
    task &TASK;
    engine ENGINE;
    step_sampler ByStep;
    step_sampler Noisy;
    sampler Fragile;
    schedule Halves;
}

/// A model whose images are all 0, and which notes what it is asked.
#[derive(Default)]
struct Zero {
    panics: bool,
    steps: Vec<usize>,
}

impl SampleCtx for Zero {
    fn denoise(&mut self, _: &[f32], _: f32, out: &mut [f32]) -> Result<()> {
        assert!(!self.panics, "in the host");
        out.fill(0.0);
        Ok(())
    }
    fn noise(&mut self, from: f32, to: f32, out: &mut [f32]) -> Result<()> {
        out.fill(from - to);
        Ok(())
    }
    fn step_done(&mut self, i: usize, _: &[f32]) -> Result<()> {
        self.steps.push(i);
        Ok(())
    }
    fn cancelled(&self) -> bool {
        false
    }
}

fn sample(sampler: &mut dyn Sampler, ctx: &mut Zero, start: f32) -> Result<Vec<f32>> {
    let mut x = vec![start; 2];
    let run = Run { sigmas: &[4.0, 2.0, 0.0], shape: [1, 1, 1, 2], extra: &Value::Null };
    sampler.sample(&run, ctx, &mut x)?;
    Ok(x)
}

/// A host for an engine.
#[derive(Default)]
struct Host {
    events: Vec<Event>,
    images: Vec<(Image, Value)>,
    previews: Vec<(Image, PreviewOf)>,
    /// Answers as one that knows no previews.
    old: bool,
}

impl EngineCtx for Host {
    fn event(&mut self, event: Event) -> Result<()> {
        self.events.push(event);
        Ok(())
    }
    fn cancelled(&self) -> bool {
        true
    }
    fn sampler(&mut self, key: &str, options: &Value) -> Result<Box<dyn Sampler>> {
        RemoteLibrary::linked().sampler(key, options)
    }
    fn schedule(&mut self, key: &str, options: &Value) -> Result<Box<dyn Schedule>> {
        RemoteLibrary::linked().schedule(key, options)
    }
    fn input_image(&mut self, field: &str) -> Result<Image> {
        assert_eq!(field, "image");
        Image::new(2, 1, PixelFormat::Rgb8, vec![1, 2, 3, 4, 5, 6])
    }
    fn input_bytes(&mut self, field: &str) -> Result<Vec<u8>> {
        assert_eq!(field, "file");
        Ok(vec![7, 8])
    }
    fn image(&mut self, image: Image, facts: Value) -> Result<()> {
        self.images.push((image, facts));
        Ok(())
    }
    fn preview(&mut self, image: Image, of: PreviewOf) -> Result<()> {
        if self.old {
            return Err(Error::new(ErrorKind::Unsupported, "an output of kind \"preview\""));
        }
        self.previews.push((image, of));
        Ok(())
    }
}

#[test]
fn a_library_describes_what_it_has() {
    let d = RemoteLibrary::linked().describe().unwrap();
    let expected = [
        ("task", "test-task"),
        ("engine", "test-engine"),
        ("sampler", "by_step"),
        ("sampler", "fragile"),
        ("sampler", "noisy"),
        ("schedule", "halves"),
    ];
    assert_eq!(d.keys(), expected);
    assert_eq!(d.samplers[0].aliases, ["another name"]);
    assert!(d.samplers[2].stochastic && !d.samplers[0].stochastic);
    assert_eq!(d.engines[0].tasks[0].schema["properties"]["sampler"]["type"], "string");
    let build: Value = serde_json::from_str(&RemoteLibrary::linked().build_info()).unwrap();
    assert_eq!(build["panic"], "unwind");
}

#[test]
fn a_sampler_of_one_evaluation_a_step_is_driven_across() {
    let mut ctx = Zero::default();
    let mut sampler = RemoteLibrary::linked().sampler("by_step", &json!({})).unwrap();
    assert_eq!(sample(sampler.as_mut(), &mut ctx, 8.0).unwrap(), [0.0, 0.0]);
    assert_eq!(ctx.steps, [0, 1]);
    let mut sampler = RemoteLibrary::linked().sampler("noisy", &json!({})).unwrap();
    // Noise of level 4 to 2, and none in the step to 0.
    assert_eq!(sample(sampler.as_mut(), &mut ctx, 1.0).unwrap(), [3.0, 3.0]);
}

#[test]
fn a_panic_of_the_host_during_a_call_of_a_plugin_comes_back_as_its_error() {
    let mut sampler = RemoteLibrary::linked().sampler("by_step", &json!({})).unwrap();
    let mut ctx = Zero { panics: true, ..Zero::default() };
    let e = sample(sampler.as_mut(), &mut ctx, 1.0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Panic);
    assert!(e.message().contains("denoise panicked: in the host"), "{e}");
    // Where it happened arrives, and the backtrace for the log.
    assert!(e.chain()[1].contains("boundary.rs"), "{:?}", e.chain());
    assert!(format!("{e:?}").contains("boundary"), "{e:?}");
}

#[test]
fn a_sampler_that_panicked_is_not_used_again() {
    let mut sampler = RemoteLibrary::linked().sampler("fragile", &json!({})).unwrap();
    sample(sampler.as_mut(), &mut Zero::default(), 1.0).unwrap();
    let e = sample(sampler.as_mut(), &mut Zero::default(), -1.0).unwrap_err();
    assert!(e.message().contains("told to"), "{e}");
    let e = sample(sampler.as_mut(), &mut Zero::default(), 1.0).unwrap_err();
    assert!(e.kind() == ErrorKind::Panic && e.message().contains("before"), "{e}");
}

#[test]
fn unknown_keys_and_wrong_options_are_refused_across() {
    let library = RemoteLibrary::linked();
    let refused = |r: Result<Box<dyn Sampler>>| r.err().map(|e| (e.kind(), e.message().to_string())).unwrap();
    let (kind, message) = refused(library.sampler("nothing", &json!({})));
    assert!(kind == ErrorKind::NotFound && message.contains("`nothing`"), "{message}");
    let (kind, message) = refused(library.sampler("by_step", &json!({"no": 1})));
    assert!(kind == ErrorKind::InvalidRequest && message.contains("no"), "{message}");
    assert!(library.engine("nothing").is_err() && library.schedule("nothing", &json!({})).is_err());
}

#[test]
fn an_engine_plans_loads_and_runs_across() {
    let engine = RemoteLibrary::linked().engine("test-engine").unwrap();
    let ctx = PlanCtx { entropy: u64::MAX };
    let violations = engine.plan("test-task", &json!({}), &ctx).unwrap().unwrap_err();
    assert_eq!(
        (violations[0].pointer.as_str(), violations[0].hint.as_deref()),
        ("/sampler", Some("name one"))
    );
    let plan = engine.plan("test-task", &json!({"sampler": "by_step"}), &ctx).unwrap().unwrap();
    assert_eq!(plan["seed"], u64::MAX);
    assert!(engine.plan("another", &json!({}), &ctx).is_err());

    let spec: ModelSpec = serde_json::from_value(json!({
        "schema_version": 1, "key": "m", "title": "", "architecture": "x", "license": "MIT"
    }))
    .unwrap();
    let mut host = Host::default();
    let mut request = LoadRequest {
        model: Some(&spec),
        device: atelier_sdk::Device::Cuda(1),
        dtype: atelier_sdk::Dtype::F16,
        fake_weights: false,
    };
    let mut session = engine.load(&request, &mut host).unwrap();
    let facts = session.run("test-task", &plan, &mut host).unwrap();
    let expected = json!({
        "task": "test-task", "model": "m", "sigmas": [8.0, 4.0, 2.0, 0.0], "x": [0.0, 0.0], "cancelled": true
    });
    assert_eq!(facts, expected);
    assert_eq!(session.describe(), "test f32");
    assert_eq!(host.events, [Event::Stage { stage: Stage::Load }]);
    assert_eq!(host.images[0].0.data(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(host.images[0].1, json!({"bytes": [7, 8]}));
    assert_eq!(host.previews, [(host.images[0].0.clone(), PreviewOf { image: 1, step: 2, steps: 3 })]);
    let mut old = Host { old: true, ..Host::default() };
    session.run("test-task", &plan, &mut old).unwrap();
    assert_eq!((old.images.len(), old.previews.len()), (1, 0));

    request.model = None;
    let e: Error = engine.load(&request, &mut host).err().unwrap();
    assert!(e.message().contains("no model"), "{e}");
}

#[test]
fn fields_of_a_newer_side_are_passed_over_and_missing_ones_have_defaults() {
    let newer = json!({
        "later": 1,
        "tasks": [{"key": "t", "later": 1}],
        "engines": [{"key": "e", "later": 1, "tasks": [{"task": {"key": "t", "later": 1}, "schema": {}, "later": 1}]}],
        "samplers": [{"key": "s", "options_schema": {}, "later": 1}],
        "schedules": [{"key": "c", "options_schema": {}, "later": 1}],
        "models": [{"schema_version": 1, "key": "m", "title": "", "architecture": "x", "license": "MIT", "later": 1}],
    });
    let d: atelier_sdk::describe::PluginDescription = serde_json::from_value(newer).unwrap();
    assert_eq!(d.keys().len(), 5);
    assert_eq!(d.samplers[0].evaluations, 1);
    let d: atelier_sdk::describe::PluginDescription = serde_json::from_value(json!({})).unwrap();
    assert!(d.keys().is_empty());
    let ctx: PlanCtx = serde_json::from_value(json!({"later": 1})).unwrap();
    assert_eq!(ctx.entropy, 0);
}
