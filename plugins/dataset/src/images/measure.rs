//! What can be said about a photo without a network: size, background, sharpness, where the product is, and what it
//! looks like at a glance.

use super::Rgb;
use serde::{Deserialize, Serialize};

/// The version of the measures: what was measured by another one is measured anew.
pub const VERSION: u32 = 1;
/// Difference of a channel from the background's, of 255, up to which a pixel is background.
const NEAR: u8 = 12;
/// ... above which it is product.
const FAR: u8 = 28;
/// Share of the border that has to be of one colour.
const CLEAN: f64 = 0.9;
/// A channel at least this bright, all three, is white.
const WHITE: u8 = 240;
/// Cells of a side in which colours are kept.
const GRID: usize = 12;
/// Mean difference of neighbours on the border up to which the border is smooth.
const SMOOTH: f64 = 3.0;

/// What surrounds the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// One colour, white.
    White,
    /// One other colour.
    Plain,
    /// Smooth, of changing brightness.
    Gradient,
    /// Anything else: a scene, a product that reaches the border.
    Busy,
}

impl Background {
    /// All, cleanest first.
    pub const ALL: [Self; 4] = [Self::White, Self::Plain, Self::Gradient, Self::Busy];

    /// A word.
    pub fn name(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Plain => "plain",
            Self::Gradient => "gradient",
            Self::Busy => "busy",
        }
    }
}

/// The measures of a photo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `jpeg`, ...
    pub format: String,
    /// What surrounds the product.
    pub background: Background,
    /// Median colour of the border.
    pub border: [u8; 3],
    /// Share of the border that is of that colour.
    pub clean: f64,
    /// Variance of the Laplacian of the brightness (Pech-Pacheco et al. 2000), at the photo's own size.
    pub sharpness: f64,
    /// The box around what is not background: left, top, right, bottom, as shares of the photo; none if all is.
    pub product: Option<[f32; 4]>,
    /// Difference hash of 16x16 cells, 256 bits.
    pub hash: [u64; 4],
    /// Mean colours of [`GRID`] x [`GRID`] cells.
    #[serde(with = "as_base64")]
    pub colours: Vec<u8>,
}

impl Measures {
    /// The background in words; empty if it is not of one colour.
    pub fn background_words(&self) -> &'static str {
        let [r, g, b] = self.border;
        let (low, high) = (r.min(g).min(b), r.max(g).max(b));
        match self.background {
            Background::White => "white",
            // What has hardly a hue is grey.
            Background::Plain if high - low > 24 => "plain",
            Background::Plain if low >= 160 => "light grey",
            Background::Plain if low >= 64 => "grey",
            Background::Plain => "black",
            Background::Gradient if high - low <= 24 && low >= 160 => "light grey",
            Background::Gradient | Background::Busy => "",
        }
    }
}

/// Bytes as text, which is shorter than numbers.
mod as_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Measures a photo.
pub fn measure(image: &Rgb, format: &str) -> Measures {
    let (border, clean, background) = background(image);
    let luma = luma(image);
    Measures {
        width: image.width,
        height: image.height,
        format: format.into(),
        background,
        border,
        clean,
        sharpness: sharpness(&luma, image.width as usize, image.height as usize),
        product: product_box(image, border),
        hash: difference_hash(&luma, image.width as usize, image.height as usize),
        colours: cells(&image.data, 3, image.width as usize, image.height as usize, GRID, GRID),
    }
}

/// Rec. 601 brightness.
fn luma(image: &Rgb) -> Vec<u8> {
    let of =
        |p: &[u8]| ((u32::from(p[0]) * 77 + u32::from(p[1]) * 150 + u32::from(p[2]) * 29 + 128) >> 8) as u8;
    image.data.chunks_exact(3).map(of).collect()
}

/// The pixels of the outermost ring, in order around the image.
fn ring(image: &Rgb) -> Vec<[u8; 3]> {
    let (w, h) = (image.width, image.height);
    let top = (0..w).map(|x| (x, 0));
    let right = (1..h).map(|y| (w - 1, y));
    let bottom = (0..w.saturating_sub(1)).rev().filter(|_| h > 1).map(|x| (x, h - 1));
    let left = (1..h.saturating_sub(1)).rev().filter(|_| w > 1).map(|y| (0, y));
    top.chain(right).chain(bottom).chain(left).map(|(x, y)| image.at(x, y)).collect()
}

fn distance(a: [u8; 3], b: [u8; 3]) -> u8 {
    (0..3).map(|c| a[c].abs_diff(b[c])).max().unwrap_or(0)
}

/// Median colour of the border, the share that has it, and what sort of background that is.
pub fn background(image: &Rgb) -> ([u8; 3], f64, Background) {
    let ring = ring(image);
    let mut median = [0; 3];
    for (c, m) in median.iter_mut().enumerate() {
        let mut channel: Vec<u8> = ring.iter().map(|p| p[c]).collect();
        let middle = channel.len() / 2;
        *m = *channel.select_nth_unstable(middle).1;
    }
    let near = ring.iter().filter(|p| distance(**p, median) <= NEAR).count();
    let clean = near as f64 / ring.len() as f64;
    let neighbours = ring.iter().zip(ring.iter().cycle().skip(1));
    let rough: u64 = neighbours.map(|(a, b)| u64::from(distance(*a, *b))).sum();
    let kind = if clean >= CLEAN {
        if median.iter().all(|c| *c >= WHITE) { Background::White } else { Background::Plain }
    } else if rough as f64 / ring.len() as f64 <= SMOOTH {
        Background::Gradient
    } else {
        Background::Busy
    };
    (median, clean, kind)
}

fn sharpness(luma: &[u8], w: usize, h: usize) -> f64 {
    if w < 3 || h < 3 {
        return 0.0;
    }
    let (mut sum, mut squares) = (0i64, 0i64);
    for y in 1..h - 1 {
        let (up, here, down) =
            (&luma[(y - 1) * w..y * w], &luma[y * w..(y + 1) * w], &luma[(y + 1) * w..(y + 2) * w]);
        // A row at a time in 32 bits: at most 1020 a pixel, whose square times 2^14 would overflow.
        for x in 1..w - 1 {
            let v = i32::from(up[x]) + i32::from(down[x]) + i32::from(here[x - 1]) + i32::from(here[x + 1])
                - 4 * i32::from(here[x]);
            sum += i64::from(v);
            squares += i64::from(v * v);
        }
    }
    let n = ((w - 2) * (h - 2)) as f64;
    squares as f64 / n - (sum as f64 / n).powi(2)
}

/// Where an image differs from its border: left, top, right, bottom as shares of its size.
pub fn product_box(image: &Rgb, border: [u8; 3]) -> Option<[f32; 4]> {
    let (w, h) = (image.width as usize, image.height as usize);
    let (mut left, mut right, mut top, mut bottom) = (w, 0, h, 0);
    for (y, row) in image.data.chunks_exact(3 * w).enumerate() {
        let is_product = |p: &[u8]| distance([p[0], p[1], p[2]], border) > FAR;
        let Some(first) = row.chunks_exact(3).position(is_product) else { continue };
        let last = row.chunks_exact(3).rposition(is_product).unwrap_or(first);
        (left, right) = (left.min(first), right.max(last + 1));
        (top, bottom) = (top.min(y), y + 1);
    }
    let share = |v: usize, of: usize| v as f32 / of as f32;
    (right > 0).then(|| [share(left, w), share(top, h), share(right, w), share(bottom, h)])
}

/// Mean values of `columns` x `rows` cells.
fn cells(data: &[u8], step: usize, w: usize, h: usize, columns: usize, rows: usize) -> Vec<u8> {
    let edge = |i: usize, n: usize, length: usize| i * length / n;
    let mut out = Vec::with_capacity(columns * rows * step);
    for r in 0..rows {
        // Every cell has a pixel, also where there are fewer pixels than cells.
        let (y0, y1) = (edge(r, rows, h), edge(r + 1, rows, h).max(edge(r, rows, h) + 1));
        for c in 0..columns {
            let (x0, x1) = (edge(c, columns, w), edge(c + 1, columns, w).max(edge(c, columns, w) + 1));
            let mut sums = [0u64; 3];
            for y in y0..y1 {
                for p in data[(y * w + x0) * step..(y * w + x1) * step].chunks_exact(step) {
                    p.iter().zip(&mut sums).for_each(|(v, s)| *s += u64::from(*v));
                }
            }
            let n = ((y1 - y0) * (x1 - x0)) as u64;
            out.extend(sums[..step].iter().map(|s| ((s + n / 2) / n) as u8));
        }
    }
    out
}

/// Whether each cell is darker than its right neighbour, as bits. 17x16 cells.
fn difference_hash(luma: &[u8], w: usize, h: usize) -> [u64; 4] {
    let cells = cells(luma, 1, w, h, 17, 16);
    let mut hash = [0u64; 4];
    for (y, row) in cells.chunks_exact(17).enumerate() {
        for x in 0..16 {
            // Not for the noise of a plain background: it would be another hash each time it is compressed.
            let darker = row[x + 1] > row[x].saturating_add(2);
            hash[y / 4] |= u64::from(darker) << (y % 4 * 16 + x);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dark box on a background.
    fn scene(w: u32, h: u32, back: impl Fn(u32, u32) -> u8) -> Rgb {
        let mut image = Rgb::plain(w, h, [0; 3]);
        for (i, p) in image.data.chunks_exact_mut(3).enumerate() {
            let (x, y) = (i as u32 % w, i as u32 / w);
            let inside = (w / 4..w * 3 / 4).contains(&x) && (h / 2..h * 3 / 4).contains(&y);
            p.fill(if inside { 20 } else { back(x, y) });
        }
        image
    }

    #[test]
    fn backgrounds_are_told_apart() {
        let kind = |f: &dyn Fn(u32, u32) -> u8| background(&scene(60, 80, f)).2;
        assert_eq!(kind(&|_, _| 253), Background::White);
        assert_eq!(kind(&|_, _| 200), Background::Plain);
        assert_eq!(kind(&|_, y| 255 - y as u8), Background::Gradient);
        assert_eq!(kind(&|x, y| ((x * 97 + y * 31) % 200) as u8), Background::Busy);
        for (w, h) in [(1, 1), (1, 5), (4, 1), (2, 2)] {
            assert_eq!(background(&Rgb::plain(w, h, [255; 3])), ([255; 3], 1.0, Background::White));
        }
    }

    #[test]
    fn the_product_is_where_it_was_drawn() {
        let m = measure(&scene(80, 40, |_, _| 255), "png");
        assert_eq!(m.product, Some([0.25, 0.5, 0.75, 0.75]));
        assert_eq!(measure(&Rgb::plain(5, 5, [7; 3]), "png").product, None);
    }

    #[test]
    fn sharpness_is_the_variance_of_the_laplacian() {
        // One bright pixel: the Laplacian is -400 there, 100 at its four neighbours, 0 at the other 20 of 25.
        let mut image = Rgb::plain(7, 7, [0; 3]);
        image.data[(3 * 7 + 3) * 3..][..3].fill(100);
        let expected: f64 = (400.0 * 400.0 + 4.0 * 100.0 * 100.0) / 25.0;
        assert!((measure(&image, "png").sharpness - expected).abs() < 1e-9);
        assert_eq!(measure(&Rgb::plain(2, 2, [9; 3]), "png").sharpness, 0.0);
    }

    #[test]
    fn the_same_picture_has_the_same_hash_at_another_size() {
        let bits = |a: [u64; 4], b: [u64; 4]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        let hash = |w, h| measure(&scene(w, h, |x, _| 200 - (x * 60 / w) as u8), "png").hash;
        assert!(bits(hash(160, 160), hash(320, 320)) <= 6);
        let other = measure(&scene(160, 160, |x, _| 100 + (x / 2) as u8), "png").hash;
        assert!(bits(hash(160, 160), other) > 40);
    }
}
