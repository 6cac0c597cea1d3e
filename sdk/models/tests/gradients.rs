//! Gradients through the whole UNet: our f32 kernels against finite differences and candle's operations in f64.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{UNet2DConditionModel, UNetConfig};
use atelier_ops::gradcheck::pseudo_normal;
use atelier_weights::{ComponentFolder, Source};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden/tiny-sd/unet")
}

/// The tiny UNet with every weight a variable, and its inputs, in one dtype.
struct Tracked {
    config: UNetConfig,
    weights: HashMap<String, Tensor>,
    sample: Tensor,
    timesteps: Tensor,
    context: Tensor,
}

impl Tracked {
    fn new(dtype: DType) -> Self {
        let file = folder().join("diffusion_pytorch_model.safetensors");
        let var = |t: &Tensor| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap().as_tensor().clone();
        let weights = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let config = UNetConfig::read(&ComponentFolder::open(folder()).unwrap().config().unwrap()).unwrap();
        Self {
            weights: weights.iter().map(|(name, t)| (name.clone(), var(t))).collect(),
            sample: var(&pseudo_normal(1, (2, 4, 5, 6), 1.0)),
            timesteps: Tensor::new(&[10f32, 700.5], &Device::Cpu).unwrap(),
            context: var(&pseudo_normal(2, (2, 7, config.cross_attention_dim[0]), 1.0)),
            config,
        }
    }

    fn mean(&self) -> Tensor {
        let source = Source::from_tensors(self.weights.clone(), self.sample.dtype(), &Device::Cpu);
        let unet = UNet2DConditionModel::new(&source, &self.config).unwrap();
        unet.forward(&self.sample, &self.timesteps, &self.context).unwrap().mean_all().unwrap()
    }

    /// Every variable by name: weights, `sample`, `context`.
    fn variables(&self) -> Vec<(&str, &Tensor)> {
        let inputs = [("sample", &self.sample), ("context", &self.context)];
        self.weights.iter().map(|(name, t)| (name.as_str(), t)).chain(inputs).collect()
    }

    /// The mean with one element of a variable moved.
    fn moved(mut self, name: &str, element: usize, by: f64) -> (Self, f64) {
        let before = match name {
            "sample" => self.sample.clone(),
            "context" => self.context.clone(),
            _ => self.weights[name].clone(),
        };
        let mut data = values(&before);
        data[element] += by;
        let after = Tensor::from_vec(data, before.shape(), &Device::Cpu).unwrap();
        match name {
            "sample" => self.sample = after,
            "context" => self.context = after,
            _ => drop(self.weights.insert(name.into(), after)),
        }
        let mean = self.mean().to_scalar::<f64>().unwrap();
        match name {
            "sample" => self.sample = before,
            "context" => self.context = before,
            _ => drop(self.weights.insert(name.into(), before)),
        }
        (self, mean)
    }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0f64, |a, b| a.max(b.abs()))
}

fn gradient(grads: &GradStore, name: &str, variable: &Tensor) -> Vec<f64> {
    values(grads.get(variable).unwrap_or_else(|| panic!("{name} has no gradient")))
}

#[test]
fn gradients_in_f64_are_the_finite_differences() {
    let mut net = Tracked::new(DType::F64);
    let grads = net.mean().backward().unwrap();
    let block = "down_blocks.0.attentions.0.transformer_blocks.0";
    let names = ["to_q", "to_k", "to_v", "to_out.0"].map(|m| format!("{block}.attn1.{m}.weight"));
    let cross =
        ["to_q", "to_k"].map(|m| format!("mid_block.attentions.0.transformer_blocks.0.attn2.{m}.weight"));
    let others =
        ["sample", "context", "conv_in.weight", "up_blocks.1.resnets.0.conv1.weight"].map(String::from);
    for name in names.into_iter().chain(cross).chain(others) {
        let variable = net.variables().into_iter().find(|(n, _)| *n == name).unwrap().1.clone();
        let got = gradient(&grads, &name, &variable);
        let scale = largest(&got);
        assert!(scale > 0.0, "{name}");
        for element in (0..got.len()).step_by(got.len().div_ceil(3)) {
            let h = 1e-4;
            let (moved, above) = net.moved(&name, element, h);
            let (moved, below) = moved.moved(&name, element, -h);
            net = moved;
            let want = (above - below) / (2.0 * h);
            let error = (got[element] - want).abs();
            assert!(error <= 1e-5 * scale, "{name}[{element}]: {} but {want}", got[element]);
        }
    }
}

#[test]
fn every_weight_and_input_has_the_gradient_of_the_f64_network() {
    let (ours, reference) = (Tracked::new(DType::F32), Tracked::new(DType::F64));
    let (our_grads, reference_grads) =
        (ours.mean().backward().unwrap(), reference.mean().backward().unwrap());
    let wanted: Vec<_> = reference
        .variables()
        .iter()
        .map(|(name, v)| (name.to_string(), gradient(&reference_grads, name, v)))
        .collect();
    let overall = wanted.iter().fold(0f64, |a, (_, g)| a.max(largest(g)));
    let mut worst = (0.0, "");
    for (name, want) in &wanted {
        let own = ours.variables().into_iter().find(|(n, _)| n == name).unwrap().1;
        let got = gradient(&our_grads, name, own);
        // Where a group norm of one channel follows, a shift of the channel has no effect and its gradient is only
        // rounding: such a gradient is measured by the others.
        let scale = largest(want).max(1e-2 * overall);
        let error = got.iter().zip(want).fold(0f64, |a, (x, y)| a.max((x - y).abs())) / scale;
        if error > worst.0 {
            worst = (error, name);
        }
    }
    println!("{} gradients; largest relative difference {:.2e} in {}", wanted.len(), worst.0, worst.1);
    // 5e-5 to 1.4e-4 by the processor: each has its own kernels for products, and they round in another order.
    assert!(worst.0 < 3e-4, "{worst:?}");
    let attention = wanted.iter().filter(|(name, _)| name.contains(".to_"));
    assert!(attention.clone().count() > 0);
    for (name, want) in attention {
        assert!(largest(want) > 1e-4 * overall, "the gradient of {name} is nothing");
    }
}

#[test]
fn frozen_weights_get_no_gradient_when_only_the_input_is_tracked() {
    let mut net = Tracked::new(DType::F32);
    net.weights = net.weights.iter().map(|(n, t)| (n.clone(), t.copy().unwrap().detach())).collect();
    let grads = net.mean().backward().unwrap();
    assert!(grads.get(&net.sample).is_some());
    assert!(net.weights.values().all(|t| grads.get(t).is_none()));
}
