//! Learned words: textual inversion ("An Image is Worth One Word", Gal et al. 2022, arXiv:2208.01618).

use crate::pipeline::Pipeline;
use atelier_diffusion::error;
use atelier_sdk::{EngineCtx, Error, ErrorKind, Result};
use atelier_weights::Weights;
use candle_core::{DType, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest file that is read, in bytes: 75 vectors of any encoder are far below it.
const MAX_BYTES: u64 = 16 << 20;

/// A learned word and the file it is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddingFile {
    /// What stands for it in a prompt.
    pub name: String,
    /// Its file, `.safetensors`, `.pt` or `.bin`.
    #[schemars(extend("x-file" = "any"))]
    pub path: String,
}

/// The vectors of a learned word.
#[derive(Debug, Clone)]
pub struct TextualInversion {
    /// One row for each token it takes, (tokens, width), f32.
    pub vectors: Tensor,
}

impl TextualInversion {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read or is above 16 MiB; see [`Self::from_bytes`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |e| Error::io(format!("cannot read {}", path.display()), e);
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MAX_BYTES {
            return Err(too_long(length).context(format!("in {}", path.display())));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        Self::from_bytes(&bytes).map_err(|e| e.context(format!("in {}", path.display())))
    }

    /// Reads the content of a file, safetensors or an archive of `torch.save`: the tensor `emb_params` or
    /// `string_to_param.*` (A1111), else `clip_l` (files for several encoders), else the only one there is (diffusers);
    /// one vector or rows of them.
    ///
    /// # Errors
    /// No such file or no such tensor; values that are no numbers.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(too_long(bytes.len() as u64));
        }
        let corrupt = |e: atelier_weights::Error| error::weights("this is no file of an embedding", e);
        let weights = Weights::from_bytes(bytes.to_vec(), "the file").map_err(corrupt)?;
        let name = pick(&weights)?;
        let shape = weights.info(name).map(|info| info.shape.clone()).unwrap_or_default();
        let rows = match shape.as_slice() {
            [width] if *width > 0 => [1, *width],
            [rows, width] if rows * width > 0 => [*rows, *width],
            other => {
                let message = format!("expected rows of vectors, found shape {other:?}");
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
        };
        let found = weights.get(name, &shape, DType::F32, &Device::Cpu).map_err(corrupt)?;
        let vectors = found.reshape(&rows[..]).map_err(error::tensor("an embedding"))?;
        let values =
            vectors.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(error::tensor("an embedding"))?;
        match values.iter().find(|v| !v.is_finite()) {
            None => Ok(Self { vectors }),
            Some(v) => Err(Error::new(ErrorKind::Corrupt, format!("the embedding holds {v}"))),
        }
    }
}

/// The tensor of a file that is the word's.
fn pick(weights: &Weights) -> Result<&str> {
    const KNOWN: [&str; 3] = ["emb_params", "string_to_param.*", "clip_l"];
    let names: Vec<&str> = weights.names().collect();
    let known = KNOWN.into_iter().find_map(|known| names.iter().find(|name| **name == known));
    known.or_else(|| names.first().filter(|_| names.len() == 1)).copied().ok_or_else(|| {
        let message = format!("expected a tensor `emb_params` or `clip_l`, found: {}", names.join(", "));
        Error::new(ErrorKind::Corrupt, message)
    })
}

fn too_long(length: u64) -> Error {
    Error::new(ErrorKind::Corrupt, format!("an embedding of {length} bytes, more than {MAX_BYTES}"))
}

/// A learned word as the tokenizer sees it.
#[derive(Debug, Clone)]
pub struct Named {
    /// The tokens of its name.
    pub tokens: Vec<u32>,
    /// Its vectors, (tokens, width).
    pub rows: Tensor,
}

impl Named {
    /// A word of a pipeline's prompts. Upper and lower case are the same to the tokenizer.
    ///
    /// # Errors
    /// A name without letters; vectors of another width, or more than a chunk holds.
    pub fn new(pipeline: &Pipeline, name: &str, word: TextualInversion) -> Result<Self> {
        let tokens = match pipeline.tokenizer() {
            Some(tokenizer) => tokenizer.tokens(name).map_err(|e| error::model("cannot read a name", e))?,
            None => Vec::new(),
        };
        let config = pipeline.text_config();
        let (count, width) = word.vectors.dims2().map_err(error::tensor("an embedding"))?;
        let room = config.max_position_embeddings.saturating_sub(2);
        if tokens.is_empty() {
            return Err(Error::invalid(format!(
                "embedding `{name}`: the tokenizer finds no word in its name"
            )));
        }
        if width != config.hidden_size || count > room {
            let message = format!(
                "embedding `{name}` has {count} vectors of width {width}; this model takes at most {room} of width {}",
                config.hidden_size
            );
            return Err(Error::invalid(message).hint("it was made for another class of models"));
        }
        Ok(Self { tokens, rows: word.vectors })
    }

    /// Tokens it takes.
    pub fn vectors(&self) -> usize {
        self.rows.dims().first().copied().unwrap_or_default()
    }
}

/// The words that a request names, from the host's files.
///
/// # Errors
/// Files that are missing, damaged or for other models.
pub fn named(pipeline: &Pipeline, files: &[EmbeddingFile], ctx: &mut dyn EngineCtx) -> Result<Vec<Named>> {
    let read = |(i, file): (usize, &EmbeddingFile)| {
        let bytes = ctx.input_bytes(&format!("embeddings/{i}/path"))?;
        let word = TextualInversion::from_bytes(&bytes)
            .map_err(|e| e.context(format!("embedding `{}` from {}", file.name, file.path)))?;
        Named::new(pipeline, &file.name, word)
    };
    files.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn file(name: &str, tensors: &[(&str, Tensor)]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("atelier-inversion-{}-{name}", std::process::id()));
        let tensors: HashMap<String, Tensor> =
            tensors.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        path
    }

    fn ones(shape: &[usize]) -> Tensor {
        Tensor::ones(shape, DType::F16, &Device::Cpu).unwrap()
    }

    #[test]
    fn files_of_every_layout_are_read() {
        for (name, shape, rows) in
            [("emb_params", vec![2, 4], 2), ("clip_l", vec![3, 4], 3), ("<x>", vec![4], 1)]
        {
            let mut tensors = vec![(name, ones(&shape))];
            if name == "clip_l" {
                tensors.push(("clip_g", ones(&[3, 9])));
            }
            let path = file(&rows.to_string(), &tensors);
            assert_eq!(TextualInversion::open(&path).unwrap().vectors.dims(), [rows, 4]);
            std::fs::remove_file(path).unwrap();
        }
    }

    /// Written by torch.save as A1111 saves its words, and as diffusers does.
    #[test]
    fn archives_of_torch_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights");
        for name in ["inversion_a1111.pt", "inversion_diffusers.bin"] {
            let rows: Vec<Vec<f32>> =
                TextualInversion::open(folder.join(name)).unwrap().vectors.to_vec2().unwrap();
            assert_eq!(rows.concat(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5], "{name}");
        }
    }

    #[test]
    fn files_that_hold_no_word_are_refused() {
        let nan = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
        let two = [("a", ones(&[1, 4])), ("b", ones(&[1, 4]))];
        for (name, tensors, word) in [
            ("two", &two[..], "a, b"),
            ("nan", &[("emb_params", nan)], "NaN"),
            ("cube", &[("emb_params", ones(&[1, 1, 1]))], "shape"),
        ] {
            let path = file(name, tensors);
            let e = TextualInversion::open(&path).unwrap_err();
            assert!(e.chain().join(" ").contains(word), "{e:?}");
            std::fs::remove_file(path).unwrap();
        }
        for bytes in [&b""[..], b"PK\x03\x04", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"no safetensors at all"]
        {
            assert_eq!(TextualInversion::from_bytes(bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert!(TextualInversion::open("/no/such/file").is_err());
    }
}
