//! A plugin library that is in use: its samplers, schedules and engines, each behind a worker of its own.

use super::conn::Conn;
use super::engines::LinkEngine;
use super::frame::{Out, Tag};
use super::manifest::Isolation;
use super::parts::{Handle, LinkSampler, LinkSchedule, Make};
use super::strict::{Shared, StrictEngineCtx, StrictSampleCtx};
use super::{process, thread};
use atelier_sdk::describe::PluginDescription;
use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::{
    Engine, EngineCtx, Error, ErrorKind, LoadRequest, NoiseLevels, PlanCtx, Result, Run, SampleCtx, Sampler,
    Schedule, Session, Violation,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A plugin library in use.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its version, if its manifest tells.
    pub version: Option<String>,
    /// The library as it was found.
    pub file: PathBuf,
    /// The copy that is run.
    pub copy: PathBuf,
    /// Digest of the copy.
    pub sha256: String,
    /// Where it runs.
    pub isolation: Isolation,
    /// How long it may do nothing.
    pub stall: Duration,
    /// How it was built, as JSON.
    pub build_info: String,
    /// What it brings.
    pub description: PluginDescription,
}

impl Plugin {
    /// What the metadata of an image says of it.
    pub fn record(&self) -> Value {
        json!({"plugin": self.name, "version": self.version, "sha256": self.sha256})
    }

    fn connect(&self, what: &str) -> Result<Arc<Conn>> {
        let connected = match self.isolation {
            Isolation::Process => process::start(&self.copy, &self.sha256, self.stall).map(|(conn, _)| conn),
            Isolation::Thread => {
                thread::on_thread(&self.name, &self.copy, &self.sha256, &self.build_info, self.stall)
            }
        };
        connected.map_err(|e| self.blame(what, e))
    }

    /// Says whose failure it is.
    fn blame(&self, what: &str, e: Error) -> Error {
        let version = self.version.as_deref().map(|v| format!(" {v}")).unwrap_or_default();
        let e = match e.hints().is_empty() {
            true => e.hint("the plugin is at fault: tell its author"),
            false => e,
        };
        e.context(format!("{what} of plugin `{}`{version} ({}) failed", self.name, self.file.display()))
    }

    fn make(&self, tag: Tag, kind: &str, key: &str, options: &Value) -> Result<Handle> {
        let what = format!("{kind} `{key}`");
        let conn = self.connect(&what)?;
        let answer = conn.ask(Out { json: &Make::json(key, options), ..Out::new(tag) });
        // Wrong options are the request's fault, and what the plugin says of them is enough.
        let answer = answer.map_err(|e| match e.kind() {
            ErrorKind::InvalidRequest => e,
            _ => self.blame(&what, e),
        })?;
        Ok(Handle::of(&conn, &answer))
    }

    /// One of its samplers.
    ///
    /// # Errors
    /// The plugin cannot be started, or refuses the options.
    pub fn sampler(self: &Arc<Self>, key: &str, options: &Value) -> Result<Box<dyn Sampler>> {
        let inner = LinkSampler(self.make(Tag::MakeSampler, "sampler", key, options)?);
        Ok(Box::new(PluginSampler { plugin: self.clone(), what: format!("sampler `{key}`"), inner }))
    }

    /// One of its schedules.
    ///
    /// # Errors
    /// As for [`Self::sampler`].
    pub fn schedule(self: &Arc<Self>, key: &str, options: &Value) -> Result<Box<dyn Schedule>> {
        let inner = LinkSchedule(self.make(Tag::MakeSchedule, "schedule", key, options)?);
        Ok(Box::new(PluginSchedule { plugin: self.clone(), what: format!("schedule `{key}`"), inner }))
    }

    /// One of its engines.
    ///
    /// # Errors
    /// The plugin cannot be started.
    pub fn engine(self: &Arc<Self>, key: &str) -> Result<PluginEngine> {
        let what = format!("engine `{key}`");
        let inner = LinkEngine { conn: self.connect(&what)?, key: key.into() };
        Ok(PluginEngine { plugin: self.clone(), what, inner })
    }
}

struct PluginSampler {
    plugin: Arc<Plugin>,
    what: String,
    inner: LinkSampler,
}

impl Sampler for PluginSampler {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let mut ctx = StrictSampleCtx::new(ctx, run.sigmas.len().saturating_sub(1));
        let result = self.inner.sample(run, &mut ctx, x).and_then(|()| finite("its result", x));
        result.map_err(|e| ctx.own_or(e, |e| self.plugin.blame(&self.what, e)))
    }
}

pub(super) fn finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::internal(format!("{what} is not a number: {} at value {i}", values[i]))),
    }
}

struct PluginSchedule {
    plugin: Arc<Plugin>,
    what: String,
    inner: LinkSchedule,
}

impl Schedule for PluginSchedule {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let checked = self.inner.sigmas(steps, levels).and_then(|sigmas| {
            if sigmas.len() != steps + 1 {
                let (expected, found) = (steps + 1, sigmas.len());
                return Err(Error::internal(format!(
                    "wrong size: expected {expected} levels, found {found}"
                )));
            }
            finite("one of its levels", &sigmas)?;
            Ok(sigmas)
        });
        checked.map_err(|e| self.plugin.blame(&self.what, e))
    }
}

/// An engine of a plugin.
pub struct PluginEngine {
    plugin: Arc<Plugin>,
    what: String,
    inner: LinkEngine,
}

impl PluginEngine {
    /// Checks and completes parameters.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn plan(&self, task: &str, params: Value, ctx: &PlanCtx) -> Result<Result<Value, Vec<Violation>>> {
        self.inner.plan(task, params, ctx).map_err(|e| self.plugin.blame(&self.what, e))
    }

    /// The devices it sees.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        self.inner.devices().map_err(|e| self.plugin.blame(&self.what, e))
    }
}

impl Engine for PluginEngine {
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        let mut ctx = StrictEngineCtx::new(ctx);
        let (plugin, what) = (self.plugin.clone(), self.what.clone());
        match self.inner.load(request, &mut ctx) {
            Ok(inner) => Ok(Box::new(PluginSession { plugin, what, inner })),
            Err(e) => Err(ctx.own_or(e, |e| plugin.blame(&what, e))),
        }
    }
}

struct PluginSession {
    plugin: Arc<Plugin>,
    what: String,
    inner: Box<dyn Session>,
}

impl Session for PluginSession {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let mut ctx = StrictEngineCtx::new(ctx);
        let facts = self.inner.run(task, plan, &mut ctx).and_then(|facts| match facts {
            Value::Null => Ok(json!({})),
            Value::Object(_) => Ok(facts),
            _ => Err(Error::internal("what it says of the run is not a mapping")),
        });
        facts.map_err(|e| ctx.own_or(e, |e| self.plugin.blame(&self.what, e)))
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}
