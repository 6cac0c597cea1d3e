//! What plugins say of themselves, owned: as it is listed, cached, and read from a library.
//!
//! Fields that a newer or older side does not know are passed over or take their defaults.

use crate::engine::{EngineReg, EngineTask};
use crate::model::{ModelReg, ModelSpec};
use crate::sampler::SamplerReg;
use crate::schedule::ScheduleReg;
use crate::task::{TaskInfo, TaskReg};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDescription {
    /// Its key.
    pub key: String,
    /// A few words.
    #[serde(default)]
    pub title: String,
    /// One sentence.
    #[serde(default)]
    pub summary: String,
}

/// A sampler. See [`crate::SamplerInfo`] for the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SamplerDescription {
    pub key: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    #[serde(default = "one")]
    pub evaluations: u32,
    #[serde(default)]
    pub order: u32,
    #[serde(default)]
    pub stochastic: bool,
    #[serde(default)]
    pub source: String,
    /// Schema of its options.
    pub options_schema: Value,
}

fn one() -> u32 {
    1
}

/// A schedule. See [`crate::ScheduleInfo`] for the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ScheduleDescription {
    pub key: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub source: String,
    /// Schema of its options.
    pub options_schema: Value,
}

/// A task of an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineTaskDescription {
    /// The task.
    pub task: TaskDescription,
    /// Schema of its parameters.
    pub schema: Value,
}

/// An engine. See [`crate::EngineInfo`] for the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct EngineDescription {
    pub key: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    pub architectures: Vec<String>,
    #[serde(default)]
    pub tasks: Vec<EngineTaskDescription>,
}

/// Everything that one library registers, sorted by key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PluginDescription {
    pub tasks: Vec<TaskDescription>,
    pub engines: Vec<EngineDescription>,
    pub samplers: Vec<SamplerDescription>,
    pub schedules: Vec<ScheduleDescription>,
    pub models: Vec<ModelSpec>,
}

impl PluginDescription {
    /// What is linked into this binary or library.
    pub fn linked() -> Self {
        let mut all = Self {
            tasks: inventory::iter::<TaskReg>.into_iter().map(|t| t.info.into()).collect(),
            engines: inventory::iter::<EngineReg>.into_iter().map(Into::into).collect(),
            samplers: inventory::iter::<SamplerReg>.into_iter().map(Into::into).collect(),
            schedules: inventory::iter::<ScheduleReg>.into_iter().map(Into::into).collect(),
            models: inventory::iter::<ModelReg>.into_iter().map(|m| (m.spec)()).collect(),
        };
        // The order of an inventory is unspecified.
        all.tasks.sort_by(|a, b| a.key.cmp(&b.key));
        all.engines.sort_by(|a, b| a.key.cmp(&b.key));
        all.samplers.sort_by(|a, b| a.key.cmp(&b.key));
        all.schedules.sort_by(|a, b| a.key.cmp(&b.key));
        all.models.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// (kind, key) of everything.
    pub fn keys(&self) -> Vec<(&'static str, &str)> {
        let tasks = self.tasks.iter().map(|t| ("task", t.key.as_str()));
        tasks
            .chain(self.engines.iter().map(|e| ("engine", e.key.as_str())))
            .chain(self.samplers.iter().map(|s| ("sampler", s.key.as_str())))
            .chain(self.schedules.iter().map(|s| ("schedule", s.key.as_str())))
            .chain(self.models.iter().map(|m| ("model", m.key.as_str())))
            .collect()
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

impl From<&TaskInfo> for TaskDescription {
    fn from(t: &TaskInfo) -> Self {
        Self { key: t.key.into(), title: t.title.into(), summary: t.summary.into() }
    }
}

impl From<&SamplerReg> for SamplerDescription {
    fn from(reg: &SamplerReg) -> Self {
        let i = reg.info;
        Self {
            key: i.key.into(),
            title: i.title.into(),
            summary: i.summary.into(),
            aliases: owned(i.aliases),
            evaluations: i.evaluations,
            order: i.order,
            stochastic: i.stochastic,
            source: i.source.into(),
            options_schema: (reg.schema)(),
        }
    }
}

impl From<&ScheduleReg> for ScheduleDescription {
    fn from(reg: &ScheduleReg) -> Self {
        let i = reg.info;
        Self {
            key: i.key.into(),
            title: i.title.into(),
            summary: i.summary.into(),
            aliases: owned(i.aliases),
            source: i.source.into(),
            options_schema: (reg.schema)(),
        }
    }
}

impl From<&EngineTask> for EngineTaskDescription {
    fn from(t: &EngineTask) -> Self {
        Self { task: t.task.into(), schema: (t.schema)() }
    }
}

impl From<&EngineReg> for EngineDescription {
    fn from(reg: &EngineReg) -> Self {
        Self {
            key: reg.info.key.into(),
            title: reg.info.title.into(),
            summary: reg.info.summary.into(),
            architectures: owned(reg.info.architectures),
            tasks: reg.tasks.iter().map(Into::into).collect(),
        }
    }
}
