//! Texts of up to 16 bytes as numbers: most cells of a table are such, and comparing numbers takes no memory but theirs.

/// A text of up to 16 bytes. Its length, its first and its last eight bytes are all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    first: u64,
    last: u64,
    length: u32,
}

impl Short {
    /// A text, if it is short.
    pub fn of(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let length = u32::try_from(bytes.len()).ok().filter(|n| *n <= 16)?;
        let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => (below_eight(bytes), 0),
        };
        Some(Self { first, last, length })
    }

    fn slot(self) -> usize {
        let mixed = (self.first ^ self.last.rotate_left(29) ^ u64::from(self.length))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - SLOTS.trailing_zeros())) as usize
    }
}

/// Up to seven bytes in one number.
fn below_eight(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // Between four and seven: some are in both halves.
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b)),
    }
}

/// A power of two; more than most columns have values.
const SLOTS: usize = 256;

/// Codes of short texts that were looked up lately.
#[derive(Debug, Default)]
pub struct Recent(Vec<Option<(Short, u32)>>);

impl Recent {
    /// The code of a text, if it is still known.
    pub fn code(&self, text: Short) -> Option<u32> {
        let (known, code) = (*self.0.get(text.slot())?)?;
        (known == text).then_some(code)
    }

    /// Keeps a code in the place of another's.
    pub fn keep(&mut self, text: Short, code: u32) {
        if self.0.is_empty() {
            self.0 = vec![None; SLOTS];
        }
        self.0[text.slot()] = Some((text, code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_alike_only_if_they_are_the_same() {
        let mut texts: Vec<String> = Vec::new();
        for length in 0..=16 {
            texts.push("\0".repeat(length));
            for place in 0..length {
                for letter in ["a", "b"] {
                    texts.push(format!("{}{letter}{}", "\0".repeat(place), "\0".repeat(length - place - 1)));
                }
            }
        }
        let shorts: Vec<Short> = texts.iter().map(|t| Short::of(t).unwrap()).collect();
        for (i, a) in shorts.iter().enumerate() {
            assert!(shorts.iter().enumerate().all(|(j, b)| (a == b) == (i == j)), "{:?}", texts[i]);
        }
        assert!(Short::of(&"a".repeat(17)).is_none());
    }

    #[test]
    fn a_code_is_that_of_its_text_or_forgotten() {
        let mut recent = Recent::default();
        let short = |i: usize| Short::of(&i.to_string()).unwrap();
        assert_eq!(recent.code(short(0)), None);
        for i in 0..2000 {
            recent.keep(short(i), i as u32);
            assert_eq!(recent.code(short(i)), Some(i as u32));
        }
        for i in 0..2000 {
            assert!(recent.code(short(i)).is_none_or(|code| code == i as u32));
        }
    }
}
