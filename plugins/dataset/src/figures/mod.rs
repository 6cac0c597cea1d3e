//! Figures: a list of shapes, written as SVG or drawn as PNG.

pub mod canvas;
pub mod charts;
pub mod colours;
pub mod font;
pub mod grids;
pub mod raster;
pub mod svg;

use crate::images::Rgb;
use std::sync::Arc;

/// A colour.
pub type Colour = [u8; 3];

/// Text.
pub const INK: Colour = [33, 37, 41];
/// Text of less weight.
pub const SOFT: Colour = [108, 117, 125];
/// Lines of a scale.
pub const RULE: Colour = [222, 226, 230];
/// Bars.
pub const BAR: Colour = [66, 110, 180];
/// Paper.
pub const PAPER: Colour = [255; 3];

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A shape; lengths are in points, from the top left.
#[derive(Debug, Clone)]
pub enum Shape {
    Rect {
        x: f32,
        y: f32,
        w: f32,
        h: f32,
        fill: Colour,
        edge: Option<Colour>,
    },
    /// `y` is the base line.
    Text {
        x: f32,
        y: f32,
        size: f32,
        bold: bool,
        anchor: Anchor,
        fill: Colour,
        text: String,
    },
    Picture {
        x: f32,
        y: f32,
        w: f32,
        h: f32,
        picture: Arc<Rgb>,
    },
}

/// A figure.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// Width in points.
    pub width: f32,
    /// Height in points.
    pub height: f32,
    /// From the back to the front.
    pub shapes: Vec<Shape>,
    /// What it shows, in words: for those who cannot see it.
    pub title: String,
}

impl Drawing {
    /// An empty figure.
    pub fn new(width: f32, height: f32, title: &str) -> Self {
        Self { width, height, shapes: Vec::new(), title: title.into() }
    }

    /// Adds a filled rectangle.
    pub fn rect(&mut self, x: f32, y: f32, w: f32, h: f32, fill: Colour) {
        self.shapes.push(Shape::Rect { x, y, w, h, fill, edge: None });
    }

    /// Adds a text.
    pub fn text(&mut self, x: f32, y: f32, style: Style, text: impl Into<String>) {
        let Style { size, bold, anchor, fill } = style;
        self.shapes.push(Shape::Text { x, y, size, bold, anchor, fill, text: text.into() });
    }

    /// Puts a figure into this one.
    pub fn place(&mut self, left: f32, top: f32, other: &Drawing) {
        self.shapes.extend(other.shapes.iter().cloned().map(|mut s| {
            let (Shape::Rect { x, y, .. } | Shape::Text { x, y, .. } | Shape::Picture { x, y, .. }) = &mut s;
            (*x, *y) = (*x + left, *y + top);
            s
        }));
    }
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub size: f32,
    pub bold: bool,
    pub anchor: Anchor,
    pub fill: Colour,
}

impl Style {
    /// Plain text.
    pub fn new(size: f32) -> Self {
        Self { size, bold: false, anchor: Anchor::Start, fill: INK }
    }
    /// Heavier.
    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }
    /// Of another colour.
    pub fn fill(self, fill: Colour) -> Self {
        Self { fill, ..self }
    }
    /// Standing elsewhere.
    pub fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}
