/// Registers plugins of a crate: one line for each. Linked into a binary, they are found there; built as a library
/// (`crate-type = ["cdylib"]`), they are what the library offers.
///
/// ```text
/// export_plugin! {
///     task &TXT2IMG;
///     engine ENGINE;          // a const EngineReg
///     sampler Euler;          // a type that is a SamplerPlugin
///     step_sampler Ddim;      // a type that is a StepPlugin
///     schedule Karras;        // a type that is a SchedulePlugin
///     model my_spec;          // a fn() -> ModelSpec
/// }
/// ```
#[macro_export]
macro_rules! export_plugin {
    () => {};
    (task $info:expr; $($rest:tt)*) => {
        $crate::inventory::submit! { $crate::TaskReg { info: $info, origin: env!("CARGO_PKG_NAME") } }
        $crate::export_plugin! { $($rest)* }
    };
    (engine $reg:expr; $($rest:tt)*) => {
        $crate::inventory::submit! { $reg }
        $crate::export_plugin! { $($rest)* }
    };
    (sampler $t:ty; $($rest:tt)*) => {
        $crate::inventory::submit! { $crate::SamplerReg::of::<$t>(env!("CARGO_PKG_NAME")) }
        $crate::export_plugin! { $($rest)* }
    };
    (step_sampler $t:ty; $($rest:tt)*) => {
        $crate::export_plugin! { sampler $crate::Steps<$t>; $($rest)* }
    };
    (schedule $t:ty; $($rest:tt)*) => {
        $crate::inventory::submit! { $crate::ScheduleReg::of::<$t>(env!("CARGO_PKG_NAME")) }
        $crate::export_plugin! { $($rest)* }
    };
    (model $spec:expr; $($rest:tt)*) => {
        $crate::inventory::submit! { $crate::ModelReg { spec: $spec, origin: env!("CARGO_PKG_NAME") } }
        $crate::export_plugin! { $($rest)* }
    };
}
