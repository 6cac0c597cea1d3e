//! A sample in which every kind of image has its share: to try settings on before a long run.

use super::Item;
use super::lots::bits;
use super::strata::Strata;
use atelier_sdk::{Error, Result};

/// A stratified sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// How many images.
    pub n: usize,
    /// Which of them, by lot.
    pub seed: u64,
    /// Fields by whose combinations to stratify; what suits where none are named: the strata of a prepared set,
    /// else attributes, else captions.
    pub by: Vec<String>,
}

impl Subset {
    /// The sample in the order of `items`, and what it was stratified by. All of them when there are no more.
    ///
    /// What falls to an image depends on the seed, its name and the sizes of the kinds alone.
    ///
    /// # Errors
    /// None is wanted, or no image has a field to stratify by.
    pub fn choose<T: AsRef<Item>>(&self, items: Vec<T>) -> Result<(Vec<T>, String)> {
        if self.n == 0 {
            return Err(
                Error::invalid("a sample of 0 images").hint("a sample has at least 1; leave it out for all")
            );
        }
        let views: Vec<&Item> = items.iter().map(AsRef::as_ref).collect();
        let strata = Strata::new(&views, &self.by, self.n)?;
        let sizes = self.shares(&strata, views.len());
        let mut keep = vec![false; views.len()];
        for (places, size) in strata.places.values().zip(sizes) {
            let mut places = places.clone();
            places.sort_by_cached_key(|at| (bits(self.seed, "image", &views[*at].name), *at));
            places.iter().take(size).for_each(|at| keep[*at] = true);
        }
        let by = strata.by;
        let kept = items.into_iter().zip(keep).filter(|i| i.1).map(|i| i.0).collect();
        Ok((kept, by))
    }

    /// How many of each kind: its share rounded down, then one more for those that lost most by that, lots deciding
    /// between equals.
    fn shares(&self, strata: &Strata<'_>, all: usize) -> Vec<usize> {
        let n = self.n.min(all);
        let exact = |size: usize| (size as u128 * n as u128, all.max(1) as u128);
        let mut sizes = Vec::new();
        let mut lost = Vec::new();
        for (i, (name, places)) in strata.places.iter().enumerate() {
            let (share, all) = exact(places.len());
            sizes.push((share / all) as usize);
            lost.push((std::cmp::Reverse(share % all), bits(self.seed, "stratum", &name.join("\u{1f}")), i));
        }
        lost.sort_unstable();
        let missing = n - sizes.iter().sum::<usize>();
        lost.iter().take(missing).for_each(|l| sizes[l.2] += 1);
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::item;

    /// Eight of ten red, one blue, one green.
    fn items(n: usize) -> Vec<Item> {
        let colour = |i: usize| ["Blue", "Green"].get(i % 10).copied().unwrap_or("Red");
        (0..n).map(|i| item(&format!("{i:03}.png"), "x", &[("colour", colour(i))])).collect()
    }

    fn names(n: usize, seed: u64, of: Vec<Item>) -> Vec<String> {
        let subset = Subset { n, seed, by: vec!["colour".into()] };
        subset.choose(of).unwrap().0.into_iter().map(|i| i.name).collect()
    }

    #[test]
    fn every_kind_has_its_share() {
        let (kept, by) = Subset { n: 20, seed: 1, by: vec![] }.choose(items(100)).unwrap();
        assert_eq!((kept.len(), by.as_str()), (20, "colour"));
        let of = |c: &str| kept.iter().filter(|i| i.attributes["colour"] == c).count();
        assert_eq!((of("Red"), of("Blue"), of("Green")), (16, 2, 2));
        assert!(kept.is_sorted_by_key(|i| i.name.clone()));
    }

    #[test]
    fn the_seed_decides_and_the_order_does_not() {
        let mut turned = items(100);
        turned.reverse();
        let mut again = names(15, 1, turned);
        again.reverse();
        assert_eq!(names(15, 1, items(100)), again);
        assert_ne!(names(15, 1, items(100)), names(15, 2, items(100)));
        assert_eq!(names(15, 1, items(100)).len(), 15);
    }

    #[test]
    fn no_more_than_there_is_and_never_none() {
        assert_eq!(names(1000, 1, items(30)).len(), 30);
        assert_eq!(names(1, 1, items(30)).len(), 1);
        assert!(Subset { n: 0, seed: 1, by: vec![] }.choose(items(3)).is_err());
        assert_eq!(Subset { n: 2, seed: 1, by: vec![] }.choose(items(0)).unwrap().0.len(), 0);
    }
}
