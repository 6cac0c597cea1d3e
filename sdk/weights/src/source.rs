//! Where a network takes its tensors from.

use crate::error::{Error, Result};
use crate::fake::Fake;
use crate::located::{Located, Precision};
use crate::lora::Applied;
use crate::weights::Weights;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

/// Something that has tensors by name.
pub trait Provider: Send + Sync {
    /// The tensor `name`, which must have `shape`, as `dtype` on `device`.
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor>;

    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The weight `name` of a linear layer or convolution, and the changes that the layer itself is to apply to it:
    /// none from most providers.
    fn layer(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, Vec<Applied>)> {
        Ok((self.tensor(name, shape, dtype, device)?, Vec::new()))
    }

    /// Where the weight `name` of a layer lies, and the changes of [`Self::layer`]: none from a provider that would have to
    /// compute or to reorder it, nor where it has another shape, which [`Self::layer`] tells.
    fn located(
        &self,
        _: &str,
        _shape: &[usize],
        _: DType,
        _: &Device,
    ) -> Result<Option<(Located, Vec<Applied>)>> {
        Ok(None)
    }

    /// The names that were never asked for, sorted, but for those known to be of no use.
    fn unused(&self) -> Vec<String> {
        Vec::new()
    }

    /// Gives the memory of what lies in files back to the system, which reads it again when it is used.
    fn release(&self) {}

    /// The files that hold them.
    fn paths(&self) -> &[PathBuf] {
        &[]
    }

    /// Elements of all tensors together; 0 where that is not known.
    fn elements(&self) -> u64 {
        0
    }

    /// Bytes of all tensors in their files; 0 where there are none.
    fn stored_bytes(&self) -> u64 {
        0
    }
}

/// A place in a tree of named tensors; networks are built from it, each module from its own branch.
#[derive(Clone)]
pub struct Source {
    provider: Arc<dyn Provider>,
    path: String,
    precision: Precision,
    device: Device,
}

impl Source {
    /// The root of any provider's tensors, stored as `precision` says on `device`.
    pub fn new(provider: Arc<dyn Provider>, precision: impl Into<Precision>, device: &Device) -> Self {
        Self { provider, path: String::new(), precision: precision.into(), device: device.clone() }
    }

    /// The root of the tensors of files.
    pub fn from_weights(weights: Arc<Weights>, precision: impl Into<Precision>, device: &Device) -> Self {
        Self::new(weights, precision, device)
    }

    /// Made-up weights for benchmarks: whatever is asked for exists, with values close to N(0, 1 / inputs)
    /// (norm weights 1, biases 0), the same for the same seed and name.
    pub fn fake(seed: u64, precision: impl Into<Precision>, device: &Device) -> Self {
        Self::new(fake(seed), precision, device)
    }

    /// Tensors in memory. A `Var`'s tensor stays the variable it is if it has this dtype and device, so gradients
    /// reach it.
    pub fn from_tensors(tensors: HashMap<String, Tensor>, dtype: DType, device: &Device) -> Self {
        Self::new(Arc::new(InMemory(tensors)), dtype, device)
    }

    /// The branch `name` of this place.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self { path: self.full(&name), ..self.clone() }
    }

    /// The tensor `name` of this place, which must have `shape`.
    ///
    /// Errors: missing, or of another shape; the message has the full name.
    pub fn get(&self, shape: &[usize], name: &str) -> Result<Tensor> {
        self.provider.tensor(&self.full(&name), shape, self.dtype(), &self.device)
    }

    /// The weight of this layer, which must have `shape`, as `dtype`, and the changes that the layer is to apply to it.
    ///
    /// Errors: those of [`Self::get`].
    pub fn layer(&self, shape: &[usize], dtype: DType) -> Result<(Tensor, Vec<Applied>)> {
        self.provider.layer(&self.full(&"weight"), shape, dtype, &self.device)
    }

    /// Where the weight of this layer lies, see [`Provider::located`].
    ///
    /// Errors: changes that cannot be had on this device.
    pub fn located(&self, shape: &[usize]) -> Result<Option<(Located, Vec<Applied>)>> {
        self.provider.located(&self.full(&"weight"), shape, self.dtype(), &self.device)
    }

    /// Whether this place has a tensor `name`. Made-up weights have every name.
    pub fn contains(&self, name: &str) -> bool {
        self.provider.contains(&self.full(&name))
    }

    /// The type tensors are given out as.
    pub fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    /// What the weights of layers are stored as.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The device tensors are put on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The path of this place, dots between its parts; empty at the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn full(&self, name: &dyn Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

/// The tensors of [`Source::fake`].
pub fn fake(seed: u64) -> Arc<dyn Provider> {
    Arc::new(Fake { seed })
}

struct InMemory(HashMap<String, Tensor>);

impl Provider for InMemory {
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let place = "tensors in memory";
        let Some(tensor) = self.0.get(name) else {
            return Err(Error::MissingTensor {
                place: place.into(),
                tensor: name.into(),
                nearest: Vec::new(),
            });
        };
        if tensor.dims() != shape {
            return Err(Error::WrongShape {
                place: place.into(),
                tensor: name.into(),
                expected: shape.to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        tensor.to_dtype(dtype).and_then(|t| t.to_device(device)).map_err(|source| Error::Tensor {
            place: place.into(),
            tensor: name.into(),
            source: Box::new(source),
        })
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn branches_are_joined_with_dots() {
        let source = Source::fake(1, DType::F32, &Device::Cpu);
        let branch = source.pp("down_blocks").pp(0);
        assert_eq!(branch.path(), "down_blocks.0");
        assert_eq!(branch.get(&[3], "norm.weight").unwrap().to_vec1::<f32>().unwrap(), [1.0; 3]);
    }

    #[test]
    fn a_variable_stays_the_same_variable() {
        let var = Var::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let tensors = HashMap::from([("a.weight".to_string(), var.as_tensor().clone())]);
        let got =
            Source::from_tensors(tensors, DType::F32, &Device::Cpu).pp("a").get(&[2, 2], "weight").unwrap();
        assert!(got.is_variable());
        assert_eq!(got.id(), var.id());
    }

    #[test]
    fn missing_and_misshapen_tensors_are_named_in_full() {
        let tensors =
            HashMap::from([("a.weight".to_string(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap())]);
        let source = Source::from_tensors(tensors, DType::F32, &Device::Cpu).pp("a");
        assert!(source.get(&[2], "bias").unwrap_err().to_string().contains("\"a.bias\""));
        assert!(
            source.get(&[3], "weight").unwrap_err().to_string().contains("expected shape [3], found [2]")
        );
    }
}
