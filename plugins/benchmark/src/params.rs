//! Parameters of the task.

use atelier_sdk::{PlanCtx, TaskInfo, TaskParams, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A network is measured.
pub const BENCHMARK: TaskInfo = TaskInfo {
    key: "benchmark",
    title: "Benchmark",
    summary: "Measures how fast one network of a model works, and what the processor could do.",
};

/// What is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The processor alone: its multiply-adds in f32.
    Peak,
    /// The text encoder on one prompt of full length.
    Text,
    /// The UNet on two images, as a step under guidance has them.
    #[default]
    Unet,
    /// The autoencoder from latents to an image.
    VaeDecode,
    /// The autoencoder from an image to latents.
    VaeEncode,
    /// Real-ESRGAN's large network on a tile, with made-up weights.
    Rrdb,
    /// Real-ESRGAN's small network on a tile, with made-up weights.
    Srvgg,
    /// A step of LoRA training: forward, loss, and back to the gradients of all factors.
    Train,
}

/// Measures one piece of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Benchmark {
    /// What is measured.
    pub work: Work,
    /// Width of the image in pixels; a tile for an upscaler has a quarter of it.
    #[schemars(range(min = 64, max = 4096), extend("multipleOf" = 64))]
    pub width: u32,
    /// Height of the image in pixels; a tile for an upscaler has a quarter of it.
    #[schemars(range(min = 64, max = 4096), extend("multipleOf" = 64))]
    pub height: u32,
    /// How often it is measured, after once that does not count.
    #[schemars(range(min = 1, max = 1000))]
    pub runs: u32,
}

impl Default for Benchmark {
    fn default() -> Self {
        Self { work: Work::default(), width: 512, height: 512, runs: 3 }
    }
}

impl TaskParams for Benchmark {
    const TASK: &'static TaskInfo = &BENCHMARK;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        Ok(self)
    }
}
