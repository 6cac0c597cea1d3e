//! The random decisions for one sample.

use super::{Draws, Error, Lane};

/// The timestep of a sample, evenly from a half-open range.
///
/// # Errors
/// An empty range.
pub fn draw_timestep(draws: &mut Draws, range: std::ops::Range<usize>) -> Result<usize, Error> {
    if range.is_empty() {
        return Err(Error::Empty);
    }
    Ok(range.start + draws.below(range.len() as u64) as usize)
}

/// Whether the sample of this number goes without its caption.
pub fn caption_is_dropped(seed: u64, sample: u64, probability: f64) -> bool {
    Draws::new(seed, sample, Lane::CaptionDropout).chance(probability)
}

/// The noise of the sample of this number, of `channels` planes, into `out`; with an `offset` above 0 also shifted by
/// [`offset_noise`].
///
/// # Errors
/// A length that is no multiple of the number of channels.
pub fn draw_noise(
    seed: u64,
    sample: u64,
    channels: usize,
    offset: f64,
    out: &mut [f32],
) -> Result<(), Error> {
    Draws::new(seed, sample, Lane::Noise).fill_normal(out);
    if offset > 0.0 {
        offset_noise(&mut Draws::new(seed, sample, Lane::NoiseOffset), channels, offset, out)?;
    }
    Ok(())
}

/// Shifts each channel of the noise of one image by a normal number times `offset`: what lets a model learn images
/// that are darker or brighter as a whole (Guttenberg 2023, "Diffusion with offset noise").
///
/// # Errors
/// A length that is no multiple of the number of channels.
pub fn offset_noise(draws: &mut Draws, channels: usize, offset: f64, noise: &mut [f32]) -> Result<(), Error> {
    if channels == 0 || !noise.len().is_multiple_of(channels) {
        return Err(Error::Shape { what: "noise", expected: channels, got: noise.len() });
    }
    let mut shifts = vec![0.0; channels];
    draws.fill_normal(&mut shifts);
    for (plane, shift) in noise.chunks_exact_mut((noise.len() / channels).max(1)).zip(shifts) {
        let shift = offset as f32 * shift;
        plane.iter_mut().for_each(|v| *v += shift);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_cover_their_range_and_nothing_else() {
        let mut seen = [false; 7];
        for i in 0..200 {
            seen[draw_timestep(&mut Draws::new(1, i, Lane::Timestep), 2..6).unwrap()] = true;
        }
        assert_eq!(seen, [false, false, true, true, true, true, false]);
        assert_eq!(draw_timestep(&mut Draws::new(1, 0, Lane::Timestep), 3..3), Err(Error::Empty));
    }

    #[test]
    fn captions_are_dropped_as_often_as_asked_and_always_the_same() {
        let dropped = |p| (0..10_000).filter(|i| caption_is_dropped(7, *i, p)).count();
        assert_eq!((dropped(0.0), dropped(1.0)), (0, 10_000));
        assert!(dropped(0.1).abs_diff(1000) < 150, "{}", dropped(0.1));
        assert_eq!(dropped(0.1), dropped(0.1));
    }

    #[test]
    fn an_offset_shifts_whole_channels_and_leaves_the_rest_of_the_noise_alone() {
        let (mut plain, mut shifted) = (vec![0f32; 12], vec![0f32; 12]);
        draw_noise(1, 2, 4, 0.0, &mut plain).unwrap();
        draw_noise(1, 2, 4, 0.1, &mut shifted).unwrap();
        let shifts: Vec<f32> = shifted.iter().zip(&plain).map(|(a, b)| a - b).collect();
        for channel in shifts.chunks(3) {
            assert!(channel.iter().all(|s| (s - channel[0]).abs() < 1e-6 && s.abs() < 1.0), "{shifts:?}");
        }
        assert!((shifts[0] - shifts[3]).abs() > 1e-4);
    }

    #[test]
    fn noise_of_samples_does_not_depend_on_their_batch() {
        let noise = |sample| {
            let mut v = vec![0f32; 8];
            draw_noise(5, sample, 4, 0.05, &mut v).unwrap();
            v
        };
        assert_eq!(noise(3), noise(3));
        assert_ne!(noise(3), noise(4));
    }

    #[test]
    fn channels_that_do_not_divide_the_noise_are_refused() {
        assert!(draw_noise(1, 1, 0, 0.1, &mut [0.0; 4]).is_err());
        assert!(draw_noise(1, 1, 3, 0.1, &mut [0.0; 4]).is_err());
        assert!(draw_noise(1, 1, 3, 0.1, &mut []).is_ok());
    }
}
