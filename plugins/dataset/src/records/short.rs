//! Texts of up to 16 bytes as numbers: most cells of a table are such, and comparing numbers takes no memory but theirs.

/// A text of up to 16 bytes, with zeros behind it. Zeros of its own are told from those by its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    words: [u64; 2],
    length: u32,
}

/// Most bytes of a short text.
const MOST: usize = 16;

/// For each length: ones where a text of that length has its bytes.
const MASKS: [[u64; 2]; MOST + 1] = {
    let mut masks = [[u64::MAX; 2]; MOST + 1];
    let mut length = 0;
    while length < MOST {
        let mask = (1u128 << (8 * length)) - 1;
        masks[length] = [mask as u64, (mask >> 64) as u64];
        length += 1;
    }
    masks
};

impl Short {
    /// A text, if it is short.
    pub fn of(text: &str) -> Option<Self> {
        Self::at(text.as_bytes(), 0, text.len())
    }

    /// The text from one place to another of a longer one, if it is short: read with what is behind it, which takes
    /// less time than to look at its length first.
    pub fn at(bytes: &[u8], from: usize, to: usize) -> Option<Self> {
        let length = to.checked_sub(from)?;
        let mask = MASKS.get(length)?;
        let rest = bytes.get(from..)?;
        let mut padded = [0; MOST];
        let longer = rest.first_chunk().unwrap_or_else(|| {
            padded[..rest.len()].copy_from_slice(rest);
            &padded
        });
        let all = u128::from_le_bytes(*longer);
        let words = [all as u64 & mask[0], (all >> 64) as u64 & mask[1]];
        Some(Self { words, length: length as u32 })
    }

    fn slot(self) -> usize {
        let [first, last] = self.words;
        let mixed =
            (first ^ last.rotate_left(29) ^ u64::from(self.length)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - SLOTS.trailing_zeros())) as usize
    }
}

/// A power of two; more than most columns have values.
const SLOTS: usize = 256;

/// A text and its code.
#[derive(Debug, Clone, Copy)]
struct Slot {
    words: [u64; 2],
    length: u32,
    code: u32,
}

/// Of no text: none is so long.
const EMPTY: Slot = Slot { words: [0; 2], length: u32::MAX, code: 0 };

/// Codes of short texts that were looked up lately.
#[derive(Debug, Default)]
pub struct Recent(Vec<Slot>);

impl Recent {
    /// The code of a text, if it is still known.
    pub fn code(&self, text: Short) -> Option<u32> {
        let Slot { words, length, code } = *self.0.get(text.slot())?;
        (words == text.words && length == text.length).then_some(code)
    }

    /// Keeps a code in the place of another's.
    pub fn keep(&mut self, text: Short, code: u32) {
        if self.0.is_empty() {
            self.0 = vec![EMPTY; SLOTS];
        }
        self.0[text.slot()] = Slot { words: text.words, length: text.length, code };
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
        let all = texts.concat();
        let mut at = 0;
        for (text, short) in texts.iter().zip(shorts) {
            assert_eq!(Short::at(all.as_bytes(), at, at + text.len()), Some(short));
            at += text.len();
        }
        assert!(Short::at(all.as_bytes(), 0, 17).is_none());
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
