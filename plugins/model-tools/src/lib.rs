//! Looks into model files and converts them, without loading a network.

mod convert;
mod error;
mod inspect;
mod params;

use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::{
    Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, LoadRequest, Result, ResultExt, Session,
};
use params::{ConvertModel, InspectModel};
use serde_json::Value;

/// What this engine is.
pub const INFO: EngineInfo = EngineInfo {
    key: "model-tools",
    title: "Model tools",
    summary: "Says what model files are, and converts them between layouts and number formats.",
    architectures: &[],
};

const TASKS: &[EngineTask] = &[EngineTask::of::<InspectModel>(), EngineTask::of::<ConvertModel>()];

struct ModelTools;

impl Engine for ModelTools {
    fn load(&self, _: &LoadRequest<'_>, _: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        Ok(Box::new(Tools))
    }
}

struct Tools;

impl Session for Tools {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let wrong = "a plan of another shape";
        if task == params::INSPECT_MODEL.key {
            let params: InspectModel = serde_json::from_value(plan.clone()).internal(wrong)?;
            return inspect::run(&params, ctx);
        }
        convert::run(&serde_json::from_value(plan.clone()).internal(wrong)?, ctx)
    }

    fn describe(&self) -> String {
        "cpu".into()
    }
}

fn make() -> Result<Box<dyn Engine>> {
    Ok(Box::new(ModelTools))
}

/// It computes nothing.
fn devices() -> Vec<DeviceInfo> {
    Vec::new()
}

const ENGINE: EngineReg =
    EngineReg { info: &INFO, tasks: TASKS, devices, make, origin: env!("CARGO_PKG_NAME") };

atelier_sdk::export_plugin! { engine ENGINE; }
atelier_sdk::export_plugin! { task &params::INSPECT_MODEL; }
atelier_sdk::export_plugin! { task &params::CONVERT_MODEL; }
