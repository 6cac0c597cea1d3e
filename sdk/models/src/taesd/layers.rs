//! One half of a tiny autoencoder: its layers one after the other, found by their names.
//!
//! Layers are numbered; those without tensors leave gaps. In an encoder nothing is left out. In a decoder the activation
//! after the first convolution is, and each enlargement; the original has a number more in front, for the limiting of
//! the latents.

use crate::layers::Conv2d;
use atelier_ops::{Conv2dSpec, Padding, upsample_nearest};
use atelier_weights::{Error, Result, Source, Weights};
use candle_core::Tensor;
use std::collections::BTreeSet;

/// Most layers of a half; TAESD's have 19.
const MAX_LAYERS: usize = 200;

/// Which half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Encode,
    Decode,
}

#[derive(Clone, Debug)]
enum Layer {
    Conv(Conv2d),
    Block(Box<Block>),
    Relu,
    Enlarge,
}

/// Three convolutions beside a shortcut.
#[derive(Clone, Debug)]
struct Block {
    convs: [Conv2d; 3],
    skip: Option<Conv2d>,
}

/// One half.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    inputs: usize,
    outputs: usize,
    factor: usize,
}

impl Layers {
    /// Builds this half if the files have it.
    pub(super) fn find(weights: &Weights, source: &Source, direction: Direction) -> Result<Option<Self>> {
        match root(weights, direction) {
            Some(root) => Builder { weights, source, root, direction }.build().map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn factor(&self) -> usize {
        self.factor
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = match layer {
                Layer::Conv(conv) => conv.forward(&x)?,
                Layer::Relu => x.relu()?,
                Layer::Enlarge => upsample_nearest(&x, 2 * x.dim(2)?, 2 * x.dim(3)?)?,
                Layer::Block(block) => {
                    let Block { convs: [a, b, c], skip } = block.as_ref();
                    let h = c.forward(&b.forward(&a.forward(&x)?.relu()?)?.relu()?)?;
                    let x = skip.as_ref().map_or(Ok(x.clone()), |conv| conv.forward(&x))?;
                    (h + x)?.relu()?
                }
            };
        }
        Ok(x)
    }
}

/// How the names of a half start.
fn root(weights: &Weights, direction: Direction) -> Option<&'static str> {
    let roots: [&str; 5] = match direction {
        Direction::Encode => {
            ["encoder.layers.", "first_stage_model.encoder.", "taesd_encoder.", "encoder.", ""]
        }
        Direction::Decode => {
            ["decoder.layers.", "first_stage_model.decoder.", "taesd_decoder.", "decoder.", ""]
        }
    };
    let has = |name: String| weights.info(&name).is_some();
    roots.into_iter().find(|root| {
        let first = has(format!("{root}0.weight"));
        let begins = match direction {
            Direction::Encode => first,
            // Without a name in front, only the missing number 0 tells a decoder from an encoder.
            Direction::Decode => (first && !root.is_empty()) || (!first && has(format!("{root}1.weight"))),
        };
        begins && (3..5).any(|i| has(format!("{root}{i}.conv.0.weight")))
    })
}

struct Builder<'a> {
    weights: &'a Weights,
    source: &'a Source,
    root: &'static str,
    direction: Direction,
}

impl Builder<'_> {
    fn build(&self) -> Result<Layers> {
        let numbers = self.numbers();
        let (Some(first), Some(last)) = (numbers.first().copied(), numbers.last().copied()) else {
            return Err(self.error("it has no layers"));
        };
        if numbers.len() > MAX_LAYERS || last > 2 * MAX_LAYERS {
            return Err(self.error(&format!("{} layers are more than {MAX_LAYERS}", numbers.len())));
        }
        let (mut layers, mut factor, mut before) = (Vec::new(), 1, first);
        for number in numbers.iter().copied() {
            if number > before + 1 {
                if self.direction == Direction::Encode || number > before + 2 {
                    return Err(
                        self.error(&format!("between the layers {before} and {number} some are missing"))
                    );
                }
                let activation = before == first;
                factor *= if activation { 1 } else { 2 };
                layers.push(if activation { Layer::Relu } else { Layer::Enlarge });
            }
            let ends = number == first || number == last;
            let strided = self.direction == Direction::Encode && !ends && !self.has(number, "conv.0.weight");
            factor *= if strided { 2 } else { 1 };
            layers.push(self.layer(number, strided)?);
            before = number;
        }
        let shape = |number, i| self.shape(&format!("{number}.weight"), i);
        let layers = Layers { layers, inputs: shape(first, 1)?, outputs: shape(last, 0)?, factor };
        let colours = if self.direction == Direction::Encode { layers.inputs } else { layers.outputs };
        match colours {
            3 => Ok(layers),
            other => Err(self.error(&format!("images with {other} channels"))),
        }
    }

    fn numbers(&self) -> BTreeSet<usize> {
        let rest = self.weights.names().filter_map(|name| name.strip_prefix(self.root));
        rest.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect()
    }

    fn has(&self, number: usize, name: &str) -> bool {
        self.weights.info(&format!("{}{number}.{name}", self.root)).is_some()
    }

    fn layer(&self, number: usize, strided: bool) -> Result<Layer> {
        if self.weights.names().any(|n| n.starts_with(&format!("{}{number}.pool.", self.root))) {
            return Err(self.error("blocks with pools, which are those of TAEF2, for other latents"));
        }
        let name = |rest: &str| format!("{number}{rest}");
        if !self.has(number, "conv.0.weight") {
            let stride = if strided { 2 } else { 1 };
            return Ok(Layer::Conv(self.conv(&name(""), Conv2dSpec { stride, padding: Padding::same(1) })?));
        }
        let same = Conv2dSpec::padded(1);
        let convs = [
            self.conv(&name(".conv.0"), same)?,
            self.conv(&name(".conv.2"), same)?,
            self.conv(&name(".conv.4"), same)?,
        ];
        let skip = self.has(number, "skip.weight");
        let skip = skip.then(|| self.conv(&name(".skip"), Conv2dSpec::padded(0))).transpose()?;
        Ok(Layer::Block(Box::new(Block { convs, skip })))
    }

    fn conv(&self, name: &str, spec: Conv2dSpec) -> Result<Conv2d> {
        let weight = format!("{name}.weight");
        let side = |i| self.shape(&weight, i);
        let (outputs, inputs, kernel) = (side(0)?, side(1)?, side(2).unwrap_or(1));
        let source = self.source.pp(format!("{}{name}", self.root));
        match source.contains("bias") {
            true => Conv2d::new(&source, inputs, outputs, kernel, spec),
            false => Conv2d::without_bias(&source, inputs, outputs, kernel, spec),
        }
    }

    fn shape(&self, name: &str, i: usize) -> Result<usize> {
        let info = self.weights.info(&format!("{}{name}", self.root));
        let side = info.and_then(|info| info.shape.get(i)).copied();
        side.ok_or_else(|| self.error(&format!("no convolution `{}{name}`", self.root)))
    }

    fn error(&self, found: &str) -> Error {
        let half = if self.direction == Direction::Encode { "encoder" } else { "decoder" };
        Error::Config {
            path: self.weights.place().into(),
            field: self.root.trim_end_matches('.').into(),
            message: format!("expected the {half} of a tiny autoencoder, found {found}"),
        }
    }
}
