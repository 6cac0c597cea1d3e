//! A figure as SVG: text stays text, pictures are inside.

use super::{Anchor, Colour, Drawing, Shape};
use crate::images::png_file;
use atelier_sdk::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

/// Text safe inside of markup.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in XML at all.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn hex(c: Colour) -> String {
    format!("#{:02x}{:02x}{:02x}", c[0], c[1], c[2])
}

/// The figure as an SVG document.
///
/// # Errors
/// Those of the PNG encoder.
pub fn write(drawing: &Drawing) -> Result<String> {
    let (w, h) = (drawing.width, drawing.height);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\" \
         font-family=\"Roboto, Helvetica, Arial, sans-serif\">\n<title>{}</title>\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n",
        escape(&drawing.title)
    );
    for shape in &drawing.shapes {
        // Writing to a string cannot fail.
        let _ = match shape {
            Shape::Rect { x, y, w, h, fill, edge } => {
                let edge = edge.map_or(String::new(), |e| format!(" stroke=\"{}\"", hex(e)));
                writeln!(
                    out,
                    "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{w:.2}\" height=\"{h:.2}\" fill=\"{}\"{edge}/>",
                    hex(*fill)
                )
            }
            Shape::Text { x, y, size, bold, anchor, fill, text } => {
                let anchor = match anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor=\"middle\"",
                    Anchor::End => " text-anchor=\"end\"",
                };
                let weight = if *bold { " font-weight=\"500\"" } else { "" };
                let (fill, text) = (hex(*fill), escape(text));
                writeln!(
                    out,
                    "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size}\"{weight}{anchor} fill=\"{fill}\">{text}</text>"
                )
            }
            Shape::Picture { x, y, w, h, picture } => {
                let data = STANDARD.encode(png_file::encode(picture, None)?);
                writeln!(
                    out,
                    "<image x=\"{x:.2}\" y=\"{y:.2}\" width=\"{w:.2}\" height=\"{h:.2}\" href=\"data:image/png;base64,{data}\"/>"
                )
            }
        };
    }
    out.push_str("</svg>\n");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Style;

    #[test]
    fn text_cannot_break_out_of_the_markup() {
        let mut d = Drawing::new(10.0, 10.0, "a </title><script>");
        d.text(1.0, 2.0, Style::new(8.0), "<b> & \"c\"\u{1}");
        let svg = write(&d).unwrap();
        assert!(svg.contains("&lt;b&gt; &amp; &quot;c&quot; </text>") && !svg.contains("<script>"), "{svg}");
    }
}
