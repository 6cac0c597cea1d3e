//! A folder with images and captions, in any of four layouts.

mod draft;
mod imagefolder;
mod kohya;
mod listing;
mod plain;
mod prepared;
mod table;

use atelier_sdk::{Error, ErrorKind, Result};
use draft::Draft;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// An image and what it is to be trained with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its place below [`Found::root`], with `/`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// What it shows; never empty.
    pub caption: String,
    /// How often it is seen in an epoch, at least 1.
    pub repeats: u32,
    /// What else is known about it, as text; fields without value are absent.
    pub attributes: BTreeMap<String, String>,
    /// What the set was stratified by when it was prepared.
    pub stratum: Option<String>,
}

impl AsRef<Item> for Item {
    fn as_ref(&self) -> &Item {
        self
    }
}

/// Something that is not trained on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rejected {
    /// The file, or the place in a table.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// Something about an image that is trained on nevertheless. The same text for the same thing, so that it can be
/// counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The file.
    pub file: String,
    /// What is to be said of it.
    pub text: String,
}

/// How often each thing is said, the most frequent first.
pub fn counted(remarks: &[Remark]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::<&str, usize>::new();
    remarks.iter().for_each(|r| *counts.entry(&r.text).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().map(|(text, n)| (text.to_string(), n)).collect();
    counts.sort_by_key(|c| std::cmp::Reverse(c.1));
    counts
}

/// The layout that a folder turned out to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "layout")]
pub enum Kind {
    /// A part of a set that `dataset prepare` made.
    Prepared {
        /// `train`, `val`, `prototype`, ...
        part: String,
    },
    /// An image folder of Hugging Face's `datasets`.
    ImageFolder {
        /// The file with the captions.
        table: String,
    },
    /// Folders named after repeats and concept, as kohya's scripts have them.
    Kohya,
    /// Images with captions beside them.
    Plain,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepared { part } => write!(f, "a prepared set (its part {part})"),
            Self::ImageFolder { table } => write!(f, "an image folder (captions in {table})"),
            Self::Kohya => f.write_str("folders with repeats in their names"),
            Self::Plain => f.write_str("images with captions beside them"),
        }
    }
}

/// What a folder holds, as far as names and captions tell: no image was opened yet.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which layout it was taken for.
    pub kind: Kind,
    /// What the names are relative to; for a prepared set the folder above its parts.
    pub root: PathBuf,
    /// Images with captions, by name.
    pub items: Vec<Item>,
    /// What is left out, by name.
    pub rejected: Vec<Rejected>,
    /// What is odd about images that are used, by name.
    pub remarks: Vec<Remark>,
    /// Files that have nothing to do with it.
    pub others: usize,
}

impl Kind {
    /// The folder of another part of the same prepared set in `root`, when there is one: `val` to measure on.
    pub fn sibling(&self, root: &Path, part: &str) -> Option<PathBuf> {
        let there = matches!(self, Self::Prepared { .. }) && root.join(prepared::captions_of(part)).is_file();
        there.then(|| root.join(part))
    }
}

/// A folder to train on.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    caption: Option<String>,
}

impl Folder {
    /// The folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), caption: None }
    }

    /// With a caption for images that have none.
    #[must_use]
    pub fn with_caption(mut self, caption: Option<String>) -> Self {
        self.caption = caption.map(|c| draft::one_line(&c).0).filter(|c| !c.is_empty());
        self
    }

    /// Reads names and captions. The layout is told by what is there: a prepared set, then an image folder, then
    /// kohya's folders, then images with captions beside them.
    ///
    /// # Errors
    /// There is no such folder, a table of captions is damaged, or no image has a caption.
    pub fn read(&self) -> Result<Found> {
        let name = self.path.display();
        let path =
            std::path::absolute(&self.path).map_err(|e| Error::io(format!("cannot read {name}"), e))?;
        let about = std::fs::metadata(&path).map_err(|e| {
            Error::io(format!("cannot read the training data {name}"), e)
                .hint("name a folder with images and captions")
        })?;
        if !about.is_dir() {
            return Err(Error::invalid(format!("the training data {name} is not a folder"))
                .hint("name the folder that the images are in"));
        }
        let mut draft = Draft::new(&path, self.caption.as_deref());
        let kind = read_as(&path, &mut draft)?;
        let found = draft.finish(kind);
        if found.items.is_empty() { Err(self.nothing(&found)) } else { Ok(found) }
    }

    fn nothing(&self, found: &Found) -> Error {
        let message =
            format!("{} has no image with a caption; it was read as {}", self.path.display(), found.kind);
        let mut error = Error::new(ErrorKind::NotFound, message);
        for r in found.rejected.iter().take(3) {
            error = error.hint(format!("{}: {}", r.file, r.reason));
        }
        if let Some(more) = found.rejected.len().checked_sub(3).filter(|n| *n > 0) {
            error = error.hint(format!("... and {more} more"));
        }
        error.hint(
            "looked for captions_<part>.json beside a part of a prepared set, metadata.jsonl or metadata.csv, \
             folders named <repeats>_<name>, and images with .txt or .caption files beside them; \
             a fixed caption serves for images without one",
        )
    }
}

fn read_as(path: &Path, draft: &mut Draft<'_>) -> Result<Kind> {
    if let Some((root, part)) = prepared::find(path) {
        draft.root = root;
        prepared::read(&part, draft)?;
        return Ok(Kind::Prepared { part });
    }
    if let Some((root, table)) = imagefolder::find(path) {
        draft.root = root;
        imagefolder::read(&table, draft)?;
        return Ok(Kind::ImageFolder { table });
    }
    let listing = listing::below(path, "")?;
    if kohya::fits(&listing) {
        kohya::read(listing, draft);
        return Ok(Kind::Kohya);
    }
    plain::read(listing, draft);
    Ok(Kind::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Dir;

    #[test]
    fn a_folder_with_nothing_says_what_was_looked_for() {
        let dir = Dir::new();
        let e = Folder::new(dir.path()).read().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        for words in ["captions_<part>.json", "metadata.jsonl", "<repeats>_<name>", ".txt"] {
            assert!(e.hints().iter().any(|h| h.contains(words)), "{words}: {:?}", e.hints());
        }
        dir.put("a.png", "");
        let e = Folder::new(dir.path()).read().unwrap_err();
        assert!(e.hints()[0].starts_with("a.png: "), "{:?}", e.hints());
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let dir = Dir::new();
        dir.put("a.png", "");
        assert!(Folder::new(dir.path().join("a.png")).read().unwrap_err().message().contains("not a folder"));
        let e = Folder::new(dir.path().join("none")).read().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_same_remarks_are_counted_together() {
        let remark = |file: &str, text: &str| Remark { file: file.into(), text: text.into() };
        let all = [remark("a", "x"), remark("b", "y"), remark("c", "y")];
        assert_eq!(counted(&all), [("y".to_string(), 2), ("x".to_string(), 1)]);
    }
}
