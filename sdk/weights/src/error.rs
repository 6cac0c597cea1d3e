//! What can be wrong with weights and configurations.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with weights and configurations. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or folder could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is too short to be a safetensors file, or any with weights, at all.
    #[error("{}: expected a file of weights of at least 10 bytes, found {found} bytes", path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
    },
    /// The first eight bytes promise a header that cannot be there.
    #[error("{}: expected a header of at most {limit} bytes, found a length field of {found}: cut off, or not a safetensors file", path.display())]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// The most it could be.
        limit: u64,
        /// What the length field says.
        found: u64,
    },
    /// The header is not the JSON object it should be.
    #[error("{}: expected a safetensors header, found {message}", path.display())]
    HeaderSyntax {
        /// The file.
        path: PathBuf,
        /// What the JSON reader says, with line and column.
        message: String,
    },
    /// A name stands twice in the header, or in two files of one set.
    #[error("{}: expected each tensor once, found {tensor:?} twice", path.display())]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The header names a data type that does not exist.
    #[error("{}: tensor {tensor:?}: expected a safetensors data type, found {found:?}", path.display())]
    UnknownDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name.
        found: String,
    },
    /// The byte range of a tensor is not as long as its shape and data type need.
    #[error("{}: tensor {tensor:?}: expected {expected} for its shape {shape:?}, found the byte range {start}..{end}", path.display())]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes needed, in words.
        expected: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Where its bytes start.
        start: u64,
        /// Where they end.
        end: u64,
    },
    /// The byte ranges of two tensors overlap, or leave a hole.
    #[error("{}: tensor {tensor:?}: expected its bytes to start at {expected}, where the tensor before it ends, found {found}", path.display())]
    WrongStart {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where the previous tensor ends.
        expected: u64,
        /// Where this one starts.
        found: u64,
    },
    /// The file is shorter or longer than its header says.
    #[error("{}: expected {expected} bytes, found {found}: {}", path.display(), if found < expected { "the file is cut off" } else { "something was added to it" })]
    WrongFileLength {
        /// The file.
        path: PathBuf,
        /// Length by the header.
        expected: u64,
        /// Length on disk.
        found: u64,
    },
    /// A tensor that the network needs is not there.
    #[error("{place}: expected a tensor {tensor:?}, found none{}", similar(nearest))]
    MissingTensor {
        /// The file or set of files.
        place: String,
        /// The tensor.
        tensor: String,
        /// The most similar names that are there.
        nearest: Vec<String>,
    },
    /// A tensor is there with another shape.
    #[error("{place}: tensor {tensor:?}: expected shape {expected:?}, found {found:?}")]
    WrongShape {
        /// The file or set of files.
        place: String,
        /// The tensor.
        tensor: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is there with a data type that is no weight's.
    #[error("{place}: tensor {tensor:?}: expected floating-point numbers of 16 to 64 bits, found {found}")]
    NotAWeight {
        /// The file or set of files.
        place: String,
        /// The tensor.
        tensor: String,
        /// Its data type.
        found: String,
    },
    /// A file that the component needs is not in its folder.
    #[error("{}: expected {expected}, found {}", folder.display(), listing(found))]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The file, or the choice of files.
        expected: String,
        /// What is there.
        found: Vec<String>,
    },
    /// A JSON file is not what it should be.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Expected and found, with line and column where known.
        message: String,
    },
    /// A field of a configuration has a value this program does not take.
    #[error("{}: field {field:?}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The JSON field.
        field: String,
        /// Expected and found.
        message: String,
    },
    /// A file of `torch.save` from before version 1.6.
    #[error("{}: expected a safetensors file, GGUF file or ZIP archive, found the format torch had before 1.6; load and save it with a newer torch", path.display())]
    OldTorch {
        /// The file.
        path: PathBuf,
    },
    /// A ZIP archive is damaged, or not as `torch.save` writes it.
    #[error("{}: {message}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        message: String,
    },
    /// A pickle names something other than tensors and plain data. Nothing was run.
    #[error("{}: the pickle names {global:?} at byte {offset}, which is no tensor: it is code that could do anything, and was not run", path.display())]
    ForbiddenGlobal {
        /// The file.
        path: PathBuf,
        /// Where in the file the instruction is.
        offset: u64,
        /// Module and name.
        global: String,
    },
    /// A pickle is damaged, or not as `torch.save` writes it.
    #[error("{}: in the pickle at byte {offset}: {message}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where in the file the instruction is.
        offset: u64,
        /// Expected and found.
        message: String,
    },
    /// A tensor is said to be where its data cannot be.
    #[error("{}: tensor {tensor:?}: {message}", path.display())]
    BadView {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Expected and found.
        message: String,
    },
    /// The header of a GGUF file is damaged, or of another version.
    #[error("{}: at byte {offset}: {message}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        offset: u64,
        /// Expected and found.
        message: String,
    },
    /// The text file of an ncnn model is no description of layers, or contradicts itself.
    #[error("{}, line {line}: {message}", path.display())]
    NcnnParam {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Expected and found.
        message: String,
    },
    /// The file of weights of an ncnn model does not fit its layers, or has weights that are not supported.
    #[error("{}: layer {layer}, at byte {offset}: {message}", path.display())]
    NcnnBin {
        /// The file.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// Where in the file its weights should be.
        offset: u64,
        /// Expected and found.
        message: String,
    },
    /// The file holds something else than a Stable Diffusion checkpoint.
    #[error("{}: this is {found}, not a checkpoint of Stable Diffusion 1.x or 2.x", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
    },
    /// A checkpoint lacks one of its networks.
    #[error("{}: expected the {part}, with names that start with {prefix}, found none; {there}", path.display())]
    MissingPart {
        /// The file.
        path: PathBuf,
        /// The network.
        part: &'static str,
        /// How its names start, or a choice of that.
        prefix: &'static str,
        /// What it has, in words.
        there: String,
    },
    /// The file holds no adapter.
    #[error("{}: expected a LoRA or another adapter, found {found}", path.display())]
    NotAnAdapter {
        /// The file.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
    },
    /// An adapter of a kind that nothing here applies.
    #[error("{}: this is an adapter of the kind {found}, which is not supported (LoRA, LoCon, LoHa, LoKr and DoRA are)", path.display())]
    OtherAdapter {
        /// The file.
        path: PathBuf,
        /// Its kind.
        found: &'static str,
    },
    /// The factors of one module do not belong together, or to the model's module.
    #[error("{}: module {module}: {message}", path.display())]
    Adapter {
        /// The file.
        path: PathBuf,
        /// The module as the file spells it.
        module: String,
        /// Expected and found.
        message: String,
    },
    /// A tensor of an adapter has infinities or things that are no numbers.
    #[error("{}: tensor {tensor:?}: expected numbers, found infinities or NaN", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// An adapter for another kind of model.
    #[error("{}: this adapter is for {found}, the model is {expected}", path.display())]
    AdapterBase {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: String,
        /// What the model is.
        expected: String,
    },
    /// Not one module of an adapter is in the model.
    #[error("{}: none of the {total} modules of this adapter are in the model, such as {}", path.display(), names.join(", "))]
    NothingMatches {
        /// The file.
        path: PathBuf,
        /// Modules in the file.
        total: usize,
        /// Some of them.
        names: Vec<String>,
    },
    /// Weights for single blocks do not fit the UNet.
    #[error("weights of blocks: {message}")]
    Blocks {
        /// Expected and found.
        message: String,
    },
    /// The tensor library failed.
    #[error("{place}: tensor {tensor:?}: {source}")]
    Tensor {
        /// The file or set of files.
        place: String,
        /// The tensor.
        tensor: String,
        /// Its message.
        source: Box<candle_core::Error>,
    },
}

fn similar(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; the most similar names there: {}", names.join(", "))
    }
}

fn listing(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}
