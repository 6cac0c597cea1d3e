//! Plugins of a library, behind the same safe traits as those that are linked in.

use crate::context::{OfferedEngineCtx, OfferedSampleCtx, from_abi, parse, write};
use crate::describe::PluginDescription;
use crate::engine::{DeviceInfo, Engine, EngineCtx, LoadRequest, Session};
use crate::error::{Error, Result};
use crate::library::LoadJson;
use crate::params::{PlanCtx, Violation};
use crate::sampler::{Run, SampleCtx, Sampler};
use crate::schedule::{NoiseLevels, Schedule};
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::sabi_types::RMut;
use atelier_abi::{
    AbiRun, BoxEngine, BoxSampler, BoxSchedule, BoxSession, EngineCtxAbi_TO, HostFns, PluginModRef,
    SampleCtxAbi_TO,
};
use serde::Deserialize;
use serde_json::Value;

/// A loaded plugin library.
#[derive(Clone, Copy)]
pub struct RemoteLibrary(PluginModRef);

impl RemoteLibrary {
    /// A library that passed the layout check.
    pub fn new(module: PluginModRef) -> Self {
        Self(module)
    }

    /// The items linked into this very binary, as a library would offer them.
    pub fn linked() -> Self {
        Self(crate::library::atelier_plugin())
    }

    /// How it was built, as JSON.
    pub fn build_info(&self) -> String {
        self.0.build_info()().into()
    }

    /// Gives it the host's services.
    ///
    /// # Errors
    /// It refuses.
    pub fn init(&self, host: HostFns) -> Result<()> {
        self.0.init()(host).into_result().map_err(from_abi)
    }

    /// Everything it registers.
    ///
    /// # Errors
    /// A description panicked or cannot be read.
    pub fn describe(&self) -> Result<PluginDescription> {
        let json = self.0.describe()().into_result().map_err(from_abi)?;
        parse("the library's description of itself", &json)
    }

    /// A sampler of the library.
    ///
    /// # Errors
    /// Unknown key, wrong options.
    pub fn sampler(&self, key: &str, options: &Value) -> Result<Box<dyn Sampler>> {
        let made = self.0.sampler()(key.into(), options.to_string().as_str().into());
        Ok(Box::new(RemoteSampler(made.into_result().map_err(from_abi)?)))
    }

    /// A schedule of the library.
    ///
    /// # Errors
    /// Unknown key, wrong options.
    pub fn schedule(&self, key: &str, options: &Value) -> Result<Box<dyn Schedule>> {
        let made = self.0.schedule()(key.into(), options.to_string().as_str().into());
        Ok(Box::new(RemoteSchedule(made.into_result().map_err(from_abi)?)))
    }

    /// An engine of the library.
    ///
    /// # Errors
    /// Unknown key.
    pub fn engine(&self, key: &str) -> Result<RemoteEngine> {
        Ok(RemoteEngine(self.0.engine()(key.into()).into_result().map_err(from_abi)?))
    }
}

/// A sampler from across the boundary.
pub struct RemoteSampler(BoxSampler);

impl RemoteSampler {
    pub(crate) fn new(inner: BoxSampler) -> Self {
        Self(inner)
    }
}

impl Sampler for RemoteSampler {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let mut offered = OfferedSampleCtx(ctx);
        let shape = run.shape.map(|n| n as u64);
        let extra = run.extra.to_string();
        let run = AbiRun {
            sigmas: run.sigmas.into(),
            shape: shape.as_slice().into(),
            extra_json: extra.as_str().into(),
        };
        let ctx = SampleCtxAbi_TO::from_ptr(RMut::new(&mut offered), TD_Opaque);
        self.0.sample(run, ctx, x.into()).into_result().map_err(from_abi)
    }
}

/// A schedule from across the boundary.
pub struct RemoteSchedule(BoxSchedule);

impl RemoteSchedule {
    pub(crate) fn new(inner: BoxSchedule) -> Self {
        Self(inner)
    }
}

impl Schedule for RemoteSchedule {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let sigmas = self.0.sigmas(steps as u64, levels.as_slice().into());
        Ok(sigmas.into_result().map_err(from_abi)?.into())
    }
}

/// An engine from across the boundary.
pub struct RemoteEngine(BoxEngine);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Planned {
    Plan(Value),
    Violations(Vec<Violation>),
}

impl RemoteEngine {
    /// Checks and completes parameters: see [`crate::EngineTask::plan`].
    ///
    /// # Errors
    /// The plugin failed; the violations are not a failure.
    pub fn plan(&self, task: &str, params: &Value, ctx: &PlanCtx) -> Result<Result<Value, Vec<Violation>>> {
        let (params, ctx) = (params.to_string(), write(ctx)?);
        let json = self.0.plan(task.into(), params.as_str().into(), ctx.as_str().into());
        Ok(match parse("a plan", &json.into_result().map_err(from_abi)?)? {
            Planned::Plan(plan) => Ok(plan),
            Planned::Violations(violations) => Err(violations),
        })
    }

    /// The devices it sees.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        parse("a list of devices", &self.0.devices().into_result().map_err(from_abi)?)
    }
}

impl Engine for RemoteEngine {
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        let request = write(&LoadJson::from(request))?;
        let mut offered = OfferedEngineCtx(ctx);
        let ctx = EngineCtxAbi_TO::from_ptr(RMut::new(&mut offered), TD_Opaque);
        let session = self.0.load(request.as_str().into(), ctx).into_result().map_err(from_abi)?;
        Ok(Box::new(RemoteSession(session)))
    }
}

/// A session from across the boundary.
struct RemoteSession(BoxSession);

impl Session for RemoteSession {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let mut offered = OfferedEngineCtx(ctx);
        let ctx = EngineCtxAbi_TO::from_ptr(RMut::new(&mut offered), TD_Opaque);
        let facts = self.0.run(task.into(), plan.to_string().as_str().into(), ctx);
        parse("what the engine says of the run", &facts.into_result().map_err(from_abi)?)
    }
    fn describe(&self) -> String {
        let text = self.0.describe().into_result().map_err(from_abi);
        text.map_or_else(|e: Error| e.to_string(), Into::into)
    }
}
