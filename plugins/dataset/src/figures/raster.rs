//! A figure as pixels.

use super::canvas::{Canvas, Indexed, LEVELS};
use super::{Anchor, Colour, Drawing, PAPER, Shape, font};
use crate::images::{Rgb, png_file, resize};
use atelier_sdk::Result;

/// A figure as a PNG of so many pixels a point.
///
/// # Errors
/// Those of resizing pictures and of the encoder.
pub fn png(drawing: &Drawing, scale: f32) -> Result<Vec<u8>> {
    let (width, height) = (pixels(drawing.width, scale), pixels(drawing.height, scale));
    if !drawing.shapes.iter().any(|shape| matches!(shape, Shape::Picture { .. })) {
        let mut image = Indexed::paper(width, height);
        draw(drawing, scale, &mut image)?;
        if let Some(image) = image.whole() {
            return png_file::encode_indexed(&image);
        }
    }
    let mut image = Rgb::plain(width, height, PAPER);
    draw(drawing, scale, &mut image)?;
    png_file::encode_drawing(&image)
}

/// Pixels of a length, at least one.
fn pixels(points: f32, scale: f32) -> u32 {
    ((points * scale).round() as u32).max(1)
}

fn draw(drawing: &Drawing, scale: f32, image: &mut impl Canvas) -> Result<()> {
    for shape in &drawing.shapes {
        match shape {
            Shape::Rect { x, y, w, h, fill, edge } => {
                let at = [x * scale, y * scale, w * scale, h * scale];
                match edge {
                    None => rect(image, at, *fill),
                    Some(edge) => {
                        let [x, y, w, h] = at;
                        rect(image, at, *edge);
                        let t = scale.min(w / 2.0).min(h / 2.0);
                        rect(image, [x + t, y + t, w - 2.0 * t, h - 2.0 * t], *fill);
                    }
                }
            }
            Shape::Text { x, y, size, bold, anchor, fill, text } => {
                let width = font::width(text, size * scale, *bold);
                let left = match anchor {
                    Anchor::Start => x * scale,
                    Anchor::Middle => x * scale - width / 2.0,
                    Anchor::End => x * scale - width,
                };
                // On whole pixels letters are sharper.
                letters(image, text, left.round(), (y * scale).round(), size * scale, *bold, *fill);
            }
            Shape::Picture { x, y, w, h, picture } => {
                let small = resize::lanczos(picture, pixels(*w, scale), pixels(*h, scale))?;
                image.paste(&small, (x * scale).round() as i64, (y * scale).round() as i64);
            }
        }
    }
    Ok(())
}

/// A rectangle on whole pixels, which is sharper; one that is there at all has at least one.
fn rect(image: &mut impl Canvas, [x, y, w, h]: [f32; 4], fill: Colour) {
    if w <= 0.0 || h <= 0.0 {
        return;
    }
    let ends = |from: f32, length: f32| {
        let first = from.round() as i64;
        (first, ((from + length).round() as i64).max(first + 1))
    };
    let ((left, right), (top, bottom)) = (ends(x, w), ends(y, h));
    (top..bottom).for_each(|y| image.fill(y, left, right, fill));
}

fn letters(image: &mut impl Canvas, text: &str, x: f32, y: f32, size: f32, bold: bool, fill: Colour) {
    for glyph in font::outlines(text, x, y, size, bold) {
        let bounds = glyph.px_bounds();
        let (left, top) = (bounds.min.x as i64, bounds.min.y as i64);
        glyph.draw(|dx, dy, cover| {
            let level = (cover.clamp(0.0, 1.0) * f32::from(LEVELS) + 0.5) as u8;
            if level > 0 {
                image.mix(left + i64::from(dx), top + i64::from(dy), fill, level);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Style;
    use crate::images::load;

    #[test]
    fn shapes_are_where_they_were_put() {
        let mut d = Drawing::new(20.0, 10.0, "t");
        d.rect(2.0, 2.0, 4.5, 4.0, [0, 0, 0]);
        d.text(19.0, 9.0, Style::new(8.0).anchor(Anchor::End), "I");
        let png = png(&d, 2.0).unwrap();
        let image = load::decode(&png, 1.0).unwrap().pixels;
        assert_eq!((image.width, image.height), (40, 20));
        assert_eq!(
            (image.at(3, 4), image.at(4, 4), image.at(12, 11), image.at(13, 4)),
            (PAPER, [0; 3], [0; 3], PAPER)
        );
        assert!((30..40).any(|x| image.at(x, 14)[0] < 128));
    }

    #[test]
    fn a_figure_of_few_colours_looks_as_with_many() {
        let mut d = Drawing::new(60.0, 30.0, "t");
        d.rect(1.2, 1.0, 30.7, 12.0, [66, 110, 180]);
        d.text(3.0, 11.0, Style::new(11.0), "Sizes");
        d.text(30.0, 25.0, Style::new(9.0).bold().anchor(Anchor::Middle), "and more");
        let mut whole = Rgb::plain(120, 60, PAPER);
        draw(&d, 2.0, &mut whole).unwrap();
        assert_eq!(load::decode(&png(&d, 2.0).unwrap(), 1.0).unwrap().pixels, whole);
    }
}
