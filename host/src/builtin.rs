//! The plugins that are linked in: the only place where the host names them.
//!
//! A crate that is merely a dependency registers nothing, silently: the linker drops it. The `use` lines
//! keep it; a test compares what is found with the list that is expected.

#[cfg(feature = "adapters")]
use atelier_adapters as _;
#[cfg(feature = "benchmark")]
use atelier_benchmark as _;
#[cfg(feature = "dataset")]
use atelier_dataset as _;
#[cfg(feature = "model-tools")]
use atelier_model_tools as _;
#[cfg(feature = "samplers")]
use atelier_samplers as _;
#[cfg(feature = "stable-diffusion")]
use atelier_stable_diffusion as _;
#[cfg(feature = "train-lora")]
use atelier_train_lora as _;
#[cfg(feature = "upscale")]
use atelier_upscale as _;

use atelier_sdk::{Error, ErrorKind};

/// Something that a cargo feature brings.
#[derive(Debug, Clone, Copy)]
pub struct Optional {
    /// `engine`, `task`, `device`, ...
    pub kind: &'static str,
    /// Its key.
    pub key: &'static str,
    /// The cargo feature.
    pub feature: &'static str,
    /// Whether this build has it.
    pub compiled: bool,
}

macro_rules! optional {
    ($($kind:literal $key:literal $feature:literal;)*) => {
        &[$(Optional { kind: $kind, key: $key, feature: $feature, compiled: cfg!(feature = $feature) }),*]
    };
}

/// All that can be left out of a build.
pub const OPTIONAL: &[Optional] = optional! {
    "engine" "stable-diffusion" "stable-diffusion";
    "engine" "lora-trainer" "train-lora";
    "task" "train-lora" "train-lora";
    "task" "train-search" "train-lora";
    "engine" "esrgan" "upscale";
    "task" "upscale" "upscale";
    "engine" "dataset" "dataset";
    "task" "dataset-analyze" "dataset";
    "task" "dataset-prepare" "dataset";
    "task" "dataset-check" "dataset";
    "task" "dataset-demo" "dataset";
    "engine" "model-tools" "model-tools";
    "task" "model-inspect" "model-tools";
    "task" "model-convert" "model-tools";
    "engine" "benchmark" "benchmark";
    "task" "benchmark" "benchmark";
    "engine" "adapters" "adapters";
    "task" "lora-inspect" "adapters";
    "task" "lora-merge" "adapters";
    "task" "lora-extract" "adapters";
    "task" "lora-convert" "adapters";
    "task" "txt2img" "txt2img";
    "task" "img2img" "img2img";
    "task" "inpaint" "inpaint";
    "sampler" "euler" "samplers";
    "sampler" "euler_a" "samplers";
    "sampler" "ddim" "samplers";
    "sampler" "heun" "samplers";
    "sampler" "dpmpp_2m" "samplers";
    "sampler" "unipc" "samplers";
    "sampler" "dpm2" "samplers";
    "sampler" "dpm2_a" "samplers";
    "sampler" "lms" "samplers";
    "sampler" "ddpm" "samplers";
    "sampler" "pndm" "samplers";
    "sampler" "dpmpp_2s_a" "samplers";
    "sampler" "dpmpp_2m_sde" "samplers";
    "sampler" "dpmpp_sde" "samplers";
    "sampler" "dpmpp_3m_sde" "samplers";
    "sampler" "deis" "samplers";
    "sampler" "lcm" "samplers";
    "sampler" "tcd" "samplers";
    "sampler" "ipndm" "samplers";
    "sampler" "restart" "samplers";
    "schedule" "normal" "samplers";
    "schedule" "karras" "samplers";
    "schedule" "exponential" "samplers";
    "schedule" "sgm_uniform" "samplers";
    "schedule" "simple" "samplers";
    "schedule" "polyexponential" "samplers";
    "schedule" "ddim_uniform" "samplers";
    "schedule" "beta" "samplers";
    "schedule" "ays" "samplers";
    "schedule" "kl_optimal" "samplers";
    "schedule" "raw" "samplers";
    "device" "cpu" "cpu";
    "device" "metal" "metal";
    "device" "cuda" "cuda";
};

/// The error for a thing that exists but not in this build; `None` if it is present or unheard of.
pub fn not_compiled_in(kind: &str, key: &str) -> Option<Error> {
    let missing = OPTIONAL.iter().find(|o| o.kind == kind && o.key == key && !o.compiled)?;
    Some(
        Error::new(ErrorKind::Unsupported, format!("{kind} `{key}` is not compiled in"))
            .hint(format!("rebuild with `--features {}`", missing.feature)),
    )
}

/// The cargo features of this build that bring something optional.
pub fn features() -> Vec<&'static str> {
    let mut out: Vec<_> = OPTIONAL.iter().filter(|o| o.compiled).map(|o| o.feature).collect();
    for (name, on) in [
        ("accelerate", cfg!(feature = "accelerate")),
        ("hub", cfg!(feature = "hub")),
        ("cudnn", cfg!(feature = "cudnn")),
        ("mkl", cfg!(feature = "mkl")),
    ] {
        if on {
            out.push(name);
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}
