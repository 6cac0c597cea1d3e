//! Many short texts in one, and the places of those that are alike.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Texts one behind the other: a table has tens of thousands, and one allocation for each takes longer than reading it.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    all: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Texts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a place.
    pub fn get(&self, place: u32) -> &str {
        &self.all[self.range(place)]
    }

    fn range(&self, place: u32) -> std::ops::Range<usize> {
        let place = place as usize;
        let from = if place == 0 { 0 } else { self.ends[place - 1] };
        from..self.ends[place]
    }

    /// Whether a place has a text: by bytes, without a look at where characters begin.
    fn is(&self, place: u32, text: &str) -> bool {
        self.all.as_bytes()[self.range(place)] == *text.as_bytes()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|i| self.get(i))
    }

    /// Takes memory for more of them, of so many bytes in all.
    pub fn reserve(&mut self, texts: usize, bytes: usize) {
        self.ends.reserve(texts);
        self.all.reserve(bytes);
    }

    /// Adds one.
    pub fn push(&mut self, text: &str) {
        self.all.push_str(text);
        self.ends.push(self.all.len());
    }

    /// Adds all of another.
    pub fn append(&mut self, other: &Self) {
        let before = self.all.len();
        self.all.push_str(&other.all);
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }
}

/// Texts that are all different, with the place of each.
#[derive(Debug, Default)]
pub struct Dictionary {
    texts: Texts,
    /// The place of the first text that has a hash.
    by_hash: HashMap<u64, u32, BuildHasherDefault<Same>>,
    /// The places of the others.
    others: HashMap<Box<str>, u32>,
}

impl Dictionary {
    /// An empty one with memory for so many texts.
    pub fn of(texts: usize) -> Self {
        let mut empty = Self::default();
        empty.by_hash.reserve(texts);
        empty.texts.reserve(texts, 8 * texts);
        empty
    }

    /// The texts.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// The texts alone.
    pub fn into_texts(self) -> Texts {
        self.texts
    }

    /// The place of a text.
    pub fn find(&self, text: &str) -> Option<u32> {
        let first = *self.by_hash.get(&hash(text))?;
        if self.texts.is(first, text) { Some(first) } else { self.others.get(text).copied() }
    }

    /// The place of a text, and whether it is new.
    pub fn add(&mut self, text: &str) -> (u32, bool) {
        let place = self.texts.len() as u32;
        let first = *self.by_hash.entry(hash(text)).or_insert(place);
        if first != place {
            if self.texts.is(first, text) {
                return (first, false);
            }
            let other = *self.others.entry(text.into()).or_insert(place);
            if other != place {
                return (other, false);
            }
        }
        self.texts.push(text);
        (place, true)
    }
}

/// A hash for short texts: eight bytes at a time, multiplied and turned (after Fowler, Noll and Vo). A table that is
/// made to collide would be slow to read, and no more.
fn hash(text: &str) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let bytes = text.as_bytes();
    let hash = bytes.as_chunks::<8>().0.iter();
    let hash = hash.fold(text.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let hash = mix(hash, last_word(bytes));
    // The map looks at the highest and the lowest bits.
    hash ^ (hash >> 32)
}

/// The last eight bytes; of fewer, all of them, some twice.
fn last_word(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.last_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b))
}

/// For what is a hash already.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_place_whatever_its_hash() {
        let mut d = Dictionary::default();
        let texts: Vec<String> = (0..5000).map(|i| format!("{:x}", i * 7919)).collect();
        for (i, text) in texts.iter().enumerate() {
            assert_eq!((d.add(text), d.add(text)), ((i as u32, true), (i as u32, false)));
        }
        // Another text whose hash is taken.
        d.by_hash.insert(hash("other"), 3);
        assert_eq!(d.find("other"), None);
        assert_eq!((d.add("other"), d.add("other")), ((5000, true), (5000, false)));
        assert_eq!((d.find("other"), d.find(&texts[3])), (Some(5000), Some(3)));
        assert_eq!((d.texts().get(5000), d.texts().iter().count()), ("other", 5001));
    }
}
