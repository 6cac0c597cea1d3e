//! The engine: tasks to trainings.

use crate::base::{self, Base};
use crate::params::{Target, TrainLora};
use crate::sets::Sets;
use crate::{dry, run, search};
use atelier_diffusion::Prediction;
use atelier_sdk::task::TRAIN_LORA;
use atelier_sdk::{
    Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, Error, Event, LoadRequest, Result, ResultExt,
    Session, Stage,
};
use serde_json::Value;

struct Trainer;

impl Engine for Trainer {
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        ctx.event(Event::Stage { stage: Stage::Load })?;
        let base = Base::open(request)?;
        for (role, path) in base::files(&base) {
            ctx.event(Event::File { role: role.into(), path })?;
        }
        let own = base.process.prediction;
        Ok(Box::new(Course { base, own }))
    }
}

struct Course {
    base: Base,
    /// What the model was made to predict.
    own: Prediction,
}

impl Course {
    /// Has training and samples take the network to predict this.
    fn aim(&mut self, target: Target) {
        self.base.process.prediction = match target {
            Target::Auto => self.own,
            Target::Epsilon => Prediction::Epsilon,
            Target::VPrediction => Prediction::VPrediction,
        };
    }
}

impl Session for Course {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let wrong = "a plan of another shape";
        if task == search::TASK.key {
            let search: search::TrainSearch = serde_json::from_value(plan.clone()).internal(wrong)?;
            self.aim(search.train.prediction_type);
            return search::run(&self.base, &search, ctx);
        }
        if task != TRAIN_LORA.key {
            return Err(Error::internal(format!("engine `{}` has no task `{task}`", INFO.key)));
        }
        let params: TrainLora = serde_json::from_value(plan.clone()).internal(wrong)?;
        self.aim(params.prediction_type);
        let sets = Sets::open(&params, ctx)?;
        if params.dry_run {
            return dry::estimate(&self.base, &params, &sets, ctx);
        }
        run::train(&self.base, &params, &sets, ctx)
    }

    fn describe(&self) -> String {
        atelier_diffusion::device::describe(&self.base.device, candle_core::DType::F32)
    }
}

/// What this engine is.
pub const INFO: EngineInfo = EngineInfo {
    key: "lora-trainer",
    title: "LoRA trainer",
    summary: "Trains low-rank adapters on models of the Stable Diffusion 1.x and 2.x classes.",
    architectures: &["sd"],
};

/// The registration of the engine.
pub const ENGINE: EngineReg = EngineReg {
    info: &INFO,
    tasks: &[EngineTask::of::<TrainLora>(), EngineTask::of::<search::TrainSearch>()],
    devices: atelier_diffusion::device::list,
    make: || Ok(Box::new(Trainer)),
    origin: env!("CARGO_PKG_NAME"),
};
