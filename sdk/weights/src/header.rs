//! The header of a safetensors file, read and checked against the length of the file.
//!
//! The format: eight bytes of little-endian header length, a JSON object of that length, then the tensors' bytes
//! without holes (<https://github.com/huggingface/safetensors>).

use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// The longest header the format's reference implementation accepts, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Element types of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum StoredDtype {
    Bool,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
    /// Blocks of a GGUF file, which share their scales.
    Quantized,
}

impl StoredDtype {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "BOOL" => Self::Bool,
            "U8" => Self::U8,
            "I8" => Self::I8,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            "U16" => Self::U16,
            "I16" => Self::I16,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "U32" => Self::U32,
            "I32" => Self::I32,
            "F32" => Self::F32,
            "U64" => Self::U64,
            "I64" => Self::I64,
            "F64" => Self::F64,
            _ => return None,
        })
    }

    /// Its name in a safetensors header; none for blocks, which such files do not have.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::U16 => "U16",
            Self::I16 => "I16",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::U32 => "U32",
            Self::I32 => "I32",
            Self::F32 => "F32",
            Self::U64 => "U64",
            Self::I64 => "I64",
            Self::F64 => "F64",
            Self::Quantized => return None,
        })
    }

    /// Whether a weight can have it that is not quantised.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Bytes of one element; 1 for blocks, whose length only the range of their bytes says.
    pub fn size(self) -> u64 {
        match self {
            Self::Quantized | Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// Where and what a tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type in the file.
    pub dtype: StoredDtype,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub bytes: Range<usize>,
}

/// A checked header.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// The file's own remarks.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// Reads the header of `file`, the whole content of the file at `path` (only for messages).
    ///
    /// Every tensor's bytes lie in the file, have the length its shape needs, and overlap no other's.
    /// Errors: one for each way in which that can be untrue; see [`Error`].
    pub fn read(file: &[u8], path: &Path) -> Result<Self> {
        let found = file.len() as u64;
        let (Some(length), true) = (file.first_chunk::<8>(), found >= 10) else {
            return Err(Error::TooShort { path: path.into(), found });
        };
        let length = u64::from_le_bytes(*length);
        let limit = MAX_HEADER.min(found - 8);
        if length > limit || length < 2 {
            return Err(Error::HeaderLength { path: path.into(), limit, found: length });
        }
        let start = 8 + length as usize;
        let raw: RawHeader = serde_json::from_slice(&file[8..start])
            .map_err(|e| Error::HeaderSyntax { path: path.into(), message: e.to_string() })?;
        let end = raw.check(path)?;
        let expected = (start as u64).saturating_add(end);
        if expected != found {
            return Err(Error::WrongFileLength { path: path.into(), expected, found });
        }
        let tensors =
            raw.tensors.into_iter().filter_map(|(name, t)| Some((name, t.locate(start)?))).collect();
        Ok(Self { tensors, metadata: raw.metadata })
    }
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    /// Bytes that shape and data type need; none when they overflow.
    fn needed(&self, dtype: StoredDtype) -> Option<u64> {
        self.shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d))
    }

    fn check(&self, name: &str, path: &Path) -> Result<()> {
        let Some(dtype) = StoredDtype::parse(&self.dtype) else {
            return Err(Error::UnknownDtype {
                path: path.into(),
                tensor: name.into(),
                found: self.dtype.clone(),
            });
        };
        let needed = self.needed(dtype);
        let (start, end) = self.data_offsets;
        if needed.is_none() || end.checked_sub(start) != needed {
            let expected = needed.map_or("more bytes than a file can have".into(), |n| format!("{n} bytes"));
            return Err(Error::WrongLength {
                path: path.into(),
                tensor: name.into(),
                expected,
                shape: self.shape.clone(),
                start,
                end,
            });
        }
        Ok(())
    }

    /// In the file; the data starts at `start`. Called after the checks.
    fn locate(self, start: usize) -> Option<TensorInfo> {
        let (from, to) = self.data_offsets;
        Some(TensorInfo {
            dtype: StoredDtype::parse(&self.dtype)?,
            shape: self.shape.iter().map(|d| *d as usize).collect(),
            bytes: start + from as usize..start + to as usize,
        })
    }
}

/// The header as it stands, in its own order, repeated names included.
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

impl RawHeader {
    /// Checks all tensors; returns where their bytes end, counted from the end of the header.
    fn check(&self, path: &Path) -> Result<u64> {
        let mut seen = HashSet::new();
        for (name, tensor) in &self.tensors {
            if !seen.insert(name.as_str()) {
                return Err(Error::DuplicateTensor { path: path.into(), tensor: name.clone() });
            }
            tensor.check(name, path)?;
        }
        let mut in_order: Vec<_> = self.tensors.iter().map(|(name, t)| (t.data_offsets, name)).collect();
        in_order.sort();
        let mut end = 0;
        for ((start, stop), name) in in_order {
            if start != end {
                return Err(Error::WrongStart {
                    path: path.into(),
                    tensor: name.clone(),
                    expected: end,
                    found: start,
                });
            }
            end = stop;
        }
        Ok(end)
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let mut header = RawHeader { tensors: Vec::new(), metadata: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn error(bytes: &[u8]) -> Error {
        Header::read(bytes, Path::new("x.safetensors")).unwrap_err()
    }

    const A: &str = r#""a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}"#;

    #[test]
    fn a_sound_header_gives_places_in_the_file() {
        let header = format!(
            r#"{{{A},"__metadata__":{{"format":"pt"}},"b":{{"dtype":"F16","shape":[],"data_offsets":[24,26]}}}}"#
        );
        let read = Header::read(&file(&header, 26), Path::new("x")).unwrap();
        assert_eq!(read.tensors["a"].shape, [2, 3]);
        assert_eq!(read.tensors["b"].bytes, 8 + header.len() + 24..8 + header.len() + 26);
        assert_eq!(read.metadata["format"], "pt");
    }

    #[test]
    fn a_file_of_a_few_bytes_is_too_short() {
        assert!(matches!(error(b""), Error::TooShort { found: 0, .. }));
        assert!(matches!(error(b"123456789"), Error::TooShort { found: 9, .. }));
    }

    #[test]
    fn a_header_longer_than_the_file_is_refused_before_it_is_allocated() {
        let mut bytes = file("{}", 0);
        bytes[7] = 0x7f;
        assert!(matches!(error(&bytes), Error::HeaderLength { limit: 2, .. }));
    }

    #[test]
    fn a_header_that_is_not_json_is_a_syntax_error() {
        assert!(matches!(error(&file("[1,2]", 0)), Error::HeaderSyntax { .. }));
        assert!(matches!(error(&file(r#"{"a":{"dtype":"F32"}}"#, 0)), Error::HeaderSyntax { .. }));
        assert!(matches!(error(&file("\u{0}\u{0}\u{0}", 9)), Error::HeaderSyntax { .. }));
    }

    #[test]
    fn a_file_cut_off_in_its_data_says_both_lengths() {
        let e = error(&file(&format!("{{{A}}}"), 20));
        let Error::WrongFileLength { expected, found, .. } = e else { panic!("{e}") };
        assert_eq!(expected - found, 4);
        assert!(e.to_string().contains("cut off"), "{e}");
        assert!(error(&file(&format!("{{{A}}}"), 30)).to_string().contains("added"));
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        assert!(
            matches!(error(&file(&format!("{{{A},{A}}}"), 24)), Error::DuplicateTensor { tensor, .. } if tensor == "a")
        );
    }

    #[test]
    fn an_unknown_data_type_is_named() {
        let header = format!("{{{}}}", A.replace("F32", "F33"));
        assert!(matches!(error(&file(&header, 24)), Error::UnknownDtype { found, .. } if found == "F33"));
    }

    #[test]
    fn ranges_that_do_not_match_the_shape_are_refused() {
        for bad in ["[0,20]", "[24,0]", "[0,18446744073709551615]"] {
            let header = format!("{{{}}}", A.replace("[0,24]", bad));
            assert!(matches!(error(&file(&header, 24)), Error::WrongLength { .. }), "{bad}");
        }
        let header = format!("{{{}}}", A.replace("[2,3]", "[4294967296,4294967296,2]"));
        assert!(error(&file(&header, 24)).to_string().contains("more bytes than a file can have"));
    }

    #[test]
    fn overlapping_ranges_and_holes_are_refused() {
        for start in [20, 28] {
            let b = format!(r#""b":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{}]}}"#, start + 4);
            let e = error(&file(&format!("{{{A},{b}}}"), start + 4));
            assert!(matches!(e, Error::WrongStart { expected: 24, .. }), "{e}");
        }
    }
}
