//! Letters: how wide a text is, and its pixels.

use ab_glyph::{Font, FontRef, Glyph, OutlinedGlyph, PxScale, ScaleFont, point};
use std::sync::OnceLock;

static REGULAR: &[u8] = include_bytes!("../../assets/Roboto-Regular.ttf");
static MEDIUM: &[u8] = include_bytes!("../../assets/Roboto-Medium.ttf");

/// The built-in font; none if it were damaged, which a test rules out.
fn font(bold: bool) -> Option<&'static FontRef<'static>> {
    static FONTS: [OnceLock<Option<FontRef<'static>>>; 2] = [const { OnceLock::new() }; 2];
    let bytes = if bold { MEDIUM } else { REGULAR };
    FONTS[usize::from(bold)].get_or_init(|| FontRef::try_from_slice(bytes).ok()).as_ref()
}

/// A scale at which `size` means the em, as in CSS.
fn scale(font: &FontRef<'_>, size: f32) -> PxScale {
    let em = font.units_per_em().unwrap_or(2048.0);
    PxScale::from(size * font.height_unscaled() / em)
}

/// The width of a text.
pub fn width(text: &str, size: f32, bold: bool) -> f32 {
    let Some(font) = font(bold) else { return text.chars().count() as f32 * size * 0.5 };
    let scaled = font.as_scaled(scale(font, size));
    text.chars().map(|c| scaled.h_advance(font.glyph_id(c))).sum()
}

/// A text cut to a width, with an ellipsis if it was.
pub fn cut(text: &str, size: f32, bold: bool, room: f32) -> String {
    if width(text, size, bold) <= room {
        return text.to_string();
    }
    let mut short: String = text.to_string();
    while !short.is_empty() && width(&short, size, bold) + width("…", size, bold) > room {
        short.pop();
    }
    format!("{}…", short.trim_end())
}

/// The outlines of a text whose base line begins at a point.
pub fn outlines(text: &str, x: f32, y: f32, size: f32, bold: bool) -> Vec<OutlinedGlyph> {
    let Some(font) = font(bold) else { return Vec::new() };
    let scale = scale(font, size);
    let scaled = font.as_scaled(scale);
    let mut at = x;
    let glyphs = text.chars().filter_map(|c| {
        let id = font.glyph_id(c);
        let glyph = Glyph { id, scale, position: point(at, y) };
        at += scaled.h_advance(id);
        font.outline_glyph(glyph)
    });
    glyphs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fonts_are_whole_and_have_the_letters_of_our_locales() {
        for bold in [false, true] {
            let font = font(bold).unwrap();
            for c in "AZaz09 ,.%()[]+-×…–ãçéôüñßÉ€₹≥≤•".chars() {
                assert!(font.glyph_id(c).0 != 0, "{c}");
            }
        }
        assert!((width("0000", 10.0, false) / 4.0 - 5.6).abs() < 0.2);
        assert_eq!(cut("short", 10.0, false, 100.0), "short");
        assert!(cut("a rather long label", 10.0, false, 40.0).ends_with('…'));
    }
}
