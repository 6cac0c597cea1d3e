//! Whether a JPEG is whole.

/// Whether the end mark of a JPEG is there. Its decoder fills what is missing with grey and says nothing; those of the
/// other formats refuse.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|w| w[0] == 0xff && w[1] != 0xff) {
        let mark = rest[at + 1];
        rest = &rest[at + 2..];
        match mark {
            0xd9 => return true,
            // Within the pixels: an escaped 255, a restart. Elsewhere: the start of the file, and nothing.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            // Anything else has a length, and may hold whole pictures with end marks of their own.
            _ => {
                let [high, low, ..] = rest else { return false };
                match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
                    Some(after) => rest = after,
                    None => return false,
                }
            }
        }
    }
    false
}
