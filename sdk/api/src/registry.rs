//! Sorted maps from key to plugin, with errors that help.

use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// The plugin name of what is linked in.
pub const LINKED_IN: &str = "atelier";

/// Anything found by a key.
pub trait Keyed {
    /// The key.
    fn key(&self) -> &str;
    /// Where it came from (a crate, a file), for error messages.
    fn origin(&self) -> &str;
    /// The plugin library that brings it; none for what is linked in. `plugin/key` always finds it.
    fn plugin(&self) -> Option<&str> {
        None
    }
    /// Other names that find it too.
    fn aliases(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Plugins of one kind, sorted by key.
///
/// What is linked in has keys and names of its own. Libraries may bring the same key as others: the bare key then
/// means what is linked in, or what an override says, or nothing; `plugin/key` means exactly one thing.
#[derive(Debug)]
pub struct Registry<T> {
    kind: &'static str,
    items: Vec<T>,
    overrides: BTreeMap<String, String>,
}

impl<T: Keyed> Registry<T> {
    /// Collects `items` under the name of their `kind` ("sampler", "engine").
    ///
    /// # Errors
    /// As for [`Self::insert`].
    pub fn new(kind: &'static str, items: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut registry = Self { kind, items: Vec::new(), overrides: BTreeMap::new() };
        items.into_iter().try_for_each(|item| registry.insert(item))?;
        Ok(registry)
    }

    /// Adds one item.
    ///
    /// # Errors
    /// A malformed key. A key or alias that two linked-in items claim, or two of one library: the message names
    /// both origins. The registry is unchanged then.
    pub fn insert(&mut self, item: T) -> Result<()> {
        crate::key::check(self.kind, item.key())?;
        for other in self.items.iter().filter(|o| o.plugin() == item.plugin()) {
            if let Some(name) = names(&item).find(|n| names(other).any(|o| same(o, n))) {
                return Err(claimed_twice(self.kind, name, other.origin(), item.origin()));
            }
        }
        let at = self.items.partition_point(|i| (i.key(), i.plugin()) < (item.key(), item.plugin()));
        self.items.insert(at, item);
        Ok(())
    }

    /// Makes bare names mean items of plugin libraries: `euler` to `vendor/euler`. Those that are about other kinds
    /// of items are passed over: a name counts here if this registry has it.
    pub fn set_overrides(&mut self, overrides: &BTreeMap<String, String>) {
        let ours = overrides.iter().filter(|(from, _)| !self.meant_by(from).is_empty());
        self.overrides = ours.map(|(from, to)| (from.clone(), to.clone())).collect();
    }

    /// The item under `name`: a key, an alias, or `plugin/key`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] that lists the choices and the nearest name, or the several things that `name`
    /// could mean.
    pub fn get(&self, name: &str) -> Result<&T> {
        self.find(name).ok_or_else(|| self.unknown(name))
    }

    /// Like [`Self::get`], without an error. Labels are written in many ways: case does not matter.
    pub fn find(&self, name: &str) -> Option<&T> {
        if name.contains('/') {
            return self.items.iter().find(|i| same(&id(*i), name));
        }
        if let Some((_, to)) = self.overrides.iter().find(|(from, _)| same(from, name)) {
            return self.items.iter().find(|i| same(&id(*i), to));
        }
        match self.meant_by(name).as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// What a bare name could mean. A library that comes along changes the meaning of no name that is linked in, and
    /// a key comes before an alias.
    fn meant_by(&self, name: &str) -> Vec<&T> {
        let by_key = |i: &&T| same(i.key(), name);
        let by_alias = |i: &&T| i.aliases().iter().any(|a| same(a, name));
        for linked in [true, false] {
            let from = || self.items.iter().filter(move |i| i.plugin().is_none() == linked);
            for found in [from().filter(by_key).collect::<Vec<_>>(), from().filter(by_alias).collect()] {
                if !found.is_empty() {
                    return found;
                }
            }
        }
        Vec::new()
    }

    /// The shortest name that means `item`: its key, or `plugin/key`.
    pub fn name_of(&self, item: &T) -> String {
        match self.find(item.key()) {
            Some(found) if found.plugin() == item.plugin() => item.key().to_string(),
            _ => id(item),
        }
    }

    /// All items, sorted by key.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// The name of each item, sorted by key.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.items.iter().map(|i| self.name_of(i))
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(Keyed::key)
    }

    /// What these items are called.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    fn unknown(&self, name: &str) -> Error {
        let several = self.meant_by(name);
        if several.len() > 1 {
            let ids: Vec<String> = several.into_iter().map(id).collect();
            let message = format!("several plugins have a {} named `{name}`", self.kind);
            return Error::new(ErrorKind::NotFound, message).hint(format!("name one of: {}", ids.join(", ")));
        }
        let err = Error::new(ErrorKind::NotFound, format!("there is no {} named `{name}`", self.kind));
        let all: Vec<String> = self.names().collect();
        let err = match nearest(name, all.iter().map(String::as_str)) {
            Some(near) => err.hint(format!("did you mean `{near}`?")),
            None => err,
        };
        if self.items.is_empty() {
            return err.hint(format!("this build has no {} at all", self.kind));
        }
        err.hint(format!("there are: {}", all.join(", ")))
    }
}

/// The full name of an item.
pub fn id<T: Keyed>(item: &T) -> String {
    format!("{}/{}", item.plugin().unwrap_or(LINKED_IN), item.key())
}

fn names<T: Keyed>(item: &T) -> impl Iterator<Item = &str> {
    std::iter::once(item.key()).chain(item.aliases())
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
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
    .hint("remove one of them")
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
        fn aliases(&self) -> Vec<&str> {
            self.2.to_vec()
        }
        fn plugin(&self) -> Option<&str> {
            self.1.strip_prefix("lib ")
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
    #[test]
    fn a_bare_key_means_what_is_linked_in_and_plugin_key_means_the_other() {
        let items = [Item("euler", "lib vendor", &["k_euler"]), Item("euler", "a", &[])];
        let mut r = Registry::new("sampler", items).unwrap();
        assert_eq!(r.get("euler").unwrap().1, "a");
        assert_eq!(r.get("vendor/Euler").unwrap().1, "lib vendor");
        assert_eq!(r.get("atelier/euler").unwrap().1, "a");
        assert_eq!(r.get("k_euler").unwrap().1, "lib vendor");
        r.insert(Item("k_dpm", "a", &["dpm"])).unwrap();
        r.insert(Item("dpm", "lib vendor", &[])).unwrap();
        assert_eq!(r.get("dpm").unwrap().1, "a", "a library has taken an alias");
        r.items.retain(|i| !i.0.contains("dpm"));
        assert_eq!(r.names().collect::<Vec<_>>(), ["euler", "vendor/euler"]);
        r.set_overrides(&BTreeMap::from([("euler".into(), "vendor/euler".into())]));
        assert_eq!(r.get("euler").unwrap().1, "lib vendor");
        assert_eq!(r.names().collect::<Vec<_>>(), ["atelier/euler", "euler"]);
    }

    #[test]
    fn a_bare_key_of_two_libraries_is_refused_with_both() {
        let items = [Item("heun", "lib one", &[]), Item("heun", "lib two", &[])];
        let r = Registry::new("sampler", items).unwrap();
        let e = r.get("heun").unwrap_err();
        assert!(e.hints()[0].contains("one/heun, two/heun"), "{e:?}");
        assert!(Registry::new("sampler", [Item("x", "lib one", &[]), Item("x", "lib one", &[])]).is_err());
    }
}
