//! Bytes to text, whatever wrote them: UTF-8 with or without a mark, else Windows-1252 (which holds Latin-1) line
//! by line, since exports of several years end up in one file.

/// What the bytes 0x80 to 0x9f mean in Windows-1252; those without meaning are the control codes of Latin-1.
const HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// A text, and the lines (from 1) that were not UTF-8.
#[derive(Debug)]
pub struct Decoded {
    /// The text, without a byte order mark.
    pub text: String,
    /// Lines read as Windows-1252.
    pub other_lines: Vec<usize>,
}

/// Decodes a file. UTF-16 counts if a byte order mark says so.
pub fn decode(mut bytes: Vec<u8>) -> Decoded {
    if let Some(text) = utf16(&bytes) {
        return Decoded { text, other_lines: Vec::new() };
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Decoded { text, other_lines: Vec::new() },
        Err(e) => by_lines(e.as_bytes()),
    }
}

fn by_lines(bytes: &[u8]) -> Decoded {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 16);
    let mut other_lines = Vec::new();
    for (i, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(line) => text.push_str(line),
            Err(_) => {
                text.extend(line.iter().map(|b| windows_1252(*b)));
                other_lines.push(i + 1);
            }
        }
    }
    Decoded { text, other_lines }
}

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

fn utf16(bytes: &[u8]) -> Option<String> {
    let (rest, of): (_, fn([u8; 2]) -> u16) = match bytes {
        [0xff, 0xfe, rest @ ..] => (rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => (rest, u16::from_be_bytes),
        _ => return None,
    };
    let units: Vec<u16> = rest.chunks_exact(2).map(|p| of([p[0], p[1]])).collect();
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_not_text() {
        assert_eq!(decode(b"\xef\xbb\xbfid,a".into()).text, "id,a");
        assert_eq!(decode(b"\xff\xfeA\0\xe9\0".into()).text, "Aé");
    }

    #[test]
    fn lines_of_another_encoding_are_read_as_that_and_told() {
        let d = decode(b"caf\xc3\xa9\ncaf\xe9 \x80\x93\nplain\n".into());
        assert_eq!(d.text, "café\ncafé €“\nplain\n");
        assert_eq!(d.other_lines, [2]);
        assert_eq!(decode("café".into()).other_lines, [0usize; 0]);
    }
}
