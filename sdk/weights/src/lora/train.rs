//! Adapters that are to be trained: low-rank factors that are variables.

use super::adapted::{Applied, Stack};
use super::delta::Delta;
use super::dropout::{Dropout, ModuleDropout};
use super::keys::Part;
use super::modules::Modules;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use std::sync::Arc;

/// The shapes of the factors of one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactorShapes {
    /// (rank, inputs), or (rank, inputs, kh, kw) of a convolution.
    pub down: Vec<usize>,
    /// (outputs, rank), or (outputs, rank, 1, 1).
    pub up: Vec<usize>,
}

impl FactorShapes {
    /// For a weight (outputs, inputs) or (outputs, inputs, kh, kw).
    pub fn of(weight: &[usize], rank: usize) -> Self {
        let mut down = weight.to_vec();
        let outputs = std::mem::replace(&mut down[0], rank);
        let mut up = vec![1; weight.len()];
        (up[0], up[1]) = (outputs, rank);
        Self { down, up }
    }
}

/// A LoRA of one module in training: `alpha / rank · up · down`.
#[derive(Clone, Debug)]
pub struct Trainable {
    /// The network.
    pub part: Part,
    /// The module's path.
    pub module: String,
    /// The factor at the module's input.
    pub down: Var,
    /// The factor at its output.
    pub up: Var,
    /// alpha / rank.
    pub scale: f64,
}

impl Trainable {
    /// One for each module of `targets`, in that order, with factors from `init`: `down`, then `up`, for a module's
    /// path and their shapes. They become variables in f32 on `device`, which has to be the network's.
    ///
    /// Errors: a path that is none of `modules`; a rank of 0; factors of other shapes.
    pub fn new(
        part: Part,
        modules: &Modules,
        targets: &[String],
        (rank, alpha): (usize, f64),
        device: &Device,
        mut init: impl FnMut(&str, &FactorShapes) -> candle_core::Result<(Tensor, Tensor)>,
    ) -> Result<Vec<Self>> {
        let mut one = |module: &String| {
            let found = modules.shape(module).filter(|shape| shape.len() >= 2 && rank > 0);
            let failed = failed(module);
            let Some(weight) = found else {
                let message =
                    format!("no LoRA of rank {rank} on it: expected a linear layer or a convolution");
                return Err(failed(candle_core::Error::Msg(message)));
            };
            let shapes = FactorShapes::of(weight, rank);
            let (down, up) = init(module, &shapes).map_err(&failed)?;
            let down = variable(&down, &shapes.down, device).map_err(&failed)?;
            let up = variable(&up, &shapes.up, device).map_err(&failed)?;
            Ok(Self { part, module: module.clone(), down, up, scale: alpha / rank as f64 })
        };
        targets.iter().map(&mut one).collect()
    }

    /// The change it is at present. Its tensors are the variables: they follow the training.
    pub fn delta(&self) -> Delta {
        Delta::lora(self.down.as_tensor().clone(), self.up.as_tensor().clone(), self.scale)
    }
}

/// A variable of its own with the numbers of `tensor`.
fn variable(tensor: &Tensor, shape: &[usize], device: &Device) -> candle_core::Result<Var> {
    if tensor.dims() != shape {
        candle_core::bail!("expected a factor {shape:?}, found {:?}", tensor.dims())
    }
    Var::from_tensor(&tensor.to_dtype(DType::F32)?.to_device(device)?.detach())
}

fn failed(module: &str) -> impl Fn(candle_core::Error) -> Error {
    let tensor = module.to_string();
    move |source| Error::Tensor {
        place: "an adapter to train".into(),
        tensor: tensor.clone(),
        source: Box::new(source),
    }
}

impl Stack {
    /// Adds an adapter in training, with dropout in front of it if there is one. For [`super::Mode::Live`]: merged
    /// into the weights, it would not follow the training.
    pub fn push_trainable(&mut self, adapter: &Trainable, dropout: Option<&Arc<Dropout>>) {
        let mut applied = Applied::new(Arc::new(adapter.delta()), 1.0);
        let name = format!("{}.{}", adapter.part.folder(), adapter.module);
        applied.dropout = dropout.map(|shared| ModuleDropout::new(shared.clone(), &name));
        self.insert(adapter.part, &adapter.module, applied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        let shapes = [("a.weight", vec![6, 4]), ("b.weight", vec![6, 4, 3, 3]), ("norm.weight", vec![4])];
        Modules::from_tensors(shapes.map(|(name, shape)| (name.to_string(), shape)))
    }

    fn zeros(_: &str, shapes: &FactorShapes) -> candle_core::Result<(Tensor, Tensor)> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F16, &Device::Cpu);
        Ok((zeros(&shapes.down)?, zeros(&shapes.up)?))
    }

    fn new(target: &str, rank: usize) -> Result<Vec<Trainable>> {
        Trainable::new(Part::Unet, &modules(), &[target.into()], (rank, 4.0), &Device::Cpu, zeros)
    }

    #[test]
    fn factors_have_the_shapes_of_linear_layers_and_of_convolutions() {
        let [linear, conv] = ["a", "b"].map(|m| new(m, 2).unwrap().remove(0));
        assert_eq!((linear.down.dims(), linear.up.dims()), (&[2, 4][..], &[6, 2][..]));
        assert_eq!((conv.down.dims(), conv.up.dims()), (&[2, 4, 3, 3][..], &[6, 2, 1, 1][..]));
        assert_eq!((conv.scale, conv.down.dtype()), (2.0, DType::F32));
        assert!(linear.delta().fits(&[6, 4]) && conv.delta().fits(&[6, 4, 3, 3]));
    }

    #[test]
    fn what_cannot_have_a_lora_is_refused() {
        for (target, rank) in [("c", 2), ("norm", 2), ("a", 0)] {
            let message = new(target, rank).unwrap_err().to_string();
            assert!(message.contains(target), "{message}");
        }
        let wrong = |_: &str, _: &FactorShapes| {
            let factor = Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?;
            Ok((factor.clone(), factor))
        };
        let targets = ["a".to_string()];
        let result = Trainable::new(Part::Unet, &modules(), &targets, (2, 4.0), &Device::Cpu, wrong);
        assert!(result.unwrap_err().to_string().contains("[2, 4]"));
    }
}
