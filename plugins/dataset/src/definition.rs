//! What a data set is: a YAML file in `configs/datasets`, read as text so that the engine needs no other file.

use crate::filter::Filter;
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of definitions that is read.
const VERSION: u64 = 1;

/// A data set: where its parts lie, which records count, what matters about them, how they become a training set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// [`VERSION`].
    pub schema_version: u64,
    /// A few words: the title of the report.
    pub title: String,
    /// Where records and images lie below the data set's folder.
    pub layout: Layout,
    /// Which records count; all if empty.
    #[serde(default)]
    pub filter: String,
    /// Fields made from others.
    #[serde(default)]
    pub derive: BTreeMap<String, Derived>,
    /// Fields to report, in this order.
    pub attributes: Vec<String>,
    /// The field whose values are colours.
    #[serde(default = "base_colour")]
    pub colour: String,
    /// Fields that are numbers.
    #[serde(default)]
    pub numbers: Vec<Number>,
    /// Pairs of fields to count together.
    #[serde(default)]
    pub cross: Vec<(String, String)>,
    /// How records are divided.
    pub split: SplitRule,
    /// How images are treated.
    #[serde(default)]
    pub images: ImageRule,
    /// How records become sentences.
    pub captions: CaptionRule,
}

/// Where the parts lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The form of the records.
    pub kind: LayoutKind,
    /// The folder of `<id>.json` files, or the CSV file; below the data set's folder.
    pub records: String,
    /// Folders of images named by id; the first that has an id's image wins.
    pub images: Vec<String>,
    /// CSV: the column that names a record and its image.
    #[serde(default = "id")]
    pub id: String,
}

/// The form of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutKind {
    /// One style document of the Myntra catalogue for each product.
    MyntraJson,
    /// One table with a header.
    MyntraCsv,
}

/// A field made from others: the first that has a value, else a word of a text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derived {
    /// Fields, best first.
    #[serde(default)]
    pub first_of: Vec<String>,
    /// Words to look for where those have no value.
    #[serde(default)]
    pub else_words: Option<Words>,
}

/// Words of a text that stand for values.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// The field with the text.
    #[serde(rename = "in")]
    pub field: String,
    /// Value for each word or phrase, in lower case; where several occur, the longest phrase wins, then the first.
    pub words: BTreeMap<String, String>,
}

/// A field that is a number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// The field.
    pub field: String,
    /// Its unit, for the axis.
    pub unit: String,
}

/// How records are divided.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRule {
    /// Parts, as shares of any size: `{train: 70, val: 15, test: 15}`.
    #[serde(default = "shares")]
    pub shares: BTreeMap<String, f64>,
    /// Fields whose values each part shall have in the same share; the last ones give way first.
    pub stratify: Vec<String>,
    /// Combinations with fewer records are pooled.
    #[serde(default = "thin")]
    pub pool_below: usize,
}

/// How images are treated.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageRule {
    /// Side of the square in pixels.
    pub size: u32,
    /// What of a photo fills the square.
    pub frame: Frame,
    /// Room around the product on each side, as a share of the square's side, if the frame is the product.
    pub margin: f64,
    /// What surrounds a photo that is not square.
    pub pad: Pad,
    /// Images with a shorter long side are left out.
    pub min_side: u32,
    /// Images with more pixels than this many millions are refused unread.
    pub max_megapixels: f64,
    /// Bits of 256 in which the difference hashes of near-duplicates may differ.
    pub near_bits: u32,
    /// Mean difference of the colours of near-duplicates where the product is, of 255.
    pub near_colour: f64,
}

/// What of a photo fills the square.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Frame {
    /// All of it.
    #[default]
    Photo,
    /// What is not background, in the middle; all of a photo whose background is not of one colour.
    Product,
}

/// What surrounds a photo that is not square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pad {
    /// The median colour of the photo's own border.
    Own,
    /// White.
    White,
}

impl Default for ImageRule {
    fn default() -> Self {
        Self {
            size: 512,
            frame: Frame::Photo,
            margin: 0.09,
            pad: Pad::Own,
            min_side: 0,
            max_megapixels: 50.0,
            near_bits: 16,
            near_colour: 8.0,
        }
    }
}

/// How records become sentences.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionRule {
    /// Templates by locale.
    pub templates: BTreeMap<String, Vec<Template>>,
    /// By locale and field: what a value is called.
    #[serde(default)]
    pub words: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}

/// A sentence with fields in braces and clauses in brackets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// `A photo of {baseColour|lower} shoes[, {season|lower} collection]`.
    pub text: String,
    /// How often it is chosen, beside the others.
    #[serde(default = "one")]
    pub weight: f64,
}

fn base_colour() -> String {
    "baseColour".into()
}

fn id() -> String {
    "id".into()
}

fn thin() -> usize {
    7
}

fn one() -> f64 {
    1.0
}

fn shares() -> BTreeMap<String, f64> {
    [("train", 70.0), ("val", 15.0), ("test", 15.0)].map(|(k, v)| (k.to_string(), v)).into()
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// No YAML, another version, unknown or missing fields, values that make no sense: with the field's name.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let what = || "the dataset definition cannot be read".to_string();
        let text = std::str::from_utf8(bytes).kind(ErrorKind::Corrupt, what)?;
        // The version first: what else is unknown may well be of a newer one.
        let any: serde_yaml::Value = serde_yaml::from_str(text).kind(ErrorKind::InvalidRequest, what)?;
        match any.get("schema_version").and_then(serde_yaml::Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("the dataset definition has version {other}"),
                )
                .hint(format!("this build reads version {VERSION}")));
            }
            None => return Err(Error::invalid("the dataset definition has no `schema_version: 1`")),
        }
        let definition: Self = serde_yaml::from_str(text).kind(ErrorKind::InvalidRequest, what)?;
        definition.check()?;
        Ok(definition)
    }

    fn check(&self) -> Result<()> {
        let wrong =
            |field: &str, why: &str| Err(Error::invalid(format!("dataset definition: `{field}` {why}")));
        Filter::parse(&self.filter).map_err(|e| e.context("dataset definition: `filter`"))?;
        if self.split.shares.is_empty() || self.split.shares.values().any(|s| !s.is_finite() || *s <= 0.0) {
            return wrong("split.shares", "needs positive numbers");
        }
        if let Some(name) =
            self.split.shares.keys().find(|n| !is_plain_name(n) || *n == crate::prepare::PROTOTYPE)
        {
            return wrong("split.shares", &format!("cannot have a part named `{name}`"));
        }
        if !(16..=4096).contains(&self.images.size) {
            return wrong("images.size", "must be between 16 and 4096");
        }
        if !(0.0..=0.4).contains(&self.images.margin) {
            return wrong("images.margin", "must be between 0 and 0.4");
        }
        let limit = self.images.max_megapixels;
        if !(limit.is_finite() && limit > 0.0) {
            return wrong("images.max_megapixels", "must be a positive number");
        }
        if self.captions.templates.values().any(Vec::is_empty) || self.captions.templates.is_empty() {
            return wrong("captions.templates", "needs at least one template for each locale");
        }
        let weights = self.captions.templates.values().flatten().map(|t| t.weight);
        if weights.clone().any(|w| !w.is_finite() || w < 0.0) || weights.sum::<f64>() <= 0.0 {
            return wrong("captions.templates", "needs weights that are not negative and not all 0");
        }
        Ok(())
    }

    /// The part names in the order in which they are written: train, val and test first.
    pub fn parts(&self) -> Vec<(String, f64)> {
        let rank = |name: &str| ["train", "val", "test"].iter().position(|n| *n == name).unwrap_or(3);
        let mut parts: Vec<_> = self.split.shares.iter().map(|(k, v)| (k.clone(), *v)).collect();
        parts.sort_by(|a, b| (rank(&a.0), &a.0).cmp(&(rank(&b.0), &b.0)));
        parts
    }
}

/// Whether a text can be the name of a file or folder everywhere, and leads nowhere else.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A small definition for the tests of other modules.
    pub const SMALL: &str = r#"
schema_version: 1
title: Test shoes
layout: {kind: myntra-csv, records: styles.csv, images: [images]}
attributes: [baseColour, gender]
split: {stratify: [baseColour, gender]}
captions:
  templates:
    en: [{text: "A photo of {baseColour|lower} shoes[, {season|lower} collection]"}]
"#;

    #[test]
    fn a_definition_fills_in_what_it_leaves_out() {
        let d = Definition::read(SMALL.as_bytes()).unwrap();
        let parts: Vec<_> = d.parts().into_iter().map(|p| p.0).collect();
        assert_eq!(parts, ["train", "val", "test"]);
        assert_eq!((d.images.size, d.colour.as_str(), d.layout.id.as_str()), (512, "baseColour", "id"));
    }

    #[test]
    fn wrong_definitions_say_what_is_wrong() {
        for (from, to, expected) in [
            ("schema_version: 1", "schema_version: 2", "has version 2"),
            ("schema_version: 1", "x: 1", "no `schema_version"),
            ("title:", "titel:", "unknown field `titel`"),
            ("attributes:", "filter: 'gender ='\nattributes:", "`filter`"),
            ("stratify:", "shares: {train: -1}, stratify:", "split.shares"),
            ("stratify:", "shares: {../x: 1}, stratify:", "cannot have a part named"),
            ("attributes:", "images: {size: 3}\nattributes:", "images.size"),
            ("attributes:", "images: {margin: 0.5}\nattributes:", "images.margin"),
            ("shoes[,", "shoes[,", ""),
        ] {
            let text = SMALL.replace(from, to);
            match Definition::read(text.as_bytes()) {
                Ok(_) => assert_eq!(expected, "", "{text}"),
                Err(e) => assert!(e.chain().join(" | ").contains(expected), "{expected}: {:?}", e.chain()),
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_plain() {
        assert!(is_plain_name("1543") && is_plain_name("a-b_c.d"));
        for bad in ["", "..", "../a", "/a", "a/b", "a\\b", ".a", "-a", "a b", "C:", &"x".repeat(65)] {
            assert!(!is_plain_name(bad), "{bad}");
        }
    }
}
