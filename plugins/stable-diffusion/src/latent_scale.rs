//! Enlarging of latents, as torch's `interpolate` does it with corners not aligned.

/// How values between latents are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The latent whose area it lies in.
    Nearest,
    /// Linear between two.
    Bilinear,
    /// The same over wider surroundings where an image shrinks; at the edges what is outside does not count.
    Antialiased,
    /// Cubic convolution over four (Keys 1981) with a = -0.75.
    Bicubic,
}

/// The parts of an axis of `from` values that make value `i` of `to`: index and weight.
fn taps(filter: Filter, i: usize, from: usize, to: usize) -> Vec<(usize, f64)> {
    let scale = from as f64 / to as f64;
    let centre = (i as f64 + 0.5) * scale - 0.5;
    let inside = |j: i64| usize::try_from(j.max(0)).unwrap_or(0).min(from - 1);
    let around = |centre: f64, reach: i64, weight: &dyn Fn(f64) -> f64| {
        let first = centre.floor() as i64 - reach + 1;
        let tap = |j: i64| (inside(j), weight((j as f64 - centre).abs()));
        (first..first + 2 * reach).map(tap).collect()
    };
    let hat = |d: f64| (1.0 - d).max(0.0);
    match filter {
        Filter::Nearest => vec![(((i as f64 * scale) as usize).min(from - 1), 1.0)],
        Filter::Bilinear => around(centre.max(0.0), 1, &hat),
        Filter::Bicubic => around(centre, 2, &|d| cubic(d, -0.75)),
        Filter::Antialiased => {
            let reach = scale.max(1.0);
            let near = |j: &usize| (*j as f64 - centre).abs() < reach;
            let weight = |j: usize| (j, hat((j as f64 - centre).abs() / reach));
            let taps: Vec<_> = (0..from).filter(near).map(weight).collect();
            let all: f64 = taps.iter().map(|t| t.1).sum();
            taps.into_iter().map(|(j, w)| (j, w / all)).collect()
        }
    }
}

fn cubic(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

/// `x` of shape (1, channels, height, width) at another height and width.
pub fn resized(x: &[f32], [_, channels, h, w]: [usize; 4], to: (usize, usize), filter: Filter) -> Vec<f32> {
    let rows: Vec<_> = (0..to.0).map(|i| taps(filter, i, h, to.0)).collect();
    let columns: Vec<_> = (0..to.1).map(|i| taps(filter, i, w, to.1)).collect();
    let mut out = Vec::with_capacity(channels * to.0 * to.1);
    for plane in x.chunks_exact(h * w) {
        for row in &rows {
            for column in &columns {
                let line = |y: usize| -> f64 {
                    column.iter().map(|(x, weight)| weight * f64::from(plane[y * w + x])).sum()
                };
                out.push(row.iter().map(|(y, weight)| weight * line(*y)).sum::<f64>() as f32);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch 2.15, `torch.nn.functional.interpolate` to (3, 5).
    #[test]
    fn latents_are_enlarged_as_torch_does_it() {
        let x = [1.0, -2.0, 3.0, 0.5, 4.0, -1.0];
        for (filter, expected) in [
            (
                Filter::Nearest,
                [1.0, 1.0, -2.0, -2.0, 3.0, 1.0, 1.0, -2.0, -2.0, 3.0, 0.5, 0.5, 4.0, 4.0, -1.0],
            ),
            (
                Filter::Bilinear,
                [1.0, -0.2, -2.0, 1.000001, 3.0, 0.75, 0.85, 1.0, 1.0, 1.0, 0.5, 1.9, 4.0, 0.999999, -1.0],
            ),
            (
                Filter::Bicubic,
                [
                    1.38557, -0.762021, -2.520834, 0.813793, 3.910557, 0.726, 0.847, 1.0, 1.018, 1.0,
                    0.066431, 2.45602, 4.520833, 1.222208, -1.910555,
                ],
            ),
            (
                Filter::Antialiased,
                [1.0, -0.2, -2.0, 1.000001, 3.0, 0.75, 0.85, 1.0, 1.0, 1.0, 0.5, 1.9, 4.0, 0.999999, -1.0],
            ),
        ] {
            let found = resized(&x, [1, 1, 2, 3], (3, 5), filter);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{filter:?}: {found:?}");
        }
    }

    #[test]
    fn each_channel_is_enlarged_by_itself() {
        let x = [1.0, 1.0, 5.0, 5.0];
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Antialiased, Filter::Bicubic] {
            let found = resized(&x, [1, 2, 1, 2], (2, 4), filter);
            assert!(found.iter().enumerate().all(|(i, v)| (v - if i < 8 { 1.0 } else { 5.0 }).abs() < 1e-6));
        }
    }
}
