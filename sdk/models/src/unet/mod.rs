//! The UNet of Stable Diffusion 1.x and 2.x ("High-Resolution Image Synthesis with Latent Diffusion Models", Rombach
//! et al. 2022), as diffusers' `UNet2DConditionModel` saves it.

mod blocks;
mod config;
mod operations;
mod recording;
mod time;
mod transformer;

pub use config::UNetConfig;
pub use recording::Recording;
pub use time::timestep_embedding;

use crate::error::{Error, Result};
use crate::layers::{Conv2d, GroupNorm, compute_dtype, products};
use crate::network::Network;
use atelier_ops::{Need, Products, Tape, Value, silu, span, with_products};
use atelier_weights::{ConfigFile, Source};
use blocks::{Conditioning, DownBlock, MidBlock, UpBlock};
use candle_core::{DType, Tensor};
use time::TimestepEmbedding;

const NETWORK: &str = "UNet";

/// Layers of the last block that are computed anew where features of another step are used.
const SHALLOW: usize = 2;

/// A UNet that predicts noise (or velocity, by its training) from a noisy latent, a timestep and a context.
#[derive(Clone, Debug)]
pub struct UNet2DConditionModel {
    config: UNetConfig,
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    dtype: DType,
    products: Products,
}

impl Network for UNet2DConditionModel {
    type Config = UNetConfig;

    fn configure(file: &ConfigFile) -> Result<UNetConfig> {
        Ok(UNetConfig::read(file)?)
    }

    fn build(source: &Source, config: &UNetConfig) -> Result<Self> {
        Self::new(source, config)
    }
}

impl UNet2DConditionModel {
    /// Builds the UNet from `source`. Errors: missing or misshapen tensors.
    pub fn new(source: &Source, config: &UNetConfig) -> Result<Self> {
        let c = config;
        let (outer, blocks) = (c.block_out_channels[0], 0..c.block_out_channels.len());
        let (down, up) = (source.pp("down_blocks"), source.pp("up_blocks"));
        Ok(Self {
            config: config.clone(),
            conv_in: Conv2d::same(&source.pp("conv_in"), c.in_channels, outer, c.conv_in_kernel)?,
            time_embedding: TimestepEmbedding::new(
                &source.pp("time_embedding"),
                outer,
                c.time_embedding_dim,
            )?,
            down_blocks: blocks
                .clone()
                .map(|i| DownBlock::new(&down.pp(i), c, i))
                .collect::<atelier_weights::Result<_>>()?,
            mid_block: MidBlock::new(&source.pp("mid_block"), c)?,
            up_blocks: blocks
                .map(|i| UpBlock::new(&up.pp(i), c, i))
                .collect::<atelier_weights::Result<_>>()?,
            conv_norm_out: GroupNorm::new(&source.pp("conv_norm_out"), outer, c.norm_num_groups, c.norm_eps)?,
            conv_out: Conv2d::same(&source.pp("conv_out"), outer, c.out_channels, c.conv_out_kernel)?,
            dtype: compute_dtype(source),
            products: products(source),
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The prediction for `sample` (B, in channels, H, W) at `timesteps` (B, or 1 for all) under `context`
    /// (B, tokens, context channels): (B, out channels, H, W) in the sample's dtype.
    ///
    /// Height and width are any; timesteps may be fractional. Errors: shapes that do not fit the configuration.
    pub fn forward(&self, sample: &Tensor, timesteps: &Tensor, context: &Tensor) -> Result<Tensor> {
        self.forward_observed(sample, timesteps, context, &mut |_, _| {})
    }

    /// [`Self::forward`], showing `observe` the intermediate results by the names of their modules: `time_proj`,
    /// `time_embedding`, `conv_in`, `down_blocks.0.resnets.0`, ..., `down_blocks.0`, `mid_block`, `up_blocks.0`, ...,
    /// `conv_act`.
    pub fn forward_observed(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        self.check(sample, timesteps, context)?;
        let run = || self.run(&mut Tape::off(), sample, timesteps, context, observe);
        let result = with_products(self.products, run);
        Ok(result.map_err(Error::compute(NETWORK))?.tensor().clone())
    }

    /// [`Self::forward`], and the features that the outermost layers of the last block take in, for later steps: (B, channels,
    /// H, W).
    ///
    /// Errors: as for [`Self::forward`].
    pub fn forward_kept(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        self.check(sample, timesteps, context)?;
        let mut deep = None;
        let run = || {
            self.run_keeping(&mut Tape::off(), sample, timesteps, context, &mut |_, _| {}, Some(&mut deep))
        };
        let result = with_products(self.products, run).map_err(Error::compute(NETWORK))?;
        let deep = deep.ok_or_else(|| Error::input(NETWORK, "a UNet without blocks"))?;
        Ok((result.tensor().clone(), deep))
    }

    /// [`Self::forward`] with the features of another step in place of all but the outermost layers ("DeepCache: Accelerating
    /// Diffusion Models for Free", Ma, Fang and Wang 2023, arXiv:2312.00858): the first layer of the first block, the
    /// last two of the last.
    ///
    /// Errors: as for [`Self::forward`]; features of another size.
    pub fn forward_shallow(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        deep: &Tensor,
    ) -> Result<Tensor> {
        self.check(sample, timesteps, context)?;
        let run = || self.run_shallow(sample, timesteps, context, deep);
        with_products(self.products, run).map_err(Error::compute(NETWORK))
    }

    fn run_shallow(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        deep: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let _span = span!("unet.shallow", sample = ?sample.dims(), context = ?context.dims());
        let (Some(first), Some(last)) = (self.down_blocks.first(), self.up_blocks.last()) else {
            candle_core::bail!("a UNet without blocks")
        };
        let (mut tape, ignore) = (Tape::off(), &mut |_: &str, _: &Tensor| {});
        let cond = self.condition(&mut tape, timesteps, context, ignore)?;
        let entered = tape.input(&self.enter(Need::Value, sample)?)?;
        let inner = first.layer(&mut tape, 0, &entered, &cond, ignore)?;
        let (deep, mut skips) = (tape.input(deep)?, vec![entered, inner]);
        let x = last.layers(&mut tape, last.len() - SHALLOW..last.len(), &deep, &cond, &mut skips)?;
        let x = self.conv_norm_out.forward_silu(x.tensor())?;
        self.conv_out.forward(&x)?.to_dtype(sample.dtype())
    }

    fn check(&self, sample: &Tensor, timesteps: &Tensor, context: &Tensor) -> Result<()> {
        let (c, width) = (&self.config, self.config.cross_attention_dim[0]);
        let batch = match *sample.dims() {
            [batch, channels, h, w] if channels == c.in_channels && batch * h * w > 0 => batch,
            _ => {
                let message = format!(
                    "expected a sample (batch, {}, height, width), found {:?}",
                    c.in_channels,
                    sample.dims()
                );
                return Err(Error::input(NETWORK, message));
            }
        };
        if !matches!(*timesteps.dims(), [n] if n == batch || n == 1) {
            let message = format!("expected {batch} timesteps or one, found {:?}", timesteps.dims());
            return Err(Error::input(NETWORK, message));
        }
        if !matches!(*context.dims(), [n, tokens, d] if n == batch && tokens > 0 && d == width) {
            let message =
                format!("expected a context ({batch}, tokens, {width}), found {:?}", context.dims());
            return Err(Error::input(NETWORK, message));
        }
        Ok(())
    }

    /// What every block starts with: the time embedding through SiLU, and the context in the network's type.
    fn condition<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        timesteps: &Tensor,
        context: &Tensor,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> candle_core::Result<Conditioning> {
        let c = &self.config;
        let timesteps = timesteps.broadcast_as(context.dim(0)?)?;
        let sinusoids =
            timestep_embedding(&timesteps, c.block_out_channels[0], c.flip_sin_to_cos, c.freq_shift)?;
        observe("time_proj", &sinusoids);
        let sinusoids = tape.input(&sinusoids.to_dtype(self.dtype)?)?;
        let embedding = tape.run(&[&sinusoids], |t, _| self.time_embedding.forward(&t[0]))?;
        observe("time_embedding", embedding.tensor());
        let time = tape.run(&[&embedding], |t, _| silu(&t[0]))?;
        let context = tape.input(context)?;
        let context = tape.run(&[&context], |t, _| t[0].to_dtype(self.dtype))?;
        Ok(Conditioning { time, context })
    }

    /// What happens to the sample before the first block.
    fn enter(&self, need: Need, sample: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = sample.to_dtype(self.dtype)?;
        if self.config.center_input_sample {
            x = ((x * 2.0)? - 1.0)?;
        }
        self.conv_in.forward_for(need, &x)
    }

    fn run<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> candle_core::Result<Value> {
        self.run_keeping(tape, sample, timesteps, context, observe, None)
    }

    /// [`Self::run`], which leaves the features that [`Self::run_shallow`] takes in `deep`, if they are wanted.
    fn run_keeping<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        observe: &mut dyn FnMut(&str, &Tensor),
        mut deep: Option<&mut Option<Tensor>>,
    ) -> candle_core::Result<Value> {
        let _span = span!("unet", sample = ?sample.dims(), context = ?context.dims());
        let cond = self.condition(tape, timesteps, context, observe)?;
        let dtype = sample.dtype();
        let sample = tape.input(sample)?;
        let mut x = tape.run(&[&sample], |t, need| self.enter(need, &t[0]))?;
        observe("conv_in", x.tensor());
        let mut skips = vec![x.clone()];
        for (i, block) in self.down_blocks.iter().enumerate() {
            let _span = span!("down_block", i);
            let mut inside = |name: &str, t: &Tensor| observe(&format!("down_blocks.{i}.{name}"), t);
            x = block.run(tape, &x, &cond, &mut skips, &mut inside)?;
            observe(&format!("down_blocks.{i}"), x.tensor());
        }
        x = {
            let _span = span!("mid_block");
            self.mid_block.run(tape, &x, &cond)?
        };
        observe("mid_block", x.tensor());
        for (i, block) in self.up_blocks.iter().enumerate() {
            let _span = span!("up_block", i);
            let mut first = 0;
            if let Some(deep) = deep.take_if(|_| i + 1 == self.up_blocks.len()) {
                first = block.len() - SHALLOW;
                x = block.layers(tape, 0..first, &x, &cond, &mut skips)?;
                *deep = Some(x.tensor().clone());
            }
            x = block.run_from(tape, first, &x, &cond, &mut skips)?;
            observe(&format!("up_blocks.{i}"), x.tensor());
        }
        x = tape.run(&[&x], |t, _| self.conv_norm_out.forward_silu(&t[0]))?;
        observe("conv_act", x.tensor());
        tape.run(&[&x], move |t, need| self.conv_out.forward_for(need, &t[0])?.to_dtype(dtype))
    }
}
