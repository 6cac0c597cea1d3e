//! img2img and inpaint.

use crate::canvas::{self, Scene};
use crate::image_params::{Fill, Img2Img, Inpaint, StepRule};
use crate::params::Txt2Img;
use crate::pipeline::Part;
use crate::session::{Job, SdSession, for_inpainting, options};
use crate::start::Start;
use atelier_diffusion::error;
use atelier_sdk::{EngineCtx, Event, Image, Result, Stage};
use candle_core::Tensor;
use image::{GrayImage, RgbImage};
use serde_json::{Value, json};
use std::time::Instant;

impl SdSession {
    pub(crate) fn img2img(&mut self, params: &Img2Img, ctx: &mut dyn EngineCtx) -> Result<Value> {
        if self.pipeline.is_inpainting() {
            return Err(for_inpainting());
        }
        self.check_size(&params.base)?;
        let image = canvas::rgb(&ctx.input_image("image")?)?;
        let size = (params.base.width, params.base.height);
        let image = canvas::fitted(&image, size, params.fit);
        self.settle(&params.base, true, ctx)?;
        let latents = values(&self.encode(&image, ctx)?)?;
        self.leave(Part::Vae);
        let start = Start { latents, mask: None, fill: Fill::Original, channels: None };
        self.draw(&params.base, (params.strength, params.compat), &start, ctx, &Ok)
    }

    pub(crate) fn inpaint(&mut self, params: &Inpaint, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let image = canvas::rgb(&ctx.input_image("image")?)?;
        let mask = match params.mask.is_empty() {
            true => None,
            false => Some(canvas::mask(&ctx.input_image("mask")?, params.invert_mask)?),
        };
        let scene = Scene::new(params, &image, mask)?;
        let (drawn, mask) = &scene.drawn;
        // With an extended image the size follows from it.
        let base = Txt2Img { width: drawn.width(), height: drawn.height(), ..params.base.clone() };
        self.check_size(&base)?;
        self.settle(&base, true, ctx)?;
        let latents = values(&self.encode(drawn, ctx)?)?;
        let latent_mask = canvas::latent_mask(mask, self.pipeline.factor());
        let channels = match self.pipeline.is_inpainting() {
            true => Some(self.inpainting_channels(drawn, mask, &latent_mask, ctx)?),
            false => None,
        };
        self.leave(Part::Vae);
        let start = Start { latents, mask: Some(latent_mask), fill: params.fill, channels };
        self.draw(&base, (params.strength, params.compat), &start, ctx, &|image| {
            canvas::finished(scene.finish(&canvas::rgb(&image)?))
        })
    }

    /// What the network of a model for inpainting takes beside the latents: the mask, and the image without what
    /// is to be drawn (Rombach et al. 2022, arXiv:2112.10752, D.5).
    fn inpainting_channels(
        &self,
        image: &RgbImage,
        mask: &GrayImage,
        latent_mask: &[f32],
        ctx: &mut dyn EngineCtx,
    ) -> Result<Tensor> {
        let mut planes = canvas::planes(image);
        let kept: Vec<f32> = mask.pixels().map(|p| if p.0[0] >= 128 { 0.0 } else { 1.0 }).collect();
        planes.iter_mut().enumerate().for_each(|(i, v)| *v *= kept[i % kept.len()]);
        ctx.event(Event::Stage { stage: Stage::Encode })?;
        let (w, h) = (image.width() as usize, image.height() as usize);
        let masked = self.pipeline.encode_planes(&planes, w, h, &self.pieces())?;
        let failed = error::tensor("joining mask and image");
        let (_, _, lh, lw) = masked.dims4().map_err(error::tensor("joining mask and image"))?;
        Tensor::from_slice(latent_mask, (1, 1, lh, lw), self.pipeline.device())
            .and_then(|mask| Tensor::cat(&[&mask, &masked], 1))
            .map_err(failed)
    }

    pub(crate) fn encode(&self, image: &RgbImage, ctx: &mut dyn EngineCtx) -> Result<Tensor> {
        self.ready(Part::Vae, ctx)?;
        ctx.event(Event::Stage { stage: Stage::Encode })?;
        let planes = canvas::planes(image);
        let (w, h) = (image.width() as usize, image.height() as usize);
        self.pipeline.encode_planes(&planes, w, h, &self.pieces())
    }

    /// Draws from a start at the level that a strength means.
    fn draw(
        &self,
        base: &Txt2Img,
        (strength, rule): (f64, StepRule),
        start: &Start,
        ctx: &mut dyn EngineCtx,
        finish: &dyn Fn(Image) -> Result<Image>,
    ) -> Result<Value> {
        let began = Instant::now();
        let mut sampler = ctx.sampler(&base.sampler, &options(&base.sampler_options))?;
        let schedule = ctx.schedule(&base.schedule, &options(&base.schedule_options))?;
        let (all, taken) = rule.steps(base.steps, strength);
        let sigmas = self.sigmas(schedule.as_ref(), base, all)?;
        // A schedule may have more or fewer levels than it was asked for.
        let sigmas = &sigmas[sigmas.len().saturating_sub(taken + 1)..];
        let upscaler = self.last_upscaler(base, ctx)?;
        let upscaler = upscaler.as_deref();
        let job = Job { params: base, sigmas, start: Some(start), second: None, finish, upscaler };
        self.images(&job, sampler.as_mut(), ctx)?;
        Ok(json!({"seconds": began.elapsed().as_secs_f64()}))
    }
}

pub(crate) fn values(latents: &Tensor) -> Result<Vec<f32>> {
    latents.flatten_all().and_then(|t| t.to_vec1()).map_err(error::tensor("reading latents"))
}
