//! What is wrong with a data set: found, listed, never dropped in silence.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A sort of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueKind {
    /// A record that cannot be read.
    BadRecord,
    /// A record whose name could lead out of the folder.
    UnsafeName,
    /// A record whose file has another name than its id.
    OtherName,
    /// A record whose id came before.
    DuplicateId,
    /// Text that is not UTF-8, read as Windows-1252.
    Encoding,
    /// Markup in a field, taken out.
    Markup,
    /// A cell that a spreadsheet would run.
    Formula,
    /// A record without image.
    NoImage,
    /// An image without record.
    NoRecord,
    /// An image that cannot be read.
    BadImage,
    /// An image that is too large to be opened.
    TooLarge,
    /// An image smaller than the rules ask for.
    TooSmall,
    /// An image that is another record's, too.
    SamePhoto,
    /// An image whose name says another format.
    WrongExtension,
    /// A file that is no image by its name.
    NotAnImage,
}

impl IssueKind {
    /// A few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRecord => "record that cannot be read",
            Self::UnsafeName => "id that is no plain name",
            Self::OtherName => "record whose file has another name",
            Self::DuplicateId => "id that came before",
            Self::Encoding => "text not in UTF-8, read as Windows-1252",
            Self::Markup => "markup inside a field, taken out",
            Self::Formula => "cell that a spreadsheet would run",
            Self::NoImage => "record without image",
            Self::NoRecord => "image without record",
            Self::BadImage => "image that cannot be read",
            Self::TooLarge => "image too large to be opened",
            Self::TooSmall => "image smaller than asked for",
            Self::SamePhoto => "image that is another record's, too",
            Self::WrongExtension => "image whose name says another format",
            Self::NotAnImage => "file that is no image by its name",
        }
    }

    /// Whether it keeps something out of the training set.
    pub fn excludes(self) -> bool {
        !matches!(
            self,
            Self::OtherName
                | Self::Encoding
                | Self::Markup
                | Self::Formula
                | Self::WrongExtension
                | Self::NoRecord
                | Self::NotAnImage
        )
    }
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Issue {
    /// Its sort.
    pub kind: IssueKind,
    /// The file, line or id.
    pub what: String,
    /// Why.
    pub reason: String,
}

impl Issue {
    /// A problem.
    pub fn new(kind: IssueKind, what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, what: what.into(), reason: reason.into() }
    }
}

/// How many of each sort there are.
pub fn count(issues: &[Issue]) -> BTreeMap<IssueKind, usize> {
    issues.iter().fold(BTreeMap::new(), |mut counts, i| {
        *counts.entry(i.kind).or_default() += 1;
        counts
    })
}
