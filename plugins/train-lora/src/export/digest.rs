//! The digests by which galleries know an adapter whatever its remarks say.

use atelier_weights::lora::layouts::{self, Tensors};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

/// Where the first programs took a sample of a file.
const SAMPLE: Range<u64> = 0x10_0000..0x11_0000;

/// Of a file with these tensors, and of what of `metadata` tells of the training:
///
/// - `sshs_model_hash`, and `modelspec.hash_sha256` with `0x` before it: SHA-256 of all that stands behind the header.
/// - `sshs_legacy_hash`: eight digits of the SHA-256 of 64 KiB from 1 MiB on, the header counted.
pub(super) fn of(
    tensors: &Tensors,
    metadata: &BTreeMap<String, String>,
) -> io::Result<BTreeMap<String, String>> {
    let training = metadata.iter().filter(|(key, _)| key.starts_with("ss_"));
    let training = training.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut sums = Sums::default();
    layouts::write(&mut sums, tensors, &training)?;
    let (data, sample) = (hex(&sums.data.finalize()), hex(&sums.sample.finalize()));
    Ok(BTreeMap::from([
        ("modelspec.hash_sha256".to_string(), format!("0x{data}")),
        ("sshs_legacy_hash".to_string(), sample.chars().take(8).collect()),
        ("sshs_model_hash".to_string(), data),
    ]))
}

/// The number by which the first programs knew a file: eight digits of the SHA-256 of 64 KiB from 1 MiB on.
///
/// # Errors
/// The file cannot be read.
pub fn legacy_hash(file: &Path) -> io::Result<String> {
    let (mut file, mut sample) = (File::open(file)?, Vec::new());
    file.seek(SeekFrom::Start(SAMPLE.start))?;
    file.take(SAMPLE.end - SAMPLE.start).read_to_end(&mut sample)?;
    Ok(hex(&Sha256::digest(&sample)).chars().take(8).collect())
}

/// Digests what is written to it as a safetensors file.
#[derive(Default)]
struct Sums {
    at: u64,
    /// The first eight bytes, the length of the header.
    length: [u8; 8],
    data: Sha256,
    sample: Sha256,
}

impl Write for Sums {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for (place, byte) in self.length.iter_mut().skip(self.at.min(8) as usize).zip(bytes) {
            *place = *byte;
        }
        let header = 8u64.saturating_add(u64::from_le_bytes(self.length));
        let start = if self.at < 8 { u64::MAX } else { header };
        self.data.update(within(bytes, self.at, start..u64::MAX));
        self.sample.update(within(bytes, self.at, SAMPLE));
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What of `bytes`, which start at `at` of a file, is in `range`.
fn within(bytes: &[u8], at: u64, range: Range<u64>) -> &[u8] {
    let place = |offset: u64| offset.saturating_sub(at).min(bytes.len() as u64) as usize;
    &bytes[place(range.start)..place(range.end)]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_summed_the_same_in_any_pieces() {
        let header = 100u64;
        let file: Vec<u8> =
            header.to_le_bytes().into_iter().chain((0..1_200_000u32).map(|i| (i % 251) as u8)).collect();
        let whole = hex(&Sha256::digest(&file[108..]));
        let sample = hex(&Sha256::digest(&file[0x10_0000..0x11_0000]));
        for pieces in [8, 9, 1000, 0x10_0000, file.len()] {
            let mut sums = Sums::default();
            // The writer gives the header's length by itself.
            sums.write_all(&file[..8]).unwrap();
            file[8..].chunks(pieces).for_each(|piece| sums.write_all(piece).unwrap());
            assert_eq!(
                (hex(&sums.data.finalize()), hex(&sums.sample.finalize())),
                (whole.clone(), sample.clone())
            );
        }
    }

    #[test]
    fn ranges_are_cut_at_both_ends() {
        assert_eq!(within(b"abcdef", 10, 12..14), b"cd");
        assert_eq!(within(b"abcdef", 10, 0..11), b"a");
        assert_eq!(within(b"abcdef", 10, 20..30), b"");
        assert_eq!(within(b"abcdef", 30, 20..25), b"");
    }
}
