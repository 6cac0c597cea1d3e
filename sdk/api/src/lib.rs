//! What every atelier plugin author sees.
//!
//! A plugin is one of five kinds - task, engine, sampler, schedule, model - and registers with one line
//! of [`export_plugin!`]. Everything that crosses the line between host and plugin is plain data: JSON for
//! parameters, `f32` slices for latents, byte buffers for images. No tensor library and no async runtime
//! appears here, so a plugin may use whichever it likes.
//!
//! ```text
//! preset + overrides ──schema──▶ params ──plan──▶ Session::run(plan, ctx) ──▶ events, images
//! ```

pub mod describe;
pub mod engine;
pub mod error;
pub mod event;
pub mod files;
pub mod guard;
pub mod image;
pub mod key;
pub mod log;
pub mod model;
pub mod params;
pub mod registration;
pub mod registry;
pub mod remote;
pub mod rng;
pub mod sampler;
pub mod schedule;
pub mod step;
pub mod task;
#[cfg(feature = "testkit")]
pub mod testkit;

mod context;
mod export;
mod library;

pub use engine::{Device, Dtype, Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, LoadRequest, Session};
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use event::{Event, PreviewOf, Stage};
pub use guard::guard;
pub use image::{Image, PixelFormat};
pub use model::{ModelReg, ModelSpec};
pub use params::{PlanCtx, TaskParams, Violation};
pub use registry::{Keyed, Registry};
pub use sampler::{Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin, SamplerReg};
pub use schedule::{NoiseLevels, Schedule, ScheduleInfo, SchedulePlugin, ScheduleReg};
pub use step::{Step, StepPlugin, Steps};
pub use task::{TaskInfo, TaskReg};

#[doc(hidden)]
pub use {inventory, schemars, serde, serde_json};
