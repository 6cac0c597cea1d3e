//! The second pass of a request at a larger size.

use crate::canvas;
use crate::hires::{self, Enlarging, Hires, Upscaler};
use crate::image_params::Fill;
use crate::image_tasks::values;
use crate::latent_scale;
use crate::params::Txt2Img;
use crate::pipeline::Part;
use crate::preview::Painter;
use crate::prompt::conditioning::Conditioning;
use crate::prompt::drawn::Drawn;
use crate::prompt::encode::Encoder;
use crate::session::{Drawing, Job, SdSession, Text, options};
use crate::start::Start;
use atelier_diffusion::upscale::{Enlarge, Network};
use atelier_sdk::{EngineCtx, Error, Event, Result, Stage};
use image::imageops::{self, FilterType};
use std::sync::Arc;

/// A second pass, planned.
pub(crate) struct Second {
    hires: Hires,
    /// The request that it is, at its own size.
    pub(crate) params: Txt2Img,
    sigmas: Vec<f32>,
    /// What enlarges the first pass, if a network does.
    network: Option<Arc<Network>>,
}

impl Second {
    /// The conditioning of an image; a prompt that is not the pass's own is the one that was drawn for the first.
    pub(crate) fn conditioning(
        &self,
        first: &Drawn,
        seed: i64,
        encoder: &mut Encoder<'_>,
    ) -> Result<Conditioning> {
        let (hires, templates) = (&self.hires, self.params.prompt_templates);
        let own = Drawn::new(&hires.prompt, &hires.negative_prompt, templates, seed)?;
        let prompt = if hires.prompt.is_empty() { &first.prompt } else { &own.prompt };
        let negative = if hires.negative_prompt.is_empty() { &first.negative } else { &own.negative };
        encoder.conditioning(prompt, negative, self.params.strength(), self.sigmas.len() - 1)
    }
}

impl SdSession {
    /// Plans a second pass; what its sampler and schedule cannot do is told before anything is drawn.
    pub(crate) fn second(&self, first: &Txt2Img, hires: &Hires, ctx: &mut dyn EngineCtx) -> Result<Second> {
        let params = hires::second(first, hires);
        self.check_size(&params)?;
        let named = |field: &str| format!("in `hires.{field}`");
        ctx.sampler(&params.sampler, &options(&params.sampler_options))
            .map_err(|e| e.context(named("sampler")))?;
        let schedule = ctx
            .schedule(&params.schedule, &options(&params.schedule_options))
            .map_err(|e| e.context(named("schedule")))?;
        let (all, taken) = hires.steps(first.steps);
        let sigmas = self.sigmas(schedule.as_ref(), &params, all)?;
        let sigmas = sigmas[sigmas.len().saturating_sub(taken + 1)..].to_vec();
        let network = match hires.upscaler {
            Upscaler::Model => {
                let opened = self.upscaler(&hires.model, None, ctx);
                Some(opened.map_err(|e| e.context(named("model")))?)
            }
            _ => None,
        };
        Ok(Second { hires: hires.clone(), params, sigmas, network })
    }

    /// Draws the second pass of images whose first pass gave `latents`. The noise comes from each image's own seed
    /// anew, at the larger size, as A1111 has it.
    pub(crate) fn second_pass(
        &self,
        job: &Job<'_>,
        second: &Second,
        texts: &[Text],
        latents: Vec<Vec<f32>>,
        painter: Option<&Painter>,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Vec<Vec<f32>>> {
        let enlarged = self.enlarged(job.params, second, latents, ctx)?;
        let params = &second.params;
        let mut sampler = ctx.sampler(&params.sampler, &options(&params.sampler_options))?;
        let start = |latents| Start { latents, mask: None, fill: Fill::Original, channels: None };
        let starts: Vec<Start> = enlarged.into_iter().map(start).collect();
        let mut drawings = Vec::new();
        for (text, start) in texts.iter().zip(&starts) {
            let conditioning = text.second.as_ref();
            let conditioning =
                conditioning.ok_or_else(|| Error::internal("a second pass without its prompts"))?;
            drawings.push(Drawing { text, conditioning, start: Some(start) });
        }
        let job = Job { params, sigmas: &second.sigmas, start: None, ..*job };
        self.denoised(&job, &drawings, painter, sampler.as_mut(), ctx)
    }

    fn enlarged(
        &self,
        first: &Txt2Img,
        second: &Second,
        latents: Vec<Vec<f32>>,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Vec<Vec<f32>>> {
        let from = self.pipeline.latent_shape(first.width, first.height);
        let (width, height) = (second.params.width, second.params.height);
        let [_, _, h, w] = self.pipeline.latent_shape(width, height);
        let enlarging = second.hires.upscaler.enlarging();
        if let Enlarging::Latents(filter) = enlarging {
            let resized = |x: &Vec<f32>| latent_scale::resized(x, from, (h, w), filter);
            return Ok(latents.iter().map(resized).collect());
        }
        self.leave(Part::Unet);
        self.ready(Part::Vae, ctx)?;
        let mut out = Vec::new();
        for x in &latents {
            ctx.event(Event::Stage { stage: Stage::Decode })?;
            let mut image = self.pipeline.decode(x, from, &self.pieces())?;
            if let Some(network) = &second.network {
                image = self.enlarged_by(network, &image, &Enlarge::default(), first.memory_limit, ctx)?;
            }
            let filter =
                if let Enlarging::Pixels(filter) = enlarging { filter } else { FilterType::Lanczos3 };
            let image = imageops::resize(&canvas::rgb(&image)?, width, height, filter);
            out.push(values(&self.encode(&image, ctx)?)?);
        }
        self.leave(Part::Vae);
        self.ready(Part::Unet, ctx)?;
        Ok(out)
    }
}
