//! CSV text to cells, without copying them: the rules are those of the crate `csv` (RFC 4180 and what else is about),
//! and a test holds every answer against it.
//!
//! A quote opens a cell only where the cell begins; two quotes inside are one; what follows the closing quote belongs
//! to the cell. Records end with `\n`, `\r\n` or `\r`; empty lines are none.

use super::short::Short;
use std::array::from_fn;

/// The cells of a record.
#[derive(Debug, Default)]
pub struct Cells<'t> {
    text: &'t str,
    /// Where each begins and ends there.
    places: Vec<(usize, usize)>,
    /// Texts that do not stand there as they are, with the numbers of their cells.
    own: Vec<(usize, String)>,
}

impl<'t> Cells<'t> {
    /// None, of a text.
    pub fn of(text: &'t str) -> Self {
        Self { text, ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The text of one; empty if there is no such.
    pub fn get(&self, i: usize) -> &str {
        match self.places.get(i) {
            Some((from, to)) => self.own(i).unwrap_or(&self.text[*from..*to]),
            None => "",
        }
    }

    /// The text of one, if it is short.
    pub fn short(&self, i: usize) -> Option<Short> {
        let (from, to) = *self.places.get(i)?;
        match self.own(i) {
            Some(text) => Short::of(text),
            None => Short::at(self.text.as_bytes(), from, to),
        }
    }

    fn own(&self, i: usize) -> Option<&str> {
        if self.own.is_empty() {
            return None;
        }
        self.own.iter().find(|own| own.0 == i).map(|own| own.1.as_str())
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i))
    }

    fn clear(&mut self) {
        self.places.clear();
        self.own.clear();
    }
}

/// The records of a text.
#[derive(Debug)]
pub struct Records<'t> {
    text: &'t str,
    ends: Ends<'t>,
    at: usize,
    line: usize,
    unclosed: bool,
    is_odd: bool,
}

impl<'t> Records<'t> {
    /// Those of a text that begins between records.
    pub fn of(text: &'t str) -> Self {
        Self { text, ends: Ends::of(text), at: 0, line: 0, unclosed: false, is_odd: false }
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

    /// Whether the last record is worth a closer look: there may be markup in it, or white space within a cell that is
    /// more than single spaces, or a cell that begins as a formula does. If not, there is none.
    pub fn is_odd(&self) -> bool {
        self.is_odd || self.ends.is_marked
    }

    /// The next record: its cells, and the line (from 0) that it begins in.
    pub fn next_into(&mut self, cells: &mut Cells<'t>) -> Option<usize> {
        cells.clear();
        while let Some(b @ (b'\n' | b'\r')) = self.here() {
            self.line += usize::from(b == b'\n');
            self.at += 1;
        }
        self.here()?;
        (self.is_odd, self.ends.is_marked) = (false, self.ends.is_block_marked);
        let line = self.line;
        loop {
            match self.here() {
                Some(b'"') => self.quoted(cells),
                first => {
                    self.is_odd |= first.is_some_and(is_leading);
                    cells.places.push(self.plain());
                }
            }
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
    fn plain(&mut self) -> (usize, usize) {
        let from = self.at;
        self.at = self.ends.next(from);
        (from, self.at)
    }

    fn quoted(&mut self, cells: &mut Cells<'t>) {
        let (place, mut doubled) = self.inside();
        let (first, mut own) = (&self.text[place.0..place.1], None::<String>);
        while doubled {
            let (more, again) = self.inside();
            let own = own.get_or_insert_with(|| first.to_string());
            own.push('"');
            own.push_str(&self.text[more.0..more.1]);
            doubled = again;
        }
        let after = self.plain();
        if after.0 < after.1 {
            let after = &self.text[after.0..after.1];
            own.get_or_insert_with(|| first.to_string()).push_str(after);
        }
        self.is_odd |= own.is_some() || first.bytes().next().is_some_and(is_leading);
        cells.own.extend(own.map(|own| (cells.places.len(), own)));
        cells.places.push(place);
    }

    /// From behind the quote that is here up to the next one, and whether that is the first of two.
    fn inside(&mut self) -> ((usize, usize), bool) {
        let from = self.at + 1;
        let found = self.text[from..].find('"').map(|i| from + i);
        let to = found.unwrap_or(self.text.len());
        let inside = self.text[from..to].bytes();
        self.line += inside.clone().filter(|b| *b == b'\n').count();
        self.is_odd |= inside.fold(false, |found, b| found | is_line_end(b));
        self.at = found.map_or(to, |to| to + 1);
        self.unclosed = found.is_none();
        ((from, to), found.is_some() && self.here() == Some(b'"'))
    }
}

/// Whether a formula may begin with it.
fn is_leading(first: u8) -> bool {
    matches!(first, b'=' | b'@' | b'+' | b'-' | b'\t' | b'\r')
}

fn is_line_end(b: u8) -> bool {
    b == b'\n' || b == b'\r'
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// The bytes that end cells, found many at a time, since this is most of the work of reading a table.
#[derive(Debug)]
struct Ends<'t> {
    bytes: &'t [u8],
    /// Where the block begins whose ends are in `left`, and the one behind it.
    block: usize,
    behind: usize,
    /// One bit for each byte of the block that ends a cell and was not given yet.
    left: u64,
    /// Whether there may be something to clean up in the block.
    is_block_marked: bool,
    /// Whether there was such in this or an earlier block, since it was last set to no.
    is_marked: bool,
}

impl<'t> Ends<'t> {
    fn of(text: &'t str) -> Self {
        let bytes = text.as_bytes();
        Self { bytes, block: 0, behind: 0, left: 0, is_block_marked: false, is_marked: false }
    }

    /// The first at `from` or behind it that was not given yet; the end of the text if there is none.
    #[inline]
    fn next(&mut self, from: usize) -> usize {
        loop {
            if self.left == 0 && !self.load() {
                return self.bytes.len();
            }
            let at = self.block + self.left.trailing_zeros() as usize;
            self.left &= self.left - 1;
            if at >= from {
                return at;
            }
        }
    }

    /// Looks at the next block with an end; gives whether there is one.
    #[inline(never)]
    fn load(&mut self) -> bool {
        while self.left == 0 && self.behind < self.bytes.len() {
            let rest = &self.bytes[self.behind..];
            // With the byte behind the block.
            let mut last = [0; BLOCK + 1];
            let block = rest.first_chunk().unwrap_or_else(|| {
                last[..rest.len()].copy_from_slice(rest);
                &last
            });
            self.left = bits(&from_fn(|i| u8::from(block[i] == b',') | u8::from(is_line_end(block[i]))));
            self.is_block_marked = (0..BLOCK).fold(0, |found, i| found | mark(block[i], block[i + 1])) != 0;
            self.is_marked |= self.is_block_marked;
            (self.block, self.behind) = (self.behind, self.behind + BLOCK);
        }
        self.left != 0
    }
}

/// 1 for what [`super::html::clean`] does more with than to take white space off the ends of a text. Line ends do not
/// count: they are in no cell without quotes.
fn mark(b: u8, next: u8) -> u8 {
    let is_control = b < b' ' && !is_line_end(b);
    let is_space = b == b' ' && next == b' ';
    // 0xc2 begins a space that does not break, and little else.
    u8::from(b == b'<')
        | u8::from(b == b'&')
        | u8::from(b == 0xc2)
        | u8::from(is_control)
        | u8::from(is_space)
}

/// One bit for each of bytes that are 0 or 1, the first the lowest.
fn bits(flags: &[u8; BLOCK]) -> u64 {
    // Brings the lowest bits of eight bytes into the highest byte of the product; no two of its terms meet.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let words =
        flags.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word).wrapping_mul(GATHER) >> 56);
    words.enumerate().fold(0, |bits, (i, byte)| bits | byte << (8 * i))
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
        let at = from + quote(bytes.get(from..)?)?;
        if at == 0 || matches!(bytes[at - 1], b',' | b'\n' | b'\r') {
            break at;
        }
        from = at + 1;
    };
    let mut at = open + 1;
    while let Some(i) = quote(&bytes[at..]) {
        at += i + 1;
        if bytes.get(at) != Some(&b'"') {
            return Some((open, at));
        }
        at += 1;
    }
    Some((open, text.len()))
}

/// The place of the first quote: a block at a time, since most texts have few.
fn quote(bytes: &[u8]) -> Option<usize> {
    let blocks = bytes.as_chunks::<BLOCK>().0.iter();
    let without = |block: &&[u8; BLOCK]| block.iter().fold(0, |found, b| found | u8::from(*b == b'"')) == 0;
    let skipped = BLOCK * blocks.take_while(without).count();
    bytes[skipped..].iter().position(|b| *b == b'"').map(|i| skipped + i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::html;

    fn ours(text: &str) -> Vec<Vec<String>> {
        let (mut records, mut cells, mut out) = (Records::of(text), Cells::of(text), Vec::new());
        while let Some(line) = records.next_into(&mut cells) {
            let before = &text[..records.at()];
            assert!(line <= before.matches('\n').count(), "{text:?}");
            out.push(cells.iter().map(ToString::to_string).collect());
            assert!(cells.iter().enumerate().all(|(i, cell)| cells.short(i) == Short::of(cell)), "{text:?}");
            let odd = |cell: &str| {
                let clean = html::clean(cell);
                clean != cell.trim() || html::is_markup(cell) || cell.bytes().next().is_some_and(is_leading)
            };
            assert!(records.is_odd() || !cells.iter().any(odd), "{text:?}");
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
        const LETTERS: [&str; 18] = [
            "a", "b", "abcdefgh", ",", ",", ",", "\"", "\"", "\n", "\r\n", "\r", " ", " ", "é", "=", "<b>",
            "\t", "\u{a0}",
        ];
        (0..60_000).map(move |i| {
            // Some are longer than a block.
            let length = if i % 8 == 0 { next(240) } else { next(24) };
            (0..length).map(|_| LETTERS[next(18) as usize]).collect()
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
            let (mut records, mut cells) = (Records::of(text), Cells::of(text));
            while records.next_into(&mut cells).is_some() {}
            assert_eq!(records.unclosed(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_record_has_the_line_that_it_begins_in() {
        let text = "a\r\n\"b\nc\",d\r\n\r\ne\n\nf";
        let (mut records, mut cells, mut lines) = (Records::of(text), Cells::of(text), Vec::new());
        while let Some(line) = records.next_into(&mut cells) {
            lines.push((line, cells.get(0).to_string()));
        }
        let expected = [(0, "a"), (1, "b\nc"), (4, "e"), (6, "f")];
        assert_eq!(lines, expected.map(|(n, t)| (n, t.to_string())));
    }
}
