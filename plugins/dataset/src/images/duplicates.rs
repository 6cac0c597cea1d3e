//! Which photos show the same: groups that no split may tear apart.

use super::measure::Measures;
use rayon::prelude::*;

/// Difference of a cell from the border, of 255, up to which the cell is background.
const BACKGROUND: u8 = 12;

/// How alike photos must be.
#[derive(Debug, Clone, Copy)]
pub struct Alike {
    /// Bits of 256 in which the difference hashes may differ.
    pub bits: u32,
    /// Mean difference of the colours where the product is, of 255.
    pub colour: f64,
}

/// A photo as far as this matters.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Digest of the file.
    pub sha256: &'a str,
    /// Its measures.
    pub measures: &'a Measures,
}

/// A pair of photos (by their places in the list) that show the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The first.
    pub a: usize,
    /// The second, after the first.
    pub b: usize,
    /// Whether the files are the same.
    pub exact: bool,
}

/// All pairs that show the same, in order. Compares each with each: 4 xor and popcount a pair.
pub fn pairs(photos: &[Look<'_>], alike: Alike) -> Vec<Pair> {
    let hashes: Vec<[u64; 4]> = photos.iter().map(|p| p.measures.hash).collect();
    let of = |a: usize| {
        let mine = hashes[a];
        let others = hashes[a + 1..].iter().enumerate();
        let near = others.filter(move |(_, other)| differing(mine, **other) <= alike.bits);
        near.filter_map(move |(i, _)| pair(photos, a, a + 1 + i, alike)).collect::<Vec<_>>()
    };
    (0..photos.len()).into_par_iter().flat_map_iter(of).collect()
}

fn differing(a: [u64; 4], b: [u64; 4]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

fn pair(photos: &[Look<'_>], a: usize, b: usize, alike: Alike) -> Option<Pair> {
    let exact = photos[a].sha256 == photos[b].sha256;
    let (x, y) = (photos[a].measures, photos[b].measures);
    // Photos without content are alike, and say nothing.
    let blank = x.hash == [0; 4] && y.hash == [0; 4];
    let same = exact || (!blank && same_shape(x, y) && colour_difference(x, y) <= alike.colour);
    same.then_some(Pair { a, b, exact })
}

/// A cropped photo is another photo; a resized one is not.
fn same_shape(a: &Measures, b: &Measures) -> bool {
    let aspect = |m: &Measures| f64::from(m.width) / f64::from(m.height);
    (aspect(a) / aspect(b)).ln().abs() < 0.05
}

/// The mean difference of the cells in which either photo shows a product: on a white page the rest always agrees.
fn colour_difference(a: &Measures, b: &Measures) -> f64 {
    let shows =
        |m: &Measures, cell: &[u8]| cell.iter().zip(m.border).any(|(v, b)| v.abs_diff(b) > BACKGROUND);
    let cells = a.colours.chunks_exact(3).zip(b.colours.chunks_exact(3));
    let (mut sum, mut count) = (0u32, 0u32);
    for (x, y) in cells.filter(|(x, y)| shows(a, x) || shows(b, y)) {
        sum += x.iter().zip(y).map(|(x, y)| u32::from(x.abs_diff(*y))).sum::<u32>();
        count += 3;
    }
    f64::from(sum) / f64::from(count.max(1))
}

/// Groups that pairs connect, as the smallest place of each one's group.
pub fn groups(count: usize, pairs: &[Pair]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..count).collect();
    fn root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    for p in pairs {
        let (a, b) = (root(&mut parent, p.a), root(&mut parent, p.b));
        parent[a.max(b)] = a.min(b);
    }
    (0..count).map(|i| root(&mut parent, i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Rgb;
    use crate::images::measure::measure;

    fn picture(seed: u32, size: u32, shift: u8) -> Measures {
        let mut image = Rgb::plain(size, size, [0; 3]);
        for (i, p) in image.data.chunks_exact_mut(3).enumerate() {
            let (x, y) = (i as u32 % size, i as u32 / size);
            let (x, y) = (x as f32 / size as f32, y as f32 / size as f32);
            let k = seed as f32;
            let v = 60.0 * ((k * 3.0 * x + k * y).sin() + (k * 2.0 * y - k * x).cos());
            p.fill((v + 125.0) as u8 / 2 + shift);
        }
        measure(&image, "png")
    }

    #[test]
    fn equal_and_alike_photos_are_pairs_and_others_are_not() {
        let all =
            [picture(3, 64, 0), picture(5, 64, 0), picture(3, 128, 2), picture(3, 64, 0), picture(3, 64, 30)];
        let names = ["a", "b", "c", "a", "d"];
        let looks: Vec<_> =
            all.iter().zip(names).map(|(measures, sha256)| Look { sha256, measures }).collect();
        let found = pairs(&looks, Alike { bits: 16, colour: 8.0 });
        let expected = [
            Pair { a: 0, b: 2, exact: false },
            Pair { a: 0, b: 3, exact: true },
            Pair { a: 2, b: 3, exact: false },
        ];
        assert_eq!(found, expected);
        assert_eq!(groups(5, &found), [0, 1, 0, 0, 4]);
    }
}
