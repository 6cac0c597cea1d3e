//! The residual block of UNet and autoencoder.

use crate::layers::{Conv2d, GroupNorm, Linear};
use atelier_ops::{Need, Tape, Value, span};
use atelier_weights::{Result, Source};
use candle_core::{D, Tensor};

/// Two normalised convolutions beside a shortcut (He et al. 2016), with the time embedding added between them.
#[derive(Clone, Debug)]
pub(crate) struct ResnetBlock {
    pub(crate) norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    pub(crate) norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    /// The sum of both paths is divided by this.
    output_scale_factor: f64,
}

/// What the residual blocks of one network have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetSettings {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    /// Channels of the time embedding, if there is one.
    pub(crate) time: Option<usize>,
    pub(crate) output_scale_factor: f64,
}

impl ResnetBlock {
    pub(crate) fn new(source: &Source, inputs: usize, outputs: usize, s: ResnetSettings) -> Result<Self> {
        let time = |width| Linear::new(&source.pp("time_emb_proj"), width, outputs);
        let shortcut = || Conv2d::same(&source.pp("conv_shortcut"), inputs, outputs, 1);
        Ok(Self {
            norm1: GroupNorm::new(&source.pp("norm1"), inputs, s.groups, s.eps)?,
            conv1: Conv2d::same(&source.pp("conv1"), inputs, outputs, 3)?,
            time_emb_proj: s.time.map(time).transpose()?,
            norm2: GroupNorm::new(&source.pp("norm2"), outputs, s.groups, s.eps)?,
            conv2: Conv2d::same(&source.pp("conv2"), outputs, outputs, 3)?,
            conv_shortcut: (inputs != outputs).then(shortcut).transpose()?,
            output_scale_factor: s.output_scale_factor,
        })
    }

    /// `x` (B, inputs, H, W), `time` (B, time channels), already through SiLU; the result is (B, outputs, H, W).
    pub(crate) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> candle_core::Result<Tensor> {
        self.forward_for(Need::Value, x, time)
    }

    fn forward_for(&self, need: Need, x: &Tensor, time: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let _span = span!("resnet", x = ?x.dims());
        // Of large images each of these is hundreds of megabytes: none is kept longer than it is needed.
        let normed = self.norm2.forward_silu(&self.first(self.norm1.forward_silu(x)?, time)?)?;
        self.second_for(need, x, normed)
    }

    /// [`Self::forward`] as a segment of `tape`; with `skip`, of x and `skip` (B, C, H, W) joined.
    pub(crate) fn run<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        x: &Value,
        time: &Value,
        skip: Option<&Value>,
    ) -> candle_core::Result<Value> {
        let Some(skip) = skip else {
            return tape.run(&[x, time], |t, need| self.forward_for(need, &t[0], Some(&t[1])));
        };
        let joined = |t: &[Tensor]| Tensor::cat(&[&t[0], &t[2]], 1);
        tape.run(&[x, time, skip], move |t, need| self.forward_for(need, &joined(t)?, Some(&t[1])))
    }

    /// The first half: from what the first norm and its activation give to what the second norm takes.
    pub(crate) fn first(&self, normed: Tensor, time: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let h = self.conv1.forward(&normed)?;
        drop(normed);
        match (&self.time_emb_proj, time) {
            (Some(proj), Some(time)) => {
                h.broadcast_add(&proj.forward(time)?.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?)
            }
            _ => Ok(h),
        }
    }

    /// The second half: from the block's input and what the second norm and its activation give to the result.
    pub(crate) fn second(&self, x: &Tensor, normed: Tensor) -> candle_core::Result<Tensor> {
        self.second_for(Need::Value, x, normed)
    }

    fn second_for(&self, need: Need, x: &Tensor, normed: Tensor) -> candle_core::Result<Tensor> {
        let h = self.conv2.forward_for(need, &normed)?;
        drop(normed);
        let sum = match &self.conv_shortcut {
            Some(conv) => (conv.forward_for(need, x)? + h)?,
            None => (x + h)?,
        };
        if self.output_scale_factor == 1.0 { Ok(sum) } else { sum / self.output_scale_factor }
    }
}
