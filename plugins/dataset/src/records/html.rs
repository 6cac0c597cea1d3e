//! Text out of markup: shops store descriptions as HTML, and now and then a name.

use std::borrow::Cow;

/// Elements whose content is no text.
const SILENT: [&str; 2] = ["script", "style"];

/// Whether a text holds markup: a tag or an entity.
pub fn is_markup(text: &str) -> bool {
    text.char_indices().any(|(i, c)| match c {
        '<' => tag_at(text, i).is_some(),
        '&' => entity(&text[i..]).is_some(),
        _ => false,
    })
}

/// The text without tags and comments, with entities resolved and white space collapsed. What only looks like
/// markup (`a < b`, `AT&T`) stays.
pub fn clean(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text.trim());
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c == '<'
            && let Some(end) = tag_at(text, at)
        {
            // Words on both sides of a tag are two words, except where it only marks up letters of one.
            if !is_inline(&text[at..end]) {
                space(&mut out);
            }
            at = end;
        } else if c == '&'
            && let Some((resolved, length)) = entity(&text[at..])
        {
            push(&mut out, resolved);
            at += length;
        } else {
            push(&mut out, c);
            at += c.len_utf8();
        }
    }
    out.truncate(out.trim_end().len());
    Cow::Owned(out)
}

/// Whether there is nothing to clean, as in nearly every cell of a table: looked at by bytes, since there are many, and
/// without an early end, which lets the compiler look at many at once.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    // 0xc2 begins a space that does not break, and little else.
    let marked = |b: u8| u8::from(b == b'<') | u8::from(b == b'&') | u8::from(b < b' ') | u8::from(b == 0xc2);
    let both = |a: u8, b: u8| u8::from(a == b' ') & u8::from(b == b' ');
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    pairs.fold(0, |found, (a, b)| found | both(*a, *b)) | bytes.iter().fold(0, |found, b| found | marked(*b)) == 0
}

fn is_inline(tag: &str) -> bool {
    let name = tag.trim_start_matches(['<', '/']).trim_end_matches('>');
    ["b", "i", "em", "strong", "sup", "sub", "u"].contains(&name)
}

fn push(out: &mut String, c: char) {
    match c.is_whitespace() || c.is_control() || c == '\u{ad}' {
        true => space(out),
        false => out.push(c),
    }
}

fn space(out: &mut String) {
    if !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
}

/// The end of the tag, comment or silent element whose `<` is at `at`, if it is one.
fn tag_at(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at + 1..];
    if rest.starts_with("!--") {
        return Some(rest.find("-->").map_or(text.len(), |i| at + 1 + i + 3));
    }
    let first = rest.chars().next()?;
    if !(first.is_ascii_alphabetic() || first == '/' || first == '!') {
        return None;
    }
    let end = at + 1 + rest.find('>')? + 1;
    let name: String =
        rest.chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if SILENT.contains(&name.as_str()) {
        let close = format!("</{name}");
        let lower = text[end..].to_ascii_lowercase();
        let after = lower.find(&close).map_or(text.len(), |i| end + i);
        return Some(text[after..].find('>').map_or(text.len(), |i| after + i + 1));
    }
    Some(end)
}

/// The character of an entity at the start of `text`, and the entity's length.
fn entity(text: &str) -> Option<(char, usize)> {
    // The longest known name has 8 letters.
    let end = text.bytes().take(12).position(|b| b == b';')?;
    let name = text.get(1..end)?;
    let c = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
        None => named(name)?,
    };
    Some((c, end + 1))
}

fn named(name: &str) -> Option<char> {
    const NAMES: [(&str, char); 26] = [
        ("amp", '&'),
        ("lt", '<'),
        ("gt", '>'),
        ("quot", '"'),
        ("apos", '\''),
        ("nbsp", ' '),
        ("rsquo", '’'),
        ("lsquo", '‘'),
        ("rdquo", '”'),
        ("ldquo", '“'),
        ("ndash", '–'),
        ("mdash", '—'),
        ("hellip", '…'),
        ("bull", '•'),
        ("middot", '·'),
        ("trade", '™'),
        ("reg", '®'),
        ("copy", '©'),
        ("deg", '°'),
        ("eacute", 'é'),
        ("egrave", 'è'),
        ("agrave", 'à'),
        ("frac12", '½'),
        ("times", '×'),
        ("acute", '´'),
        ("shy", '\u{ad}'),
    ];
    NAMES.iter().find(|n| n.0 == name).map(|n| n.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_the_text_that_a_reader_sees() {
        for (html, text) in [
            (
                "<p style=\"a: b\">Look <b>tr</b>endy<br>in&nbsp;these</p>\n<ul><li>a</li><li>b</li></ul>",
                "Look trendy in these a b",
            ),
            ("<style>p { color: red }</style>Canvas<!-- <b> no -->upper", "Canvas upper"),
            ("plain", "plain"),
            ("AT&T, a < b && c; R&#38;D &eacute;t&#xe9; &bogus;", "AT&T, a < b && c; R&D été &bogus;"),
            ("<script>alert(1)</script>", ""),
            ("cut <a href='x", "cut <a href='x"),
            ("  two  spaces ", "two spaces"),
        ] {
            assert_eq!(clean(html), text, "{html}");
        }
    }

    #[test]
    fn markup_is_told_from_signs() {
        assert!(is_markup("a <b>c</b>") && is_markup("a &amp; b") && is_markup("x<br/>"));
        assert!(!is_markup("a < b") && !is_markup("AT&T") && !is_markup("plain"));
    }
}
