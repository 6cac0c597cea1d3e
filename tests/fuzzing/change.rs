//! How files are changed.

use super::Target;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    /// The numbers of one round.
    pub fn new(seed: u64, round: u64) -> Self {
        let mut random = Self(seed ^ round.wrapping_mul(0xD134_2543_DE82_EF95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Numbers on the edges of what types hold.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    7,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];
/// Numbers as texts have them.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "1e99",
    "0.5",
    "255",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999",
    "null",
];

/// A seed with one to six changes.
pub fn changed(seeds: &[Vec<u8>], target: &Target, random: &mut Random) -> Vec<u8> {
    let mut file = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        if file.is_empty() {
            break;
        }
        one(&mut file, seeds, target, random);
    }
    if random.below(2) == 0 {
        (target.mend)(&mut file);
    }
    file
}

/// Most places are near the ends, where headers and directories are.
fn place(file: &[u8], random: &mut Random) -> usize {
    let near = random.below(file.len().min(512));
    match random.below(4) {
        0 | 1 => near,
        2 => file.len() - 1 - near,
        _ => random.below(file.len()),
    }
}

fn one(file: &mut Vec<u8>, seeds: &[Vec<u8>], target: &Target, random: &mut Random) {
    let at = place(file, random);
    match random.below(12) {
        0 => file[at] ^= 1 << random.below(8),
        1 => file[at] = random.below(256) as u8,
        2 => file.truncate(at),
        3 => edge(file, at, random),
        4 | 5 => number(file, at, random),
        6 => {
            // A piece twice.
            let end = (at + 1 + random.below(64)).min(file.len());
            let piece = file[at..end].to_vec();
            file.splice(at..at, piece);
        }
        7 => {
            // A piece less.
            let end = (at + 1 + random.below(64)).min(file.len());
            file.drain(at..end);
        }
        8 => {
            // A piece of another file.
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let piece = other[from..(from + 1 + random.below(64)).min(other.len())].to_vec();
            file.splice(at..at, piece);
        }
        9 if !target.words.is_empty() => {
            let word = target.words[random.below(target.words.len())];
            file.splice(at..at, word.iter().copied());
        }
        10 if !target.words.is_empty() => swap_word(file, target, random),
        _ => {
            let end = (at + random.below(16)).min(file.len());
            file[at..end].fill([0, 0xff, b'0', b'{'][random.below(4)]);
        }
    }
}

fn edge(file: &mut [u8], at: usize, random: &mut Random) {
    let width = [1, 2, 4, 8][random.below(4)];
    let bytes = EDGES[random.below(EDGES.len())].to_le_bytes();
    for (to, from) in file[at..].iter_mut().zip(&bytes[..width]) {
        *to = *from;
    }
}

/// Another number in the place of the next one that is written in digits.
fn number(file: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = file[at..].iter().position(u8::is_ascii_digit).map(|i| at + i) else { return };
    let length = file[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    file.splice(start..start + length, NUMBERS[random.below(NUMBERS.len())].bytes());
}

/// One of the format's pieces in the place of another.
fn swap_word(file: &mut Vec<u8>, target: &Target, random: &mut Random) {
    let (old, new) =
        (target.words[random.below(target.words.len())], target.words[random.below(target.words.len())]);
    if old.is_empty() {
        return;
    }
    if let Some(at) = file.windows(old.len()).position(|w| w == old) {
        file.splice(at..at + old.len(), new.iter().copied());
    }
}
