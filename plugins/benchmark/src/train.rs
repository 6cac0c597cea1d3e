//! A step of LoRA training.

use crate::networks::input;
use crate::works::{Bench, Line, TOKENS};
use atelier_diffusion::error;
use atelier_diffusion::files::failed;
use atelier_models::{Network, Prepared, UNet2DConditionModel};
use atelier_ops::Keep;
use atelier_ops::gradcheck::pseudo_normal;
use atelier_sdk::{EngineCtx, Error, Result};
use atelier_weights::lora::{Adaptation, FactorShapes, Mode, Part, Stack, Trainable};
use candle_core::{Device, Tensor};

const RANK: usize = 8;

/// The layers that have an adapter.
const TARGETS: [&str; 4] = [".to_q", ".to_k", ".to_v", ".to_out.0"];

/// Forward, loss and back to the gradients of all factors; batch 1, activations computed again. No optimiser: it is on
/// the factors alone.
///
/// # Errors
/// Missing or damaged files; that it is to stop.
pub fn step(bench: &Bench<'_>, ctx: &mut dyn EngineCtx) -> Result<Line> {
    let networks = bench.networks;
    let prepared = networks.unet()?;
    let config = prepared.config();
    let adapters = adapters(&prepared, &networks.device)?;
    let mut stack = Stack::new();
    adapters.iter().for_each(|adapter| stack.push_trainable(adapter, None));
    let adaptation = Adaptation { stack, mode: Mode::Live };
    let built = prepared.build_adapted(Part::Unet, &adaptation, networks.precision, &networks.device);
    let unet = built.map_err(|e| failed("unet", e))?.model;
    let (height, width) = networks.latents(bench.params.width, bench.params.height)?;
    let sample = bench.noise(1, &[1, config.in_channels, height, width])?;
    let target = bench.noise(2, &[1, config.out_channels, height, width])?;
    let context = bench.noise(3, &[1, TOKENS, config.cross_attention_dim[0]])?;
    let timestep = Tensor::new(&[500f32], &networks.device).map_err(input)?;
    let measured = bench.clock().measure(ctx, || {
        let of_network = |e| error::model("a training step failed", e);
        let recording = unet.record(&sample, &timestep, &context, Keep::Boundaries).map_err(of_network)?;
        let gradient =
            slope(recording.output(), &target).map_err(error::tensor("taking the gradient of the loss"))?;
        let gradients = recording.backward(&gradient).map_err(of_network)?;
        let has = |factor: &Tensor| gradients.get(factor).is_some();
        match adapters.iter().find(|a| !has(&a.down) || !has(&a.up)) {
            None => Ok(()),
            Some(adapter) => Err(Error::internal(format!("no gradient reached {}", adapter.module))),
        }
    })?;
    Ok(Line {
        name: format!("LoRA step, rank {RANK}, {}", bench.size()),
        operations: config.operations(1, (height, width), TOKENS).with_gradients(),
        measured,
        made_up: networks.made_up(),
    })
}

/// The gradient of the mean squared difference.
fn slope(output: &Tensor, target: &Tensor) -> candle_core::Result<Tensor> {
    let off = (output - target)?;
    let count = off.elem_count() as f64;
    off * (2.0 / count)
}

fn adapters(prepared: &Prepared<UNet2DConditionModel>, device: &Device) -> Result<Vec<Trainable>> {
    let modules = UNet2DConditionModel::modules(prepared.config()).map_err(|e| failed("unet", e))?;
    let wanted = |name: &&str| TARGETS.iter().any(|end| name.ends_with(end));
    let targets: Vec<String> = modules.names().filter(wanted).map(String::from).collect();
    let init = |_: &str, shapes: &FactorShapes| {
        let factor = |shape: &[usize]| pseudo_normal(shape[0] as u64, shape, 0.02);
        Ok((factor(&shapes.down), factor(&shapes.up)))
    };
    Trainable::new(Part::Unet, &modules, &targets, (RANK, RANK as f64), device, init)
        .map_err(|e| error::weights("cannot make adapters", e))
}
