//! Tensors by name, from one file or a set of shards, mapped into memory and read when asked for.

use crate::error::{Error, Result};
use crate::header::{Header, StoredDtype, TensorInfo};
use crate::located::{Bytes, Elements, Located};
use crate::lora::Applied;
use crate::source::Provider;
use crate::{convert, gguf, torch};
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How the elements of a tensor lie in its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Codec {
    /// One after the other, the last dimension first.
    Plain,
    /// With these distances from one to the next in each dimension.
    Strided(Vec<usize>),
    /// In blocks of fewer bits.
    Blocks(GgmlDType),
}

/// A tensor found in a file.
pub(crate) type Found = (String, TensorInfo, Codec);

#[derive(Debug)]
struct Entry {
    file: usize,
    info: TensorInfo,
    codec: Codec,
}

/// What is in a file.
enum Content {
    Map(Mmap),
    Memory(Vec<u8>),
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

impl Bytes for Content {
    fn release(&self, part: &Range<usize>) {
        if let Self::Map(map) = self {
            release(map, part);
        }
    }
}

/// A checked set of files: safetensors, archives of `torch.save`, or GGUF. Opening reads the headers only.
///
/// Which of the three a file is, its first bytes say, not its name.
pub struct Weights {
    place: String,
    paths: Vec<PathBuf>,
    files: Vec<Arc<Content>>,
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    used: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({}, {} tensors)", self.place, self.tensors.len())
    }
}

impl Weights {
    /// Opens `path`: a file, the index of a sharded set (`*.safetensors.index.json`), or the folder of a
    /// component (see [`crate::ComponentFolder`]).
    ///
    /// Errors: the file's own or its header's faults, one error for each kind (see [`Error`]).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::open(weight_file(path)?);
        }
        let is_index = path.to_string_lossy().ends_with(".json");
        let files = if is_index { shards(path)? } else { vec![path.to_path_buf()] };
        let mut weights = Self::none(path.display().to_string());
        for file in files {
            weights.add(&file)?;
        }
        Ok(weights)
    }

    /// Reads the content of one file; `place` is what messages call it.
    ///
    /// Errors: those of [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>, place: &str) -> Result<Self> {
        let mut weights = Self::none(place.to_string());
        weights.take(Content::Memory(bytes), Path::new(place))?;
        Ok(weights)
    }

    fn none(place: String) -> Self {
        let (tensors, metadata) = (BTreeMap::new(), BTreeMap::new());
        Self { place, paths: Vec::new(), files: Vec::new(), tensors, metadata, used: Mutex::default() }
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let content = map(path)?;
        self.take(content, path)?;
        self.paths.push(path.into());
        Ok(())
    }

    /// A file whose tensors only `read` can tell.
    pub(crate) fn mapped(path: &Path, read: impl FnOnce(&[u8]) -> Result<Vec<Found>>) -> Result<Self> {
        let mut weights = Self::none(path.display().to_string());
        let content = map(path)?;
        weights.insert(read(content.as_ref())?, content, path)?;
        weights.paths.push(path.into());
        Ok(weights)
    }

    /// The same in memory; `place` is what messages call it.
    pub(crate) fn in_memory(
        bytes: Vec<u8>,
        place: &str,
        read: impl FnOnce(&[u8]) -> Result<Vec<Found>>,
    ) -> Result<Self> {
        let mut weights = Self::none(place.to_string());
        weights.insert(read(&bytes)?, Content::Memory(bytes), Path::new(place))?;
        Ok(weights)
    }

    fn take(&mut self, content: Content, path: &Path) -> Result<()> {
        let found = self.read(content.as_ref(), path)?;
        self.insert(found, content, path)
    }

    fn insert(&mut self, found: Vec<Found>, content: Content, path: &Path) -> Result<()> {
        for (name, info, codec) in found {
            if self.tensors.contains_key(&name) {
                return Err(Error::DuplicateTensor { path: path.into(), tensor: name });
            }
            self.tensors.insert(name, Entry { file: self.files.len(), info, codec });
        }
        self.files.push(Arc::new(content));
        Ok(())
    }

    fn read(&mut self, file: &[u8], path: &Path) -> Result<Vec<Found>> {
        if torch::is_archive(file) {
            return torch::read(file, path);
        }
        if gguf::is_gguf(file) {
            let (found, remarks) = gguf::read(file, path)?;
            self.metadata.extend(remarks);
            return Ok(found);
        }
        if torch::is_old(file) {
            return Err(Error::OldTorch { path: path.into() });
        }
        let header = Header::read(file, path)?;
        self.metadata.extend(header.metadata);
        Ok(header.tensors.into_iter().map(|(name, info)| (name, info, Codec::Plain)).collect())
    }

    /// The path these weights were opened from, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The files.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape and stored type of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|entry| &entry.info)
    }

    /// What the elements of a tensor are, as its file calls it: `F16`, `Q4_0`.
    pub fn format(&self, name: &str) -> Option<String> {
        let entry = self.tensors.get(name)?;
        Some(match (&entry.codec, entry.info.dtype.name()) {
            (Codec::Blocks(format), _) => format!("{format:?}"),
            (_, name) => name.unwrap_or("unknown").into(),
        })
    }

    /// What a tensor would be stored as if weights were wanted in `dtype`: what is no weight stays what it is, and
    /// blocks, which only their own files have, become 32-bit floats.
    pub fn stored_as(&self, name: &str, dtype: Option<StoredDtype>) -> Option<StoredDtype> {
        let own = self.tensors.get(name)?.info.dtype;
        Some(match (own, dtype) {
            (StoredDtype::Quantized, None) => StoredDtype::F32,
            (own, Some(dtype)) if own.is_float() || own == StoredDtype::Quantized => dtype,
            (own, _) => own,
        })
    }

    /// How the elements of a tensor lie in the file.
    pub fn elements(&self, name: &str) -> Option<Elements> {
        let entry = self.tensors.get(name)?;
        Some(match entry.codec {
            Codec::Blocks(format) => Elements::Blocks(format),
            Codec::Plain | Codec::Strided(_) => Elements::Plain(entry.info.dtype),
        })
    }

    /// A tensor in blocks of fewer bits: the very bytes of the file where it has these, else made from its numbers.
    ///
    /// Errors: those of [`Self::get`]; numbers that do not fill the blocks.
    pub fn in_blocks(&self, name: &str, format: GgmlDType) -> Result<Vec<u8>> {
        let shape = self.info(name).map(|info| info.shape.clone()).unwrap_or_default();
        if let Some(Located { memory, bytes, elements }) = self.locate(name, &shape)
            && elements == Elements::Blocks(format)
        {
            let own = (*memory).as_ref()[bytes.clone()].to_vec();
            memory.release(&bytes);
            return Ok(own);
        }
        let tensor = self.get(name, &shape, DType::F32, &Device::Cpu)?;
        let made = tensor.flatten_all().and_then(|numbers| convert::into_blocks(&numbers, format));
        made.map_err(|source| Error::Tensor {
            place: self.place.clone(),
            tensor: name.into(),
            source: Box::new(source),
        })
    }

    /// The elements of a tensor in order, little-endian, as [`Self::stored_as`] says: the very bytes of the file where
    /// that changes nothing.
    ///
    /// Errors: no such tensor; those of [`Self::get`] where it has to be converted.
    pub fn encoded(&self, name: &str, dtype: Option<StoredDtype>) -> Result<Vec<u8>> {
        let entry = self.tensors.get(name);
        let (Some(Entry { file, info, codec }), Some(wanted)) = (entry, self.stored_as(name, dtype)) else {
            return Err(Error::MissingTensor {
                place: self.place.clone(),
                tensor: name.into(),
                nearest: self.nearest(name),
            });
        };
        if wanted == info.dtype {
            let content = &*self.files[*file];
            let bytes = &content.as_ref()[info.bytes.clone()];
            let out = match codec {
                Codec::Strided(strides) => {
                    convert::gathered(bytes, info.dtype.size() as usize, &info.shape, strides)
                }
                _ => bytes.to_vec(),
            };
            content.release(&info.bytes);
            self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
            return Ok(out);
        }
        let failed = |source| Error::Tensor {
            place: self.place.clone(),
            tensor: name.into(),
            source: Box::new(source),
        };
        let dtype = match wanted {
            StoredDtype::F16 => DType::F16,
            StoredDtype::BF16 => DType::BF16,
            StoredDtype::F64 => DType::F64,
            _ => DType::F32,
        };
        convert::bytes(&self.get(name, &info.shape, dtype, &Device::Cpu)?).map_err(failed)
    }

    /// The remarks of the files' headers.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names that were never asked for, sorted: what the file has and the network does not know.
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect()
    }

    /// Reads the tensor `name`, which must have `shape`, as `dtype` on `device`.
    ///
    /// Shapes that differ only in trailing ones count as the same: checkpoints store 1x1 convolutions as matrices,
    /// and the other way round. Errors: the name is missing (with the most similar names), another shape, or no
    /// floating-point type.
    pub fn get(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(Entry { file, info, codec }) = self.tensors.get(name) else {
            return Err(Error::MissingTensor {
                place: self.place.clone(),
                tensor: name.into(),
                nearest: self.nearest(name),
            });
        };
        if without_trailing_ones(&info.shape) != without_trailing_ones(shape) {
            return Err(Error::WrongShape {
                place: self.place.clone(),
                tensor: name.into(),
                expected: shape.to_vec(),
                found: info.shape.clone(),
            });
        }
        use StoredDtype::{BF16, F16, F32, F64, Quantized};
        if !matches!(info.dtype, F32 | F16 | BF16 | F64 | Quantized) {
            return Err(Error::NotAWeight {
                place: self.place.clone(),
                tensor: name.into(),
                found: format!("{:?}", info.dtype),
            });
        }
        let content = &*self.files[*file];
        let tensor = decode(&content.as_ref()[info.bytes.clone()], info, codec, shape, dtype, device)
            .map_err(|source| Error::Tensor {
                place: self.place.clone(),
                tensor: name.into(),
                source: Box::new(source),
            })?;
        content.release(&info.bytes);
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(tensor)
    }

    /// Where a tensor lies, if it has this shape and its elements are in order. The file then stays open.
    fn locate(&self, name: &str, shape: &[usize]) -> Option<Located> {
        let Entry { file, info, codec } = self.tensors.get(name)?;
        let elements = match codec {
            Codec::Plain => Elements::Plain(info.dtype),
            Codec::Blocks(format) => Elements::Blocks(*format),
            Codec::Strided(_) => return None,
        };
        if without_trailing_ones(&info.shape) != without_trailing_ones(shape) {
            return None;
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Some(Located { memory: self.files[*file].clone(), bytes: info.bytes.clone(), elements })
    }

    /// The three most similar names.
    fn nearest(&self, name: &str) -> Vec<String> {
        let mut scored: Vec<_> =
            self.tensors.keys().map(|other| (strsim::normalized_levenshtein(name, other), other)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(3).map(|(_, name)| name.clone()).collect()
    }
}

impl Provider for Weights {
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        self.get(name, shape, dtype, device)
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn located(
        &self,
        name: &str,
        shape: &[usize],
        _: DType,
        _: &Device,
    ) -> Result<Option<(Located, Vec<Applied>)>> {
        Ok(self.locate(name, shape).map(|located| (located, Vec::new())))
    }

    fn release(&self) {
        for content in &self.files {
            content.release(&(0..(**content).as_ref().len()));
        }
    }

    fn unused(&self) -> Vec<String> {
        Weights::unused(self)
    }

    fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    fn elements(&self) -> u64 {
        self.tensors.values().map(|entry| elements(&entry.info.shape)).sum()
    }

    fn stored_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.info.bytes.len() as u64).sum()
    }
}

/// The content of a file, mapped into memory.
fn map(path: &Path) -> Result<Content> {
    let io = |source| Error::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() == 0 {
        return Err(Error::TooShort { path: path.into(), found: 0 });
    }
    // SAFETY: the map is read-only. Another process that shortens the file while we read it would stop this one;
    // that is the price of mapping, and it is what every loader of this format pays.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Content::Map(map))
}

pub(crate) fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|side| *side as u64).product()
}

fn decode(
    bytes: &[u8],
    info: &TensorInfo,
    codec: &Codec,
    shape: &[usize],
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Tensor> {
    match codec {
        Codec::Plain => convert::tensor(bytes, info.dtype, shape, dtype, device),
        Codec::Strided(strides) => {
            let dense = convert::gathered(bytes, info.dtype.size() as usize, &info.shape, strides);
            convert::tensor(&dense, info.dtype, shape, dtype, device)
        }
        Codec::Blocks(format) => convert::blocks(bytes, *format, shape, dtype, device),
    }
}

/// Gives the pages of a part of a file back to the system: they would count as this process's memory.
fn release(map: &Mmap, bytes: &Range<usize>) {
    #[cfg(unix)]
    {
        // A whole number of pages inside of it; the widest page in use is 64 KiB.
        const PAGE: usize = 1 << 16;
        let (start, end) = (bytes.start.next_multiple_of(PAGE), bytes.end / PAGE * PAGE);
        if start < end {
            // SAFETY: the map is a read-only map of a file: dropped pages are read again when touched. Failure only
            // means that the memory stays counted.
            let _ =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
    #[cfg(not(unix))]
    let _ = (map, bytes);
}

fn without_trailing_ones(shape: &[usize]) -> &[usize] {
    let len = shape.iter().rposition(|d| *d != 1).map_or(0, |i| i + 1);
    &shape[..len]
}

/// The file with the weights in a component's folder, by the names diffusers and transformers give it.
fn weight_file(folder: &Path) -> Result<PathBuf> {
    const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
    const VARIANTS: [&str; 4] =
        ["safetensors", "safetensors.index.json", "fp16.safetensors", "safetensors.index.fp16.json"];
    let candidates = VARIANTS.iter().flat_map(|v| STEMS.iter().map(move |s| format!("{s}.{v}")));
    if let Some(found) = candidates.map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(found);
    }
    Err(Error::MissingFile {
        folder: folder.into(),
        expected: "diffusion_pytorch_model.safetensors or model.safetensors".into(),
        found: crate::folder::listing(folder),
    })
}

/// The files of a sharded set.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = std::fs::read(index).map_err(|source| Error::Io { path: index.into(), source })?;
    let json = |message: String| Error::Json { path: index.into(), message };
    let parsed: Index = serde_json::from_slice(&bytes).map_err(|e| json(e.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let folder = index.parent().unwrap_or(Path::new("."));
    names
        .into_iter()
        .map(|name| {
            // A name, not a path: an index must not lead out of its folder.
            if Path::new(&name).file_name().is_none_or(|f| f != name.as_str()) {
                return Err(json(format!("expected a file name beside the index, found {name:?}")));
            }
            Ok(folder.join(name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn save(path: &Path, tensors: &[(&str, &[usize])]) {
        let tensors: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(name, shape)| {
                let count: usize = shape.iter().product();
                let data: Vec<f32> = (0..count).map(|i| i as f32).collect();
                (name.to_string(), Tensor::from_vec(data, *shape, &Device::Cpu).unwrap())
            })
            .collect();
        candle_core::safetensors::save(&tensors, path).unwrap();
    }

    fn get(weights: &Weights, name: &str, shape: &[usize]) -> Result<Tensor> {
        weights.get(name, shape, DType::F32, &Device::Cpu)
    }

    #[test]
    fn what_was_not_asked_for_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        save(&file, &[("a", &[2, 3]), ("b", &[4]), ("c", &[1])]);
        let weights = Weights::open(dir.path()).unwrap();
        let a = get(&weights, "a", &[2, 3]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(a, [0., 1., 2., 3., 4., 5.]);
        assert_eq!(weights.unused(), ["b", "c"]);
    }

    #[test]
    fn a_missing_tensor_names_file_tensor_and_similar_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.safetensors");
        save(&file, &[("down.0.weight", &[1]), ("up.0.weight", &[1])]);
        let message = get(&Weights::open(&file).unwrap(), "down.1.weight", &[1]).unwrap_err().to_string();
        assert!(message.contains("x.safetensors") && message.contains("\"down.1.weight\""), "{message}");
        assert!(message.contains("there: down.0.weight"), "{message}");
    }

    #[test]
    fn another_shape_names_both() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.safetensors");
        save(&file, &[("a", &[2, 3])]);
        let weights = Weights::open(&file).unwrap();
        let message = get(&weights, "a", &[3, 2]).unwrap_err().to_string();
        assert!(message.contains("expected shape [3, 2], found [2, 3]"), "{message}");
        assert_eq!(get(&weights, "a", &[2, 3, 1, 1]).unwrap().dims(), [2, 3, 1, 1]);
    }

    #[test]
    fn shards_are_one_set() {
        let dir = tempfile::tempdir().unwrap();
        save(&dir.path().join("s1.safetensors"), &[("a", &[2])]);
        save(&dir.path().join("s2.safetensors"), &[("b", &[3])]);
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}}"#).unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(get(&weights, "b", &[3]).unwrap().to_vec1::<f32>().unwrap(), [0., 1., 2.]);
    }

    #[test]
    fn an_index_does_not_lead_out_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map":{"a":"../s1.safetensors"}}"#).unwrap();
        assert!(matches!(Weights::open(&index).unwrap_err(), Error::Json { .. }));
    }

    #[test]
    fn a_tensor_in_two_shards_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        save(&dir.path().join("s1.safetensors"), &[("a", &[2])]);
        save(&dir.path().join("s2.safetensors"), &[("a", &[2])]);
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}}"#).unwrap();
        assert!(matches!(Weights::open(&index).unwrap_err(), Error::DuplicateTensor { .. }));
    }

    #[test]
    fn a_folder_without_weights_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        let message = Weights::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("found config.json"), "{message}");
    }

    #[test]
    fn the_half_precision_file_is_taken_when_it_is_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        save(&dir.path().join("diffusion_pytorch_model.fp16.safetensors"), &[("a", &[2])]);
        assert!(Weights::open(dir.path()).unwrap().place().ends_with("fp16.safetensors"));
        save(&dir.path().join("diffusion_pytorch_model.safetensors"), &[("a", &[2])]);
        assert!(Weights::open(dir.path()).unwrap().place().ends_with("model.safetensors"));
    }

    #[test]
    fn an_empty_file_and_a_missing_one_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.safetensors");
        assert!(matches!(Weights::open(&file).unwrap_err(), Error::Io { .. }));
        std::fs::write(&file, "").unwrap();
        assert!(matches!(Weights::open(&file).unwrap_err(), Error::TooShort { found: 0, .. }));
    }
}
