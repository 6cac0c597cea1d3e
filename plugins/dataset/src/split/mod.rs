//! Divides records into parts so that each part is like the whole.
//!
//! 1. Each record belongs to a stratum: its combination of values. Combinations with too few records are pooled
//!    ([`strata`]).
//! 2. The sizes of the parts are exact: shares of the total, rounded by largest remainder.
//! 3. Groups (records whose photos show the same) are placed first, whole, the largest first, where they fit best.
//! 4. The rest of each stratum is divided by [`round`]: integers with exact sums whose distance from the shares is
//!    smallest, hence within 1 wherever the groups allow it.
//! 5. Which records of a stratum go where is drawn by lot from seed and id alone.

pub mod round;
pub mod strata;

use crate::draw_lots;
use strata::Strata;

/// A record to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its stratum.
    pub stratum: usize,
    /// Its group: the same number for records that must stay together.
    pub group: usize,
}

/// The sizes of parts with given shares, by largest remainder; of equal remainders the first.
pub fn sizes(total: usize, shares: &[f64]) -> Vec<usize> {
    let whole: f64 = shares.iter().sum();
    let exact: Vec<f64> = shares.iter().map(|s| total as f64 * s / whole).collect();
    let mut sizes: Vec<usize> = exact.iter().map(|e| e.floor() as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| (exact[*b].fract()).total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    let missing = total.saturating_sub(sizes.iter().sum());
    order.iter().cycle().take(missing).for_each(|i| sizes[*i] += 1);
    sizes
}

/// The part of each item.
pub fn split(items: &[Item<'_>], strata: usize, shares: &[f64], seed: u64) -> Vec<usize> {
    let totals = sizes(items.len(), shares);
    let whole: f64 = shares.iter().sum();
    let mut wanted = vec![vec![0.0; shares.len()]; strata];
    for item in items {
        wanted[item.stratum].iter_mut().zip(shares).for_each(|(w, s)| *w += s / whole);
    }
    let mut left = totals;
    let mut parts = vec![usize::MAX; items.len()];
    place_groups(items, &mut wanted, &mut left, &mut parts, seed);
    let mut single: Vec<Vec<usize>> = vec![Vec::new(); strata];
    (0..items.len()).filter(|i| parts[*i] == usize::MAX).for_each(|i| single[items[i].stratum].push(i));
    let rows: Vec<usize> = single.iter().map(Vec::len).collect();
    let counts = round::round(&wanted, &rows, &left);
    for (members, counts) in single.iter_mut().zip(counts) {
        members.sort_by_key(|i| (draw_lots::bits(seed, "split", items[*i].id), items[*i].id));
        let places = counts.iter().enumerate().flat_map(|(part, n)| std::iter::repeat_n(part, *n));
        members.iter().zip(places).for_each(|(i, part)| parts[*i] = part);
    }
    parts
}

/// Places groups of several records; takes what they use from `wanted` and `left`.
fn place_groups(
    items: &[Item<'_>],
    wanted: &mut [Vec<f64>],
    left: &mut [usize],
    parts: &mut [usize],
    seed: u64,
) {
    let mut groups: std::collections::BTreeMap<usize, Vec<usize>> = Default::default();
    items.iter().enumerate().for_each(|(i, item)| groups.entry(item.group).or_default().push(i));
    let mut groups: Vec<Vec<usize>> = groups.into_values().filter(|g| g.len() > 1).collect();
    groups.sort_by_key(|g| (std::cmp::Reverse(g.len()), draw_lots::bits(seed, "group", items[g[0]].id)));
    for group in groups {
        let part = best_part(&group, items, wanted, left);
        left[part] = left[part].saturating_sub(group.len());
        for i in group {
            parts[i] = part;
            wanted[items[i].stratum][part] -= 1.0;
        }
    }
}

/// The part with room where the group's strata want it most.
fn best_part(group: &[usize], items: &[Item<'_>], wanted: &[Vec<f64>], left: &[usize]) -> usize {
    let score = |part: usize| {
        let mut taken = std::collections::BTreeMap::<usize, f64>::new();
        group.iter().for_each(|i| *taken.entry(items[*i].stratum).or_default() += 1.0);
        // What the squared distance from the shares changes by.
        let cost: f64 =
            taken.iter().map(|(s, n)| (wanted[*s][part] - n).powi(2) - wanted[*s][part].powi(2)).sum();
        (left[part] < group.len(), cost)
    };
    let mut order: Vec<usize> = (0..left.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (score(*a), score(*b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    // If nothing has room for it whole, the part with most room loses least.
    match left[order[0]] < group.len() {
        true => (0..left.len()).max_by_key(|p| (left[*p], usize::MAX - p)).unwrap_or(0),
        false => order[0],
    }
}

/// `count` of the items, each stratum in its share, chosen by lot.
pub fn sample(items: &[Item<'_>], strata: usize, count: usize, seed: u64) -> Vec<usize> {
    let count = count.min(items.len());
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); strata];
    items.iter().enumerate().for_each(|(i, item)| members[item.stratum].push(i));
    let shares: Vec<f64> = members.iter().map(|m| m.len() as f64).collect();
    let mut chosen = Vec::with_capacity(count);
    if count > 0 {
        for (members, n) in members.iter_mut().zip(sizes(count, &shares)) {
            members.sort_by_key(|i| (draw_lots::bits(seed, "sample", items[*i].id), items[*i].id));
            chosen.extend(members.iter().take(n));
        }
    }
    chosen.sort_unstable();
    chosen
}

/// The largest distance of a stratum's count in a part from its share, over strata without groups of several.
pub fn largest_deviation(items: &[Item<'_>], strata: &Strata, parts: &[usize], shares: &[f64]) -> f64 {
    let whole: f64 = shares.iter().sum();
    let mut counts = vec![vec![0.0; shares.len()]; strata.names.len()];
    items.iter().zip(parts).for_each(|(item, part)| counts[item.stratum][*part] += 1.0);
    let of = |row: &Vec<f64>| {
        let total: f64 = row.iter().sum();
        row.iter().zip(shares).map(|(n, s)| (n - total * s / whole).abs()).fold(0.0, f64::max)
    };
    counts.iter().map(of).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_sdk::rng::Mt19937;

    const SHARES: [f64; 3] = [70.0, 15.0, 15.0];

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{}", 1000 + i * 7)).collect()
    }

    fn counts(items: &[Item<'_>], parts: &[usize], strata: usize) -> Vec<[usize; 3]> {
        let mut counts = vec![[0; 3]; strata];
        items.iter().zip(parts).for_each(|(i, p)| counts[i.stratum][*p] += 1);
        counts
    }

    #[test]
    fn sizes_are_exact_and_those_of_the_whole_data_set_are_as_planned() {
        assert_eq!(sizes(2845, &SHARES), [1991, 427, 427]);
        assert_eq!(sizes(2846, &SHARES), [1992, 427, 427]);
        assert_eq!(sizes(1, &SHARES), [1, 0, 0]);
        assert_eq!(sizes(0, &SHARES), [0, 0, 0]);
        for n in 0..200 {
            assert_eq!(sizes(n, &[0.1, 0.2, 0.3, 0.4]).iter().sum::<usize>(), n);
        }
    }

    #[test]
    fn every_stratum_is_within_one_of_its_share_and_totals_are_exact() {
        let mut rng = Mt19937::new(3);
        for round in 0..200 {
            let strata = 1 + rng.next_u32() as usize % 40;
            let n = strata + rng.next_u32() as usize % 600;
            let names = ids(n);
            let item = |(i, id)| Item {
                id,
                stratum: if i < strata { i } else { (i * i + round) % strata },
                group: i,
            };
            let items: Vec<Item<'_>> = names.iter().map(String::as_str).enumerate().map(item).collect();
            let parts = split(&items, strata, &SHARES, 42);
            let counts = counts(&items, &parts, strata);
            for (p, size) in sizes(n, &SHARES).iter().enumerate() {
                assert_eq!(counts.iter().map(|c| c[p]).sum::<usize>(), *size);
            }
            for c in &counts {
                let total: usize = c.iter().sum();
                for (n, s) in c.iter().zip(SHARES) {
                    assert!((*n as f64 - total as f64 * s / 100.0).abs() <= 1.0, "{c:?} in round {round}");
                }
            }
        }
    }

    #[test]
    fn groups_stay_together_and_totals_stay_exact() {
        let names = ids(500);
        let item = |(i, id)| Item { id, stratum: i % 7, group: if i < 120 { i / 6 * 6 } else { i } };
        let items: Vec<Item<'_>> = names.iter().map(String::as_str).enumerate().map(item).collect();
        let parts = split(&items, 7, &SHARES, 1);
        for g in 0..20 {
            assert!((g * 6..g * 6 + 6).all(|i| parts[i] == parts[g * 6]), "group {g}");
        }
        let counts = counts(&items, &parts, 7);
        assert_eq!((0..3).map(|p| counts.iter().map(|c| c[p]).sum()).collect::<Vec<usize>>(), [350, 75, 75]);
    }

    #[test]
    fn the_same_seed_gives_the_same_parts_in_any_order_and_another_seed_others() {
        let names = ids(300);
        let items: Vec<Item<'_>> =
            names.iter().enumerate().map(|(i, id)| Item { id, stratum: i % 5, group: i }).collect();
        let parts = split(&items, 5, &SHARES, 42);
        let reversed: Vec<Item<'_>> = items.iter().rev().copied().collect();
        let mut back = split(&reversed, 5, &SHARES, 42);
        back.reverse();
        assert_eq!(parts, back);
        assert_ne!(parts, split(&items, 5, &SHARES, 43));
    }

    #[test]
    fn a_sample_has_each_stratum_in_its_share() {
        let names = ids(400);
        let items: Vec<Item<'_>> = names
            .iter()
            .enumerate()
            .map(|(i, id)| Item { id, stratum: usize::from(i % 4 == 0), group: i })
            .collect();
        let chosen = sample(&items, 2, 40, 9);
        assert_eq!(chosen.len(), 40);
        assert_eq!(chosen.iter().filter(|i| items[**i].stratum == 1).count(), 10);
        assert_eq!(sample(&items, 2, 1000, 9).len(), 400);
        assert!(sample(&items, 2, 0, 9).is_empty());
    }
}
