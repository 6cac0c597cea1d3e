//! Decides what a training set holds, before anything is written.

use super::PROTOTYPE;
use crate::captions::Captioner;
use crate::definition::Frame;
use crate::images::duplicates::{Alike, Look, groups, pairs};
use crate::images::{find::shown, sha256};
use crate::issue::{Issue, IssueKind};
use crate::photos::{self, Photo};
use crate::source::Source;
use crate::split::strata::{Strata, strata};
use crate::split::{self, Item};
use crate::stats::{ChiSquare, chi_square};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of how squares are made: those of another one are made anew.
const VERSION: u32 = 1;
/// A field of captions: the colour of the photo's own background, if it has one.
const BACKGROUND: &str = "background";

/// What a person chose beside the definition.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Seed of all lots.
    pub seed: u64,
    /// Locales of captions; the first is that of the main files.
    pub locales: Vec<String>,
    /// Size of the prototype subset; 0 for none.
    pub prototype: usize,
}

/// An image of the training set.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its record.
    pub row: u32,
    /// Its id.
    pub id: String,
    /// Its part.
    pub part: String,
    /// Its photo.
    pub source: PathBuf,
    /// Digest of the photo's file.
    pub source_sha256: String,
    /// What the square is made of: content, settings, version.
    pub key: String,
    /// Its stratum.
    pub stratum: usize,
    /// The id of the first photo that shows the same; its own if none does.
    pub group: String,
    /// The background, in words; empty if there is none to speak of.
    pub background: &'static str,
    /// Captions by locale, in the order of the locales.
    pub captions: Vec<String>,
}

impl Entry {
    /// Its file below the set's folder, with `/`.
    pub fn file(&self) -> String {
        format!("{}/{}.png", self.part, self.id)
    }
}

/// How alike the parts are in one field.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Balance {
    /// The field.
    pub field: String,
    /// The test; none if the field has one value only.
    pub test: Option<ChiSquare>,
}

/// A training set to be.
#[derive(Debug)]
pub struct Plan {
    /// The raw data set, with all that is wrong with it.
    pub source: Source,
    /// Parts in order, with their sizes.
    pub parts: Vec<(String, usize)>,
    /// Its images, by part and id; those of the prototype come a second time.
    pub entries: Vec<Entry>,
    /// Names of strata, with the records of each part.
    pub strata: Vec<(String, Vec<usize>)>,
    /// How many strata are pools of thin ones.
    pub pooled: usize,
    /// The largest distance of a stratum's records in a part from its share.
    pub deviation: f64,
    /// Groups of photos that show the same.
    pub groups: usize,
    /// How alike the parts are.
    pub balance: Vec<Balance>,
    /// Side of the squares.
    pub size: u32,
}

/// Plans a training set. `memory` is where measures of photos are kept.
///
/// # Errors
/// No photo is left, a field or locale is not there, a template is malformed, the run is to stop.
pub fn plan(
    mut source: Source,
    choice: &Choice,
    memory: Option<&Path>,
    ctx: &mut dyn EngineCtx,
) -> Result<Plan> {
    source.check_fields()?;
    let captioners = captioners(&source, choice)?;
    let photos = usable_photos(&mut source, memory, ctx)?;
    let group_of = group(&source, &photos);
    let rows: Vec<u32> = photos.iter().map(|p| p.row).collect();
    let rule = &source.definition.split;
    let strata = strata(&source.table, &rows, &rule.stratify, rule.pool_below);
    let id = |p: &Photo| source.table.id(p.row as usize);
    let item = |(i, p)| Item { id: id(p), stratum: strata.of[i], group: group_of[i] };
    let items: Vec<Item<'_>> = photos.iter().enumerate().map(item).collect();
    let (names, shares): (Vec<String>, Vec<f64>) = source.definition.parts().into_iter().unzip();
    let placed = split::split(&items, strata.names.len(), &shares, choice.seed);
    let size = |part: usize| placed.iter().filter(|p| **p == part).count();
    let make = |i: usize| entry(&source, &photos[i], &names[placed[i]], &items, i, &captioners, choice.seed);
    let mut entries: Vec<Entry> = (0..photos.len()).map(make).collect();
    let sample = prototype(&items, &placed, strata.names.len(), choice);
    entries.extend(sample.into_iter().map(|i| Entry { part: PROTOTYPE.into(), ..make(i) }));
    entries.sort_by(|a, b| (&a.part, a.row).cmp(&(&b.part, b.row)));
    Ok(Plan {
        parts: names.iter().enumerate().map(|(part, name)| (name.clone(), size(part))).collect(),
        strata: strata_counts(&strata, &placed, names.len()),
        pooled: strata.pooled,
        deviation: split::largest_deviation(&items, &strata, &placed, &shares),
        groups: count_groups(&group_of),
        balance: balance(&source, &rows, &placed, names.len()),
        entries,
        size: source.definition.images.size,
        source,
    })
}

/// The photos that can be used; what keeps the others out becomes issues.
fn usable_photos(source: &mut Source, memory: Option<&Path>, ctx: &mut dyn EngineCtx) -> Result<Vec<Photo>> {
    let limit = source.definition.images.max_megapixels;
    let mut issues = std::mem::take(&mut source.issues);
    let photos = photos::measure_all(&source.with_image(), limit, memory, &mut issues, ctx)?;
    let photos = usable(photos, source.definition.images.min_side, source, &mut issues);
    issues.sort();
    source.issues = issues;
    if photos.is_empty() { Err(nothing_left(source)) } else { Ok(photos) }
}

/// For each photo the place of the first that shows the same.
fn group(source: &Source, photos: &[Photo]) -> Vec<usize> {
    let rules = &source.definition.images;
    let looks: Vec<Look<'_>> =
        photos.iter().map(|p| Look { sha256: &p.sha256, measures: &p.measures }).collect();
    groups(photos.len(), &pairs(&looks, Alike { bits: rules.near_bits, colour: rules.near_colour }))
}

fn captioners(source: &Source, choice: &Choice) -> Result<Vec<Captioner>> {
    let mut known: Vec<&str> = source.table.columns().iter().map(|c| c.name.as_str()).collect();
    // What no record of this category has is still a field of the catalogue.
    known.extend(source.definition.attributes.iter().map(String::as_str));
    known.push(BACKGROUND);
    let of = |locale: &String| {
        let captioner = Captioner::new(&source.definition.captions, locale)?;
        captioner.check_fields(&known)?;
        Ok(captioner)
    };
    choice.locales.iter().map(of).collect()
}

/// Leaves out what is too small, and what is the same file as another record's.
fn usable(photos: Vec<Photo>, min_side: u32, source: &Source, issues: &mut Vec<Issue>) -> Vec<Photo> {
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    let mut left = Vec::with_capacity(photos.len());
    for photo in photos {
        let m = &photo.measures;
        let name = shown(&photo.path);
        if m.width.max(m.height) < min_side {
            let why = format!("{}x{}; the long side must have at least {min_side} pixels", m.width, m.height);
            issues.push(Issue::new(IssueKind::TooSmall, name, why));
        } else if let Some(row) = first.get(&photo.sha256) {
            let why =
                format!("the same file as that of record {}, which is kept", source.table.id(*row as usize));
            issues.push(Issue::new(IssueKind::SamePhoto, name, why));
        } else {
            first.insert(photo.sha256.clone(), photo.row);
            left.push(photo);
        }
    }
    left
}

fn nothing_left(source: &Source) -> Error {
    let e = Error::new(ErrorKind::NotFound, format!("no photo is left of {} records", source.rows.len()));
    if !source.has_images {
        return e.hint(format!(
            "none of the folders {} is there: name them with the parameter `images`",
            source.definition.layout.images.join(", ")
        ));
    }
    let counts = crate::issue::count(&source.issues);
    let said = counts.iter().map(|(k, n)| format!("{n} x {}", k.title()));
    e.hint(format!("what was found: {}", said.collect::<Vec<_>>().join("; ")))
}

fn entry(
    source: &Source,
    photo: &Photo,
    part: &str,
    items: &[Item<'_>],
    place: usize,
    captioners: &[Captioner],
    seed: u64,
) -> Entry {
    let rules = &source.definition.images;
    let id = source.table.id(photo.row as usize);
    let background = photo.measures.background_words();
    let value = |name: &str| {
        if name == BACKGROUND { background } else { source.table.text(photo.row as usize, name) }
    };
    let frame = match rules.frame {
        Frame::Photo => String::new(),
        Frame::Product => format!(" product {}", rules.margin),
    };
    let of = format!("{VERSION} {} {} {:?}{frame}", photo.sha256, rules.size, rules.pad);
    Entry {
        row: photo.row,
        id: id.into(),
        part: part.into(),
        source: photo.path.clone(),
        source_sha256: photo.sha256.clone(),
        key: sha256(of.as_bytes()),
        stratum: items[place].stratum,
        group: items[items[place].group].id.into(),
        background,
        captions: captioners.iter().map(|c| c.caption(seed, id, value).0).collect(),
    }
}

/// The places of the prototype's photos: a sample of the first part, so that nothing of the others is seen.
fn prototype(items: &[Item<'_>], placed: &[usize], strata: usize, choice: &Choice) -> Vec<usize> {
    let first: Vec<usize> = (0..items.len()).filter(|i| placed[*i] == 0).collect();
    let of_first: Vec<Item<'_>> = first.iter().map(|i| items[*i]).collect();
    let chosen = split::sample(&of_first, strata, choice.prototype, choice.seed);
    chosen.into_iter().map(|i| first[i]).collect()
}

fn strata_counts(strata: &Strata, placed: &[usize], parts: usize) -> Vec<(String, Vec<usize>)> {
    let mut counts: Vec<_> = strata.names.iter().map(|n| (n.clone(), vec![0; parts])).collect();
    strata.of.iter().zip(placed).for_each(|(s, p)| counts[*s].1[*p] += 1);
    counts
}

fn count_groups(group_of: &[usize]) -> usize {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    group_of.iter().for_each(|g| *sizes.entry(*g).or_default() += 1);
    sizes.values().filter(|n| **n > 1).count()
}

fn balance(source: &Source, rows: &[u32], placed: &[usize], parts: usize) -> Vec<Balance> {
    let of = |field: &String| {
        let values = rows.iter().map(|r| source.table.text(*r as usize, field));
        Balance { field: field.clone(), test: chi_square(&cross(values.zip(placed.iter().copied()), parts)) }
    };
    source.definition.split.stratify.iter().map(of).collect()
}

/// Counts of values by parts.
pub fn cross<'a>(pairs: impl Iterator<Item = (&'a str, usize)>, parts: usize) -> Vec<Vec<usize>> {
    let mut counts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    pairs.for_each(|(value, part)| counts.entry(value).or_insert_with(|| vec![0; parts])[part] += 1);
    counts.into_values().collect()
}
