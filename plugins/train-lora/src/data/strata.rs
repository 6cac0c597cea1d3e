//! Which images are of one kind, so that each kind can have its share.

use super::Item;
use super::wanted::known;
use atelier_sdk::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Kinds of images.
pub struct Strata<'a> {
    /// What they are told apart by, in words.
    pub by: String,
    /// Places of images by kind.
    pub places: BTreeMap<Vec<&'a str>, Vec<usize>>,
}

impl<'a> Strata<'a> {
    /// By the fields `by`; where none are named by what the set was stratified by, else by fields that suit a
    /// sample of `n`, else by captions.
    pub fn new(items: &[&'a Item], by: &[String], n: usize) -> Result<Self> {
        for field in by {
            known(items, field)?;
        }
        if by.is_empty() && items.iter().all(|i| i.stratum.is_some()) {
            let of = |i: &'a Item| i.stratum.iter().map(String::as_str).collect();
            return Ok(Self { by: "the strata of the set".into(), places: group(items, of) });
        }
        let fields = if by.is_empty() { suitable(items, n) } else { by.iter().map(String::as_str).collect() };
        if fields.is_empty() {
            return Ok(Self { by: "captions".into(), places: group(items, |i| vec![i.caption.as_str()]) });
        }
        let by = fields.join(", ");
        let of =
            |i: &'a Item| fields.iter().map(|f| i.attributes.get(*f).map_or("", String::as_str)).collect();
        Ok(Self { by, places: group(items, of) })
    }
}

fn group<'a>(
    items: &[&'a Item],
    of: impl Fn(&'a Item) -> Vec<&'a str>,
) -> BTreeMap<Vec<&'a str>, Vec<usize>> {
    let mut places = BTreeMap::<_, Vec<usize>>::new();
    items.iter().enumerate().for_each(|(at, item)| places.entry(of(item)).or_default().push(at));
    places
}

/// Fields that most images have and that tell kinds apart rather than images; those with few values first, as many
/// as leave a sample of `n` an image for each combination.
fn suitable<'a>(items: &[&'a Item], n: usize) -> Vec<&'a str> {
    let mut values = BTreeMap::<&str, (usize, BTreeSet<&str>)>::new();
    for (field, value) in items.iter().flat_map(|i| &i.attributes) {
        let entry = values.entry(field).or_default();
        entry.0 += 1;
        entry.1.insert(value);
    }
    let kinds = |seen: usize, different: usize| {
        seen * 2 >= items.len() && different >= 2 && different * different <= seen
    };
    let fields = values.into_iter().map(|(field, (seen, values))| (values.len(), field, seen));
    let mut fields: Vec<_> = fields.filter(|f| kinds(f.2, f.0)).collect();
    fields.sort_unstable();
    let mut combinations = 1usize;
    let fits = |f: &(usize, &str, usize)| {
        combinations = combinations.saturating_mul(f.0);
        combinations <= n
    };
    fields.into_iter().take_while(fits).map(|f| f.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::item;

    fn by(items: &[Item], by: &[String], n: usize) -> String {
        Strata::new(&items.iter().collect::<Vec<_>>(), by, n).unwrap().by
    }

    #[test]
    fn kinds_are_told_apart_by_what_suits() {
        let of = |i: usize| {
            let (id, colour) = (i.to_string(), ["Red", "Blue", "Green"][i % 3]);
            let sex = ["m", "w"][i / 3 % 2];
            item(&id, "x", &[("id", &id), ("colour", colour), ("sex", sex), ("same", "x")])
        };
        let mut items: Vec<Item> = (0..60).map(of).collect();
        assert_eq!(by(&items, &[], 30), "sex, colour");
        assert_eq!(by(&items, &[], 5), "sex");
        assert_eq!(by(&items, &[], 1), "captions");
        assert_eq!(by(&items, &["colour".into()], 1), "colour");
        items.iter_mut().for_each(|i| i.stratum = Some("s".into()));
        assert_eq!(by(&items, &[], 30), "the strata of the set");
        let all: Vec<_> = items.iter().collect();
        assert!(Strata::new(&all, &["colour".into(), "none".into()], 9).is_err());
    }
}
