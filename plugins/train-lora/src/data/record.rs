//! Named tensors in a file that proves itself: what a cache may trust.

use atelier_sdk::{Error, Result};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"ATELIERC";
const VERSION: u32 = 1;
/// Magic, version, digest of what follows.
const HEAD: usize = 8 + 4 + 32;

/// A tensor with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// `mean`, `std`, `hidden`, ...
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values, the last dimension fastest.
    pub data: Vec<f32>,
}

/// Tensors that belong together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record(Vec<Named>);

impl Record {
    /// With one more tensor.
    ///
    /// # Errors
    /// Shape and number of values differ, or a value is not finite: a network that overflowed must not be kept.
    pub fn with(mut self, name: &str, shape: &[usize], data: Vec<f32>) -> Result<Self> {
        let room = shape.iter().try_fold(1, |n: usize, d| n.checked_mul(*d));
        if room != Some(data.len()) || name.len() > usize::from(u16::MAX) || shape.len() > 255 {
            return Err(Error::internal(format!("{name} of shape {shape:?} has {} values", data.len())));
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            return Err(Error::internal(format!(
                "{name} has a value that is not a number: {} at {at}",
                data[at]
            ))
            .hint("the encoder overflowed: run it in f32"));
        }
        self.0.push(Named { name: name.into(), shape: shape.into(), data });
        Ok(self)
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Named> {
        self.0.iter().find(|n| n.name == name)
    }

    /// All tensors, in their order.
    pub fn tensors(&self) -> &[Named] {
        &self.0
    }

    /// The file of this record under a key.
    pub(super) fn to_bytes(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut body = key.to_vec();
        body.extend((self.0.len() as u32).to_le_bytes());
        for n in &self.0 {
            body.extend((n.name.len() as u16).to_le_bytes());
            body.extend(n.name.as_bytes());
            body.push(n.shape.len() as u8);
            n.shape.iter().for_each(|d| body.extend((*d as u64).to_le_bytes()));
        }
        self.0.iter().flat_map(|n| &n.data).for_each(|v| body.extend(v.to_le_bytes()));
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend(Sha256::digest(&body));
        out.extend(body);
        out
    }

    /// The record in a file that is to be the one of a key, or what is wrong with the file.
    pub(super) fn from_bytes(bytes: &[u8], key: &[u8; 32]) -> Result<Self, &'static str> {
        const SHORT: &str = "it is cut off";
        let (head, body) = bytes.split_at_checked(HEAD).ok_or(SHORT)?;
        if head[..8] != MAGIC[..] {
            return Err("it is not a file of this cache");
        }
        if head[8..12] != VERSION.to_le_bytes() {
            return Err("it is of another version");
        }
        if head[12..] != Sha256::digest(body)[..] {
            return Err("its content is damaged");
        }
        let mut rest = Reader(body);
        if rest.take(32)? != key {
            return Err("it belongs under another name");
        }
        let heads: Result<Vec<_>, _> = (0..rest.number::<4>()?).map(|_| rest.head()).collect();
        let mut out = Vec::new();
        for (name, shape) in heads? {
            let values = shape.iter().try_fold(1, |n: usize, d| n.checked_mul(*d)).ok_or(SHORT)?;
            let raw = rest.take(values.checked_mul(4).ok_or(SHORT)?)?;
            let data = raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            out.push(Named { name, shape, data });
        }
        if rest.0.is_empty() { Ok(Self(out)) } else { Err("it is longer than it should be") }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of `N` bytes, the low one first.
    fn number<const N: usize>(&mut self) -> Result<u64, &'static str> {
        Ok(self.take(N)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn head(&mut self) -> Result<(String, Vec<usize>), &'static str> {
        let length = self.number::<2>()? as usize;
        let name = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a name in it is not UTF-8")?;
        let dims = self.number::<1>()?;
        let dim = |_| usize::try_from(self.number::<8>()?).map_err(|_| "a shape in it is too large");
        Ok((name, (0..dims).map(dim).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn record() -> Record {
        let record =
            Record::default().with("mean", &[1, 2, 3], vec![0.5, -1.0, 2.0, f32::MIN_POSITIVE, -0.0, 1e30]);
        record.unwrap().with("std", &[0], vec![]).unwrap()
    }

    #[test]
    fn a_record_comes_back_bit_for_bit() {
        let back = Record::from_bytes(&record().to_bytes(&KEY), &KEY).unwrap();
        assert_eq!(back, record());
        assert!(back.get("mean").unwrap().data[4].is_sign_negative() && back.get("none").is_none());
    }

    #[test]
    fn every_single_bit_counts_and_so_does_every_length() {
        let bytes = record().to_bytes(&KEY);
        for i in 0..bytes.len() {
            assert!(Record::from_bytes(&bytes[..i], &KEY).is_err(), "{i}");
            let mut bad = bytes.clone();
            bad[i] ^= 1 << (i % 8);
            assert!(Record::from_bytes(&bad, &KEY).is_err(), "{i}");
        }
        assert!(Record::from_bytes(&[bytes.clone(), vec![0]].concat(), &KEY).is_err());
        assert_eq!(Record::from_bytes(&bytes, &[8; 32]), Err("it belongs under another name"));
    }

    /// A foreign writer can give any body a right digest: what it claims must still fit.
    #[test]
    fn a_body_that_lies_is_refused() {
        for claim in [vec![255; 4], [&1u32.to_le_bytes()[..], &[1, 0, b'a', 2], &[255; 16]].concat()] {
            let body = [&KEY[..], &claim].concat();
            let head = [&MAGIC[..], &VERSION.to_le_bytes()[..], &Sha256::digest(&body)[..]].concat();
            assert!(Record::from_bytes(&[head, body].concat(), &KEY).is_err());
        }
    }

    #[test]
    fn what_is_not_finite_or_does_not_fit_is_not_kept() {
        assert!(Record::default().with("a", &[2], vec![1.0]).is_err());
        let e = Record::default().with("a", &[2], vec![1.0, f32::NAN]).unwrap_err();
        assert!(e.message().contains("NaN at 1") && !e.hints().is_empty());
    }
}
