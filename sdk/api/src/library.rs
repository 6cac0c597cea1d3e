//! What a plugin library exports, made of what was registered in it.
//!
//! The sdk is linked into every library, and `inventory` sees exactly the items of that library; so one exported
//! symbol here serves all of them, and `export_plugin!` is the same line linked in or built as a library.

use crate::context::{UsedEngineCtx, UsedSampleCtx, enter, parse, write};
use crate::describe::PluginDescription;
use crate::engine::{EngineReg, EngineTask, LoadRequest, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::guard;
use crate::model::ModelSpec;
use crate::params::PlanCtx;
use crate::registration::{Info, Reg};
use crate::sampler::{Run, Sampler, SamplerReg};
use crate::schedule::{NoiseLevels, Schedule, ScheduleReg};
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RResult, RSlice, RSliceMut, RStr, RString, RVec};
use atelier_abi::{
    AbiError, AbiRun, BoxEngine, BoxSampler, BoxSchedule, BoxSession, EngineAbi, EngineCtxMut, HostFns,
    PluginMod, PluginModRef, SampleCtxMut, SamplerAbi, ScheduleAbi, SessionAbi,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::mem::ManuallyDrop;

/// Plugin code behind the boundary: dropped under guard, and not used again after it panicked.
struct Held<T>(ManuallyDrop<T>, bool);

impl<T> Held<T> {
    fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value), false)
    }

    fn call<R>(&mut self, what: &str, f: impl FnOnce(&mut T) -> Result<R>) -> RResult<R, AbiError> {
        let poisoned = self.1;
        // Set while inside, so that it stays set when a panic leaves.
        self.1 = true;
        let result = enter(what, || {
            if poisoned {
                return Err(Error::new(ErrorKind::Panic, format!("{what}: it has panicked before")));
            }
            f(&mut self.0)
        });
        self.1 = matches!(&result, RResult::RErr(e) if ErrorKind::from_code(e.code.0) == ErrorKind::Panic);
        result
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: this is the only place that drops the value, and it runs once.
        let result = guard("drop", || {
            unsafe { ManuallyDrop::drop(&mut self.0) };
            Ok(())
        });
        if let Err(e) = result {
            crate::log::log(crate::log::Level::Error, "atelier_sdk", &e.chain().join(": "));
        }
    }
}

pub(crate) struct SamplerShim(Held<Box<dyn Sampler>>);

impl SamplerShim {
    pub(crate) fn boxed(sampler: Box<dyn Sampler>) -> BoxSampler {
        BoxSampler::from_value(Self(Held::new(sampler)), TD_Opaque)
    }
}

impl SamplerAbi for SamplerShim {
    fn sample(
        &mut self,
        run: AbiRun<'_>,
        ctx: SampleCtxMut<'_>,
        mut x: RSliceMut<'_, f32>,
    ) -> RResult<(), AbiError> {
        self.0.call("sample", |sampler| {
            let extra: Value = parse("`extra` of a run", &run.extra_json)?;
            let mut shape = [0usize; 4];
            if run.shape.len() != shape.len() {
                return Err(Error::internal(format!("a run of {} dimensions", run.shape.len())));
            }
            for (to, from) in shape.iter_mut().zip(run.shape.iter()) {
                *to =
                    usize::try_from(*from).map_err(|e| Error::internal("a side beyond memory").because(e))?;
            }
            let run = Run { sigmas: run.sigmas.as_slice(), shape, extra: &extra };
            sampler.sample(&run, &mut UsedSampleCtx(ctx), x.as_mut_slice())
        })
    }
}

pub(crate) struct ScheduleShim(Held<Box<dyn Schedule>>);

impl ScheduleShim {
    pub(crate) fn boxed(schedule: Box<dyn Schedule>) -> BoxSchedule {
        BoxSchedule::from_value(Self(Held::new(schedule)), TD_Opaque)
    }
}

impl ScheduleAbi for ScheduleShim {
    fn sigmas(&self, steps: u64, levels: RSlice<'_, f64>) -> RResult<RVec<f32>, AbiError> {
        enter("sigmas", || {
            let levels = NoiseLevels::new(levels.to_vec())?;
            let steps = usize::try_from(steps).map_err(|e| Error::invalid("too many steps").because(e))?;
            Ok(self.0.0.sigmas(steps, &levels)?.into())
        })
    }
}

struct EngineShim(EngineReg);

impl EngineShim {
    fn task(&self, key: &str) -> Result<&'static EngineTask> {
        let found = self.0.tasks.iter().find(|t| t.task.key == key);
        found.ok_or_else(|| {
            let engine = self.0.info.key;
            Error::new(ErrorKind::NotFound, format!("engine `{engine}` does not perform task `{key}`"))
        })
    }
}

/// [`LoadRequest`] on its way across.
#[derive(Serialize, Deserialize)]
pub(crate) struct LoadJson {
    model: Option<ModelSpec>,
    device: String,
    dtype: crate::Dtype,
    fake_weights: bool,
}

impl From<&LoadRequest<'_>> for LoadJson {
    fn from(r: &LoadRequest<'_>) -> Self {
        let device = r.device.to_string();
        Self { model: r.model.cloned(), device, dtype: r.dtype, fake_weights: r.fake_weights }
    }
}

impl EngineAbi for EngineShim {
    fn plan(&self, task: RStr<'_>, params: RStr<'_>, ctx: RStr<'_>) -> RResult<RString, AbiError> {
        enter("plan", || {
            let ctx: PlanCtx = parse("the context of a plan", &ctx)?;
            let planned = (self.task(&task)?.plan)(parse("parameters", &params)?, &ctx);
            let value = match planned {
                Ok(plan) => json!({"plan": plan}),
                Err(violations) => json!({"violations": violations}),
            };
            Ok(value.to_string().into())
        })
    }
    fn devices(&self) -> RResult<RString, AbiError> {
        enter("devices", || Ok(write(&(self.0.devices)())?.into()))
    }
    fn load(&self, request: RStr<'_>, ctx: EngineCtxMut<'_>) -> RResult<BoxSession, AbiError> {
        enter("load", || {
            let r: LoadJson = parse("a request to load", &request)?;
            let device = r.device.parse()?;
            let request =
                LoadRequest { model: r.model.as_ref(), device, dtype: r.dtype, fake_weights: r.fake_weights };
            let session = (self.0.make)()?.load(&request, &mut UsedEngineCtx(ctx))?;
            Ok(BoxSession::from_value(SessionShim(Held::new(session)), TD_Opaque))
        })
    }
}

struct SessionShim(Held<Box<dyn Session>>);

impl SessionAbi for SessionShim {
    fn describe(&self) -> RResult<RString, AbiError> {
        enter("describe", || Ok(self.0.0.describe().into()))
    }
    fn run(&mut self, task: RStr<'_>, plan: RStr<'_>, ctx: EngineCtxMut<'_>) -> RResult<RString, AbiError> {
        self.0.call("run", |session| {
            let facts = session.run(&task, &parse("a plan", &plan)?, &mut UsedEngineCtx(ctx))?;
            Ok(facts.to_string().into())
        })
    }
}

extern "C" fn build_info() -> RString {
    let info = json!({
        "sdk": env!("CARGO_PKG_VERSION"),
        "abi": atelier_abi::VERSION,
        "target": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        "panic": if cfg!(panic = "unwind") { "unwind" } else { "abort" },
        "debug": cfg!(debug_assertions),
    });
    info.to_string().into()
}

extern "C" fn init(host: HostFns) -> RResult<(), AbiError> {
    enter("init", || {
        crate::log::connect(host);
        Ok(())
    })
}

extern "C" fn describe() -> RResult<RString, AbiError> {
    enter("describe", || Ok(write(&PluginDescription::linked())?.into()))
}

extern "C" fn sampler(key: RStr<'_>, options: RStr<'_>) -> RResult<BoxSampler, AbiError> {
    let regs = inventory::iter::<SamplerReg>.into_iter();
    enter("new", || Ok(SamplerShim::boxed(make("sampler", regs, &key, &options)?)))
}

extern "C" fn schedule(key: RStr<'_>, options: RStr<'_>) -> RResult<BoxSchedule, AbiError> {
    let regs = inventory::iter::<ScheduleReg>.into_iter();
    enter("new", || Ok(ScheduleShim::boxed(make("schedule", regs, &key, &options)?)))
}

extern "C" fn engine(key: RStr<'_>) -> RResult<BoxEngine, AbiError> {
    enter("new", || {
        let found = inventory::iter::<EngineReg>.into_iter().find(|r| r.info.key == key.as_str());
        let reg = *found.ok_or_else(|| missing("engine", &key))?;
        Ok(BoxEngine::from_value(EngineShim(reg), TD_Opaque))
    })
}

fn make<I: Info + 'static, T: ?Sized + 'static>(
    kind: &str,
    mut regs: impl Iterator<Item = &'static Reg<I, T>>,
    key: &str,
    options: &str,
) -> Result<Box<T>> {
    let reg = regs.find(|r| r.info.key() == key).ok_or_else(|| missing(kind, key))?;
    (reg.make)(&parse("options", options)?)
}

fn missing(kind: &str, key: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("this library has no {kind} `{key}`"))
}

/// The one symbol of a plugin library.
#[abi_stable::export_root_module]
pub fn atelier_plugin() -> PluginModRef {
    use abi_stable::prefix_type::PrefixTypeTrait;
    PluginMod { build_info, init, describe, sampler, schedule, engine }.leak_into_prefix()
}
