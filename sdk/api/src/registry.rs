//! Sorted maps from key to plugin, with errors that help.

use crate::error::{Error, ErrorKind, Result};

/// Anything found by a key.
pub trait Keyed {
    /// The key, unique within its registry.
    fn key(&self) -> &str;
    /// Where it came from (a crate, a file), for error messages.
    fn origin(&self) -> &str;
    /// Other names that find it too.
    fn aliases(&self) -> &[&str] {
        &[]
    }
}

/// Plugins of one kind, sorted by key.
#[derive(Debug)]
pub struct Registry<T> {
    kind: &'static str,
    items: Vec<T>,
}

impl<T: Keyed> Registry<T> {
    /// Adds one item.
    ///
    /// # Errors
    /// As for [`Self::new`]; the registry is unchanged then.
    pub fn insert(&mut self, item: T) -> Result<()> {
        crate::key::check(self.kind, item.key())?;
        if let Some(first) = self.find(item.key()) {
            return Err(claimed_twice(self.kind, item.key(), first.origin(), item.origin()));
        }
        let at = self.items.partition_point(|i| i.key() < item.key());
        self.items.insert(at, item);
        Ok(())
    }

    /// Collects `items` under the name of their `kind` ("sampler", "engine").
    ///
    /// # Errors
    /// A key or alias that two items claim: the message names both origins. A malformed key.
    pub fn new(kind: &'static str, items: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut items: Vec<T> = items.into_iter().collect();
        items.sort_by(|a, b| a.key().cmp(b.key()));
        let mut seen: std::collections::BTreeMap<&str, &str> = Default::default();
        for item in &items {
            crate::key::check(kind, item.key())?;
            for name in std::iter::once(item.key()).chain(item.aliases().iter().copied()) {
                if let Some(first) = seen.insert(name, item.origin()) {
                    return Err(Error::new(
                        ErrorKind::InvalidRequest,
                        format!(
                            "two {kind}s are named `{name}`: one from {first}, one from {}",
                            item.origin()
                        ),
                    )
                    .hint("remove one of them, or build without its cargo feature"));
                }
            }
        }
        drop(seen);
        Ok(Self { kind, items })
    }

    /// The item under `key` or one of its aliases.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] that lists the choices and the nearest name.
    pub fn get(&self, key: &str) -> Result<&T> {
        self.find(key).ok_or_else(|| self.unknown(key))
    }

    /// Like [`Self::get`], without an error. Labels are written in many ways: case does not matter.
    pub fn find(&self, name: &str) -> Option<&T> {
        let same = |other: &str| other.eq_ignore_ascii_case(name);
        self.items.iter().find(|i| same(i.key()) || i.aliases().iter().any(|a| same(a)))
    }

    /// All items, sorted by key.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(Keyed::key)
    }

    /// What these items are called.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    fn unknown(&self, key: &str) -> Error {
        let err = Error::new(ErrorKind::NotFound, format!("there is no {} named `{key}`", self.kind));
        let err = match nearest(key, self.keys()) {
            Some(near) => err.hint(format!("did you mean `{near}`?")),
            None => err,
        };
        if self.items.is_empty() {
            return err.hint(format!("this build has no {} at all", self.kind));
        }
        err.hint(format!("there are: {}", self.keys().collect::<Vec<_>>().join(", ")))
    }
}

impl<'a, T> IntoIterator for &'a Registry<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

fn claimed_twice(kind: &str, name: &str, first: &str, second: &str) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        format!("two {kind}s are named `{name}`: one from {first}, one from {second}"),
    )
    .hint("remove one of them, or build without its cargo feature")
}

/// The name most like `wanted`, if any is like it at all (Jaro-Winkler ≥ 0.75).
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    names
        .into_iter()
        .map(|n| (strsim::jaro_winkler(&wanted, &n.to_lowercase()), n))
        .filter(|(score, _)| *score >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, n)| n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Item(&'static str, &'static str, &'static [&'static str]);
    impl Keyed for Item {
        fn key(&self) -> &str {
            self.0
        }
        fn origin(&self) -> &str {
            self.1
        }
        fn aliases(&self) -> &[&str] {
            self.2
        }
    }

    #[test]
    fn items_are_sorted_and_found_by_key_or_alias() {
        let r = Registry::new("sampler", [Item("heun", "a", &[]), Item("euler", "a", &["k_euler"])]).unwrap();
        assert_eq!(r.keys().collect::<Vec<_>>(), ["euler", "heun"]);
        assert_eq!(r.get("k_euler").unwrap().0, "euler");
        assert_eq!(r.get("Heun").unwrap().0, "heun");
    }

    #[test]
    fn an_unknown_key_lists_the_choices_and_the_nearest() {
        let r = Registry::new("sampler", [Item("euler", "a", &[]), Item("heun", "a", &[])]).unwrap();
        let e = r.get("eulr").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(e.hints()[0].contains("`euler`"), "{e:?}");
        assert!(e.hints()[1].contains("euler, heun"), "{e:?}");
    }

    #[test]
    fn a_duplicate_names_both_origins() {
        let e = Registry::new("engine", [Item("sd", "crate one", &[]), Item("sd", "crate two", &[])])
            .unwrap_err();
        assert!(e.message().contains("crate one") && e.message().contains("crate two"), "{e}");
        let e = Registry::new("engine", [Item("sd", "one", &[]), Item("x", "two", &["sd"])]).unwrap_err();
        assert!(e.message().contains("`sd`"), "{e}");
    }
}
