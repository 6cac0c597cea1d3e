//! Which photos are unlike the rest: a vest among shoes has an outline that no other photo has.

use super::measure::Measures;
use rayon::prelude::*;

/// Nearest others that a photo is compared with: one strange photo may be there a few times.
const NEAREST: usize = 10;
/// Fewest photos that can be called "the rest".
const FEWEST: usize = 50;
/// Most photos that each is compared with, evenly taken: more would say the same.
const COMPARED: usize = 4096;
/// Difference from the border, of 255, from which on a cell is wholly product.
const FULL: u32 = 40;

/// A photo and how far it is from those most like it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unlike {
    /// Its place in the list.
    pub place: usize,
    /// Distance, as a multiple of the median photo's.
    pub times: f64,
}

/// All photos, the most unlike first; none where there are too few to say.
pub fn ranked(photos: &[&Measures]) -> Vec<Unlike> {
    if photos.len() < FEWEST {
        return Vec::new();
    }
    let outlines: Vec<Vec<u8>> = photos.par_iter().map(|m| outline(m)).collect();
    let others: Vec<usize> = (0..photos.len()).step_by(photos.len().div_ceil(COMPARED)).collect();
    let far: Vec<f64> = (0..photos.len()).into_par_iter().map(|i| distance(i, &outlines, &others)).collect();
    let mut sorted = far.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2].max(1.0);
    let mut all: Vec<Unlike> =
        far.iter().enumerate().map(|(place, d)| Unlike { place, times: d / median }).collect();
    all.sort_by(|a, b| b.times.total_cmp(&a.times).then(a.place.cmp(&b.place)));
    all
}

/// How much of each cell is product, of 255, whatever its colour.
fn outline(m: &Measures) -> Vec<u8> {
    let of = |cell: &[u8]| {
        let far = cell.iter().zip(m.border).map(|(v, b)| u32::from(v.abs_diff(b))).max().unwrap_or(0);
        (far.min(FULL) * 255 / FULL) as u8
    };
    m.colours.chunks_exact(3).map(of).collect()
}

/// The mean distance to the nearest others.
fn distance(i: usize, outlines: &[Vec<u8>], others: &[usize]) -> f64 {
    let squares = |a: &[u8], b: &[u8]| -> u32 {
        a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b)) * u32::from(a.abs_diff(*b))).sum()
    };
    let mut all: Vec<u32> =
        others.iter().filter(|o| **o != i).map(|o| squares(&outlines[i], &outlines[*o])).collect();
    all.select_nth_unstable(NEAREST - 1);
    all[..NEAREST].iter().map(|s| f64::from(*s).sqrt()).sum::<f64>() / NEAREST as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Rgb;
    use crate::images::measure::measure;

    fn photo(left: u32, top: u32, w: u32, h: u32, colour: u8) -> Measures {
        let mut image = Rgb::plain(96, 96, [250; 3]);
        for (i, p) in image.data.chunks_exact_mut(3).enumerate() {
            let (x, y) = (i as u32 % 96, i as u32 / 96);
            if (left..left + w).contains(&x) && (top..top + h).contains(&y) {
                p.fill(colour);
            }
        }
        measure(&image, "png")
    }

    #[test]
    fn a_tall_thing_among_wide_ones_comes_first_whatever_its_colour() {
        let mut all: Vec<Measures> =
            (0..60).map(|i| photo(10 + i % 7, 50 + i % 5, 70, 25, (i * 3) as u8)).collect();
        all[41] = photo(35, 8, 26, 80, 60);
        let ranked = ranked(&all.iter().collect::<Vec<_>>());
        assert_eq!((ranked.len(), ranked[0].place), (60, 41));
        assert!(ranked[0].times > 2.0 * ranked[1].times, "{:?}", &ranked[..3]);
    }

    #[test]
    fn of_a_few_photos_none_is_called_unlike_and_equal_ones_are_no_trouble() {
        let same = photo(10, 50, 70, 25, 9);
        assert!(ranked(&[&same; 49]).is_empty());
        assert!(ranked(&[&same; 60]).iter().all(|u| u.times == 0.0));
    }
}
