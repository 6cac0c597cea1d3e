//! What the photos of a data set are like, taken together.

use crate::images::duplicates::{Pair, groups};
use crate::images::measure::Background;
use crate::photos::Photo;
use crate::stats::quantiles;
use serde::Serialize;
use std::collections::BTreeMap;

/// The photos of a data set.
#[derive(Debug, Serialize)]
pub struct PhotoFacts {
    /// How many were measured.
    pub photos: usize,
    /// Width x height with counts, the most common first.
    pub sizes: Vec<(String, usize)>,
    /// Width to height with counts.
    pub aspects: Vec<(String, usize)>,
    /// Formats with counts.
    pub formats: Vec<(String, usize)>,
    /// Long sides: lowest, quartiles, highest.
    pub long_side: Option<[f64; 5]>,
    /// Backgrounds with counts, cleanest first.
    pub backgrounds: Vec<(&'static str, usize)>,
    /// Share of the border in one colour: lowest, quartiles, highest.
    pub clean: Option<[f64; 5]>,
    /// Variance of the Laplacian.
    pub sharpness: Option<[f64; 5]>,
    /// By size: median variance of the Laplacian, which is comparable among photos of one size alone.
    pub sharpness_by_size: Vec<(String, usize, f64)>,
    /// Share of the photo's width that the product takes.
    pub product_width: Option<[f64; 5]>,
    /// Share of the photo's height that the product takes.
    pub product_height: Option<[f64; 5]>,
    /// Horizontal distance of the product's middle from the photo's, as a share of its width.
    pub off_centre: Option<[f64; 5]>,
    /// Pairs of files with the same content.
    pub exact_pairs: usize,
    /// Pairs of photos that show the same in different files.
    pub near_pairs: usize,
    /// Groups that those pairs connect.
    pub groups: usize,
    /// Photos in groups.
    pub in_groups: usize,
    /// Size of the largest group.
    pub largest_group: usize,
}

/// Sums up photos; none if there are none.
pub fn facts(photos: &[Photo], pairs: &[Pair]) -> Option<PhotoFacts> {
    if photos.is_empty() {
        return None;
    }
    let over = |f: &dyn Fn(&Photo) -> f64| quantiles(&mut photos.iter().map(f).collect::<Vec<_>>());
    let boxes: Vec<[f32; 4]> = photos.iter().filter_map(|p| p.measures.product).collect();
    let of_box = |f: &dyn Fn(&[f32; 4]) -> f32| {
        quantiles(&mut boxes.iter().map(|b| f64::from(f(b))).collect::<Vec<_>>())
    };
    let sizes_of_groups = group_sizes(photos.len(), pairs);
    let backgrounds =
        Background::ALL.map(|b| (b.name(), photos.iter().filter(|p| p.measures.background == b).count()));
    Some(PhotoFacts {
        photos: photos.len(),
        sizes: tally(photos, &size_of),
        aspects: tally(photos, &|p| aspect(p.measures.width, p.measures.height)),
        formats: tally(photos, &|p| p.measures.format.clone()),
        long_side: over(&|p| f64::from(p.measures.width.max(p.measures.height))),
        backgrounds: backgrounds.to_vec(),
        clean: over(&|p| p.measures.clean),
        sharpness: over(&|p| p.measures.sharpness),
        sharpness_by_size: sharpness_by_size(photos),
        product_width: of_box(&|b| b[2] - b[0]),
        product_height: of_box(&|b| b[3] - b[1]),
        off_centre: of_box(&|b| ((b[0] + b[2]) / 2.0 - 0.5).abs()),
        exact_pairs: pairs.iter().filter(|p| p.exact).count(),
        near_pairs: pairs.iter().filter(|p| !p.exact).count(),
        groups: sizes_of_groups.len(),
        in_groups: sizes_of_groups.iter().sum(),
        largest_group: sizes_of_groups.iter().copied().max().unwrap_or(0),
    })
}

fn size_of(photo: &Photo) -> String {
    format!("{} x {}", photo.measures.width, photo.measures.height)
}

/// The sizes of groups of more than one.
fn group_sizes(photos: usize, pairs: &[Pair]) -> Vec<usize> {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    groups(photos, pairs).into_iter().for_each(|g| *sizes.entry(g).or_default() += 1);
    sizes.into_values().filter(|n| *n > 1).collect()
}

fn tally(photos: &[Photo], of: &dyn Fn(&Photo) -> String) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    photos.iter().for_each(|p| *counts.entry(of(p)).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// The nearest common ratio, or the ratio itself.
fn aspect(width: u32, height: u32) -> String {
    const COMMON: [(u32, u32); 9] =
        [(1, 1), (3, 4), (4, 3), (2, 3), (3, 2), (4, 5), (5, 4), (9, 16), (16, 9)];
    let ratio = f64::from(width) / f64::from(height);
    let near = COMMON.iter().find(|(w, h)| (ratio * f64::from(*h) / f64::from(*w)).ln().abs() < 0.01);
    near.map_or_else(|| format!("{ratio:.2}"), |(w, h)| format!("{w}:{h}"))
}

fn sharpness_by_size(photos: &[Photo]) -> Vec<(String, usize, f64)> {
    let mut by_size: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    photos.iter().for_each(|p| by_size.entry(size_of(p)).or_default().push(p.measures.sharpness));
    let mut out: Vec<_> = by_size
        .into_iter()
        .filter_map(|(size, mut v)| Some((size, v.len(), quantiles(&mut v)?[2])))
        .collect();
    out.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    out.truncate(12);
    out
}

#[cfg(test)]
mod tests {
    use super::aspect;

    #[test]
    fn ratios_have_their_common_names() {
        assert_eq!(
            [aspect(60, 80), aspect(1080, 1440), aspect(512, 512), aspect(125, 161)],
            ["3:4", "3:4", "1:1", "0.78"]
        );
    }
}
