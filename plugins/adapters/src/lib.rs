//! Files of adapters, LoRA and its relatives, as tasks of an engine: look into one, merge some into a model, extract
//! the difference of two models, convert between layouts.

mod convert;
mod error;
mod extract;
mod inspect;
mod merge;
mod model;
mod svd;
mod write;

use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::{
    Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, Error, LoadRequest, Result, ResultExt, Session,
    TaskInfo,
};
use serde_json::Value;

/// What this engine is.
pub const INFO: EngineInfo = EngineInfo {
    key: "adapters",
    title: "Adapters",
    summary: "Looks into adapters (LoRA and its relatives), merges, extracts and converts them.",
    architectures: &[],
};

/// Says what an adapter is.
pub const INSPECT: TaskInfo = TaskInfo {
    key: "lora-inspect",
    title: "Inspect a LoRA",
    summary: "Says what an adapter holds and what it fits.",
};
/// Adds adapters to a model.
pub const MERGE: TaskInfo = TaskInfo {
    key: "lora-merge",
    title: "Merge LoRAs",
    summary: "Writes a model with adapters added to its weights.",
};
/// Makes an adapter of two models.
pub const EXTRACT: TaskInfo = TaskInfo {
    key: "lora-extract",
    title: "Extract a LoRA",
    summary: "Makes a low-rank adapter of the difference of two models.",
};
/// Writes an adapter in another layout.
pub const CONVERT: TaskInfo = TaskInfo {
    key: "lora-convert",
    title: "Convert a LoRA",
    summary: "Writes an adapter in the layout of kohya, diffusers or PEFT.",
};

const TASKS: &[EngineTask] = &[
    EngineTask::of::<inspect::Inspect>(),
    EngineTask::of::<merge::Merge>(),
    EngineTask::of::<extract::Extract>(),
    EngineTask::of::<convert::Convert>(),
];

struct Adapters;

impl Engine for Adapters {
    fn load(&self, _: &LoadRequest<'_>, _: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        Ok(Box::new(Tools))
    }
}

struct Tools;

impl Session for Tools {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        fn read<P: serde::de::DeserializeOwned>(plan: &Value) -> Result<P> {
            serde_json::from_value(plan.clone()).internal("a plan of another shape")
        }
        match task {
            t if t == INSPECT.key => inspect::run(&read(plan)?),
            t if t == MERGE.key => merge::run(&read(plan)?, ctx),
            t if t == EXTRACT.key => extract::run(&read(plan)?, ctx),
            t if t == CONVERT.key => convert::run(&read(plan)?),
            other => Err(Error::internal(format!("the session was given task `{other}`"))),
        }
    }

    fn describe(&self) -> String {
        "cpu".into()
    }
}

/// It computes where it runs, on the CPU: nothing to choose.
fn devices() -> Vec<DeviceInfo> {
    Vec::new()
}

fn make() -> Result<Box<dyn Engine>> {
    Ok(Box::new(Adapters))
}

const ENGINE: EngineReg =
    EngineReg { info: &INFO, tasks: TASKS, devices, make, origin: env!("CARGO_PKG_NAME") };

atelier_sdk::export_plugin! {
    engine ENGINE;
    task &INSPECT;
    task &MERGE;
    task &EXTRACT;
    task &CONVERT;
}
