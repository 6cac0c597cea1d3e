//! What the registries hold: plugins as the host sees them, wherever they come from.

use crate::plugins::plugin::{Plugin, PluginEngine};
use atelier_sdk::describe::{EngineDescription, SamplerDescription, ScheduleDescription, TaskDescription};
use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::registration::{Info, Reg};
use atelier_sdk::{
    Engine, EngineReg, Error, ErrorKind, Keyed, PlanCtx, Result, Sampler, Schedule, TaskReg, Violation,
};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// Where a plugin comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A crate that is linked in.
    Crate(&'static str),
    /// A library.
    Library(Arc<Plugin>),
}

impl Origin {
    /// In words: the crate, or the library's file.
    pub fn text(&self) -> &str {
        match self {
            Self::Crate(name) => name,
            Self::Library(plugin) => plugin.file.to_str().unwrap_or(&plugin.name),
        }
    }

    /// The name of the library.
    pub fn plugin(&self) -> Option<&str> {
        match self {
            Self::Crate(_) => None,
            Self::Library(plugin) => Some(&plugin.name),
        }
    }

    /// What the metadata of an image says of it.
    pub fn record(&self) -> Value {
        match self {
            Self::Crate(name) => json!(name),
            Self::Library(plugin) => plugin.record(),
        }
    }
}

/// What a description tells of its plugin's names.
pub trait Described {
    /// The key.
    fn key(&self) -> &str;
    /// Other names.
    fn aliases(&self) -> &[String] {
        &[]
    }
}

macro_rules! described {
    ($($t:ty),*) => {$(
        impl Described for $t {
            fn key(&self) -> &str {
                &self.key
            }
            fn aliases(&self) -> &[String] {
                &self.aliases
            }
        }
    )*};
}

described!(SamplerDescription, ScheduleDescription);

type Make<T> = Arc<dyn Fn(&Value) -> Result<Box<T>> + Send + Sync>;

/// A plugin that a request chooses and sets options of.
pub struct Part<D, T: ?Sized> {
    /// What it says of itself.
    pub about: D,
    /// Where it comes from.
    pub origin: Origin,
    make: Make<T>,
}

/// A sampler.
pub type SamplerItem = Part<SamplerDescription, dyn Sampler>;
/// A schedule.
pub type ScheduleItem = Part<ScheduleDescription, dyn Schedule>;

impl<D, T: ?Sized + 'static> Part<D, T> {
    /// One that is linked in.
    pub fn linked<I: Info>(reg: &'static Reg<I, T>) -> Self
    where
        D: From<&'static Reg<I, T>>,
    {
        Self { about: reg.into(), origin: Origin::Crate(reg.origin), make: Arc::new(reg.make) }
    }

    /// Makes one with options.
    ///
    /// # Errors
    /// Wrong options; a library that cannot be started.
    pub fn make(&self, options: &Value) -> Result<Box<T>> {
        (self.make)(options)
    }
}

impl SamplerItem {
    /// One of a library.
    pub fn of(plugin: &Arc<Plugin>, about: SamplerDescription) -> Self {
        let (library, key) = (plugin.clone(), about.key.clone());
        let make = Arc::new(move |options: &Value| library.sampler(&key, options));
        Self { about, origin: Origin::Library(plugin.clone()), make }
    }
}

impl ScheduleItem {
    /// One of a library.
    pub fn of(plugin: &Arc<Plugin>, about: ScheduleDescription) -> Self {
        let (library, key) = (plugin.clone(), about.key.clone());
        let make = Arc::new(move |options: &Value| library.schedule(&key, options));
        Self { about, origin: Origin::Library(plugin.clone()), make }
    }
}

impl<D: fmt::Debug, T: ?Sized> fmt::Debug for Part<D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("about", &self.about).finish_non_exhaustive()
    }
}

impl<D: Described, T: ?Sized> Keyed for Part<D, T> {
    fn key(&self) -> &str {
        self.about.key()
    }
    fn origin(&self) -> &str {
        self.origin.text()
    }
    fn plugin(&self) -> Option<&str> {
        self.origin.plugin()
    }
    fn aliases(&self) -> Vec<&str> {
        self.about.aliases().iter().map(String::as_str).collect()
    }
}

/// A task that has a name.
#[derive(Debug, Clone)]
pub struct TaskItem {
    /// What it is.
    pub about: TaskDescription,
    /// Where it comes from.
    pub origin: Origin,
}

impl From<&TaskReg> for TaskItem {
    fn from(reg: &TaskReg) -> Self {
        Self { about: reg.info.into(), origin: Origin::Crate(reg.origin) }
    }
}

impl Keyed for TaskItem {
    fn key(&self) -> &str {
        &self.about.key
    }
    fn origin(&self) -> &str {
        self.origin.text()
    }
    fn plugin(&self) -> Option<&str> {
        self.origin.plugin()
    }
}

/// An engine.
#[derive(Debug)]
pub struct EngineItem {
    /// What it says of itself.
    pub about: EngineDescription,
    /// Where it comes from.
    pub origin: Origin,
    code: Code,
}

#[derive(Debug)]
enum Code {
    Linked(EngineReg),
    Library(Arc<Plugin>),
}

impl From<&EngineReg> for EngineItem {
    fn from(reg: &EngineReg) -> Self {
        Self { about: reg.into(), origin: Origin::Crate(reg.origin), code: Code::Linked(*reg) }
    }
}

impl EngineItem {
    /// One of a library.
    pub fn of(plugin: &Arc<Plugin>, about: EngineDescription) -> Self {
        Self { about, origin: Origin::Library(plugin.clone()), code: Code::Library(plugin.clone()) }
    }

    fn in_library(&self, plugin: &Arc<Plugin>) -> Result<PluginEngine> {
        plugin.engine(&self.about.key)
    }

    /// Checks and completes parameters that the schema accepted.
    ///
    /// # Errors
    /// It does not perform the task; a library that fails. The violations are not a failure.
    pub fn plan(&self, task: &str, params: Value, ctx: &PlanCtx) -> Result<Result<Value, Vec<Violation>>> {
        match &self.code {
            Code::Linked(reg) => {
                let found = reg.tasks.iter().find(|t| t.task.key == task);
                let found = found.ok_or_else(|| {
                    Error::new(
                        ErrorKind::NotFound,
                        format!("engine `{}` has no task `{task}`", self.about.key),
                    )
                })?;
                Ok((found.plan)(params, ctx))
            }
            Code::Library(plugin) => self.in_library(plugin)?.plan(task, params, ctx),
        }
    }

    /// The devices it sees.
    ///
    /// # Errors
    /// A library that fails.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        match &self.code {
            Code::Linked(reg) => Ok((reg.devices)()),
            Code::Library(plugin) => self.in_library(plugin)?.devices(),
        }
    }

    /// Makes one.
    ///
    /// # Errors
    /// A library that cannot be started.
    pub fn make(&self) -> Result<Box<dyn Engine>> {
        match &self.code {
            Code::Linked(reg) => (reg.make)(),
            Code::Library(plugin) => Ok(Box::new(self.in_library(plugin)?)),
        }
    }
}

impl Keyed for EngineItem {
    fn key(&self) -> &str {
        &self.about.key
    }
    fn origin(&self) -> &str {
        self.origin.text()
    }
    fn plugin(&self) -> Option<&str> {
        self.origin.plugin()
    }
}
