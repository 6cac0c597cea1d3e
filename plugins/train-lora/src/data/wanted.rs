//! Which images of a folder to train on, by what is known of them.

use super::Item;
use atelier_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A value of an attribute, as people write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `Red`
    Text(String),
    /// `2012`
    Number(serde_json::Number),
    /// `true`
    Bool(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text.trim()),
            Self::Number(number) => number.fmt(f),
            Self::Bool(yes) => yes.fmt(f),
        }
    }
}

/// One value, or several of which any will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Values {
    /// `Red`
    One(Scalar),
    /// `[Red, Maroon]`
    Many(Vec<Scalar>),
}

impl Values {
    fn all(&self) -> &[Scalar] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// Only images whose attributes have these values: `{baseColour: Red, year: [2011, 2012]}`. Upper and lower case of
/// values are the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Where(pub BTreeMap<String, Values>);

impl Where {
    /// From words such as `baseColour=Red,Maroon`, as a command line has them.
    ///
    /// # Errors
    /// A word has no `=`, no field or no value, or a field comes twice.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self> {
        let mut out = BTreeMap::new();
        for word in words.iter().map(S::as_ref) {
            let (field, values) = word.split_once('=').unwrap_or((word, ""));
            let values: Vec<_> = values.split(',').map(str::trim).filter(|v| !v.is_empty()).collect();
            if field.trim().is_empty() || values.is_empty() {
                return Err(Error::invalid(format!("{word:?} does not choose images"))
                    .hint("write field=value or field=value,value: baseColour=Red"));
            }
            let values = Values::Many(values.into_iter().map(|v| Scalar::Text(v.into())).collect());
            if out.insert(field.trim().to_string(), values).is_some() {
                return Err(Error::invalid(format!("{:?} is chosen by twice", field.trim()))
                    .hint("write all its values in one: field=value,value"));
            }
        }
        Ok(Self(out))
    }

    /// The images that have all of it, in their order.
    ///
    /// # Errors
    /// There are no attributes, or none of a name, or no image is left; what there is, is told.
    pub fn apply<T: AsRef<Item>>(&self, mut items: Vec<T>) -> Result<Vec<T>> {
        for (field, wanted) in &self.0 {
            known(&items, field)?;
            let values: Vec<String> = wanted.all().iter().map(|v| v.to_string().to_lowercase()).collect();
            let there = tally(&items, field);
            items.retain(|i| {
                i.as_ref().attributes.get(field).is_some_and(|v| values.contains(&v.to_lowercase()))
            });
            if items.is_empty() {
                let wanted: Vec<String> = wanted.all().iter().map(Scalar::to_string).collect();
                let message = format!("no image to train on has {field} {}", wanted.join(" or "));
                return Err(Error::invalid(message).hint(format!("{field} is {there}")));
            }
        }
        Ok(items)
    }
}

/// Makes sure that at least one image has a field.
pub fn known<T: AsRef<Item>>(items: &[T], field: &str) -> Result<()> {
    let mut fields: Vec<&str> =
        items.iter().flat_map(|i| i.as_ref().attributes.keys()).map(String::as_str).collect();
    if fields.contains(&field) {
        return Ok(());
    }
    fields.sort_unstable();
    fields.dedup();
    let error = Error::invalid(format!("the images to train on have no attribute {field:?}"));
    Err(match fields.is_empty() {
        true => error
            .hint("attributes come from the metadata of a prepared set, or from columns of metadata.jsonl"),
        false => error.hint(format!("there are: {}", fields.join(", "))),
    })
}

/// The most frequent values of a field, with counts.
fn tally<T: AsRef<Item>>(items: &[T], field: &str) -> String {
    const MOST: usize = 12;
    let mut counts = BTreeMap::<&str, usize>::new();
    let values = items.iter().filter_map(|i| i.as_ref().attributes.get(field));
    values.for_each(|v| *counts.entry(v).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|c| std::cmp::Reverse(c.1));
    let mut words: Vec<String> = counts.iter().take(MOST).map(|(v, n)| format!("{v} ({n})")).collect();
    if counts.len() > MOST {
        words.push(format!("or one of {} others", counts.len() - MOST));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::item;

    fn items() -> Vec<Item> {
        let rows = [("a", "Red", "2011"), ("b", "Blue", "2011"), ("c", "red", "2012")];
        rows.map(|(name, colour, year)| item(name, "x", &[("colour", colour), ("year", year)])).into()
    }

    fn chosen(text: &str) -> Result<Vec<String>> {
        let wanted: Where = serde_json::from_str(text).unwrap();
        Ok(wanted.apply(items())?.into_iter().map(|i| i.name).collect())
    }

    #[test]
    fn images_are_chosen_by_values() {
        assert_eq!(chosen("{}").unwrap(), ["a", "b", "c"]);
        assert_eq!(chosen(r#"{"colour":"Red"}"#).unwrap(), ["a", "c"]);
        assert_eq!(chosen(r#"{"colour":["red","blue"],"year":2011}"#).unwrap(), ["a", "b"]);
    }

    #[test]
    fn what_there_is_is_told_when_nothing_is_left() {
        let e = chosen(r#"{"colour":"Green"}"#).unwrap_err();
        assert_eq!(e.hints(), ["colour is Blue (1), Red (1), red (1)"]);
        let e = chosen(r#"{"color":"Red"}"#).unwrap_err();
        assert_eq!(e.hints(), ["there are: colour, year"]);
        let e = Where::parse(&["colour=Red"]).unwrap().apply(vec![item("a", "x", &[])]).unwrap_err();
        assert!(e.hints()[0].contains("metadata"));
        assert!(chosen(r#"{"colour":[]}"#).is_err());
    }

    #[test]
    fn a_command_line_says_the_same() {
        let words = Where::parse(&["colour=Red, Blue", "year = 2011"]).unwrap();
        assert_eq!(words.apply(items()).unwrap().len(), 2);
        for bad in [&["colour"][..], &["=Red"], &["colour="], &["a=1", "a=2"], &[""]] {
            assert!(Where::parse(bad).is_err(), "{bad:?}");
        }
    }
}
