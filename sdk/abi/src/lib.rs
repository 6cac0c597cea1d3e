//! The types that cross the boundary between the host and a plugin library, and nothing else.
//!
//! They are frozen. By-value structs ([`AbiError`], [`AbiRun`], [`Blob`], [`HostFns`]) never change; traits and
//! [`PluginMod`] grow only at the end, behind `last_prefix_field`, new methods with a default body. Everything that
//! will evolve is JSON inside. Plugin authors never name these types: `atelier-sdk` wraps them in safe traits.

// abi_stable's `sabi_trait` makes its impls in a nested scope.
#![allow(non_local_definitions)]
#![allow(missing_docs, reason = "the macros of abi_stable make public items without docs")]

use abi_stable::std_types::{RBox, RResult, RSlice, RSliceMut, RStr, RString, RVec};
use abi_stable::{StableAbi, sabi_trait, sabi_types::RMut};

/// The version of the boundary: that of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What sort of failure; a number, so that a newer side may know more sorts than an older one.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorCode(pub u32);

/// A failure on its way across.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiError {
    pub code: ErrorCode,
    pub message: RString,
    /// JSON: `hints`, `causes`, `debug`.
    pub detail_json: RString,
}

/// What does not change during one sampling run.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct AbiRun<'a> {
    pub sigmas: RSlice<'a, f32>,
    /// Batch, channels, height, width.
    pub shape: RSlice<'a, u64>,
    pub extra_json: RStr<'a>,
}

/// Bytes with words about them.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Blob {
    pub meta_json: RString,
    pub bytes: RVec<u8>,
}

/// What the host does for a running sampler, which drives the loop itself.
///
/// Not `Send`: it is made from a plain mutable reference.
#[sabi_trait]
pub trait SampleCtxAbi {
    fn denoise(&mut self, x: RSlice<'_, f32>, sigma: f32, out: RSliceMut<'_, f32>) -> RResult<(), AbiError>;
    fn noise(&mut self, from: f32, to: f32, out: RSliceMut<'_, f32>) -> RResult<(), AbiError>;
    fn step_done(&mut self, i: u64, x: RSlice<'_, f32>) -> RResult<(), AbiError>;
    #[sabi(last_prefix_field)]
    fn cancelled(&self) -> bool;
}
pub type SampleCtxMut<'a> = SampleCtxAbi_TO<'a, RMut<'a, ()>>;

/// A sampler with its options set.
#[sabi_trait]
pub trait SamplerAbi: Send {
    #[sabi(last_prefix_field)]
    fn sample(
        &mut self,
        run: AbiRun<'_>,
        ctx: SampleCtxMut<'_>,
        x: RSliceMut<'_, f32>,
    ) -> RResult<(), AbiError>;
}
pub type BoxSampler = SamplerAbi_TO<'static, RBox<()>>;

/// A schedule with its options set.
#[sabi_trait]
pub trait ScheduleAbi: Send {
    /// `levels` are the model's training levels, ascending.
    #[sabi(last_prefix_field)]
    fn sigmas(&self, steps: u64, levels: RSlice<'_, f64>) -> RResult<RVec<f32>, AbiError>;
}
pub type BoxSchedule = ScheduleAbi_TO<'static, RBox<()>>;

/// What the host does for a running engine.
#[sabi_trait]
pub trait EngineCtxAbi {
    fn event(&mut self, event_json: RStr<'_>) -> RResult<(), AbiError>;
    fn cancelled(&self) -> bool;
    fn sampler(&mut self, key: RStr<'_>, options_json: RStr<'_>) -> RResult<BoxSampler, AbiError>;
    fn schedule(&mut self, key: RStr<'_>, options_json: RStr<'_>) -> RResult<BoxSchedule, AbiError>;
    /// `{"field": ..., "as": "image" | "bytes"}`: a file that the request names.
    fn input(&mut self, what_json: RStr<'_>) -> RResult<Blob, AbiError>;
    /// `{"kind": "image", "width", "height", "format", "facts"}` and its pixels.
    #[sabi(last_prefix_field)]
    fn output(&mut self, meta_json: RStr<'_>, bytes: RSlice<'_, u8>) -> RResult<(), AbiError>;
}
pub type EngineCtxMut<'a> = EngineCtxAbi_TO<'a, RMut<'a, ()>>;

/// An engine.
#[sabi_trait]
pub trait EngineAbi: Send {
    /// Gives `{"plan": ...}` or `{"violations": [...]}`.
    fn plan(&self, task: RStr<'_>, params_json: RStr<'_>, ctx_json: RStr<'_>) -> RResult<RString, AbiError>;
    fn devices(&self) -> RResult<RString, AbiError>;
    #[sabi(last_prefix_field)]
    fn load(&self, request_json: RStr<'_>, ctx: EngineCtxMut<'_>) -> RResult<BoxSession, AbiError>;
}
pub type BoxEngine = EngineAbi_TO<'static, RBox<()>>;

/// An engine with a model loaded.
#[sabi_trait]
pub trait SessionAbi: Send {
    fn describe(&self) -> RResult<RString, AbiError>;
    #[sabi(last_prefix_field)]
    fn run(
        &mut self,
        task: RStr<'_>,
        plan_json: RStr<'_>,
        ctx: EngineCtxMut<'_>,
    ) -> RResult<RString, AbiError>;
}
pub type BoxSession = SessionAbi_TO<'static, RBox<()>>;

/// What the host gives a library once, right after it was accepted.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct HostFns {
    /// `level`: 1 error, 2 warning, 3 info, 4 debug, 5 trace.
    pub log: extern "C" fn(level: u8, target: RStr<'_>, message: RStr<'_>),
}

/// What a plugin library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModRef)))]
pub struct PluginMod {
    /// JSON about how it was built: `sdk`, `target`, `panic`, `debug`.
    pub build_info: extern "C" fn() -> RString,
    pub init: extern "C" fn(HostFns) -> RResult<(), AbiError>,
    /// JSON of everything it registers.
    pub describe: extern "C" fn() -> RResult<RString, AbiError>,
    pub sampler: extern "C" fn(key: RStr<'_>, options_json: RStr<'_>) -> RResult<BoxSampler, AbiError>,
    pub schedule: extern "C" fn(key: RStr<'_>, options_json: RStr<'_>) -> RResult<BoxSchedule, AbiError>,
    #[sabi(last_prefix_field)]
    pub engine: extern "C" fn(key: RStr<'_>) -> RResult<BoxEngine, AbiError>,
}

impl abi_stable::library::RootModule for PluginModRef {
    abi_stable::declare_root_module_statics! {PluginModRef}
    const BASE_NAME: &'static str = "atelier_plugin";
    const NAME: &'static str = "atelier_plugin";
    const VERSION_STRINGS: abi_stable::sabi_types::VersionStrings = abi_stable::package_version_strings!();
}
