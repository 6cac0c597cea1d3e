//! Weights, breaks and composed prompts: `(x)`, `[x]`, `(x:1.3)`, `BREAK`, `a AND b:0.7`, as A1111 reads them.

/// What a bracket pair multiplies by.
const STEP: f64 = 1.1;

/// A stretch of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Words of one weight.
    Text(String, f64),
    /// `BREAK`: what follows starts a new chunk.
    Break,
}

/// The stretches of a prompt with their weights; neighbours of equal weight are one stretch.
///
/// Any text has a reading: a bracket that never closes weighs everything after it, a closing one without an
/// opening one is a letter like others.
pub fn weighted(text: &str) -> Vec<Piece> {
    let mut reader = Reader::default();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'\\' => reader.escape(rest),
            b'(' => Reader::open(&mut reader.round, reader.pieces.len()),
            b'[' => Reader::open(&mut reader.square, reader.pieces.len()),
            b':' => reader.colon(rest),
            b')' => reader.close(")"),
            b']' => reader.close("]"),
            _ => reader.words(rest),
        };
        rest = &rest[length..];
    }
    reader.finish()
}

/// Every function that reads gives the bytes that it has read; all that has a meaning is ASCII.
#[derive(Default)]
struct Reader {
    pieces: Vec<Piece>,
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Reader {
    fn open(brackets: &mut Vec<usize>, at: usize) -> usize {
        brackets.push(at);
        1
    }

    /// A backslash before a bracket or a backslash makes it a letter; before anything else it vanishes.
    fn escape(&mut self, rest: &str) -> usize {
        match rest.as_bytes().get(1) {
            Some(b'(' | b')' | b'[' | b']' | b'\\') => {
                self.push(&rest[1..2]);
                2
            }
            _ => {
                self.push("");
                1
            }
        }
    }

    /// `:1.3)` closes a bracket with a weight, if one is open.
    fn colon(&mut self, rest: &str) -> usize {
        let inside = rest[1..].bytes().take_while(|b| matches!(b, b'+' | b'-' | b'.' | b'0'..=b'9')).count();
        let weight = rest[1..=inside].parse::<f64>().ok().filter(|w| w.is_finite());
        match (weight, rest.as_bytes().get(inside + 1)) {
            (Some(weight), Some(b')')) if !self.round.is_empty() => {
                let from = self.round.pop().unwrap_or_default();
                self.multiply(from, weight);
                inside + 2
            }
            _ => {
                self.push(":");
                1
            }
        }
    }

    fn close(&mut self, bracket: &str) -> usize {
        let (open, factor) =
            if bracket == ")" { (self.round.pop(), STEP) } else { (self.square.pop(), 1.0 / STEP) };
        match open {
            Some(from) => self.multiply(from, factor),
            None => self.push(bracket),
        }
        1
    }

    fn words(&mut self, rest: &str) -> usize {
        let length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
        let parts = split_word(&rest[..length], "BREAK");
        let last = parts.len() - 1;
        for (i, part) in parts.iter().enumerate() {
            let part = if i > 0 { part.trim_start() } else { part };
            let part = if i < last { part.trim_end() } else { part };
            if i > 0 {
                self.pieces.push(Piece::Break);
            }
            self.push(part);
        }
        length
    }

    fn push(&mut self, text: &str) {
        self.pieces.push(Piece::Text(text.to_string(), 1.0));
    }

    fn multiply(&mut self, from: usize, factor: f64) {
        for piece in &mut self.pieces[from..] {
            if let Piece::Text(_, weight) = piece {
                *weight *= factor;
            }
        }
    }

    fn finish(mut self) -> Vec<Piece> {
        for (brackets, factor) in
            [(std::mem::take(&mut self.round), STEP), (std::mem::take(&mut self.square), 1.0 / STEP)]
        {
            for from in brackets {
                self.multiply(from, factor);
            }
        }
        let mut out: Vec<Piece> = Vec::new();
        for piece in self.pieces {
            match (out.last_mut(), piece) {
                (Some(Piece::Text(before, a)), Piece::Text(text, b)) if *a == b => before.push_str(&text),
                (_, piece) => out.push(piece),
            }
        }
        if out.is_empty() {
            out.push(Piece::Text(String::new(), 1.0));
        }
        out
    }
}

/// One of the prompts that `AND` joins.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its text.
    pub text: String,
    /// How much it counts.
    pub weight: f64,
}

/// The prompts that `AND` joins, each with the weight behind its last colon, or 1.
///
/// Without an `AND` the text is one prompt of weight 1 whatever it ends with: `a poster, 16:9` is about a ratio.
pub fn parts(text: &str) -> Vec<Part> {
    let parts = split_word(text, "AND");
    if parts.len() == 1 {
        return vec![Part { text: text.to_string(), weight: 1.0 }];
    }
    parts.into_iter().map(part).collect()
}

fn part(text: &str) -> Part {
    let weighed = text.trim_end().rsplit_once(':').and_then(|(text, weight)| {
        let weight = weight.trim_start();
        let digits = weight.strip_prefix(['+', '-']).unwrap_or(weight);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b == b'.' || b.is_ascii_digit());
        let weight = weight.parse::<f64>().ok().filter(|w| plain && w.is_finite())?;
        Some(Part { text: text.trim_end().to_string(), weight })
    });
    weighed.unwrap_or_else(|| Part { text: text.trim_end().to_string(), weight: 1.0 })
}

/// Splits at a word that stands alone: letters, digits and `_` beside it make it part of another.
fn split_word<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = Vec::new();
    let mut begin = 0;
    for (at, found) in text.match_indices(word) {
        let before = text[..at].chars().next_back().is_some_and(part_of_word);
        let after = text[at + found.len()..].chars().next().is_some_and(part_of_word);
        if !before && !after {
            out.push(&text[begin..at]);
            begin = at + found.len();
        }
    }
    out.push(&text[begin..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, f64)> {
        let show = |p| match p {
            Piece::Text(text, weight) => (text, weight),
            Piece::Break => ("BREAK".into(), -1.0),
        };
        weighted(text).into_iter().map(show).collect()
    }

    fn assert_reads(text: &str, expected: &[(&str, f64)]) {
        let found = read(text);
        let same = found.len() == expected.len()
            && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-12);
        assert!(same, "{text}: {found:?}, expected {expected:?}");
    }

    /// The examples of A1111's own parser.
    #[test]
    fn brackets_weigh_as_in_a1111() {
        assert_reads("normal text", &[("normal text", 1.0)]);
        assert_reads("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]);
        assert_reads("(unbalanced", &[("unbalanced", 1.1)]);
        assert_reads(r"\(literal\]", &[("(literal]", 1.0)]);
        assert_reads("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]);
        assert_reads(
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            &[
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        );
    }

    #[test]
    fn nested_weights_multiply() {
        assert_reads("((x:1.2):1.5)", &[("x", 1.8)]);
        assert_reads("[[x]]", &[("x", 1.0 / 1.21)]);
        assert_reads("(a (b:2) c:3)", &[("a ", 3.0), ("b", 6.0), (" c", 3.0)]);
        assert_reads("(x:-.5)", &[("x", -0.5)]);
        assert_reads("(x:+2.)", &[("x", 2.0)]);
    }

    #[test]
    fn a_weight_of_one_leaves_no_trace() {
        assert_reads("a (red:1.0) shoe: large", &[("a red shoe: large", 1.0)]);
    }

    #[test]
    fn escapes_make_brackets_letters() {
        assert_reads(r"\(a\) \[b\] \\", &[(r"(a) [b] \", 1.0)]);
        assert_reads(r"(a\):2)", &[("a)", 2.0)]);
        assert_reads(r"a\b\", &[("ab", 1.0)]);
    }

    #[test]
    fn closing_brackets_and_weights_of_nothing_are_letters() {
        assert_reads("a) b]", &[("a) b]", 1.0)]);
        assert_reads("a:1.3)", &[("a:1.3)", 1.0)]);
        assert_reads("(a:1.2.3)", &[("a:1.2.3", 1.1)]);
        assert_reads("(a:b)", &[("a:b", 1.1)]);
        assert_reads("", &[("", 1.0)]);
    }

    #[test]
    fn break_parts_the_text_wherever_it_stands_alone() {
        assert_reads("a BREAK b", &[("a", 1.0), ("BREAK", -1.0), ("b", 1.0)]);
        assert_reads("(a BREAK b:2)", &[("a", 2.0), ("BREAK", -1.0), ("b", 2.0)]);
        assert_reads("BREAKFAST aBREAK BREAK_", &[("BREAKFAST aBREAK BREAK_", 1.0)]);
        assert_reads("BREAK", &[("", 1.0), ("BREAK", -1.0), ("", 1.0)]);
    }

    #[test]
    fn and_joins_prompts_with_weights() {
        let read = |text| parts(text).into_iter().map(|p| (p.text, p.weight)).collect::<Vec<_>>();
        let expect = |list: &[(&str, f64)]| list.iter().map(|(t, w)| (t.to_string(), *w)).collect::<Vec<_>>();
        assert_eq!(read("a cat AND a dog:0.7"), expect(&[("a cat", 1.0), (" a dog", 0.7)]));
        assert_eq!(read("a : -1.5 AND b AND (c:2)"), expect(&[("a", -1.5), (" b", 1.0), (" (c:2)", 1.0)]));
        assert_eq!(read("a poster, 16:9"), expect(&[("a poster, 16:9", 1.0)]));
        assert_eq!(read("SAND ANDROID and AND_"), expect(&[("SAND ANDROID and AND_", 1.0)]));
        assert_eq!(read("a:inf AND b:1e9"), expect(&[("a:inf", 1.0), (" b:1e9", 1.0)]));
    }
}
