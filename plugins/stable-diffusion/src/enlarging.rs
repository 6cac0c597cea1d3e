//! Drawn images through an upscaler: as the last step, or between two passes.

use crate::params::Txt2Img;
use crate::pipeline::Part;
use crate::session::SdSession;
use atelier_diffusion::memory;
use atelier_diffusion::upscale::{Alpha, Enlarge, Network, UpscalerFiles};
use atelier_sdk::{EngineCtx, Event, Image, Result, Stage, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Enlarges finished images.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Upscale {
    /// The key of a model for the engine `esrgan`, such as `realesr-animevideov3`; without it and `path`, nothing is
    /// enlarged.
    pub model: String,
    /// The file of such a model, or its folder.
    #[schemars(extend("x-file" = "path"))]
    pub path: String,
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its text would become the description of all fields")]
    pub how: Enlarge,
}

impl Upscale {
    /// The model, by its key or its path; none if nothing is to be enlarged.
    pub fn named(&self) -> Option<&str> {
        [&self.model, &self.path].into_iter().find(|name| !name.is_empty()).map(String::as_str)
    }

    /// What is wrong with it.
    pub fn check(&self) -> Vec<Violation> {
        let violation = match (self.model.is_empty(), self.path.is_empty()) {
            (false, false) => Violation::new("/upscale/path", "both a model and a path are named")
                .hint("leave out one of `upscale.model` and `upscale.path`"),
            (true, true) if *self != Self::default() => {
                Violation::new("/upscale/model", "it is said how to enlarge, but not with which model")
                    .hint("set `upscale.model`, such as realesr-animevideov3")
            }
            _ => return Vec::new(),
        };
        vec![violation]
    }
}

/// The upscalers of a session that were used, each with how much noise it takes away.
#[derive(Default)]
pub struct Upscalers(RefCell<Vec<Opened>>);

/// A network with the file and the denoising strength that it was made of.
type Opened = (PathBuf, Option<f64>, Arc<Network>);

impl SdSession {
    /// The network that a finished image goes through, if there is one.
    pub(crate) fn last_upscaler(
        &self,
        params: &Txt2Img,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Option<Arc<Network>>> {
        let how = &params.upscale.how;
        let open = |name: &str| {
            self.upscaler(name, how.denoise_strength, ctx).map_err(|e| e.context("in `upscale`"))
        };
        params.upscale.named().map(open).transpose()
    }

    /// An upscaler by its key or its path, loaded if it is not. That it cannot be had is told before anything is drawn.
    pub(crate) fn upscaler(
        &self,
        name: &str,
        denoise: Option<f64>,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Arc<Network>> {
        let path = ctx.find_file("upscaler", name)?.path;
        let known = |(p, d, _): &&(PathBuf, Option<f64>, _)| *p == path && *d == denoise;
        if let Some((_, _, network)) = self.upscalers.0.borrow().iter().find(known) {
            return Ok(network.clone());
        }
        ctx.event(Event::Stage { stage: Stage::Load })?;
        let files = UpscalerFiles::find(&path)?;
        let network = Arc::new(files.load(denoise, self.pipeline.precision(), self.pipeline.device())?);
        for (role, path) in files.paths() {
            ctx.event(Event::File { role: role.into(), path: path.into() })?;
        }
        self.upscalers.0.borrow_mut().push((path, denoise, network.clone()));
        Ok(network)
    }

    /// An image made larger. `limit` is the memory that the run may take, in GiB; 0 asks the machine.
    pub(crate) fn enlarged_by(
        &self,
        network: &Network,
        image: &Image,
        how: &Enlarge,
        limit: f64,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Image> {
        ctx.event(Event::Stage { stage: Stage::Upscale })?;
        let began = Instant::now();
        let free = memory::available(self.pipeline.device());
        let held: u64 = Part::ALL
            .into_iter()
            .filter(|part| self.pipeline.is_loaded(*part))
            .map(|part| self.pipeline.bytes(part))
            .sum();
        // What is free does not count what is held; what a person allows does.
        let limit = memory::limit(limit, None).map(|limit| limit.saturating_sub(held)).or(free);
        let large = network.enlarge(image, how, Alpha::default(), limit, &mut |event| ctx.event(event))?;
        let value = began.elapsed().as_secs_f64();
        ctx.event(Event::Metric { name: "seconds.upscale".into(), value })?;
        Ok(large)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upscaler_is_named_once_or_not_at_all() {
        let pointers = |upscale: Upscale| upscale.check().into_iter().map(|v| v.pointer).collect::<Vec<_>>();
        let model = Upscale { model: "m".into(), ..Upscale::default() };
        assert_eq!((model.named(), Upscale::default().named()), (Some("m"), None));
        assert_eq!(pointers(model.clone()), [""; 0]);
        assert_eq!(pointers(Upscale::default()), [""; 0]);
        assert_eq!(pointers(Upscale { path: "p".into(), ..model }), ["/upscale/path"]);
        let how = Enlarge { outscale: Some(2.0), ..Enlarge::default() };
        assert_eq!(pointers(Upscale { how, ..Upscale::default() }), ["/upscale/model"]);
    }
}
