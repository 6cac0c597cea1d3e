//! CSV text to cells, without copying them: the rules are those of the crate `csv` (RFC 4180 and what else is about),
//! and a test holds every answer against it.
//!
//! A quote opens a cell only where the cell begins; two quotes inside are one; what follows the closing quote belongs
//! to the cell. Records end with `\n`, `\r\n` or `\r`; empty lines are none.

use std::borrow::Cow;

/// The records of a text.
#[derive(Debug)]
pub struct Records<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    unclosed: bool,
}

impl<'t> Records<'t> {
    /// Those of a text that begins between records.
    pub fn of(text: &'t str) -> Self {
        Self { text, at: 0, line: 0, unclosed: false }
    }

    /// Where the next record begins, or an empty line before it.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Line ends before that.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Whether a quote was opened and never closed: the last cell of the last record is the rest of the text.
    pub fn unclosed(&self) -> bool {
        self.unclosed
    }

    /// The next record: its cells, and the line (from 0) that it begins in.
    pub fn next_into(&mut self, cells: &mut Vec<Cow<'t, str>>) -> Option<usize> {
        cells.clear();
        while let Some(b @ (b'\n' | b'\r')) = self.here() {
            self.line += usize::from(b == b'\n');
            self.at += 1;
        }
        self.here()?;
        let line = self.line;
        loop {
            cells.push(if self.here() == Some(b'"') { self.quoted() } else { Cow::Borrowed(self.plain()) });
            let end = self.here();
            self.at += usize::from(end.is_some());
            if end != Some(b',') {
                self.end_line(end);
                return Some(line);
            }
        }
    }

    /// Takes the second half of `\r\n` along, so that the next record's line is its own.
    fn end_line(&mut self, end: Option<u8>) {
        let second = end == Some(b'\r') && self.here() == Some(b'\n');
        self.at += usize::from(second);
        self.line += usize::from(second || end == Some(b'\n'));
    }

    fn here(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Up to what ends a cell.
    fn plain(&mut self) -> &'t str {
        let from = self.at;
        self.at += length(&self.text.as_bytes()[from..]);
        &self.text[from..self.at]
    }

    fn quoted(&mut self) -> Cow<'t, str> {
        let (first, mut doubled) = self.inside();
        let mut cell = Cow::Borrowed(first);
        while doubled {
            let (more, again) = self.inside();
            cell.to_mut().push('"');
            cell.to_mut().push_str(more);
            doubled = again;
        }
        let after = self.plain();
        if !after.is_empty() {
            cell.to_mut().push_str(after);
        }
        cell
    }

    /// From behind the quote that is here up to the next one, and whether that is the first of two.
    fn inside(&mut self) -> (&'t str, bool) {
        let from = self.at + 1;
        let found = self.text[from..].find('"').map(|i| from + i);
        let to = found.unwrap_or(self.text.len());
        self.line += self.text[from..to].bytes().filter(|b| *b == b'\n').count();
        self.at = found.map_or(to, |to| to + 1);
        self.unclosed = found.is_none();
        (&self.text[from..to], found.is_some() && self.here() == Some(b'"'))
    }
}

/// Bytes before the first that ends a cell: eight at a time, since this is most of the work of reading a table.
fn length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // A high bit is set in the first byte that is zero, and perhaps in some behind it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let equal = |byte: u8| zeros(word ^ (ONES * u64::from(byte)));
        let found = equal(b',') | equal(b'\n') | equal(b'\r');
        if found != 0 {
            return 8 * i + found.trailing_zeros() as usize / 8;
        }
    }
    let at = rest.iter().position(|b| matches!(b, b',' | b'\n' | b'\r'));
    bytes.len() - rest.len() + at.unwrap_or(rest.len())
}

/// Cuts a text into parts of at least `least` bytes that begin and end between records.
pub fn parts(text: &str, least: usize) -> Vec<&str> {
    let line_end = |at: usize| text.as_bytes()[at..].iter().position(|b| *b == b'\n').map(|i| at + i + 1);
    let (mut out, mut from, mut quote) = (Vec::new(), 0, next_quote(text, 0));
    while text.len() - from > least {
        let mut cut = line_end(from + least);
        // A line end inside of a quoted cell is none.
        while let (Some(end), Some((open, close))) = (cut, quote)
            && open < end
        {
            if close > end {
                cut = line_end(close);
            }
            quote = next_quote(text, close);
        }
        let Some(end) = cut else { break };
        out.push(&text[from..end]);
        from = end;
    }
    out.push(&text[from..]);
    out
}

/// The next quoted cell: where it opens, and the place behind the quote that closes it.
fn next_quote(text: &str, mut from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let open = loop {
        let at = from + text.get(from..)?.find('"')?;
        if at == 0 || matches!(bytes[at - 1], b',' | b'\n' | b'\r') {
            break at;
        }
        from = at + 1;
    };
    let mut at = open + 1;
    while let Some(i) = text[at..].find('"') {
        at += i + 1;
        if bytes.get(at) != Some(&b'"') {
            return Some((open, at));
        }
        at += 1;
    }
    Some((open, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(text: &str) -> Vec<Vec<String>> {
        let (mut records, mut cells, mut out) = (Records::of(text), Vec::new(), Vec::new());
        while let Some(line) = records.next_into(&mut cells) {
            let before = &text[..records.at()];
            assert!(line <= before.matches('\n').count(), "{text:?}");
            out.push(cells.iter().map(ToString::to_string).collect());
        }
        assert_eq!((records.at(), records.line()), (text.len(), text.matches('\n').count()), "{text:?}");
        out
    }

    fn theirs(text: &str) -> Vec<Vec<String>> {
        let mut reader =
            ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        reader.records().map(|r| r.unwrap().iter().map(String::from).collect()).collect()
    }

    /// Texts of the few letters that matter, from a fixed seed.
    fn texts() -> impl Iterator<Item = String> {
        let mut state = 7u64;
        let mut next = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        (0..60_000).map(move |_| {
            let length = next(24);
            (0..length)
                .map(|_| ["a", "b", ",", ",", "\"", "\"", "\n", "\r\n", "\r", " ", "é"][next(11) as usize])
                .collect()
        })
    }

    #[test]
    fn every_text_has_the_cells_that_the_csv_crate_finds() {
        for text in texts() {
            assert_eq!(ours(&text), theirs(&text), "{text:?}");
        }
    }

    #[test]
    fn a_text_in_parts_has_the_records_of_the_whole() {
        for text in texts() {
            for least in [1, 5] {
                let parts = parts(&text, least);
                assert_eq!(parts.concat(), text);
                let all: Vec<_> = parts.iter().flat_map(|p| ours(p)).collect();
                assert_eq!(all, ours(&text), "{text:?} in {parts:?}");
            }
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_noticed() {
        for (text, expected) in
            [("a,\"b\nc", true), ("a,\"b\"\nc\n", false), ("\"a\"\"", true), ("a\"b", false)]
        {
            let (mut records, mut cells) = (Records::of(text), Vec::new());
            while records.next_into(&mut cells).is_some() {}
            assert_eq!(records.unclosed(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_record_has_the_line_that_it_begins_in() {
        let text = "a\r\n\"b\nc\",d\r\n\r\ne\n\nf";
        let (mut records, mut cells, mut lines) = (Records::of(text), Vec::new(), Vec::new());
        while let Some(line) = records.next_into(&mut cells) {
            lines.push((line, cells[0].to_string()));
        }
        let expected = [(0, "a"), (1, "b\nc"), (4, "e"), (6, "f")];
        assert_eq!(lines, expected.map(|(n, t)| (n, t.to_string())));
    }
}
