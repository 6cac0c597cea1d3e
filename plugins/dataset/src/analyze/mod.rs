//! Analyses a raw data set: what is in it, what its photos are like, what is wrong with it.

pub mod counts;
pub mod document;
pub mod drawings;
pub mod look;
pub mod pictures;
pub mod text;
pub mod write;

use crate::images::duplicates::{Alike, Look, Pair, pairs};
use crate::images::unlike::{self, Unlike};
use crate::photos::{self, Photo};
use crate::source::Source;
use atelier_sdk::{EngineCtx, Result};
use counts::{Attribute, Cross, Numbers};
use look::PhotoFacts;
use rayon::prelude::*;
use std::path::Path;
use std::time::Instant;

/// All that was found.
#[derive(Debug)]
pub struct Analysis {
    /// The data set, with all that is wrong with it.
    pub source: Source,
    /// Its photos.
    pub photos: Vec<Photo>,
    /// Fields with values.
    pub attributes: Vec<Attribute>,
    /// Fields with numbers.
    pub numbers: Vec<Numbers>,
    /// Pairs of fields.
    pub crosses: Vec<Cross>,
    /// What the photos are like; none if there are none.
    pub look: Option<PhotoFacts>,
    /// Photos that show the same, by their places.
    pub pairs: Vec<Pair>,
    /// All photos, those most unlike the rest first.
    pub unlike: Vec<Unlike>,
    /// How long it took.
    pub seconds: Seconds,
}

/// How long the parts of an analysis took.
#[derive(Debug)]
pub struct Seconds {
    /// Counting.
    pub counts: f64,
    /// Opening, measuring and comparing photos.
    pub photos: f64,
}

/// Analyses a data set; `memory` is where the measures of photos are kept.
///
/// # Errors
/// The run is to stop, or the memory cannot be written.
pub fn analyze(mut source: Source, memory: &Path, ctx: &mut dyn EngineCtx) -> Result<Analysis> {
    let began = Instant::now();
    let d = &source.definition;
    let attributes =
        d.attributes.par_iter().map(|f| Attribute::count(&source.table, &source.rows, f)).collect();
    let numbers = d.numbers.iter().map(|n| Numbers::of(&source.table, &source.rows, n)).collect();
    let cross = |(a, b): &(String, String)| Cross::count(&source.table, &source.rows, a, b).transpose();
    let crosses = d.cross.par_iter().filter_map(cross).collect::<Result<_>>()?;
    let counts = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let rules = source.definition.images.clone();
    let files = source.with_image();
    let mut issues = std::mem::take(&mut source.issues);
    let photos = photos::measure_all(&files, rules.max_megapixels, Some(memory), &mut issues, ctx)?;
    source.issues = issues;
    source.issues.sort();
    let looks: Vec<Look<'_>> =
        photos.iter().map(|p| Look { sha256: &p.sha256, measures: &p.measures }).collect();
    let pairs = pairs(&looks, Alike { bits: rules.near_bits, colour: rules.near_colour });
    let look = look::facts(&photos, &pairs);
    let unlike = unlike::ranked(&photos.iter().map(|p| &p.measures).collect::<Vec<_>>());
    let seconds = Seconds { counts, photos: began.elapsed().as_secs_f64() };
    Ok(Analysis { seconds, attributes, numbers, crosses, look, pairs, unlike, photos, source })
}
