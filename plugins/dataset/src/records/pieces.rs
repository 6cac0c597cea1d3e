//! Many texts that stand in one longer text.

use super::texts::Texts;
use std::sync::Arc;

/// Texts of which only the places are kept, in the longer text that they are of: most are never asked for. Those that
/// are not in it are kept themselves.
#[derive(Debug, Clone, Default)]
pub struct Pieces {
    source: Arc<String>,
    /// From where to where in the source; or [`OWN`], and which of `own`.
    places: Vec<(u32, u32)>,
    own: Texts,
}

/// Where no text begins.
const OWN: u32 = u32::MAX;

impl Pieces {
    /// None yet, with memory for so many.
    pub fn of(source: &Arc<String>, texts: usize) -> Self {
        // Places in one that is too long would not fit.
        let source = if source.len() < OWN as usize { source.clone() } else { Arc::default() };
        Self { source, places: Vec::with_capacity(texts), own: Texts::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// One of them.
    pub fn get(&self, i: usize) -> &str {
        match self.places[i] {
            (OWN, own) => self.own.get(own),
            (from, to) => &self.source[from as usize..to as usize],
        }
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Adds one.
    pub fn push(&mut self, text: &str) {
        let from = (text.as_ptr() as usize).checked_sub(self.source.as_ptr() as usize);
        let place = match from.filter(|from| from + text.len() <= self.source.len()) {
            Some(from) => (from as u32, (from + text.len()) as u32),
            None => {
                self.own.push(text);
                (OWN, self.own.len() as u32 - 1)
            }
        };
        self.places.push(place);
    }

    /// Adds all of another that are kept.
    pub fn append(&mut self, other: &Self, kept: Option<&[bool]>) {
        let is_kept = |i: usize| kept.is_none_or(|kept| kept[i]);
        if !Arc::ptr_eq(&self.source, &other.source) {
            return (0..other.len()).filter(|i| is_kept(*i)).for_each(|i| self.push(other.get(i)));
        }
        let before = self.own.len() as u32;
        self.own.append(&other.own);
        let moved = |(from, to): (u32, u32)| if from == OWN { (OWN, before + to) } else { (from, to) };
        let kept = other.places.iter().enumerate().filter(|(i, _)| is_kept(*i));
        self.places.extend(kept.map(|(_, place)| moved(*place)));
    }
}

impl<S: AsRef<str>> FromIterator<S> for Pieces {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut all = Self::default();
        texts.into_iter().for_each(|t| all.push(t.as_ref()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_source_and_others_come_back_in_order() {
        let source = Arc::new("one,two,three".to_string());
        let mut first = Pieces::of(&source, 3);
        [&source[4..7], "four", &source[13..], &source[..3]].iter().for_each(|t| first.push(t));
        assert_eq!(first.iter().collect::<Vec<_>>(), ["two", "four", "", "one"]);
        assert_eq!(first.own.len(), 1);
        let mut second = Pieces::of(&source, 0);
        ["five", &source[8..]].iter().for_each(|t| second.push(t));
        let others: Pieces = ["six", ""].into_iter().collect();
        first.append(&second, None);
        first.append(&others, None);
        first.append(&second, Some(&[false, true]));
        first.append(&others, Some(&[true, false]));
        let all = ["two", "four", "", "one", "five", "three", "six", "", "three", "six"];
        assert_eq!(first.iter().collect::<Vec<_>>(), all);
    }
}
