//! Measures networks by themselves, as an atelier engine: one piece of work a request, on the networks of a model or on
//! made-up weights of its shapes.
//!
//! What is told are seconds, operations counted from the shapes, and what the processor could do at that moment; the
//! host makes lines and comparisons of them (`atelier benchmark --suite`).

mod clock;
mod networks;
mod params;
mod train;
mod works;

use atelier_sdk::{
    Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, Error, LoadRequest, Result, ResultExt, Session,
};
use networks::Networks;
use serde_json::Value;

/// What this engine is.
pub const INFO: EngineInfo = EngineInfo {
    key: "benchmark",
    title: "Benchmark",
    summary: "Measures the networks of a model one by one: time, arithmetic, and the processor's peak.",
    architectures: &["sd"],
};

struct Benchmarks;

impl Engine for Benchmarks {
    fn load(&self, request: &LoadRequest<'_>, _: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        Ok(Box::new(Bench(Networks::of(request)?)))
    }
}

/// A model whose networks are loaded when they are measured.
struct Bench(Networks);

impl Session for Bench {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        if task != params::BENCHMARK.key {
            return Err(Error::internal(format!("the session was given task `{task}`")));
        }
        let params = serde_json::from_value(plan.clone()).internal("a plan of another shape")?;
        works::run(&self.0, &params, ctx)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

fn make() -> Result<Box<dyn Engine>> {
    Ok(Box::new(Benchmarks))
}

const ENGINE: EngineReg = EngineReg {
    info: &INFO,
    tasks: &[EngineTask::of::<params::Benchmark>()],
    devices: atelier_diffusion::device::list,
    make,
    origin: env!("CARGO_PKG_NAME"),
};

atelier_sdk::export_plugin! {
    task &params::BENCHMARK;
    engine ENGINE;
}
