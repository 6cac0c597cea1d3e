//! A figure as pixels.

use super::{Anchor, Colour, Drawing, PAPER, Shape, font};
use crate::images::{Rgb, resize};
use atelier_sdk::Result;

/// Draws a figure at so many pixels a point.
///
/// # Errors
/// Those of resizing pictures.
pub fn draw(drawing: &Drawing, scale: f32) -> Result<Rgb> {
    let size = |v: f32| ((v * scale).round() as u32).max(1);
    let mut image = Rgb::plain(size(drawing.width), size(drawing.height), PAPER);
    for shape in &drawing.shapes {
        match shape {
            Shape::Rect { x, y, w, h, fill, edge } => {
                let at = [x * scale, y * scale, w * scale, h * scale];
                match edge {
                    None => rect(&mut image, at, *fill),
                    Some(edge) => {
                        let [x, y, w, h] = at;
                        rect(&mut image, at, *edge);
                        let t = scale.min(w / 2.0).min(h / 2.0);
                        rect(&mut image, [x + t, y + t, w - 2.0 * t, h - 2.0 * t], *fill);
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
                letters(&mut image, text, left.round(), (y * scale).round(), size * scale, *bold, *fill);
            }
            Shape::Picture { x, y, w, h, picture } => {
                let small = resize::lanczos(picture, size(*w), size(*h))?;
                paste(&mut image, &small, (x * scale).round() as i64, (y * scale).round() as i64);
            }
        }
    }
    Ok(image)
}

fn blend(image: &mut Rgb, x: i64, y: i64, colour: Colour, cover: f32) {
    if x < 0 || y < 0 || x >= i64::from(image.width) || y >= i64::from(image.height) {
        return;
    }
    let at = (y as usize * image.width as usize + x as usize) * 3;
    for (p, c) in image.data[at..at + 3].iter_mut().zip(colour) {
        *p = (f32::from(*p) + (f32::from(c) - f32::from(*p)) * cover.clamp(0.0, 1.0)).round() as u8;
    }
}

/// The pixels of a row from `from` to before `to`, as far as there are such.
fn run(image: &mut Rgb, y: i64, (from, to): (i64, i64)) -> &mut [u8] {
    let (w, h) = (i64::from(image.width), i64::from(image.height));
    let (from, to) = (from.clamp(0, w), to.clamp(0, w));
    if y < 0 || y >= h || from >= to {
        return &mut [];
    }
    &mut image.data[(y * w + from) as usize * 3..(y * w + to) as usize * 3]
}

/// A rectangle whose edges cover pixels by the share that they cover.
fn rect(image: &mut Rgb, [x, y, w, h]: [f32; 4], fill: Colour) {
    let cover = |from: f32, to: f32, at: i64| (to.min(at as f32 + 1.0) - from.max(at as f32)).clamp(0.0, 1.0);
    let (first, last) = (x.floor() as i64, (x + w).ceil() as i64);
    // Wholly covered, in rows that are.
    let (from, to) = (x.ceil() as i64, ((x + w).floor() as i64).max(x.ceil() as i64));
    for py in y.floor() as i64..(y + h).ceil() as i64 {
        let cy = cover(y, y + h, py);
        let (from, to) = if cy >= 1.0 { (from, to) } else { (last, last) };
        run(image, py, (from, to)).as_chunks_mut::<3>().0.fill(fill);
        for px in (first..from.min(last)).chain(to..last) {
            blend(image, px, py, fill, cy * cover(x, x + w, px));
        }
    }
}

fn letters(image: &mut Rgb, text: &str, x: f32, y: f32, size: f32, bold: bool, fill: Colour) {
    for glyph in font::outlines(text, x, y, size, bold) {
        let bounds = glyph.px_bounds();
        let (left, top) = (bounds.min.x as i64, bounds.min.y as i64);
        glyph.draw(|dx, dy, cover| blend(image, left + i64::from(dx), top + i64::from(dy), fill, cover));
    }
}

fn paste(image: &mut Rgb, other: &Rgb, left: i64, top: i64) {
    let skipped = (-left).max(0) as usize * 3;
    for (y, row) in (top..).zip(other.data.chunks_exact(other.width as usize * 3)) {
        let place = run(image, y, (left, left + i64::from(other.width)));
        place.iter_mut().zip(&row[skipped.min(row.len())..]).for_each(|(p, v)| *p = *v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Style;

    #[test]
    fn shapes_are_where_they_were_put() {
        let mut d = Drawing::new(20.0, 10.0, "t");
        d.rect(2.0, 2.0, 4.5, 4.0, [0, 0, 0]);
        d.text(19.0, 9.0, Style::new(8.0).anchor(Anchor::End), "I");
        let image = draw(&d, 2.0).unwrap();
        assert_eq!((image.width, image.height), (40, 20));
        assert_eq!(
            (image.at(3, 4), image.at(4, 4), image.at(12, 11), image.at(13, 4)),
            (PAPER, [0; 3], [0; 3], PAPER)
        );
        assert!((30..40).any(|x| image.at(x, 14)[0] < 128));
    }
}
