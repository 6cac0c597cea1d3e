//! What the numbers of a new file are.

use crate::params::Format;
use atelier_weights::{Elements, Result, StoredDtype, Weights};
use candle_core::quantized::GgmlDType;

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Safetensors,
    Gguf,
}

/// What numbers become in a format of files.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    container: Container,
    format: Format,
}

impl Numbers {
    pub fn new(container: Container, format: Format) -> Self {
        Self { container, format }
    }

    pub fn container(self) -> Container {
        self.container
    }

    /// What floats become that are not put into blocks; none if they stay.
    pub fn dtype(self) -> Option<StoredDtype> {
        match self.format {
            Format::Keep => None,
            Format::F32 => Some(StoredDtype::F32),
            Format::F16 | Format::Int8 => Some(StoredDtype::F16),
            Format::Bf16 => Some(StoredDtype::BF16),
        }
    }

    /// How a tensor will lie that is called `new` and has this shape; none if there is no such tensor.
    pub fn elements(self, weights: &Weights, name: &str, new: &str, shape: &[usize]) -> Option<Elements> {
        let own = weights.elements(name)?;
        let plain = Elements::Plain(weights.stored_as(name, self.dtype())?);
        Some(match (self.container, self.format, own) {
            (Container::Gguf, Format::Keep | Format::Int8, Elements::Blocks(_)) => own,
            (Container::Gguf, Format::Int8, Elements::Plain(dtype)) if dtype.is_float() => {
                if is_layer(new, shape) { Elements::Blocks(GgmlDType::Q8_0) } else { plain }
            }
            _ => plain,
        })
    }
}

/// The bytes of a tensor as they will lie.
pub fn read(weights: &Weights, name: &str, elements: Elements) -> Result<Vec<u8>> {
    match elements {
        Elements::Plain(dtype) => weights.encoded(name, Some(dtype)),
        Elements::Blocks(format) => weights.in_blocks(name, format),
    }
}

/// Whether a tensor is the weight of a layer whose outputs have whole blocks: what a run with `--precision int8` has in
/// eight bits. That leaves out the autoencoder, and embeddings, of which single rows are looked up.
fn is_layer(name: &str, shape: &[usize]) -> bool {
    let row: usize = shape.iter().skip(1).product();
    let of_vae = ["first_stage_model.", "encoder.", "decoder."].iter().any(|start| name.starts_with(start));
    let embedding =
        ["token_embedding.weight", "position_embedding.weight"].iter().any(|end| name.ends_with(end));
    name.ends_with(".weight") && shape.len() > 1 && row > 0 && row.is_multiple_of(32) && !of_vae && !embedding
}
