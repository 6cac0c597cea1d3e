//! Draws products: polygons of curves, filled with anti-aliasing, on the backgrounds that shops use.

use super::records::{self, Product, Shape};
use crate::figures::colours::swatch;
use crate::images::Rgb;
use atelier_sdk::rng::Mt19937;

/// Size of a photo.
const SIZE: (u32, u32) = (360, 480);
/// Sub-rows of a pixel.
const FINE: usize = 4;

type Point = (f32, f32);

/// A number from `low` to `high`.
fn between(rng: &mut Mt19937, low: f32, high: f32) -> f32 {
    low + (high - low) * (rng.next_u32() >> 8) as f32 / 16_777_216.0
}

/// The photo of a product.
pub fn product(p: &Product, seed: u64) -> Rgb {
    let mut rng = records::rng(seed ^ 0x5eed, p.id);
    let mut image = backdrop(&mut rng, p.id);
    let base = swatch(p.colour).first().copied().unwrap_or([170, 160, 150]);
    let colour = base.map(|c| (f32::from(c) + between(&mut rng, -14.0, 14.0)).clamp(8.0, 236.0) as u8);
    let view = View::new(&mut rng);
    match p.shape {
        Shape::Tshirt => tshirt(&mut image, &view, colour, &mut rng),
        shoe => self::shoe(&mut image, &view, shoe, colour, &mut rng),
    }
    image
}

/// Mostly white; some grey gradients, some grey.
fn backdrop(rng: &mut Mt19937, id: usize) -> Rgb {
    let (w, h) = SIZE;
    let mut image = Rgb::plain(w, h, [255; 3]);
    let (top, bottom) = match id % 12 {
        3 => (232.0, 178.0),
        7 => (226.0, 226.0),
        _ => (255.0, between(rng, 250.0, 255.0)),
    };
    for (y, row) in image.data.chunks_exact_mut(3 * w as usize).enumerate() {
        row.fill((top + (bottom - top) * y as f32 / h as f32) as u8);
    }
    image
}

/// Where a product stands: unit coordinates to pixels.
struct View {
    scale: f32,
    left: f32,
    top: f32,
    flip: bool,
    stretch: f32,
}

impl View {
    fn new(rng: &mut Mt19937) -> Self {
        let (w, h) = (SIZE.0 as f32, SIZE.1 as f32);
        let scale = w * between(rng, 0.68, 0.92);
        let stretch = between(rng, 0.85, 1.2);
        let left = (w - scale) / 2.0 + w * between(rng, -0.03, 0.03);
        let top = h * between(rng, 0.40, 0.52) - 0.3 * scale * stretch;
        Self { scale, left, top, flip: rng.next_u32().is_multiple_of(2), stretch }
    }

    fn of(&self, (x, y): Point) -> Point {
        let x = if self.flip { 1.0 - x } else { x };
        (self.left + x * self.scale, self.top + y * self.scale * self.stretch)
    }

    fn fill(&self, image: &mut Rgb, points: &[Point], colour: [u8; 3]) {
        let points: Vec<Point> = smooth(points).into_iter().map(|p| self.of(p)).collect();
        polygon(image, &points, colour);
    }

    fn sharp(&self, image: &mut Rgb, points: &[Point], colour: [u8; 3]) {
        let points: Vec<Point> = points.iter().map(|p| self.of(*p)).collect();
        polygon(image, &points, colour);
    }
}

/// A closed curve through points (Catmull and Rom 1974).
fn smooth(points: &[Point]) -> Vec<Point> {
    let n = points.len();
    let mut out = Vec::with_capacity(8 * n);
    for i in 0..n {
        let [a, b, c, d] = [points[(i + n - 1) % n], points[i], points[(i + 1) % n], points[(i + 2) % n]];
        for step in 0..8 {
            let t = step as f32 / 8.0;
            let at = |a: f32, b: f32, c: f32, d: f32| {
                0.5 * (2.0 * b
                    + (c - a) * t
                    + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t
                    + (3.0 * b - a - 3.0 * c + d) * t * t * t)
            };
            out.push((at(a.0, b.0, c.0, d.0), at(a.1, b.1, c.1, d.1)));
        }
    }
    out
}

/// Fills a polygon by the even-odd rule; the share of a pixel that it covers is exact along x, sampled along y.
fn polygon(image: &mut Rgb, points: &[Point], colour: [u8; 3]) {
    let (w, h) = (image.width as usize, image.height as usize);
    let mut cover = vec![0.0f32; w];
    for y in 0..h {
        cover.fill(0.0);
        for fine in 0..FINE {
            let line = y as f32 + (fine as f32 + 0.5) / FINE as f32;
            let mut cuts: Vec<f32> = points
                .iter()
                .zip(points.iter().cycle().skip(1))
                .filter(|(a, b)| (a.1 <= line) != (b.1 <= line))
                .map(|(a, b)| a.0 + (line - a.1) / (b.1 - a.1) * (b.0 - a.0))
                .collect();
            cuts.sort_by(f32::total_cmp);
            for pair in cuts.chunks_exact(2) {
                let (from, to) = (pair[0].clamp(0.0, w as f32), pair[1].clamp(0.0, w as f32));
                for (x, c) in cover.iter_mut().enumerate().take(to.ceil() as usize).skip(from as usize) {
                    *c += (to.min(x as f32 + 1.0) - from.max(x as f32)).max(0.0) / FINE as f32;
                }
            }
        }
        for (x, c) in cover.iter().enumerate().filter(|c| *c.1 > 0.0) {
            let at = (y * w + x) * 3;
            for (v, new) in image.data[at..at + 3].iter_mut().zip(colour) {
                *v = (f32::from(*v) + (f32::from(new) - f32::from(*v)) * c.min(1.0)).round() as u8;
            }
        }
    }
}

fn shaded(colour: [u8; 3], by: f32) -> [u8; 3] {
    colour.map(|c| (f32::from(c) * by).clamp(0.0, 255.0) as u8)
}

fn shoe(image: &mut Rgb, view: &View, shape: Shape, colour: [u8; 3], rng: &mut Mt19937) {
    let collar = match shape {
        Shape::HighTop => between(rng, -0.02, 0.04),
        Shape::Loafer => between(rng, 0.26, 0.31),
        _ => between(rng, 0.16, 0.23),
    };
    let sole = between(rng, 0.03, 0.09);
    let toe = between(rng, 0.30, 0.37);
    let light = if rng.next_u32().is_multiple_of(3) { shaded(colour, 0.5) } else { [238, 236, 230] };
    let upper = [
        (0.05, 0.50),
        (0.04, collar + 0.12),
        (0.08, collar),
        (0.20, collar + 0.05),
        (0.34, collar + 0.03),
        (0.46, collar + 0.09),
        (0.66, toe - 0.03),
        (0.86, toe + 0.05),
        (0.97, 0.44),
        (0.96, 0.51),
        (0.5, 0.52),
    ];
    view.fill(image, &upper, colour);
    view.fill(
        image,
        &[(0.08, collar + 0.01), (0.20, collar + 0.05), (0.33, collar + 0.03), (0.21, collar + 0.09)],
        shaded(colour, 0.45),
    );
    let cap = between(rng, 0.74, 0.84);
    view.fill(
        image,
        &[(cap, toe + 0.02), (0.90, toe + 0.07), (0.97, 0.44), (0.96, 0.50), (cap - 0.02, 0.50)],
        shaded(colour, 1.18),
    );
    let stripes = rng.next_u32() % 4;
    for i in 0..stripes {
        let x = 0.36 + 0.07 * i as f32 + between(rng, -0.01, 0.01);
        view.sharp(image, &[(x, 0.36), (x + 0.03, 0.36), (x + 0.09, 0.49), (x + 0.06, 0.49)], light);
    }
    if shape != Shape::Loafer {
        for i in 0..4 {
            let (x, y) = (0.42 + 0.055 * i as f32, collar + 0.08 + (toe - collar - 0.09) * i as f32 / 4.0);
            view.sharp(
                image,
                &[(x - 0.03, y + 0.05), (x - 0.02, y + 0.07), (x + 0.05, y + 0.015), (x + 0.04, y)],
                [245; 3],
            );
        }
    }
    view.fill(
        image,
        &[
            (0.03, 0.50),
            (0.5, 0.505),
            (0.97, 0.49),
            (0.985, 0.50 + sole),
            (0.5, 0.51 + sole),
            (0.03, 0.51 + sole),
        ],
        light,
    );
    view.sharp(
        image,
        &[(0.04, 0.505 + sole), (0.97, 0.50 + sole), (0.96, 0.515 + sole), (0.05, 0.52 + sole)],
        [52, 48, 46],
    );
}

fn tshirt(image: &mut Rgb, view: &View, colour: [u8; 3], rng: &mut Mt19937) {
    let sleeve = between(rng, 0.26, 0.40);
    let long = between(rng, 0.72, 0.90);
    let body = [
        (0.36, 0.0),
        (0.22, 0.05),
        (0.02, sleeve),
        (0.14, sleeve + 0.09),
        (0.24, sleeve - 0.04),
        (0.25, long),
        (0.75, long),
        (0.76, sleeve - 0.04),
        (0.86, sleeve + 0.09),
        (0.98, sleeve),
        (0.78, 0.05),
        (0.64, 0.0),
        (0.5, 0.06),
    ];
    view.sharp(image, &body, colour);
    view.fill(image, &[(0.37, 0.0), (0.5, 0.05), (0.63, 0.0), (0.5, 0.085)], shaded(colour, 0.6));
    for i in 0..rng.next_u32() % 4 {
        let y = 0.30 + 0.10 * i as f32 + between(rng, 0.0, 0.03);
        view.sharp(image, &[(0.25, y), (0.75, y), (0.75, y + 0.035), (0.25, y + 0.035)], shaded(colour, 1.5));
    }
}
