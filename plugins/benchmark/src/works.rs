//! The pieces of work.

use crate::clock::{Clock, Measured, processor};
use crate::networks::{Networks, input};
use crate::params::{Benchmark, Work};
use crate::train;
use atelier_diffusion::{device, error};
use atelier_models::{Architecture, Operations, Upscaler};
use atelier_ops::gradcheck::pseudo_normal;
use atelier_sdk::{EngineCtx, Event, Result, Stage};
use atelier_weights::Source;
use candle_core::Tensor;
use serde_json::{Value, json};

/// Tokens of a prompt of full length.
pub const TOKENS: usize = 77;

/// A piece of work that was measured.
pub struct Line {
    /// What it was, with its size.
    pub name: String,
    /// What one run computes.
    pub operations: Operations,
    /// How long it took.
    pub measured: Measured,
    /// Whether the weights were made up.
    pub made_up: bool,
}

/// Does and measures what the parameters say. Gives `name`, `seconds` of each run, `operations` of one run by kind,
/// `peaks` of the processor before and after in GFLOP/s or null, `threads` and `made_up`; of the processor alone
/// `threads`, `peak_one` and `peak`.
///
/// # Errors
/// Missing or damaged files, a size that a network cannot take; that it is to stop.
pub fn run(networks: &Networks, params: &Benchmark, ctx: &mut dyn EngineCtx) -> Result<Value> {
    ctx.event(Event::Stage { stage: Stage::Load })?;
    let bench = Bench { networks, params };
    let line = match params.work {
        Work::Peak => return Ok(processor()),
        Work::Text => bench.text(ctx),
        Work::Unet => bench.unet(ctx),
        Work::VaeDecode => bench.decode(ctx),
        Work::VaeEncode => bench.encode(ctx),
        Work::Rrdb => bench.upscale(&Architecture::X4_PLUS, ctx),
        Work::Srvgg => bench.upscale(&Architecture::GENERAL_X4_V3, ctx),
        Work::Train => train::step(&bench, ctx),
    }?;
    Ok(json!({
        "name": line.name,
        "seconds": line.measured.seconds,
        "operations": {
            "convolution": line.operations.convolution,
            "linear": line.operations.linear,
            "attention": line.operations.attention,
            "total": line.operations.total(),
        },
        "peaks": line.measured.peaks,
        "threads": atelier_ops::threads(),
        "made_up": line.made_up,
    }))
}

/// What a piece of work is done with.
pub struct Bench<'a> {
    pub networks: &'a Networks,
    pub params: &'a Benchmark,
}

impl Bench<'_> {
    /// A clock for this request.
    pub fn clock(&self) -> Clock<'_> {
        Clock { runs: self.params.runs, device: &self.networks.device }
    }

    /// `512x512`.
    pub fn size(&self) -> String {
        format!("{}x{}", self.params.width, self.params.height)
    }

    /// Numbers like noise on the networks' device.
    pub fn noise(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        pseudo_normal(seed, shape, 1.0).to_device(&self.networks.device).map_err(input)
    }

    fn text(&self, ctx: &mut dyn EngineCtx) -> Result<Line> {
        let prepared = self.networks.text()?;
        let config = prepared.config();
        let tokens = config.max_position_embeddings.min(TOKENS);
        let ids: Vec<u32> = (0..tokens).map(|i| (i * 601 % config.vocab_size) as u32).collect();
        let model = self.networks.built("text_encoder", &prepared, self.networks.precision)?;
        let prompts = [ids];
        let measured = self.clock().measure(ctx, || {
            model.encode(&prompts, 0).map(drop).map_err(|e| error::model("the text encoder failed", e))
        })?;
        Ok(Line {
            name: format!("text encoder, {tokens} tokens"),
            operations: config.operations(1, tokens),
            measured,
            made_up: self.networks.made_up(),
        })
    }

    fn unet(&self, ctx: &mut dyn EngineCtx) -> Result<Line> {
        let prepared = self.networks.unet()?;
        let config = prepared.config();
        let (height, width) = self.networks.latents(self.params.width, self.params.height)?;
        let sample = self.noise(1, &[2, config.in_channels, height, width])?;
        let context = self.noise(2, &[2, TOKENS, config.cross_attention_dim[0]])?;
        let timestep = Tensor::new(&[500f32], &self.networks.device).map_err(input)?;
        let model = self.networks.built("unet", &prepared, self.networks.precision)?;
        let measured = self.clock().measure(ctx, || {
            let output = model.forward(&sample, &timestep, &context);
            output.map(drop).map_err(|e| error::model("the UNet failed", e))
        })?;
        Ok(Line {
            name: format!("UNet, batch 2, {}", self.size()),
            operations: config.operations(2, (height, width), TOKENS),
            measured,
            made_up: self.networks.made_up(),
        })
    }

    fn decode(&self, ctx: &mut dyn EngineCtx) -> Result<Line> {
        let prepared = self.networks.vae()?;
        let config = prepared.config();
        let (height, width) = self.networks.latents(self.params.width, self.params.height)?;
        let latents = self.noise(1, &[1, config.latent_channels, height, width])?;
        let dtype = device::vae_dtype(self.networks.precision, &self.networks.device);
        let model = self.networks.built("vae", &prepared, dtype)?;
        let measured = self.clock().measure(ctx, || {
            model.decode(&latents).map(drop).map_err(|e| error::model("the decoder failed", e))
        })?;
        Ok(Line {
            name: format!("VAE decode, {}", self.size()),
            operations: config.decode_operations((height, width)),
            measured,
            made_up: self.networks.made_up(),
        })
    }

    fn encode(&self, ctx: &mut dyn EngineCtx) -> Result<Line> {
        let prepared = self.networks.vae()?;
        let config = prepared.config();
        let (height, width) = self.networks.latents(self.params.width, self.params.height)?;
        let side = config.factor();
        let images = self.noise(1, &[1, config.in_channels, height * side, width * side])?;
        let images = images.clamp(-1f32, 1f32).map_err(input)?;
        let dtype = device::vae_dtype(self.networks.precision, &self.networks.device);
        let model = self.networks.built("vae", &prepared, dtype)?;
        let measured = self.clock().measure(ctx, || {
            model.encode(&images).map(drop).map_err(|e| error::model("the encoder failed", e))
        })?;
        Ok(Line {
            name: format!("VAE encode, {}", self.size()),
            operations: config.encode_operations((height, width)),
            measured,
            made_up: self.networks.made_up(),
        })
    }

    /// Always made-up weights: the networks of upscalers are no part of a model that draws.
    fn upscale(&self, architecture: &Architecture, ctx: &mut dyn EngineCtx) -> Result<Line> {
        let (height, width) = (self.params.height as usize / 4, self.params.width as usize / 4);
        let source = Source::fake(4, self.networks.precision, &self.networks.device);
        let model = Upscaler::new(&source, architecture)
            .map_err(|e| error::model("an upscaler cannot be made", e))?;
        let tile = self.noise(1, &[1, 3, height, width])?.clamp(0f32, 1f32).map_err(input)?;
        let measured = self.clock().measure(ctx, || {
            model.forward(&tile).map(drop).map_err(|e| error::model("the upscaler failed", e))
        })?;
        let convolution = architecture.operations(height, width);
        Ok(Line {
            name: format!("{} x{}, {width}x{height}", architecture.name(), architecture.scale),
            operations: Operations { convolution, ..Operations::default() },
            measured,
            made_up: true,
        })
    }
}
