//! Variations of an image: another image's noise mixed into its own.

use crate::params::Txt2Img;
use atelier_sdk::rng::{NormalRng, RngKind};

/// The seeds of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seeds {
    /// Of the noise.
    pub seed: i64,
    /// Of the noise that is mixed in.
    pub subseed: i64,
    /// How much of it: 0 none, 1 nothing else.
    pub strength: f64,
}

impl Seeds {
    /// The seeds of image `i` of a request: with variations one counts up, without the other, as A1111 does.
    pub fn of(params: &Txt2Img, i: u32) -> Self {
        let (strength, i) = (params.subseed_strength, i64::from(i));
        let varied = strength > 0.0;
        Self {
            seed: params.seed.wrapping_add(if varied { 0 } else { i }),
            subseed: params.subseed.wrapping_add(if varied { i } else { 0 }),
            strength,
        }
    }

    /// Mixes the second noise into `noise` of this shape.
    pub fn vary(&self, noise: &mut [f32], shape: [usize; 4], rng: RngKind) {
        if self.strength <= 0.0 {
            return;
        }
        let mut other = vec![0f32; noise.len()];
        NormalRng::new(rng, self.subseed as u64).fill_normal(&mut other);
        slerp(noise, &other, self.strength, shape);
    }
}

/// Spherical interpolation from `a` to `b`, in place, for each column of each channel by itself; along a line where
/// the directions are nearly the same.
///
/// Source: A1111's variations, whose angles are those between the columns.
fn slerp(a: &mut [f32], b: &[f32], t: f64, [_, _, height, width]: [usize; 4]) {
    let plane = height * width;
    let columns = || (0..a.len() / plane).flat_map(|c| (0..width).map(move |x| c * plane + x));
    let dot = |p: &[f32], q: &[f32], start: usize| -> f64 {
        (0..height).map(|y| f64::from(p[start + y * width]) * f64::from(q[start + y * width])).sum()
    };
    let cosine = |start: usize| {
        let norms = (dot(a, a, start) * dot(b, b, start)).sqrt();
        if norms > 0.0 { (dot(a, b, start) / norms).clamp(-1.0, 1.0) } else { 1.0 }
    };
    let cosines: Vec<(usize, f64)> = columns().map(|start| (start, cosine(start))).collect();
    let mean = cosines.iter().map(|c| c.1).sum::<f64>() / cosines.len().max(1) as f64;
    for (start, cosine) in cosines {
        let (omega, sine) = (cosine.acos(), (1.0 - cosine * cosine).sqrt());
        let (wa, wb) = match mean > 0.9995 || sine < 1e-9 {
            true => (1.0 - t, t),
            false => (((1.0 - t) * omega).sin() / sine, (t * omega).sin() / sine),
        };
        for y in 0..height {
            let i = start + y * width;
            a[i] = (wa * f64::from(a[i]) + wb * f64::from(b[i])) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [1, 4, 8, 6];

    fn noise(seed: u64) -> Vec<f32> {
        let mut x = vec![0f32; SHAPE.iter().product()];
        NormalRng::new(RngKind::Cpu, seed).fill_normal(&mut x);
        x
    }

    #[test]
    fn no_strength_changes_nothing_and_full_strength_is_the_other_noise() {
        let seeds = |strength| Seeds { seed: 1, subseed: 2, strength };
        let mut x = noise(1);
        seeds(0.0).vary(&mut x, SHAPE, RngKind::Cpu);
        assert_eq!(x, noise(1));
        seeds(1.0).vary(&mut x, SHAPE, RngKind::Cpu);
        assert!(x.iter().zip(noise(2)).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn what_is_between_keeps_the_spread_of_noise() {
        for strength in [0.1, 0.5, 0.9] {
            let mut x = vec![0f32; 4 * 64 * 64];
            NormalRng::new(RngKind::Cpu, 1).fill_normal(&mut x);
            Seeds { seed: 1, subseed: 2, strength }.vary(&mut x, [1, 4, 64, 64], RngKind::Cpu);
            let variance = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
            assert!((variance - 1.0).abs() < 0.05, "{strength}: {variance}");
        }
    }

    #[test]
    fn the_same_noise_twice_is_that_noise() {
        let mut x = noise(3);
        slerp(&mut x, &noise(3), 0.4, SHAPE);
        assert!(x.iter().zip(noise(3)).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn with_variations_the_seed_stays_and_the_subseed_counts() {
        let params =
            |strength| Txt2Img { seed: 10, subseed: 20, subseed_strength: strength, ..Txt2Img::default() };
        assert_eq!(Seeds::of(&params(0.0), 3), Seeds { seed: 13, subseed: 20, strength: 0.0 });
        assert_eq!(Seeds::of(&params(0.2), 3), Seeds { seed: 10, subseed: 23, strength: 0.2 });
    }
}
