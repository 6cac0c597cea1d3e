//! Checkpoint files to named tensors.
//!
//! [`Weights`] opens safetensors files, `torch.save` archives and GGUF files and checks them before anything is allocated,
//! [`Ncnn`] the pair of files of an ncnn model; [`Source`] is what a network takes its tensors from (files, made-up
//! weights, or tensors in memory), and [`DiffusersFolder`] finds the parts of a model on disk.

mod checkpoint;
mod component;
mod config;
mod convert;
mod error;
mod fake;
mod folder;
mod gguf;
mod gguf_writer;
mod header;
mod located;
pub mod lora;
mod ncnn;
mod source;
mod torch;
mod weights;
mod writer;

pub use checkpoint::{Checkpoint, CheckpointPart, Kind, Network, ldm_name};
pub use component::Component;
pub use config::ConfigFile;
pub use error::{Error, Result};
pub use folder::{ComponentFolder, DiffusersFolder};
pub use gguf_writer::{GgufOutline, write_gguf};
pub use header::{Header, StoredDtype, TensorInfo};
pub use located::{Bytes, Elements, Located, Precision};
pub use ncnn::{Ncnn, NcnnLayer};
pub use source::{Provider, Source, fake};
pub use torch::{Global, pickle_names};
pub use weights::Weights;
pub use writer::{Outline, bytes_of, write_safetensors};
