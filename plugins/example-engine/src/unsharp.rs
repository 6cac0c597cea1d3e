//! Unsharp masking: an image is sharper by a share of what a blur takes from it.
//!
//! The blur is a Gaussian, which is separable: every row is blurred along itself once, then each row of the
//! result is a weighted sum of such rows. Of these only as many are kept as the sum needs, so the work is in place.

use atelier_sdk::{Error, ErrorKind, Image, PixelFormat, Result};

/// Sharpens an image: `v + amount (v - blur(v))` for every colour value, in sRGB as it is. Alpha stays.
///
/// `radius` is the standard deviation of the blur in pixels. `row_done` hears how many rows are done.
///
/// # Errors
/// A pixel format that is not known here, or the error of `row_done`, which ends the work.
pub fn sharpen(
    image: &mut Image,
    amount: f64,
    radius: f64,
    mut row_done: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut blur = Blur::new(image, radius)?;
    let (stride, alpha, amount) = (blur.stride, blur.alpha, amount as f32);
    for y in 0..image.height() as usize {
        let blurred = blur.row(y, image);
        let row = &mut image.data_mut()[y * stride..][..stride];
        if alpha {
            sharpen_rgba(row, blurred, amount);
        } else {
            row.iter_mut().zip(blurred).for_each(|(v, b)| *v = apart(*v, *b, amount));
        }
        row_done(y + 1)?;
    }
    Ok(())
}

/// One value away from its blurred self; the conversion to a byte saturates.
fn apart(value: u8, blurred: f32, amount: f32) -> u8 {
    let value = f32::from(value);
    (value + amount * (value - blurred) + 0.5) as u8
}

fn sharpen_rgba(row: &mut [u8], blurred: &[f32], amount: f32) {
    for (pixel, sums) in row.chunks_exact_mut(4).zip(blurred.chunks_exact(4)) {
        // Where the pixel itself is transparent there may be no alpha at all to divide by.
        if pixel[3] > 0 {
            (0..3).for_each(|c| pixel[c] = apart(pixel[c], sums[c] / sums[3], amount));
        }
    }
}

/// A Gaussian's weights: of the centre, then of the distances 1, 2, ... on either side; together they are 1.
fn gaussian(radius: f64) -> Vec<f32> {
    // Beyond three standard deviations lie 0.3 % of it.
    let reach = (3.0 * radius).ceil().max(1.0) as usize;
    let weights: Vec<f64> = (0..=reach).map(|i| (-0.5 * (i as f64 / radius).powi(2)).exp()).collect();
    let total = 2.0 * weights.iter().sum::<f64>() - weights[0];
    weights.iter().map(|w| (w / total) as f32).collect()
}

/// The blurred rows of an image, from the top.
struct Blur {
    weights: Vec<f32>,
    /// Bytes, and so values, of a row and of a pixel.
    stride: usize,
    step: usize,
    height: usize,
    alpha: bool,
    /// Rows blurred along themselves; row `y` is in slot `y % rows.len()`.
    rows: Vec<Vec<f32>>,
    /// The next row to be blurred along itself.
    next: usize,
    /// A row of the image with its ends repeated.
    padded: Vec<f32>,
    out: Vec<f32>,
}

impl Blur {
    fn new(image: &Image, radius: f64) -> Result<Self> {
        let alpha = match image.format() {
            PixelFormat::Gray8 | PixelFormat::Rgb8 => false,
            PixelFormat::Rgba8 => true,
            other => {
                let what = format!("images of format {other:?} cannot be sharpened");
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        };
        let (weights, step) = (gaussian(radius), image.format().bytes());
        let (stride, height) = (image.width() as usize * step, image.height() as usize);
        let reach = weights.len() - 1;
        let rows = vec![vec![0.0; stride]; (2 * reach + 1).min(height)];
        let padded = vec![0.0; stride + 2 * reach * step];
        Ok(Self { weights, stride, step, height, alpha, rows, next: 0, padded, out: vec![0.0; stride] })
    }

    fn reach(&self) -> usize {
        self.weights.len() - 1
    }

    /// Row `y`, blurred both ways. Rows are asked for in order, and of the image none from `y` on has changed.
    fn row(&mut self, y: usize, image: &Image) -> &[f32] {
        let last = self.height - 1;
        while self.next <= last.min(y + self.reach()) {
            self.blur_along(image);
        }
        let row = |y: usize| &self.rows[y % self.rows.len()];
        scale(&mut self.out, self.weights[0], row(y));
        for (i, w) in self.weights.iter().enumerate().skip(1) {
            add(&mut self.out, *w, row(y.saturating_sub(i)), row(last.min(y + i)));
        }
        &self.out
    }

    /// Blurs the next row of the image along itself.
    fn blur_along(&mut self, image: &Image) {
        let margin = self.reach() * self.step;
        let source = &image.data()[self.next * self.stride..][..self.stride];
        read(source, self.alpha, &mut self.padded[margin..][..self.stride]);
        repeat_ends(&mut self.padded, margin, self.step);
        let slot = self.next % self.rows.len();
        let (out, padded) = (&mut self.rows[slot], &self.padded);
        scale(out, self.weights[0], &padded[margin..]);
        for (i, w) in self.weights.iter().enumerate().skip(1) {
            add(out, *w, &padded[margin - i * self.step..], &padded[margin + i * self.step..]);
        }
        self.next += 1;
    }
}

/// Bytes as floats. Colour counts as much as it covers, or what is hidden under transparent pixels would show.
fn read(source: &[u8], alpha: bool, out: &mut [f32]) {
    out.iter_mut().zip(source).for_each(|(o, s)| *o = f32::from(*s));
    if alpha {
        out.chunks_exact_mut(4).for_each(|p| (0..3).for_each(|c| p[c] *= p[3]));
    }
}

/// Fills the margins of a row with its first and its last pixel.
fn repeat_ends(padded: &mut [f32], margin: usize, step: usize) {
    let end = padded.len() - margin;
    for at in (0..margin).step_by(step) {
        padded.copy_within(margin..margin + step, at);
        padded.copy_within(end - step..end, end + at);
    }
}

/// `out <- w a`
fn scale(out: &mut [f32], w: f32, a: &[f32]) {
    out.iter_mut().zip(a).for_each(|(o, a)| *o = w * a);
}

/// `out <- out + w (a + b)`
fn add(out: &mut [f32], w: f32, a: &[f32], b: &[f32]) {
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o += w * (a + b));
}

#[cfg(test)]
mod tests {
    use super::*;
    use PixelFormat::{Gray8, Rgb8, Rgba8};

    /// An image of noise.
    fn noise(width: u32, height: u32, format: PixelFormat) -> Image {
        let bytes = width as usize * height as usize * format.bytes();
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        Image::new(width, height, format, (0..bytes).map(|_| byte()).collect()).unwrap()
    }

    fn sharpened(image: &Image, amount: f64, radius: f64) -> Image {
        let mut out = image.clone();
        sharpen(&mut out, amount, radius, |_| Ok(())).unwrap();
        out
    }

    /// One value by the two-dimensional definition.
    fn by_definition(image: &Image, x: i64, y: i64, c: usize, amount: f64, radius: f64) -> f64 {
        let (w, h, step) = (i64::from(image.width()), i64::from(image.height()), image.format().bytes());
        let reach = (3.0 * radius).ceil() as i64;
        let at = |x: i64, y: i64, c: usize| {
            let pixel = y.clamp(0, h - 1) * w + x.clamp(0, w - 1);
            f64::from(image.data()[pixel as usize * step + c])
        };
        let (mut sum, mut total) = (0.0, 0.0);
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let cover = if image.format() == Rgba8 { at(x + dx, y + dy, 3) } else { 1.0 };
                let weight = cover * (-0.5 * ((dx * dx + dy * dy) as f64) / radius.powi(2)).exp();
                sum += weight * at(x + dx, y + dy, c);
                total += weight;
            }
        }
        (at(x, y, c) + amount * (at(x, y, c) - sum / total)).clamp(0.0, 255.0)
    }

    #[test]
    fn every_value_is_what_the_definition_says() {
        for format in [Gray8, Rgb8, Rgba8] {
            for (width, height, radius) in [(9, 7, 0.8), (1, 1, 2.0), (1, 6, 1.0), (5, 1, 3.0), (4, 3, 5.0)] {
                for amount in [-1.0, 0.7] {
                    let image = noise(width, height, format);
                    let out = sharpened(&image, amount, radius);
                    for (i, v) in out.data().iter().enumerate() {
                        let (pixel, c) = ((i / format.bytes()) as i64, i % format.bytes());
                        let (x, y) = (pixel % i64::from(width), pixel / i64::from(width));
                        let expected = match c {
                            3 => f64::from(image.data()[i]),
                            c => by_definition(&image, x, y, c, amount, radius),
                        };
                        assert!(
                            (f64::from(*v) - expected).abs() < 0.51,
                            "{format:?} {x} {y} {c}: {v} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn no_amount_and_a_flat_image_change_nothing() {
        for format in [Gray8, Rgb8, Rgba8] {
            let image = noise(20, 10, format);
            assert_eq!(sharpened(&image, 0.0, 2.0), image);
            let flat = Image::new(20, 10, format, vec![77; 200 * format.bytes()]).unwrap();
            assert_eq!(sharpened(&flat, 5.0, 2.0), flat);
        }
    }

    #[test]
    fn what_is_hidden_under_transparent_pixels_does_not_show() {
        let (grey, hidden) = ([90, 90, 90, 255], [255, 0, 0, 0]);
        let data: Vec<u8> = (0..36).flat_map(|i| if i % 6 < 3 { grey } else { hidden }).collect();
        let image = Image::new(6, 6, Rgba8, data).unwrap();
        assert_eq!(sharpened(&image, 3.0, 1.5), image);
    }

    #[test]
    fn an_edge_gains_contrast() {
        let data: Vec<u8> = (0..64).map(|i| if i % 8 < 4 { 100 } else { 150 }).collect();
        let out = sharpened(&Image::new(8, 8, Gray8, data).unwrap(), 1.0, 1.0);
        assert!(out.data()[3] < 100 && out.data()[4] > 150, "{:?}", &out.data()[..8]);
    }

    #[test]
    fn rows_are_reported_and_a_refusal_ends_the_work() {
        let mut rows = Vec::new();
        let mut image = noise(3, 4, Rgb8);
        let end = sharpen(&mut image, 1.0, 1.0, |done| {
            rows.push(done);
            if done == 3 { Err(Error::cancelled()) } else { Ok(()) }
        });
        assert_eq!((end.unwrap_err().kind(), rows), (ErrorKind::Cancelled, vec![1, 2, 3]));
    }
}
