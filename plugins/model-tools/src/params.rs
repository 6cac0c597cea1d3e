//! The parameters of both tasks.

use atelier_sdk::task::TaskInfo;
use atelier_sdk::{PlanCtx, TaskParams, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file or folder is looked into.
pub const INSPECT_MODEL: TaskInfo = TaskInfo {
    key: "model-inspect",
    title: "Inspect a model",
    summary: "Says what a model file or folder is, what is in it, and what is odd about it.",
};

/// A file or folder becomes another.
pub const CONVERT_MODEL: TaskInfo = TaskInfo {
    key: "model-convert",
    title: "Convert a model",
    summary: "Writes a model in another layout or number format.",
};

/// Says what a model is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InspectModel {
    /// A safetensors file, an archive of `torch.save`, a GGUF file, or a folder in the layout of diffusers.
    #[schemars(extend("x-file" = "path"))]
    pub path: String,
    /// Read every number and report those that are not finite, and tensors that are zero throughout.
    #[serde(default)]
    pub values: bool,
}

impl TaskParams for InspectModel {
    const TASK: &'static TaskInfo = &INSPECT_MODEL;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        Ok(self)
    }
}

/// What a model becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One safetensors file with the names that the input has.
    Safetensors,
    /// A folder in the layout of diffusers.
    Diffusers,
    /// One safetensors file with the names of the first programs for latent diffusion.
    Ldm,
    /// One GGUF file, with the names of the first programs if the input is a model's folder, and else with its own.
    Gguf,
}

/// A number format of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// That of the input; quantised weights become f32, but in GGUF.
    #[default]
    Keep,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with f32's exponent.
    Bf16,
    /// The weights of layers in blocks of 8-bit integers (`Q8_0`), all else, and the autoencoder, in f16. GGUF only.
    Int8,
}

/// Writes a model differently.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvertModel {
    /// The model: a file or a folder in the layout of diffusers.
    #[schemars(extend("x-file" = "path"))]
    pub input: String,
    /// What it becomes.
    pub to: Layout,
    /// The number format of its weights.
    #[serde(default)]
    pub dtype: Format,
    /// The file or folder to write.
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Replace what is there.
    #[serde(default)]
    pub overwrite: bool,
}

impl TaskParams for ConvertModel {
    const TASK: &'static TaskInfo = &CONVERT_MODEL;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        let mut wrong = Vec::new();
        if self.out.is_empty() {
            wrong.push(Violation::new("/out", "no place to write to is given"));
        }
        if !self.out.is_empty() && self.out == self.input {
            wrong.push(Violation::new("/out", "it is the input").hint("name another file or folder"));
        }
        if self.dtype == Format::Int8 && self.to != Layout::Gguf {
            wrong.push(
                Violation::new("/dtype", "safetensors files have no blocks of integers").hint("--to gguf"),
            );
        }
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }
}
