//! Files of `torch.save`: a ZIP archive of a pickle that describes tensors, and an entry for each storage
//! (<https://pytorch.org/docs/stable/notes/serialization.html>). Nothing in them is run.

mod globals;
mod pickle;
mod zip;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::header::TensorInfo;
use crate::weights::{Codec, Found};
pub use globals::Global;
use pickle::View;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The longest pickle that is read, in bytes. Names and sizes of ten thousand tensors need some two million.
const MAX_PICKLE: usize = 32 << 20;

/// Where a pickle is, for messages.
pub(crate) struct Place<'a> {
    path: &'a Path,
    start: usize,
}

/// Whether `file` starts as an archive does.
pub(crate) fn is_archive(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04")
}

/// Whether `file` is of the kinds that torch wrote before version 1.6: pickles one after the other, or a tape archive.
pub(crate) fn is_old(file: &[u8]) -> bool {
    // A pickle that begins with torch's number 0x1950a86a20f9469cfc6c.
    let pickles = file.first() == Some(&0x80) && file.get(2..4) == Some(&[0x8a, 0x0a]);
    pickles || file.get(257..262) == Some(b"ustar")
}

/// The tensors of an archive; `path` is for messages.
///
/// Errors: a damaged archive or pickle, a name in the pickle that is not a tensor's, tensors outside their storages.
pub(crate) fn read(file: &[u8], path: &Path) -> Result<Vec<Found>> {
    let entries = zip::entries(file, path)?;
    let wrong = |message: &str| Error::Archive { path: path.into(), message: message.into() };
    let (root, code) = entries
        .iter()
        .find_map(|(name, place)| Some((name.strip_suffix("data.pkl")?, place)))
        .ok_or_else(|| wrong("expected an entry data.pkl, found none: not a file of torch.save"))?;
    if entries.contains_key(&format!("{root}constants.pkl")) {
        return Err(wrong("expected tensors, found a TorchScript program; export its state_dict"));
    }
    if entries.get(&format!("{root}byteorder")).is_some_and(|place| &file[place.clone()] != b"little") {
        return Err(wrong("expected little-endian numbers, found others"));
    }
    if code.len() > MAX_PICKLE {
        return Err(wrong("expected a pickle of at most 32 MiB, found a longer one"));
    }
    let place = Place { path, start: code.start };
    let mut found = BTreeMap::new();
    for (name, view) in pickle::tensors(&place, &file[code.clone()])? {
        let storage = entries.get(&format!("{root}data/{}", view.storage.key));
        let tensor = locate(&view, storage).map_err(|message| Error::BadView {
            path: path.into(),
            tensor: name.clone(),
            message,
        })?;
        if found.insert(name.clone(), tensor).is_some() {
            return Err(Error::DuplicateTensor { path: path.into(), tensor: name });
        }
    }
    Ok(found.into_iter().map(|(name, (info, codec))| (name, info, codec)).collect())
}

/// Every name that the pickle of the archive at `path` asks for, harmless or not, in its order. Nothing is followed: also
/// of a file that is refused.
///
/// Errors: the file cannot be read, or is no archive with a pickle in it.
pub fn pickle_names(path: impl AsRef<Path>) -> Result<Vec<Global>> {
    let path = path.as_ref();
    let io = |source| Error::Io { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: a read-only map; see `Weights::open`.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    let entries = zip::entries(&map, path)?;
    let code = entries.iter().find(|(name, _)| name.ends_with("data.pkl")).map(|(_, place)| place.clone());
    let code = code.ok_or_else(|| Error::Archive {
        path: path.into(),
        message: "expected an entry data.pkl, found none: not a file of torch.save".into(),
    })?;
    Ok(globals::list(&map[code.start..code.end.min(code.start.saturating_add(MAX_PICKLE))]))
}

/// Where in the file a view is, after checking that it lies in its storage.
fn locate(view: &View, storage: Option<&Range<usize>>) -> std::result::Result<(TensorInfo, Codec), String> {
    let (key, elements) = (&view.storage.key, view.storage.elements);
    let place = storage.ok_or_else(|| format!("expected an entry data/{key}, found none"))?;
    let size = view.storage.dtype.size();
    if elements.checked_mul(size) != Some(place.len() as u64) {
        return Err(format!(
            "expected {elements} elements of {size} bytes in data/{key}, found {} bytes",
            place.len()
        ));
    }
    let (shape, strides) = (&view.shape, &view.strides);
    let outside = || {
        format!(
            "expected shape {shape:?} with strides {strides:?} from element {} in a storage of {elements}",
            view.offset
        )
    };
    // No more elements than are stored: a stride of zero would make any number out of one.
    let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n <= elements);
    let count = count.ok_or_else(outside)?;
    let span = span(shape, strides, count).ok_or_else(outside)?;
    let end = view.offset.checked_add(span).filter(|end| *end <= elements).ok_or_else(outside)?;
    let info = TensorInfo {
        dtype: view.storage.dtype,
        shape: shape.iter().map(|d| *d as usize).collect(),
        bytes: place.start + (view.offset * size) as usize..place.start + (end * size) as usize,
    };
    let codec = match count == 0 || is_contiguous(shape, strides) {
        true => Codec::Plain,
        false => Codec::Strided(strides.iter().map(|s| *s as usize).collect()),
    };
    Ok((info, codec))
}

/// Elements from the first to the last of a view, both included.
fn span(shape: &[u64], strides: &[u64], count: u64) -> Option<u64> {
    if count == 0 {
        return Some(0);
    }
    shape.iter().zip(strides).try_fold(1u64, |n, (d, s)| n.checked_add((d - 1).checked_mul(*s)?))
}

fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(d, s)| {
        let fits = *d == 1 || *s == expected;
        expected *= *d.max(&1);
        fits
    })
}
