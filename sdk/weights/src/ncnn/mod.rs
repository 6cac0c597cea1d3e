//! Models of ncnn (<https://github.com/Tencent/ncnn>): a text file of layers (`.param`) and a file of their weights in the
//! same order (`.bin`), which has no names, shapes or lengths of its own and makes no sense without the first.

mod bin;
mod param;

use crate::error::{Error, Result};
use crate::weights::Weights;
pub use param::NcnnLayer;
use std::path::Path;

/// The longest text that is read, in bytes: the largest upscaler has 116 thousand.
const MAX_PARAM: u64 = 16 << 20;

/// The layers of a model, and its weights under their layers' names: `Conv_0.weight`, `Conv_0.bias`; slopes of a PReLU
/// are its `weight`.
#[derive(Debug)]
pub struct Ncnn {
    layers: Vec<NcnnLayer>,
    weights: Weights,
}

impl Ncnn {
    /// Opens both files.
    ///
    /// Errors: those of reading; a text that is no description of layers, or contradicts itself; layers with weights of
    /// another kind than convolutions and PReLUs; weights of 8 bits or fewer; a `.bin` that is longer or shorter than its
    /// layers need.
    pub fn open(param: impl AsRef<Path>, bin: impl AsRef<Path>) -> Result<Self> {
        let (param, bin) = (param.as_ref(), bin.as_ref());
        let io = |source| Error::Io { path: param.into(), source };
        let length = std::fs::metadata(param).map_err(io)?.len();
        if length > MAX_PARAM {
            let message = format!("expected at most {MAX_PARAM} bytes, found {length}");
            return Err(Error::NcnnParam { path: param.into(), line: 1, message });
        }
        let layers = param::read(&std::fs::read(param).map_err(io)?, param)?;
        let weights = Weights::mapped(bin, |file| bin::read(&layers, file, bin))?;
        Ok(Self { layers, weights })
    }

    /// Reads the contents of both files; `place` is what messages call them.
    ///
    /// Errors: those of [`Self::open`].
    pub fn from_bytes(param: &[u8], bin: Vec<u8>, place: &str) -> Result<Self> {
        let path = Path::new(place);
        let layers = param::read(param, path)?;
        let weights = Weights::in_memory(bin, place, |file| bin::read(&layers, file, path))?;
        Ok(Self { layers, weights })
    }

    /// The layers, in the order of the file: each takes what layers before it give.
    pub fn layers(&self) -> &[NcnnLayer] {
        &self.layers
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The weights alone.
    pub fn into_weights(self) -> Weights {
        self.weights
    }
}
