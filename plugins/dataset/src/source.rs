//! A raw data set: its records, those that pass the filter, and where their images are.

use crate::definition::Definition;
use crate::filter::Filter;
use crate::images::find::{self, Found};
use crate::issue::{Issue, IssueKind};
use crate::records;
use crate::records::table::Table;
use atelier_sdk::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Where the parts of a raw data set are, if not where its definition says.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Its folder.
    pub input: PathBuf,
    /// The records.
    pub records: Option<PathBuf>,
    /// The folders of images, best first; none to take those of the definition.
    pub images: Vec<PathBuf>,
}

/// A raw data set.
#[derive(Debug)]
pub struct Source {
    /// What it is.
    pub definition: Definition,
    /// All records.
    pub table: Table,
    /// Those that pass the filter.
    pub rows: Vec<u32>,
    /// All images.
    pub images: Found,
    /// Whether there are folders of images at all.
    pub has_images: bool,
    /// What is wrong with it.
    pub issues: Vec<Issue>,
}

impl Source {
    /// Reads records and looks for images. `filter` takes the place of the definition's.
    ///
    /// # Errors
    /// Records or images cannot be read at all, nothing passes the filter, or it or the definition names a field that
    /// no record has.
    pub fn read(definition: Definition, places: &Places, filter: Option<&str>) -> Result<Self> {
        let mut issues = Vec::new();
        let layout = &definition.layout;
        let place = places.records.clone().unwrap_or_else(|| places.input.join(&layout.records));
        let table = records::read(&definition, &place, &mut issues)?;
        if table.len() == 0 {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("no record of {} can be read", place.display()),
            )
            .hint(issues.first().map_or_else(
                || "there is a header and nothing below it".into(),
                |i| format!("the first: {}: {}", i.what, i.reason),
            )));
        }
        let rows = Filter::parse(filter.unwrap_or(&definition.filter))?.rows(&table)?;
        let folders = image_folders(&definition, places)?;
        let images = find::find(&folders, &mut issues)?;
        let mut source = Self { definition, table, rows, images, has_images: !folders.is_empty(), issues };
        source.match_images();
        Ok(source)
    }

    /// Notes records without image, and images without record.
    fn match_images(&mut self) {
        if !self.has_images {
            return;
        }
        let missing =
            self.rows.iter().map(|r| self.table.id(*r as usize)).filter(|id| self.images.of(id).is_none());
        let missing: Vec<Issue> =
            missing.map(|id| Issue::new(IssueKind::NoImage, id, "no image has this name")).collect();
        self.issues.extend(missing);
        let known: std::collections::HashSet<&Path> =
            (0..self.table.len()).filter_map(|r| self.images.of(self.table.id(r))).collect();
        let strays =
            self.images.ids().into_iter().filter_map(|id| self.images.of(id)).filter(|p| !known.contains(p));
        let strays: Vec<Issue> = strays
            .map(|p| Issue::new(IssueKind::NoRecord, find::shown(p), "no record has this id"))
            .collect();
        self.issues.extend(strays);
    }

    /// The rows that have an image, with it.
    pub fn with_image(&self) -> Vec<(u32, PathBuf)> {
        if !self.has_images {
            return Vec::new();
        }
        let of = |r: &u32| Some((*r, self.images.of(self.table.id(*r as usize))?.to_path_buf()));
        self.rows.iter().filter_map(of).collect()
    }

    /// The fields of the definition that some record has.
    ///
    /// # Errors
    /// A field to stratify by is in no record.
    pub fn check_fields(&self) -> Result<()> {
        for field in &self.definition.split.stratify {
            if self.table.column(field).is_none() {
                return Err(crate::filter::no_field(field, &self.table)
                    .context("dataset definition: `split.stratify`"));
            }
        }
        Ok(())
    }
}

/// The folders of images. One that the definition merely expects may be missing if others are there, or if records
/// are all there is; one that the request names may not.
fn image_folders(definition: &Definition, places: &Places) -> Result<Vec<PathBuf>> {
    if !places.images.is_empty() {
        return Ok(places.images.clone());
    }
    let all: Vec<PathBuf> = definition.layout.images.iter().map(|f| places.input.join(f)).collect();
    Ok(all.into_iter().filter(|f| f.is_dir()).collect())
}
