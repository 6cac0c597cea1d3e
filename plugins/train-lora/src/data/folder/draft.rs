//! What a layout's reader fills: items, and everything that is not one, with its reason.

use super::listing::inside;
use super::{Found, Item, Kind, Rejected, Remark};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A caption is a sentence or some tags; a file beyond this is something else.
pub const MAX_CAPTION: usize = 64 << 10;

/// An image as a table names it.
#[derive(Debug, Default)]
pub struct Row<'a> {
    pub name: &'a str,
    pub caption: &'a str,
    pub attributes: BTreeMap<String, String>,
    pub stratum: Option<String>,
}

/// A folder as far as it was read.
#[derive(Debug)]
pub struct Draft<'a> {
    pub root: PathBuf,
    pub others: usize,
    fixed: Option<&'a str>,
    named: BTreeSet<String>,
    items: Vec<Item>,
    rejected: Vec<Rejected>,
    remarks: Vec<Remark>,
}

impl<'a> Draft<'a> {
    /// `fixed` is the caption of images without one.
    pub fn new(root: &Path, fixed: Option<&'a str>) -> Self {
        Self {
            root: root.into(),
            others: 0,
            fixed,
            named: BTreeSet::new(),
            items: Vec::new(),
            rejected: Vec::new(),
            remarks: Vec::new(),
        }
    }

    pub fn reject(&mut self, file: &str, reason: impl Into<String>) {
        self.rejected.push(Rejected { file: file.into(), reason: reason.into() });
    }

    pub fn rejected(&mut self, all: Vec<Rejected>) {
        self.rejected.extend(all);
    }

    pub fn remark(&mut self, file: &str, text: &str) {
        self.remarks.push(Remark { file: file.into(), text: text.into() });
    }

    /// An image that a table names: the name is anybody's, the file need not exist.
    pub fn row(&mut self, row: Row<'_>) {
        match self.place(row.name) {
            Err(reason) => self.reject(row.name, reason),
            Ok(name) => {
                let mut item = self.item(&name);
                (item.attributes, item.stratum) = (row.attributes, row.stratum);
                self.take(item, row.caption);
            }
        }
    }

    fn place(&mut self, name: &str) -> Result<String, String> {
        let name = inside(name)?;
        if self.named.contains(&name) {
            return Err("it is named more than once; the first counts".into());
        }
        match std::fs::metadata(self.root.join(&name)) {
            Ok(m) if m.is_file() => {}
            Ok(_) => return Err("it is not a file".into()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err("there is a caption and no image".into());
            }
            Err(e) => return Err(format!("cannot be read: {e}")),
        }
        self.named.insert(name.clone());
        Ok(name)
    }

    /// An image of the folder, to be completed.
    pub fn item(&self, name: &str) -> Item {
        let attributes = BTreeMap::new();
        let path = self.root.join(name);
        Item { name: name.into(), path, caption: String::new(), repeats: 1, attributes, stratum: None }
    }

    /// Takes an image with its caption, or with the fixed one where it has none.
    pub fn take(&mut self, mut item: Item, caption: &str) {
        let (caption, lines) = one_line(caption);
        item.caption = match (caption.is_empty(), self.fixed) {
            _ if caption.len() > MAX_CAPTION => {
                return self.reject(&item.name, "its caption is too long to be one");
            }
            (false, _) => caption,
            (true, Some(fixed)) => {
                self.remark(&item.name, "has no caption; the fixed one is taken");
                fixed.into()
            }
            (true, None) => return self.reject(&item.name, "it has no caption"),
        };
        if lines > 1 {
            self.remark(&item.name, "has a caption of several lines; they are joined");
        }
        self.items.push(item);
    }

    /// Images that lie in the folder and that the table `table` does not name.
    pub fn unnamed(&mut self, images: BTreeSet<String>, table: &str) {
        for name in images {
            if !self.named.contains(&name) {
                self.reject(&name, format!("{table} does not name it"));
            }
        }
    }

    /// Everything in the order of names.
    pub fn finish(mut self, kind: Kind) -> Found {
        self.items.sort_by(|a, b| a.name.cmp(&b.name));
        self.rejected.sort();
        self.remarks.sort();
        let Self { root, items, rejected, remarks, others, .. } = self;
        Found { kind, root, items, rejected, remarks, others }
    }
}

/// A caption without the white space around its lines, and how many lines it had.
pub fn one_line(text: &str) -> (String, usize) {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|l| !l.is_empty());
    let lines: Vec<&str> = lines.collect();
    (lines.join(" "), lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_is_one_line() {
        assert_eq!(one_line("\u{feff} a shoe \r\n\n red\n"), ("a shoe red".to_string(), 2));
        assert_eq!(one_line(" \n "), (String::new(), 0));
    }
}
