//! The down, middle and up blocks of a UNet.

use super::config::UNetConfig;
use super::transformer::{Transformer2D, TransformerSettings};
use crate::resample::{Downsample, Upsample};
use crate::resnet::{ResnetBlock, ResnetSettings};
use atelier_ops::{Tape, Value};
use atelier_weights::{Result, Source};
use candle_core::Tensor;
use std::ops::Range;

/// What every block sees besides the image.
pub(super) struct Conditioning {
    /// (B, time channels), through SiLU.
    pub(super) time: Value,
    /// (B, tokens, context channels).
    pub(super) context: Value,
}

fn resnet_settings(c: &UNetConfig) -> ResnetSettings {
    ResnetSettings {
        groups: c.norm_num_groups,
        eps: c.norm_eps,
        time: Some(c.time_embedding_dim),
        output_scale_factor: 1.0,
    }
}

/// Settings of the attention in the block with this number, counted from outside.
fn transformer_settings(c: &UNetConfig, block: usize, layers: usize) -> TransformerSettings {
    TransformerSettings {
        channels: c.block_out_channels[block],
        heads: c.heads[block],
        context: c.cross_attention_dim[block],
        layers,
        groups: c.norm_num_groups,
        linear_projection: c.use_linear_projection,
    }
}

/// Attentions `0..count` of a block that attends, else none.
fn attentions(
    source: &Source,
    attends: bool,
    count: usize,
    s: TransformerSettings,
) -> Result<Vec<Transformer2D>> {
    let source = source.pp("attentions");
    (0..if attends { count } else { 0 }).map(|i| Transformer2D::new(&source.pp(i), s)).collect()
}

/// Residual blocks, each followed by attention if the block attends, then halving.
#[derive(Clone, Debug)]
pub(super) struct DownBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer2D>,
    /// `downsamplers.0`, absent in the innermost block.
    downsampler: Option<Downsample>,
}

impl DownBlock {
    pub(super) fn new(source: &Source, c: &UNetConfig, block: usize) -> Result<Self> {
        let outputs = c.block_out_channels[block];
        let inputs = c.block_out_channels[block.saturating_sub(1)];
        let layers = c.layers_per_block[block];
        let resnets = source.pp("resnets");
        let resnet = |i| {
            let inputs = if i == 0 { inputs } else { outputs };
            ResnetBlock::new(&resnets.pp(i), inputs, outputs, resnet_settings(c))
        };
        let settings = transformer_settings(c, block, c.transformer_layers[block]);
        let is_last = block + 1 == c.block_out_channels.len();
        let downsampler = || Downsample::new(&source.pp("downsamplers").pp(0), outputs, c.downsample_padding);
        Ok(Self {
            resnets: (0..layers).map(resnet).collect::<Result<_>>()?,
            attentions: attentions(source, c.down_attention[block], layers, settings)?,
            downsampler: (!is_last).then(downsampler).transpose()?,
        })
    }

    /// A residual block, and the attention after it.
    pub(super) fn layer<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        i: usize,
        x: &Value,
        cond: &Conditioning,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> candle_core::Result<Value> {
        let mut x = self.resnets[i].run(tape, x, &cond.time, None)?;
        observe(&format!("resnets.{i}"), x.tensor());
        if let Some(attention) = self.attentions.get(i) {
            x = attention.run(tape, &x, &cond.context)?;
            observe(&format!("attentions.{i}"), x.tensor());
        }
        Ok(x)
    }

    /// Appends every intermediate result to `skips`; returns the last.
    pub(super) fn run<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        x: &Value,
        cond: &Conditioning,
        skips: &mut Vec<Value>,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> candle_core::Result<Value> {
        let mut x = x.clone();
        for i in 0..self.resnets.len() {
            x = self.layer(tape, i, &x, cond, observe)?;
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.run(tape, &x)?;
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// Residual block, attention, residual block.
#[derive(Clone, Debug)]
pub(super) struct MidBlock {
    resnets: [ResnetBlock; 2],
    attention: Transformer2D,
}

impl MidBlock {
    pub(super) fn new(source: &Source, c: &UNetConfig) -> Result<Self> {
        let last = c.block_out_channels.len() - 1;
        let channels = c.block_out_channels[last];
        let settings = ResnetSettings { output_scale_factor: c.mid_block_scale_factor, ..resnet_settings(c) };
        let resnets = source.pp("resnets");
        let resnet = |i| ResnetBlock::new(&resnets.pp(i), channels, channels, settings);
        let attention = transformer_settings(c, last, c.transformer_layers[last]);
        Ok(Self {
            resnets: [resnet(0)?, resnet(1)?],
            attention: Transformer2D::new(&source.pp("attentions").pp(0), attention)?,
        })
    }

    pub(super) fn run<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        x: &Value,
        cond: &Conditioning,
    ) -> candle_core::Result<Value> {
        let x = self.resnets[0].run(tape, x, &cond.time, None)?;
        let x = self.attention.run(tape, &x, &cond.context)?;
        self.resnets[1].run(tape, &x, &cond.time, None)
    }
}

/// Residual blocks that take in the skip connections, with attention if the block attends, then enlargement.
#[derive(Clone, Debug)]
pub(super) struct UpBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer2D>,
    /// `upsamplers.0`, absent in the outermost block.
    upsampler: Option<Upsample>,
}

impl UpBlock {
    /// `index` counts from the innermost.
    pub(super) fn new(source: &Source, c: &UNetConfig, index: usize) -> Result<Self> {
        let last = c.block_out_channels.len() - 1;
        let block = last - index;
        let outputs = c.block_out_channels[block];
        let below = c.block_out_channels[(block + 1).min(last)];
        let above = c.block_out_channels[block.saturating_sub(1)];
        let layers = c.layers_per_block[block] + 1;
        let resnets = source.pp("resnets");
        let resnet = |i| {
            let inputs = if i == 0 { below } else { outputs };
            // The last skip of a block comes from where its down block began.
            let skip = if i + 1 == layers { above } else { outputs };
            ResnetBlock::new(&resnets.pp(i), inputs + skip, outputs, resnet_settings(c))
        };
        let settings = transformer_settings(c, block, c.up_transformer_layers[index]);
        let upsampler = || Upsample::new(&source.pp("upsamplers").pp(0), outputs);
        Ok(Self {
            resnets: (0..layers).map(resnet).collect::<Result<_>>()?,
            attentions: attentions(source, c.up_attention[index], layers, settings)?,
            upsampler: (block > 0).then(upsampler).transpose()?,
        })
    }

    /// Residual blocks.
    pub(super) fn len(&self) -> usize {
        self.resnets.len()
    }

    /// Some residual blocks, each with the attention after it and a skip from the end of `skips`.
    pub(super) fn layers<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        which: Range<usize>,
        x: &Value,
        cond: &Conditioning,
        skips: &mut Vec<Value>,
    ) -> candle_core::Result<Value> {
        let mut x = x.clone();
        for i in which {
            let Some(skip) = skips.pop() else {
                candle_core::bail!("an up block ran out of skip connections")
            };
            x = self.resnets[i].run(tape, &x, &cond.time, Some(&skip))?;
            if let Some(attention) = self.attentions.get(i) {
                x = attention.run(tape, &x, &cond.context)?;
            }
        }
        Ok(x)
    }

    /// The residual blocks from `first` on. Takes its skips from the end of `skips`; enlarges to the size of the next one, which may be odd.
    pub(super) fn run_from<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        first: usize,
        x: &Value,
        cond: &Conditioning,
        skips: &mut Vec<Value>,
    ) -> candle_core::Result<Value> {
        let x = self.layers(tape, first..self.resnets.len(), x, cond, skips)?;
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => {
                let (.., height, width) = next.tensor().dims4()?;
                upsampler.run(tape, &x, (height, width))
            }
            _ => Ok(x),
        }
    }
}
