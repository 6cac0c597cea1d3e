//! Adapters to files.

use atelier_sdk::files::AtomicFile;
use atelier_sdk::{Error, ErrorKind, Result};
use atelier_weights::lora::layouts::{self, Tensors};
use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;

/// Writes tensors as a safetensors file, whole or not at all.
///
/// # Errors
/// The place is not writable.
pub fn tensors(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    layouts::write(&mut BufWriter::new(&mut file), tensors, metadata).map_err(|e| {
        Error::io(format!("cannot write {}", path.display()), e).of_kind(ErrorKind::Environment)
    })?;
    file.commit()
}
