//! The transformer between a UNet's convolutions, where the image attends to itself and to the prompt.

use crate::layers::{GroupNorm, LayerNorm, Linear, to_image, to_tokens};
use atelier_ops::{Need, Tape, Value, attention, span};
use atelier_weights::{Result, Source};
use candle_core::Tensor;

/// Sizes of the transformers of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransformerSettings {
    pub(super) channels: usize,
    pub(super) heads: usize,
    pub(super) context: usize,
    pub(super) layers: usize,
    pub(super) groups: usize,
    pub(super) linear_projection: bool,
}

/// Transformer layers on the pixels of an image, beside a shortcut.
#[derive(Clone, Debug)]
pub(super) struct Transformer2D {
    norm: GroupNorm,
    // A 1x1 convolution on an image is a linear layer on its tokens: one code for both layouts.
    proj_in: Linear,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

impl Transformer2D {
    pub(super) fn new(source: &Source, s: TransformerSettings) -> Result<Self> {
        let projection = |name| {
            let source = source.pp(name);
            if s.linear_projection {
                Linear::new(&source, s.channels, s.channels)
            } else {
                Linear::from_pointwise(&source, s.channels, s.channels)
            }
        };
        let blocks = source.pp("transformer_blocks");
        Ok(Self {
            norm: GroupNorm::new(&source.pp("norm"), s.channels, s.groups, 1e-6)?,
            proj_in: projection("proj_in")?,
            transformer_blocks: (0..s.layers)
                .map(|i| TransformerBlock::new(&blocks.pp(i), s))
                .collect::<Result<_>>()?,
            proj_out: projection("proj_out")?,
        })
    }

    /// `x` (B, C, H, W), `context` (B, tokens, context channels); the result has x's shape.
    ///
    /// Every shortcut ends a segment: what leads to it is linear and need not be computed again.
    pub(super) fn run<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        x: &Value,
        context: &Value,
    ) -> candle_core::Result<Value> {
        let _span = span!("transformer", x = ?x.tensor().dims());
        let count = self.transformer_blocks.len();
        let mut h = x.clone();
        for (i, block) in self.transformer_blocks.iter().enumerate() {
            h = tape.run(&[&h], move |t, need| {
                let h = if i == 0 { self.enter(&t[0])? } else { t[0].clone() };
                block.attend_image(need, &h)
            })?;
            h = tape.run(&[&h, context], move |t, need| block.attend_context(need, &t[0], &t[1]))?;
            h = if i + 1 < count {
                tape.run(&[&h], move |t, need| block.feed(need, &t[0]))?
            } else {
                tape.run(&[&h, x], move |t, need| {
                    self.leave(need, block.feed(self.proj_out.need_of_input(need), &t[0])?, &t[1])
                })?
            };
        }
        Ok(h)
    }

    fn enter(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.proj_in.forward(&to_tokens(&self.norm.forward(x)?)?)
    }

    fn leave(&self, need: Need, h: Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        let (.., height, width) = x.dims4()?;
        x + to_image(&self.proj_out.forward_for(need, &h)?, height, width)?
    }
}

/// Attention to the image, attention to the context, feed-forward, each beside a shortcut.
#[derive(Clone, Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(source: &Source, s: TransformerSettings) -> Result<Self> {
        let norm = |name| LayerNorm::new(&source.pp(name), s.channels, 1e-5);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::new(&source.pp("attn1"), s.channels, s.channels, s.heads)?,
            norm2: norm("norm2")?,
            attn2: Attention::new(&source.pp("attn2"), s.channels, s.context, s.heads)?,
            norm3: norm("norm3")?,
            ff: FeedForward::new(&source.pp("ff").pp("net"), s.channels)?,
        })
    }

    fn attend_image(&self, need: Need, x: &Tensor) -> candle_core::Result<Tensor> {
        let _span = span!("attend_image");
        let h = self.norm1.forward(x)?;
        x + self.attn1.forward_for(need, &h, &h)?
    }

    fn attend_context(&self, need: Need, x: &Tensor, context: &Tensor) -> candle_core::Result<Tensor> {
        let _span = span!("attend_context");
        x + self.attn2.forward_for(need, &self.norm2.forward(x)?, context)?
    }

    fn feed(&self, need: Need, x: &Tensor) -> candle_core::Result<Tensor> {
        let _span = span!("feed_forward");
        x + self.ff.forward_for(need, &self.norm3.forward(x)?)?
    }
}

#[derive(Clone, Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    /// `to_out.0`.
    to_out: Linear,
    heads: usize,
}

impl Attention {
    fn new(source: &Source, channels: usize, context: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            to_q: Linear::without_bias(&source.pp("to_q"), channels, channels)?,
            to_k: Linear::without_bias(&source.pp("to_k"), context, channels)?,
            to_v: Linear::without_bias(&source.pp("to_v"), context, channels)?,
            to_out: Linear::new(&source.pp("to_out").pp(0), channels, channels)?,
            heads,
        })
    }

    fn forward_for(&self, need: Need, x: &Tensor, context: &Tensor) -> candle_core::Result<Tensor> {
        let (q, k, v) = (self.to_q.forward(x)?, self.to_k.forward(context)?, self.to_v.forward(context)?);
        self.to_out.forward_for(need, &attention(&q, &k, &v, self.heads, false)?)
    }
}

#[derive(Clone, Debug)]
struct FeedForward {
    /// `net.0.proj`, whose result the gated GELU halves.
    proj: Linear,
    /// `net.2`.
    out: Linear,
}

impl FeedForward {
    fn new(net: &Source, channels: usize) -> Result<Self> {
        let inner = 4 * channels;
        let proj = Linear::new(&net.pp(0).pp("proj"), channels, 2 * inner)?;
        Ok(Self { proj, out: Linear::new(&net.pp(2), inner, channels)? })
    }

    fn forward_for(&self, need: Need, x: &Tensor) -> candle_core::Result<Tensor> {
        self.out.forward_for(need, &self.proj.geglu_for(self.out.need_of_input(need), x)?)
    }
}
