//! An engine as a plugin: it sharpens images, and needs no model for it.
//!
//! It brings its own task, `filter`: what an engine does need not be one of the standard tasks.

mod unsharp;

use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::schemars::JsonSchema;
use atelier_sdk::serde::{Deserialize, Serialize};
use atelier_sdk::serde_json::{Value, from_value, json};
use atelier_sdk::{
    Device, Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, Error, ErrorKind, Event, LoadRequest,
    PlanCtx, Result, ResultExt, Session, TaskInfo, TaskParams, Violation,
};
use std::time::Instant;

const FILTER: TaskInfo = TaskInfo {
    key: "filter",
    title: "Filter an image",
    summary: "Makes an image from an image, without a model.",
};

/// Sharpens an image with an unsharp mask.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(crate = "atelier_sdk::serde", deny_unknown_fields)]
#[schemars(crate = "atelier_sdk::schemars")]
struct Filter {
    /// The image.
    #[schemars(extend("x-file" = "image"))]
    image: String,
    /// How much sharper: 0 changes nothing, 1 doubles the finest differences; below 0 it is softer.
    #[serde(default = "half")]
    #[schemars(range(min = -1.0, max = 5.0))]
    amount: f64,
    /// How fine the differences are: standard deviation of the blur that they are measured against, in pixels.
    #[serde(default = "two")]
    #[schemars(range(min = 0.1, max = 50.0))]
    radius: f64,
}

fn half() -> f64 {
    0.5
}

fn two() -> f64 {
    2.0
}

impl TaskParams for Filter {
    const TASK: &'static TaskInfo = &FILTER;

    // The schema says it all: there is no seed to draw, and every combination works.
    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        Ok(self)
    }
}

/// Engine and session in one, since there is nothing to load.
struct Unsharp;

impl Engine for Unsharp {
    fn load(&self, request: &LoadRequest<'_>, _: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        match request.device {
            Device::Auto | Device::Cpu => Ok(Box::new(Unsharp)),
            other => {
                let what = format!("engine `unsharp` does not compute on {other}");
                Err(Error::new(ErrorKind::Unsupported, what).hint("it needs no more than `--device cpu`"))
            }
        }
    }
}

impl Session for Unsharp {
    fn run(&mut self, _task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let began = Instant::now();
        let params: Filter = from_value(plan.clone()).internal("a plan of another shape")?;
        let mut image = ctx.input_image("image")?;
        let mut progress = Progress::of(image.height() as usize);
        unsharp::sharpen(&mut image, params.amount, params.radius, |rows| progress.tell(rows, ctx))?;
        ctx.image(image, json!({}))?;
        Ok(json!({"seconds": began.elapsed().as_secs_f64()}))
    }

    fn describe(&self) -> String {
        "cpu f32".into()
    }
}

/// Says how far the work is, in steps of many rows each.
struct Progress {
    rows: usize,
    rows_per_step: usize,
    began: Instant,
}

impl Progress {
    const STEPS: usize = 20;
    /// Asking whether to stop may be a message to another process: not worth one for every row.
    const ROWS_BETWEEN_QUESTIONS: usize = 16;

    fn of(rows: usize) -> Self {
        Self { rows, rows_per_step: rows.div_ceil(Self::STEPS), began: Instant::now() }
    }

    fn tell(&mut self, done: usize, ctx: &mut dyn EngineCtx) -> Result<()> {
        if done.is_multiple_of(Self::ROWS_BETWEEN_QUESTIONS) && ctx.cancelled() {
            return Err(Error::cancelled());
        }
        if !done.is_multiple_of(self.rows_per_step) && done != self.rows {
            return Ok(());
        }
        let seconds = self.began.elapsed().as_secs_f64();
        self.began = Instant::now();
        let (step, steps) = (done.div_ceil(self.rows_per_step), self.rows.div_ceil(self.rows_per_step));
        ctx.event(Event::Step { step, steps, seconds })
    }
}

fn devices() -> Vec<DeviceInfo> {
    vec![DeviceInfo { device: "cpu".into(), available: true, detail: std::env::consts::ARCH.into() }]
}

const ENGINE: EngineReg = EngineReg {
    info: &EngineInfo {
        key: "unsharp",
        title: "Unsharp mask",
        summary: "Sharpens or softens an image by its difference from a Gaussian blur.",
        architectures: &[],
    },
    tasks: &[EngineTask::of::<Filter>()],
    devices,
    make: || Ok(Box::new(Unsharp)),
    origin: env!("CARGO_PKG_NAME"),
};

atelier_sdk::export_plugin! {
    task &FILTER;
    engine ENGINE;
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_sdk::describe::PluginDescription;
    use atelier_sdk::remote::RemoteLibrary;
    use atelier_sdk::{Dtype, Image, PixelFormat, Sampler, Schedule};

    /// A host with one image, which wants to stop after some events.
    struct Host {
        image: Image,
        events: Vec<Event>,
        stop_after: usize,
        results: Vec<Image>,
    }

    impl Host {
        fn new(width: u32, height: u32) -> Self {
            let data = (0..width * height).map(|i| (i * i % 251) as u8).collect();
            let image = Image::new(width, height, PixelFormat::Gray8, data).unwrap();
            Self { image, events: Vec::new(), stop_after: usize::MAX, results: Vec::new() }
        }

        /// Runs the engine as a host does: by way of the boundary, with parameters that were planned.
        fn run(&mut self, params: &Value, device: Device) -> Result<Value> {
            let engine = RemoteLibrary::linked().engine("unsharp")?;
            let plan = engine.plan("filter", params, &PlanCtx { entropy: 0 })?.unwrap();
            let request = LoadRequest { model: None, device, dtype: Dtype::Auto, fake_weights: false };
            engine.load(&request, self)?.run("filter", &plan, self)
        }
    }

    impl EngineCtx for Host {
        fn event(&mut self, event: Event) -> Result<()> {
            self.events.push(event);
            if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
        }
        fn cancelled(&self) -> bool {
            self.events.len() >= self.stop_after
        }
        fn sampler(&mut self, _: &str, _: &Value) -> Result<Box<dyn Sampler>> {
            unreachable!()
        }
        fn schedule(&mut self, _: &str, _: &Value) -> Result<Box<dyn Schedule>> {
            unreachable!()
        }
        fn input_image(&mut self, field: &str) -> Result<Image> {
            assert_eq!(field, "image");
            Ok(self.image.clone())
        }
        fn input_bytes(&mut self, _: &str) -> Result<Vec<u8>> {
            unreachable!()
        }
        fn image(&mut self, image: Image, facts: Value) -> Result<()> {
            assert!(facts.is_object());
            self.results.push(image);
            Ok(())
        }
    }

    #[test]
    fn the_library_offers_a_task_and_an_engine_for_it() {
        let all = PluginDescription::linked();
        assert_eq!(all.keys(), [("task", "filter"), ("engine", "unsharp")]);
        assert_eq!(all.engines[0].tasks[0].task.key, "filter");
        let schema = &all.engines[0].tasks[0].schema;
        assert_eq!(schema["properties"]["image"]["x-file"], "image");
        assert_eq!(schema["required"], json!(["image"]));
    }

    #[test]
    fn an_image_becomes_a_sharper_one_of_the_same_size() {
        let mut host = Host::new(50, 45);
        let facts = host.run(&json!({"image": "a.png", "amount": 1.0}), Device::Auto).unwrap();
        assert!(facts["seconds"].is_number());
        let mut expected = host.image.clone();
        unsharp::sharpen(&mut expected, 1.0, 2.0, |_| Ok(())).unwrap();
        assert_ne!(expected, host.image);
        assert_eq!(host.results, [expected]);
    }

    #[test]
    fn progress_counts_up_to_the_last_row_whatever_the_height() {
        for height in [1, 7, 19, 20, 21, 45, 400] {
            let mut host = Host::new(3, height);
            host.run(&json!({"image": "a.png"}), Device::Cpu).unwrap();
            let count = host.events.len();
            assert!((1..=Progress::STEPS).contains(&count), "{height}: {count}");
            for (i, event) in host.events.iter().enumerate() {
                let Event::Step { step, steps, .. } = event else { panic!("{event:?}") };
                assert_eq!((*step, *steps), (i + 1, count), "{height}");
            }
        }
    }

    #[test]
    fn a_run_that_is_to_stop_stops_and_gives_no_image() {
        let mut host = Host::new(3, 45);
        host.stop_after = 2;
        let e = host.run(&json!({"image": "a.png"}), Device::Cpu).unwrap_err();
        assert_eq!((e.kind(), host.events.len(), host.results.len()), (ErrorKind::Cancelled, 2, 0));
    }

    #[test]
    fn a_device_that_it_cannot_use_is_refused() {
        let e = Host::new(1, 1).run(&json!({"image": "a.png"}), Device::Cuda(0)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
    }
}
