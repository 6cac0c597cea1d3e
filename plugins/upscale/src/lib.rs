//! Upscalers of the ESRGAN family (Real-ESRGAN, Wang et al. 2021, arXiv:2107.10833) as an atelier engine.
//!
//! One image, or those of a folder: each goes through the network tile by tile, then to the size that is asked for
//! (`atelier_diffusion::upscale`). The results of a folder stand under the names of their images, so that a run that was
//! stopped goes on where it was.

mod batch;
mod params;
mod session;

use atelier_sdk::{Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, LoadRequest, Result, Session};

/// What this engine is.
pub const INFO: EngineInfo = EngineInfo {
    key: "esrgan",
    title: "Upscalers of the ESRGAN family",
    summary: "Enlarges images with Real-ESRGAN, ESRGAN and BSRGAN, from safetensors, .pth and ncnn files.",
    architectures: &["esrgan"],
};

struct Esrgan;

impl Engine for Esrgan {
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        Ok(Box::new(session::load(request, ctx)?))
    }
}

fn make() -> Result<Box<dyn Engine>> {
    Ok(Box::new(Esrgan))
}

const ENGINE: EngineReg = EngineReg {
    info: &INFO,
    tasks: &[EngineTask::of::<params::Upscale>()],
    devices: atelier_diffusion::device::list,
    make,
    origin: env!("CARGO_PKG_NAME"),
};

atelier_sdk::export_plugin! {
    task &atelier_sdk::task::UPSCALE;
    engine ENGINE;
}
