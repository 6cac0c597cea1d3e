//! Stable Diffusion 1.x and 2.x as an atelier engine.
//!
//! ```text
//! prompt ─▶ text encoder ─┐
//! seed ─▶ noise ──────────┴▶ sampler ⇄ UNet under guidance ─▶ latents ─▶ decoder ─▶ image
//! ```
//!
//! The networks come from `atelier-models`; samplers and schedules are other plugins, found through the host.

pub mod canvas;
pub mod decoding;
pub mod enlarging;
pub mod guided;
pub mod hires;
pub mod image_params;
pub mod latent_scale;
pub mod loras;
pub mod memory;
pub mod params;
pub mod pipeline;
pub mod preview;
pub mod prompt;
pub mod session;
pub mod start;
pub mod variation;

mod image_tasks;
mod second;
mod slot;
mod together;

use atelier_sdk::{Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, LoadRequest, Result, Session};

/// What this engine is.
pub const INFO: EngineInfo = EngineInfo {
    key: "stable-diffusion",
    title: "Stable Diffusion",
    summary: "Latent diffusion of the Stable Diffusion 1.x and 2.x classes, from diffusers folders and single files.",
    architectures: &["sd"],
};

const TASKS: &[EngineTask] = &[
    #[cfg(feature = "txt2img")]
    EngineTask::of::<params::Txt2Img>(),
    #[cfg(feature = "img2img")]
    EngineTask::of::<image_params::Img2Img>(),
    #[cfg(feature = "inpaint")]
    EngineTask::of::<image_params::Inpaint>(),
];

struct StableDiffusion;

impl Engine for StableDiffusion {
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        session::load(request, ctx)
    }
}

fn make() -> Result<Box<dyn Engine>> {
    Ok(Box::new(StableDiffusion))
}

const ENGINE: EngineReg = EngineReg {
    info: &INFO,
    tasks: TASKS,
    devices: atelier_diffusion::device::list,
    make,
    origin: env!("CARGO_PKG_NAME"),
};

atelier_sdk::export_plugin! { engine ENGINE; }

#[cfg(feature = "txt2img")]
atelier_sdk::export_plugin! { task &atelier_sdk::task::TXT2IMG; }
#[cfg(feature = "img2img")]
atelier_sdk::export_plugin! { task &atelier_sdk::task::IMG2IMG; }
#[cfg(feature = "inpaint")]
atelier_sdk::export_plugin! { task &atelier_sdk::task::INPAINT; }
