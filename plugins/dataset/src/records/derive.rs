//! Fields made from others: the first that has a value, else the longest known phrase of a text.

use super::table::{Column, ColumnBuilder, Table};
use crate::definition::{Derived, Words};

/// Adds a derived field to a table.
pub fn add(table: &mut Table, name: &str, rule: &Derived) {
    let sources: Vec<&Column> = rule.first_of.iter().filter_map(|f| table.column(f)).collect();
    let words = rule.else_words.as_ref().and_then(|w| Some((Phrases::new(w), table.column(&w.field)?)));
    let mut column = ColumnBuilder::new(name);
    for row in 0..table.len() {
        let given = sources.iter().map(|c| c.text(row)).find(|t| !t.is_empty());
        let found = || words.as_ref().and_then(|(phrases, text)| phrases.find(text.text(row)));
        column.push(given.or_else(found).unwrap_or_default());
    }
    let column = column.finish(table.len());
    table.add(column);
}

/// Phrases, the longest first.
struct Phrases<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Phrases<'a> {
    fn new(words: &'a Words) -> Self {
        let mut all: Vec<_> = words.words.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        all.sort_by_key(|(phrase, _)| std::cmp::Reverse(phrase.len()));
        Self(all)
    }

    /// The value of the longest phrase in a text.
    fn find(&self, text: &str) -> Option<&'a str> {
        if text.is_empty() {
            return None;
        }
        let text = text.to_lowercase();
        self.0.iter().find(|(phrase, _)| holds(&text, phrase)).map(|(_, value)| *value)
    }
}

/// Whether a text holds a phrase between word boundaries.
fn holds(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, _)| {
        !text[..at].ends_with(char::is_alphanumeric)
            && !text[at + phrase.len()..].starts_with(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_value_wins_over_words_and_the_longest_phrase_over_its_parts() {
        let column = |name: &str, texts: [&str; 4]| {
            let mut b = ColumnBuilder::new(name);
            texts.iter().for_each(|t| b.push(t));
            b.finish(4)
        };
        let ids = ["1", "2", "3", "4"].into_iter().collect();
        let texts = ["leather", "Upper of synthetic leather, suede-free", "leatherette", ""];
        let mut t = Table::new(ids, vec![column("m", ["Canvas", "", "NA", ""]), column("d", texts)]);
        let rule: Derived = serde_json::from_value(serde_json::json!({
            "first_of": ["none", "m"],
            "else_words": {"in": "d", "words": {"leather": "Leather", "synthetic leather": "Synthetic Leather"}}
        }))
        .unwrap();
        add(&mut t, "material", &rule);
        let found: Vec<_> = (0..4).map(|r| t.text(r, "material")).collect();
        assert_eq!(found, ["Canvas", "Synthetic Leather", "", ""]);
    }
}
