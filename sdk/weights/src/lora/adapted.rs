//! Tensors of a model with adapters on them.

use super::delta::Delta;
use super::dropout::ModuleDropout;
use super::keys::Part;
use super::modules::{Modules, canonical};
use super::resolve::Resolved;
use super::strength::Strength;
use crate::error::{Error, Result};
use crate::located::{Located, Precision};
use crate::source::{Provider, Source};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One change and how much of it.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The change.
    pub delta: Arc<Delta>,
    /// Its factor.
    pub weight: f64,
    /// Dropout of what goes into it, in training.
    pub dropout: Option<ModuleDropout>,
}

/// Where the changes are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// To the weights as they are loaded: costs nothing per step.
    #[default]
    Merge,
    /// Beside the weights, in every step: the weights stay as they are, and gradients reach the factors.
    Live,
}

/// Several adapters on the networks of one model.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    unet: BTreeMap<String, Vec<Applied>>,
    text: BTreeMap<String, Vec<Applied>>,
}

impl Stack {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an adapter on a model whose UNet has these modules. What has no weight is left out.
    ///
    /// Errors: weights for blocks that the UNet does not have.
    pub fn push(&mut self, adapter: &Resolved, strength: &Strength, unet: &Modules) -> Result<()> {
        let weights = strength.over(unet)?;
        let parts =
            [(Part::Unet, &adapter.unet, &mut self.unet), (Part::TextEncoder, &adapter.text, &mut self.text)];
        for (part, changes, stack) in parts {
            for (module, delta) in changes {
                let weight = weights.of(part, module, unet);
                if weight != 0.0 {
                    stack.entry(module.clone()).or_default().push(Applied::new(delta.clone(), weight));
                }
            }
        }
        Ok(())
    }

    /// Whether it changes nothing in a network.
    pub fn is_empty(&self, part: Part) -> bool {
        self.of(part).is_none_or(BTreeMap::is_empty)
    }

    /// Adds one change. Nothing happens for a network that no stack changes.
    pub(super) fn insert(&mut self, part: Part, module: &str, applied: Applied) {
        let changes = match part {
            Part::Unet => &mut self.unet,
            Part::TextEncoder => &mut self.text,
            Part::TextEncoder2 => return,
        };
        changes.entry(canonical(module).into()).or_default().push(applied);
    }

    fn of(&self, part: Part) -> Option<&BTreeMap<String, Vec<Applied>>> {
        match part {
            Part::Unet => Some(&self.unet),
            Part::TextEncoder => Some(&self.text),
            Part::TextEncoder2 => None,
        }
    }

    /// The tensors of `inner`, a network's, with the changes on them.
    pub fn on(&self, part: Part, inner: Arc<dyn Provider>, mode: Mode) -> Adapted {
        Adapted { inner, changes: self.of(part).cloned().unwrap_or_default(), mode }
    }
}

/// A stack and how it is applied: what a network is opened with.
#[derive(Clone, Debug, Default)]
pub struct Adaptation {
    /// The adapters.
    pub stack: Stack,
    /// Where their changes are added.
    pub mode: Mode,
}

impl Adaptation {
    /// No adapters.
    pub fn none() -> Self {
        Self::default()
    }

    /// What a network takes its tensors from: `inner`, with the changes of this part on it if there are any.
    pub fn source(
        &self,
        part: Part,
        inner: Arc<dyn Provider>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Source {
        if self.stack.is_empty(part) {
            return Source::new(inner, precision, device);
        }
        Source::new(Arc::new(self.stack.on(part, inner, self.mode)), precision, device)
    }
}

/// The tensors of another provider with changes on them.
#[derive(Clone)]
pub struct Adapted {
    inner: Arc<dyn Provider>,
    changes: BTreeMap<String, Vec<Applied>>,
    mode: Mode,
}

impl Adapted {
    /// Changes by the paths of modules.
    pub fn new(inner: Arc<dyn Provider>, changes: BTreeMap<String, Vec<Applied>>, mode: Mode) -> Self {
        Self { inner, changes, mode }
    }

    /// The changes of the module that `name` is a tensor of, and which of its tensors it is.
    fn changes<'a>(&self, name: &'a str) -> Option<(&[Applied], &'a str)> {
        let (module, tensor) = name.rsplit_once('.')?;
        Some((self.changes.get(canonical(module))?, tensor))
    }

    fn merged(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
        add: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let base = self.inner.tensor(name, shape, wide, &Device::Cpu)?;
        add(&base).and_then(|sum| sum.to_dtype(dtype)?.to_device(device)).map_err(failed(name))
    }

    /// The changes that the layer with this weight applies itself; none where they are added to the weight.
    fn beside(&self, name: &str, dtype: DType, device: &Device) -> Result<Option<Vec<Applied>>> {
        let Some((changes, "weight")) = self.changes(name).filter(|_| self.mode == Mode::Live) else {
            return Ok(None);
        };
        // On the CPU layers compute in f32 whatever their weights are stored in.
        let half = matches!(dtype, DType::F16 | DType::BF16);
        let computed = if device.is_cpu() && half { DType::F32 } else { dtype };
        let moved: candle_core::Result<Vec<Applied>> =
            changes.iter().map(|c| c.moved(computed, device)).collect();
        moved.map(Some).map_err(failed(name))
    }
}

fn failed(name: &str) -> impl Fn(candle_core::Error) -> Error {
    let tensor = name.to_string();
    move |source| Error::Tensor {
        place: "adding adapters".into(),
        tensor: tensor.clone(),
        source: Box::new(source),
    }
}

impl Provider for Adapted {
    /// The sum, added in f32 whatever the type that is asked for. Each change is of the weight without the others.
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        match self.changes(name) {
            Some((changes, "weight")) => self.merged(name, shape, dtype, device, |base| {
                changes.iter().try_fold(base.clone(), |sum, c| sum + (c.delta.change(base)? * c.weight)?)
            }),
            Some((changes, "bias")) if changes.iter().any(|c| c.delta.bias.is_some()) => {
                self.merged(name, shape, dtype, device, |base| {
                    changes.iter().try_fold(base.clone(), |sum, c| match &c.delta.bias {
                        Some(bias) => sum + (bias.to_dtype(base.dtype())?.reshape(base.shape())? * c.weight)?,
                        None => Ok(sum),
                    })
                })
            }
            _ => self.inner.tensor(name, shape, dtype, device),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.inner.contains(name)
    }

    fn release(&self) {
        self.inner.release();
    }

    fn unused(&self) -> Vec<String> {
        self.inner.unused()
    }

    fn paths(&self) -> &[PathBuf] {
        self.inner.paths()
    }

    fn elements(&self) -> u64 {
        self.inner.elements()
    }

    fn stored_bytes(&self) -> u64 {
        self.inner.stored_bytes()
    }

    fn layer(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, Vec<Applied>)> {
        match self.beside(name, dtype, device)? {
            Some(changes) => Ok((self.inner.tensor(name, shape, dtype, device)?, changes)),
            None => Ok((self.tensor(name, shape, dtype, device)?, Vec::new())),
        }
    }

    fn located(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Option<(Located, Vec<Applied>)>> {
        let changes = match self.beside(name, dtype, device)? {
            Some(changes) => changes,
            None if self.changes(name).is_some() => return Ok(None),
            None => Vec::new(),
        };
        let inner = self.inner.located(name, shape, dtype, device)?;
        Ok(inner.map(|(located, _)| (located, changes)))
    }
}

impl Applied {
    /// A change with this factor.
    pub fn new(delta: Arc<Delta>, weight: f64) -> Self {
        Self { delta, weight, dropout: None }
    }

    /// The same with its tensors as `dtype` on `device`.
    ///
    /// Variables stay the variables they are, whatever their type: converted here they would not follow their training.
    /// Layers convert them in each pass. They are to be on the device already.
    fn moved(&self, dtype: DType, device: &Device) -> candle_core::Result<Self> {
        let mut delta = self.delta.as_ref().clone();
        for tensor in delta.tensors_mut() {
            if !tensor.track_op() {
                *tensor = tensor.to_dtype(dtype)?.to_device(device)?;
            } else if !tensor.device().same_device(device) {
                candle_core::bail!("a factor in training on {:?}, the network on {device:?}", tensor.device())
            }
        }
        Ok(Self { delta: Arc::new(delta), weight: self.weight, dropout: self.dropout.clone() })
    }
}
