//! Photos side by side.

use super::{Drawing, RULE, SOFT, Shape, Style, charts, colours, font};
use crate::images::Rgb;
use std::sync::Arc;

/// A photo of a grid.
#[derive(Debug, Clone)]
pub struct Tile {
    /// What stands below it.
    pub label: String,
    /// Small.
    pub picture: Arc<Rgb>,
}

const MARGIN: f32 = 18.0;
const GAP: f32 = 6.0;

/// Photos in rows of `columns`.
pub fn grid(title: &str, note: &str, tiles: &[Tile], columns: usize, side: f32) -> Drawing {
    let caption = 15.0;
    let rows = tiles.len().div_ceil(columns.max(1));
    let cell = side + GAP;
    let width = 2.0 * MARGIN + columns as f32 * cell - GAP;
    let mut d = Drawing::new(width, 58.0 + rows as f32 * (cell + caption) + 8.0, title);
    head(&mut d, title, note);
    for (i, tile) in tiles.iter().enumerate() {
        let (x, y) = (MARGIN + (i % columns) as f32 * cell, 58.0 + (i / columns) as f32 * (cell + caption));
        place(&mut d, x, y, side, tile);
        d.text(x, y + side + 11.0, Style::new(9.0).fill(SOFT), font::cut(&tile.label, 9.0, false, side));
    }
    d
}

/// A row of photos for each name, with its swatch and count.
pub fn rows(
    title: &str,
    note: &str,
    rows: &[(String, usize, Vec<Tile>)],
    columns: usize,
    side: f32,
) -> Drawing {
    let (left, cell) = (MARGIN + 150.0, side + GAP);
    let mut d = Drawing::new(
        left + columns as f32 * cell + MARGIN,
        62.0 + rows.len() as f32 * (cell + 4.0) + 8.0,
        title,
    );
    head(&mut d, title, note);
    for (r, (name, count, tiles)) in rows.iter().enumerate() {
        let y = 62.0 + r as f32 * (cell + 4.0);
        let swatch = colours::swatch(name);
        let stripe = 22.0 / swatch.len().max(1) as f32;
        for (i, fill) in swatch.iter().enumerate() {
            let edge = (swatch.len() == 1).then_some([173, 181, 189]);
            d.shapes.push(Shape::Rect {
                x: MARGIN + stripe * i as f32,
                y: y + side / 2.0 - 11.0,
                w: stripe,
                h: 22.0,
                fill: *fill,
                edge,
            });
        }
        d.text(
            MARGIN + 30.0,
            y + side / 2.0 - 1.0,
            Style::new(12.0).bold(),
            font::cut(name, 12.0, true, 115.0),
        );
        d.text(MARGIN + 30.0, y + side / 2.0 + 13.0, Style::new(10.5).fill(SOFT), charts::thousands(*count));
        for (i, tile) in tiles.iter().take(columns).enumerate() {
            place(&mut d, left + i as f32 * cell, y, side, tile);
        }
    }
    d
}

fn head(d: &mut Drawing, title: &str, note: &str) {
    let room = d.width - 2.0 * MARGIN;
    d.text(MARGIN, 26.0, Style::new(17.0).bold(), font::cut(title, 17.0, true, room));
    d.text(MARGIN, 44.0, Style::new(11.5).fill(SOFT), font::cut(note, 11.5, false, room));
}

/// A photo as large as it fits, with a hairline around its square.
fn place(d: &mut Drawing, x: f32, y: f32, side: f32, tile: &Tile) {
    d.shapes.push(Shape::Rect { x, y, w: side, h: side, fill: [255; 3], edge: Some(RULE) });
    let (w, h) = (tile.picture.width as f32, tile.picture.height as f32);
    let scale = (side - 2.0) / w.max(h);
    let (w, h) = (w * scale, h * scale);
    d.shapes.push(Shape::Picture {
        x: x + (side - w) / 2.0,
        y: y + (side - h) / 2.0,
        w,
        h,
        picture: tile.picture.clone(),
    });
}
