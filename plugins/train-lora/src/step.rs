//! The networks in training: a pass forward and back.

use crate::base::{Base, tensor, values};
use crate::batch::Batch;
use crate::loss::{weighted_mse, weighted_mse_grad};
use crate::params::{MixedPrecision, TrainLora};
use crate::trainee::Trainee;
use atelier_diffusion::{device, error};
use atelier_models::{ClipTextModel, UNet2DConditionModel};
use atelier_ops::Keep;
use atelier_sdk::{Dtype, Error, Result};
use atelier_weights::Precision;
use atelier_weights::lora::{Adaptation, Dropout, Mode, Part, Stack};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// A network as sampling and validation see it.
pub trait Network {
    /// The prediction for `sample` (B, channels, h, w) at `timesteps` (B or 1) under `context` (B, tokens, width).
    ///
    /// # Errors
    /// The network failed.
    fn predict(&self, sample: &Tensor, timesteps: &Tensor, context: &Tensor) -> Result<Tensor>;
}

/// What a pass came to.
pub struct Pass {
    /// Mean weighted loss of the batch.
    pub loss: f64,
    /// The gradient of each variable, in the order of [`Trainee::vars`].
    pub grads: Vec<Vec<f32>>,
}

/// The networks, with the factors that are trained beside their frozen weights.
pub struct Trained<'a> {
    base: &'a Base,
    /// What is trained.
    pub trainee: Trainee,
    unet: UNet2DConditionModel,
    /// Only while it is trained itself; else embeddings are kept on disk.
    text: Option<ClipTextModel>,
    dropout: Option<Arc<Dropout>>,
    keep: Keep,
    precision: Precision,
    clip_skip: usize,
}

impl<'a> Trained<'a> {
    /// Loads the networks, with factors at their start.
    ///
    /// # Errors
    /// Missing or misshapen tensors; a target that matches nothing.
    pub fn new(base: &'a Base, params: &TrainLora) -> Result<Self> {
        let trainee = Trainee::new(base, params)?;
        let dropout = Dropout::new(params.lora_dropout);
        let mut stack = Stack::new();
        trainee.factors.iter().for_each(|f| stack.push_trainable(f, dropout.as_ref()));
        let adaptation = Adaptation { stack, mode: Mode::Live };
        let wanted = match params.mixed_precision {
            MixedPrecision::F32 => Dtype::F32,
            MixedPrecision::Fp16 => Dtype::F16,
            MixedPrecision::Bf16 => Dtype::Bf16,
            MixedPrecision::Int8 => Dtype::Int8,
            MixedPrecision::Auto if base.device.is_cpu() => Dtype::F32,
            MixedPrecision::Auto => Dtype::Bf16,
        };
        let precision = device::precision(wanted, &base.device)?;
        let failed = |name| move |e| atelier_diffusion::files::failed(name, e);
        let unet = base.unet.build_adapted(Part::Unet, &adaptation, precision, &base.device);
        let text = params
            .train_text_encoder
            .then(|| base.text.build_adapted(Part::TextEncoder, &adaptation, precision, &base.device));
        Ok(Self {
            base,
            trainee,
            unet: unet.map_err(failed("unet"))?.model,
            text: text.transpose().map_err(failed("text_encoder"))?.map(|opened| opened.model),
            dropout,
            keep: if params.gradient_checkpointing { Keep::Boundaries } else { Keep::All },
            precision,
            clip_skip: params.clip_skip as usize,
        })
    }

    /// Whether activations are in f16, whose small gradients vanish unless the loss is scaled. On the CPU the networks
    /// compute in f32 whatever their weights are stored in.
    pub fn needs_scaling(&self) -> bool {
        self.precision == DType::F16.into() && !self.base.device.is_cpu()
    }

    /// The number format of the frozen weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The embeddings of a batch's captions, (B, tokens, width), part of the graph if the text encoder is trained.
    ///
    /// # Errors
    /// The text encoder failed.
    pub fn context(&self, batch: &Batch) -> Result<Tensor> {
        self.embed(&batch.captions, |i| Ok(batch.contexts[i].clone()))
    }

    /// The embeddings of texts, by the text encoder in training, or those that `known` has of each.
    ///
    /// # Errors
    /// Those of `known`; the text encoder failed.
    pub fn embed(&self, texts: &[String], known: impl Fn(usize) -> Result<Tensor>) -> Result<Tensor> {
        let Some(text) = &self.text else {
            let all = (0..texts.len()).map(known).collect::<Result<Vec<_>>>()?;
            return Tensor::cat(&all, 0).map_err(error::tensor("joining embeddings"));
        };
        let ids = texts.iter().map(|t| Ok(self.base.tokens(t)?.0)).collect::<Result<Vec<_>>>()?;
        text.encode(&ids, self.clip_skip).map_err(|e| error::model("cannot encode captions", e))
    }

    /// Forward and back: the loss of a batch, and the gradients of `scale` times the loss.
    ///
    /// # Errors
    /// A network failed; a variable that nothing depends on.
    pub fn learn(&self, batch: &Batch, scale: f64) -> Result<Pass> {
        let failed = |e| error::model("a training step failed", e);
        if let Some(dropout) = &self.dropout {
            dropout.begin(batch.seed);
        }
        let context = self.context(batch)?;
        let recording =
            self.unet.record(&batch.noisy, &batch.timesteps, &context, self.keep).map_err(failed)?;
        let prediction = values(recording.output())?;
        let wrong = |e| Error::internal("a loss").because(e);
        let loss = weighted_mse(&prediction, &batch.target, &batch.weights).map_err(wrong)?.loss;
        let mut slope = vec![0f32; prediction.len()];
        weighted_mse_grad(&prediction, &batch.target, &batch.weights, scale, &mut slope).map_err(wrong)?;
        let slope = tensor(&slope, recording.output().dims(), &self.base.device)?;
        let gradients = recording.backward(&slope).map_err(failed)?;
        let text = match (&self.text, gradients.get(&context)) {
            (Some(_), Some(slope)) => {
                Some(through(&context, slope).map_err(error::tensor("text gradients"))?)
            }
            _ => None,
        };
        let of = |(name, var): (String, &candle_core::Var)| {
            let found = gradients.get(var.as_tensor()).or_else(|| text.as_ref()?.get(var.as_tensor()));
            match found {
                Some(grad) => values(grad),
                None => Err(Error::internal(format!("nothing depends on {name}"))),
            }
        };
        Ok(Pass { loss, grads: self.trainee.vars().map(of).collect::<Result<_>>()? })
    }
}

/// From the gradient of the embeddings to those of the text encoder's variables.
fn through(context: &Tensor, slope: &Tensor) -> candle_core::Result<candle_core::backprop::GradStore> {
    (context * slope.detach().to_dtype(context.dtype())?)?.sum_all()?.backward()
}

impl Network for Trained<'_> {
    fn predict(&self, sample: &Tensor, timesteps: &Tensor, context: &Tensor) -> Result<Tensor> {
        if let Some(dropout) = &self.dropout {
            dropout.pause();
        }
        let failed = |e| error::model("the network failed", e);
        // Recorded so that no graph is kept: the variables would have one otherwise.
        let recording = self.unet.record(sample, timesteps, &context.detach(), Keep::Boundaries);
        Ok(recording.map_err(failed)?.output().clone())
    }
}
