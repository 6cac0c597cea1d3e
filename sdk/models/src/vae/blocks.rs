//! Encoder and decoder of an autoencoder.

use super::config::VaeConfig;
use super::tiles::Stage;
use crate::layers::{Conv2d, GroupNorm, Linear, to_image, to_tokens};
use crate::resample::{Downsample, Upsample};
use crate::resnet::{ResnetBlock, ResnetSettings};
use atelier_ops::{attention, span};
use atelier_weights::{Result, Source};
use candle_core::Tensor;

const EPS: f64 = 1e-6;

fn settings(c: &VaeConfig) -> ResnetSettings {
    ResnetSettings { groups: c.norm_num_groups, eps: EPS, time: None, output_scale_factor: 1.0 }
}

/// Residual blocks `0..count`, the first of which changes the number of channels.
fn resnets(
    source: &Source,
    c: &VaeConfig,
    inputs: usize,
    outputs: usize,
    count: usize,
) -> Result<Vec<ResnetBlock>> {
    let source = source.pp("resnets");
    let resnet =
        |i| ResnetBlock::new(&source.pp(i), if i == 0 { inputs } else { outputs }, outputs, settings(c));
    (0..count).map(resnet).collect()
}

fn innermost(c: &VaeConfig) -> usize {
    c.block_out_channels[c.block_out_channels.len() - 1]
}

/// Image to the parameters of its latent's distribution.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<ResnetBlock>, Option<Downsample>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(source: &Source, c: &VaeConfig) -> Result<Self> {
        let channels = &c.block_out_channels;
        let inner = innermost(c);
        let block = |i: usize| {
            let source = source.pp("down_blocks").pp(i);
            let resnets =
                resnets(&source, c, channels[i.saturating_sub(1)], channels[i], c.layers_per_block)?;
            let downsampler = || Downsample::new(&source.pp("downsamplers").pp(0), channels[i], 0);
            Ok((resnets, (i + 1 < channels.len()).then(downsampler).transpose()?))
        };
        Ok(Self {
            conv_in: Conv2d::same(&source.pp("conv_in"), c.in_channels, channels[0], 3)?,
            down_blocks: (0..channels.len()).map(block).collect::<Result<_>>()?,
            mid_block: MidBlock::new(&source.pp("mid_block"), c)?,
            conv_norm_out: GroupNorm::new(&source.pp("conv_norm_out"), inner, c.norm_num_groups, EPS)?,
            conv_out: Conv2d::same(&source.pp("conv_out"), inner, 2 * c.latent_channels, 3)?,
        })
    }

    /// The parts that see a pixel's surroundings only, in order; [`Self::finish`] follows.
    pub(super) fn stages(&self) -> Vec<Stage<'_>> {
        let mut stages: Vec<Stage<'_>> = Vec::new();
        for (resnets, downsampler) in &self.down_blocks {
            stages.extend(resnets.iter().map(Stage::of));
            if let Some(last) = stages.last_mut() {
                last.downsampler = downsampler.as_ref();
            }
        }
        if let Some(first) = stages.first_mut() {
            first.enters = Some(&self.conv_in);
        }
        stages
    }

    /// What sees all of the image.
    pub(super) fn finish(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.mid_block.forward(x)?;
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)
    }
}

/// Latent to image.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<ResnetBlock>, Option<Upsample>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(source: &Source, c: &VaeConfig) -> Result<Self> {
        let channels: Vec<usize> = c.block_out_channels.iter().rev().copied().collect();
        let outer = c.block_out_channels[0];
        let block = |i: usize| {
            let source = source.pp("up_blocks").pp(i);
            let resnets =
                resnets(&source, c, channels[i.saturating_sub(1)], channels[i], c.layers_per_block + 1)?;
            let upsampler = || Upsample::new(&source.pp("upsamplers").pp(0), channels[i]);
            Ok((resnets, (i + 1 < channels.len()).then(upsampler).transpose()?))
        };
        Ok(Self {
            conv_in: Conv2d::same(&source.pp("conv_in"), c.latent_channels, innermost(c), 3)?,
            mid_block: MidBlock::new(&source.pp("mid_block"), c)?,
            up_blocks: (0..channels.len()).map(block).collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::new(&source.pp("conv_norm_out"), outer, c.norm_num_groups, EPS)?,
            conv_out: Conv2d::same(&source.pp("conv_out"), outer, c.out_channels, 3)?,
        })
    }

    /// What sees all of the image; [`Self::stages`] follow.
    pub(super) fn begin(&self, latent: &Tensor) -> candle_core::Result<Tensor> {
        self.mid_block.forward(&self.conv_in.forward(latent)?)
    }

    /// The parts that see a pixel's surroundings only, in order.
    pub(super) fn stages(&self) -> Vec<Stage<'_>> {
        let mut stages = Vec::new();
        // Enlarging begins a stage: what lies between two stages is kept whole, and is smaller so.
        let mut upsampler = None;
        for (resnets, next) in &self.up_blocks {
            for resnet in resnets {
                stages.push(Stage { upsampler: upsampler.take(), ..Stage::of(resnet) });
            }
            upsampler = next.as_ref();
        }
        if let Some(last) = stages.last_mut() {
            last.leaves = Some((&self.conv_norm_out, &self.conv_out));
        }
        stages
    }
}

/// Residual block, attention if there is any, residual block.
#[derive(Clone, Debug)]
struct MidBlock {
    resnets: [ResnetBlock; 2],
    attention: Option<Attention>,
}

impl MidBlock {
    fn new(source: &Source, c: &VaeConfig) -> Result<Self> {
        let channels = innermost(c);
        let resnets = source.pp("resnets");
        let resnet = |i| ResnetBlock::new(&resnets.pp(i), channels, channels, settings(c));
        let attention = || Attention::new(&source.pp("attentions").pp(0), channels, c.norm_num_groups);
        Ok(Self {
            resnets: [resnet(0)?, resnet(1)?],
            attention: c.mid_block_add_attention.then(attention).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let _span = span!("mid_block");
        let mut x = self.resnets[0].forward(x, None)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.resnets[1].forward(&x, None)
    }
}

/// Attention of the image's pixels to each other with a single head, beside a shortcut.
#[derive(Clone, Debug)]
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(source: &Source, channels: usize, groups: usize) -> Result<Self> {
        // Files from before diffusers 0.13 have other names.
        let old = !source.contains("to_q.weight") && source.contains("query.weight");
        let [q, k, v, out] =
            if old { ["query", "key", "value", "proj_attn"] } else { ["to_q", "to_k", "to_v", "to_out.0"] };
        let linear = |name| Linear::new(&source.pp(name), channels, channels);
        Ok(Self {
            group_norm: GroupNorm::new(&source.pp("group_norm"), channels, groups, EPS)?,
            to_q: linear(q)?,
            to_k: linear(k)?,
            to_v: linear(v)?,
            to_out: linear(out)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let h = to_tokens(&self.group_norm.forward(x)?)?;
        let (q, k, v) = (self.to_q.forward(&h)?, self.to_k.forward(&h)?, self.to_v.forward(&h)?);
        let h = self.to_out.forward(&attention(&q, &k, &v, 1, false)?)?;
        x + to_image(&h, height, width)?
    }
}
