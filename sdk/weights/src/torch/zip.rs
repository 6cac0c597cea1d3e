//! The places of the entries of a ZIP archive ("APPNOTE.TXT", PKWARE, sections 4.3 and 4.5.3), without unpacking.
//!
//! `torch.save` stores its entries as they are, so that they can be mapped; compressed entries are refused, and with
//! them every archive that grows when it is read.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

const END: u32 = 0x0605_4b50;
const END64_LOCATOR: u32 = 0x0706_4b50;
const END64: u32 = 0x0606_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// Length of the end record without its comment, which has at most 65,535 bytes.
const END_LENGTH: usize = 22;
/// More entries than any checkpoint has.
const MAX_ENTRIES: u64 = 200_000;

/// Little-endian numbers at places that may be outside.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<usize> {
        self.array(at).map(|b| usize::from(u16::from_le_bytes(b)))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// Where the list of entries begins, and how many there are.
struct Directory {
    start: u64,
    entries: u64,
}

/// The entries of the archive `file` by name; `path` is for messages.
///
/// Every place lies in the file and overlaps no other. Errors: no archive, cut off, compressed or encrypted entries, names
/// that repeat.
pub(super) fn entries(file: &[u8], path: &Path) -> Result<BTreeMap<String, Range<usize>>> {
    let wrong = |message: String| Error::Archive { path: path.into(), message };
    let directory = directory(file).ok_or_else(|| {
        wrong("expected the directory of a ZIP archive at the end, found none: is it cut off?".into())
    })?;
    if directory.entries > MAX_ENTRIES {
        return Err(wrong(format!("expected at most {MAX_ENTRIES} entries, found {}", directory.entries)));
    }
    let mut found = BTreeMap::new();
    let mut at = usize::try_from(directory.start).unwrap_or(usize::MAX);
    for number in 0..directory.entries {
        let (entry, next) = central(file, at).ok_or_else(|| {
            wrong(format!("expected entry {number} of its directory, found something else"))
        })?;
        let place = entry.place(file).map_err(|why| wrong(format!("entry {:?}: {why}", entry.name)))?;
        if found.insert(entry.name.clone(), place).is_some() {
            return Err(wrong(format!("expected each entry once, found {:?} twice", entry.name)));
        }
        at = next;
    }
    refuse_overlap(&found).map_err(wrong)?;
    Ok(found)
}

fn refuse_overlap(entries: &BTreeMap<String, Range<usize>>) -> std::result::Result<(), String> {
    let mut places: Vec<_> = entries.iter().map(|(name, r)| (r.start, r.end, name)).collect();
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => {
            Err(format!("expected entries that do not overlap, found {:?} in {:?}", pair[1].2, pair[0].2))
        }
        None => Ok(()),
    }
}

fn directory(file: &[u8]) -> Option<Directory> {
    let bytes = Bytes(file);
    let last = file.len().checked_sub(END_LENGTH)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end = (first..=last).rev().find(|at| bytes.u32(*at) == Some(END))?;
    let (entries, start) = (bytes.u16(end + 10)?, bytes.u32(end + 16)?);
    if entries == usize::from(u16::MAX) || start == u32::MAX {
        let locator = end.checked_sub(20).filter(|at| bytes.u32(*at) == Some(END64_LOCATOR))?;
        let end64 = usize::try_from(bytes.u64(locator + 8)?).ok()?;
        if bytes.u32(end64)? != END64 {
            return None;
        }
        let field = |offset| bytes.u64(end64.checked_add(offset)?);
        return Some(Directory { entries: field(32)?, start: field(48)? });
    }
    Some(Directory { entries: entries as u64, start: u64::from(start) })
}

struct Central {
    name: String,
    flags: usize,
    method: usize,
    packed: u64,
    unpacked: u64,
    local: u64,
}

/// The record at `at` of the directory, and where the next one is.
fn central(file: &[u8], at: usize) -> Option<(Central, usize)> {
    let bytes = Bytes(file);
    if bytes.u32(at)? != CENTRAL {
        return None;
    }
    let [name, extra, comment] = [bytes.u16(at + 28)?, bytes.u16(at + 30)?, bytes.u16(at + 32)?];
    let (name_at, extra_at) = (at + 46, at + 46 + name);
    let mut entry = Central {
        name: String::from_utf8_lossy(file.get(name_at..extra_at)?).into_owned(),
        flags: bytes.u16(at + 8)?,
        method: bytes.u16(at + 10)?,
        packed: u64::from(bytes.u32(at + 20)?),
        unpacked: u64::from(bytes.u32(at + 24)?),
        local: u64::from(bytes.u32(at + 42)?),
    };
    entry.widen(file.get(extra_at..extra_at + extra)?)?;
    Some((entry, extra_at + extra + comment))
}

impl Central {
    /// Takes the numbers that have no room in 32 bits from the extra field 1, where they stand in this order.
    fn widen(&mut self, extra: &[u8]) -> Option<()> {
        let wide: Vec<_> = [&mut self.unpacked, &mut self.packed, &mut self.local]
            .into_iter()
            .filter(|n| **n == u64::from(u32::MAX))
            .collect();
        if wide.is_empty() {
            return Some(());
        }
        let bytes = Bytes(extra);
        let mut at = 0;
        while bytes.u16(at)? != 1 {
            at += 4 + bytes.u16(at + 2)?;
        }
        for (i, number) in wide.into_iter().enumerate() {
            *number = bytes.u64(at + 4 + 8 * i)?;
        }
        Some(())
    }

    fn place(&self, file: &[u8]) -> std::result::Result<Range<usize>, String> {
        if self.flags & 1 != 0 {
            return Err("it is encrypted".into());
        }
        if self.method != 0 || self.packed != self.unpacked {
            return Err(format!("expected it stored as it is, found compression method {}", self.method));
        }
        let place = || -> Option<Range<usize>> {
            let (bytes, at) = (Bytes(file), usize::try_from(self.local).ok()?);
            if bytes.u32(at)? != LOCAL {
                return None;
            }
            let start = at + 30 + bytes.u16(at + 26)? + bytes.u16(at + 28)?;
            let end = start.checked_add(usize::try_from(self.packed).ok()?)?;
            (end <= file.len()).then_some(start..end)
        };
        place().ok_or_else(|| format!("expected {} bytes in the file, found fewer", self.packed))
    }
}
