//! What lies in a folder, in an order that does not depend on the file system.

use super::Rejected;
use atelier_sdk::{Error, Result};
use std::collections::{BTreeSet, HashSet};
use std::fs::DirEntry;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

const IMAGES: [&str; 9] = ["bmp", "gif", "jfif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];
/// Pictures that people have and nobody here decodes: opening them says so.
const FOREIGN: [&str; 7] = ["avif", "heic", "heif", "jp2", "jxl", "psd", "raw"];
const CAPTIONS: [&str; 2] = ["caption", "txt"];
/// Files that need no look inside to be known as no images.
const KNOWN: [&str; 11] =
    ["csv", "html", "json", "jsonl", "md", "npz", "parquet", "py", "safetensors", "toml", "yaml"];
/// Deeper folders are a mistake.
const MAX_DEPTH: usize = 16;

/// Files by what they are for, sorted, as places below a root with `/`. Names that begin with a dot are the
/// system's and left alone.
#[derive(Debug, Default)]
pub struct Listing {
    pub images: BTreeSet<String>,
    pub captions: BTreeSet<String>,
    pub rejected: Vec<Rejected>,
    pub others: usize,
}

/// What lies in `root`/`folder` and below.
pub fn below(root: &Path, folder: &str) -> Result<Listing> {
    let mut walk = Walk::default();
    let path = root.join(folder);
    walk.list(&path, folder, 0)
        .map_err(|e| Error::io(format!("cannot read the folder {}", path.display()), e))?;
    Ok(walk.out)
}

/// A walk through folders that reads each once: links lead anywhere, also to where they are.
#[derive(Default)]
struct Walk {
    out: Listing,
    seen: HashSet<PathBuf>,
}

impl Walk {
    fn list(&mut self, path: &Path, name: &str, depth: usize) -> std::io::Result<()> {
        if !self.seen.insert(path.canonicalize()?) {
            self.out.reject(name, "it leads to a folder that is read already");
            return Ok(());
        }
        let entries = std::fs::read_dir(path)?.map(|e| e.map(|e| (is_link(&e), e.file_name())));
        let mut entries = entries.collect::<std::io::Result<Vec<_>>>()?;
        // Files and folders before links to them, and in the same order everywhere.
        entries.sort();
        for (_, file) in entries {
            match file.to_str() {
                None => {
                    self.out.reject(&join(name, &file.to_string_lossy()), "its name is not UTF-8: rename it");
                }
                Some(file) if file.starts_with('.') => {}
                Some(file) => self.add(&path.join(file), join(name, file), depth),
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: String, depth: usize) {
        match std::fs::metadata(path) {
            Err(e) => self.out.reject(&name, format!("cannot be read: {e}")),
            Ok(m) if m.is_dir() && depth == MAX_DEPTH => {
                self.out.reject(&name, "it lies too deep; its images are not read");
            }
            Ok(m) if m.is_dir() => {
                if let Err(e) = self.list(path, &name, depth + 1) {
                    self.out.reject(&name, format!("cannot be read: {e}"));
                }
            }
            Ok(m) if m.is_file() => self.out.sort_in(path, name),
            Ok(_) => self.out.reject(&name, "it is neither a file nor a folder"),
        }
    }
}

fn is_link(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|t| t.is_symlink())
}

fn join(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.into() } else { format!("{folder}/{file}") }
}

impl Listing {
    fn reject(&mut self, file: &str, reason: impl Into<String>) {
        self.rejected.push(Rejected { file: file.into(), reason: reason.into() });
    }

    fn sort_in(&mut self, path: &Path, name: String) {
        let ending = ending(&name);
        let is = |of: &[&str]| of.contains(&ending.as_str());
        if is(&CAPTIONS) {
            self.captions.insert(name);
        } else if is(&IMAGES) || is(&FOREIGN) || (!is(&KNOWN) && begins_as_image(path)) {
            self.images.insert(name);
        } else {
            self.others += 1;
        }
    }
}

fn ending(name: &str) -> String {
    Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

fn begins_as_image(path: &Path) -> bool {
    let mut head = [0; 32];
    let read = std::fs::File::open(path).and_then(|mut f| f.read(&mut head)).unwrap_or(0);
    image::guess_format(&head[..read]).is_ok()
}

/// A name from a table as a place below the root, or why it is none.
pub fn inside(name: &str) -> Result<String, &'static str> {
    const OUTSIDE: &str = "the name leads out of the folder";
    // A name that another system reads as one from its root is wrong on this one, too.
    if name.starts_with(['/', '\\']) || name.as_bytes().get(1) == Some(&b':') {
        return Err("the name does not begin in the folder");
    }
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().ok_or(OUTSIDE)?),
            Component::CurDir => {}
            _ => return Err(OUTSIDE),
        }
    }
    match parts.is_empty() || name.contains('\0') {
        true => Err("it names no file"),
        false if name.split('\\').any(|p| p == "..") => Err(OUTSIDE),
        false => Ok(parts.join("/")),
    }
}

/// A name without its ending: what an image and its caption share.
pub fn stem(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |i| i + 1);
    name.rfind('.').filter(|dot| *dot > file).map_or(name, |dot| &name[..dot])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Dir, png};

    #[test]
    fn names_stay_inside() {
        assert_eq!(inside("./a//b.png").unwrap(), "a/b.png");
        assert_eq!(inside("a..b.png").unwrap(), "a..b.png");
        for name in [
            "../a",
            "a/../../b",
            "/etc/passwd",
            "C:\\a",
            "C:a",
            "\\\\host\\a",
            "..\\a",
            "a\\..\\b",
            "",
            ".",
            "\0",
        ] {
            assert!(inside(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_stem_ends_before_the_last_dot_of_the_file() {
        assert_eq!(stem("a.b/c.d.png"), "a.b/c.d");
        assert_eq!(stem("a.b/c"), "a.b/c");
        assert_eq!(stem("a/.png"), "a/.png");
    }

    #[test]
    fn files_are_told_apart_by_name_and_content() {
        let dir = Dir::new();
        dir.put("b.JPG", "not one, which opening it will tell");
        dir.put("a/photo", png(2, 2));
        dir.put("a/phone.heic", "");
        dir.put("notes.doc", "words");
        dir.put("b.txt", "words");
        dir.put(".DS_Store", "");
        let listing = below(dir.path(), "").unwrap();
        assert_eq!(Vec::from_iter(&listing.images), ["a/phone.heic", "a/photo", "b.JPG"]);
        assert_eq!(Vec::from_iter(&listing.captions), ["b.txt"]);
        assert_eq!((listing.others, listing.rejected.len()), (1, 0));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_do_not_lead_in_circles() {
        use std::os::unix::fs::symlink;
        let (dir, elsewhere) = (Dir::new(), Dir::new());
        dir.put("b/a.png", png(2, 2));
        elsewhere.put("c.png", png(2, 2));
        // Two of them double what is read with each step down.
        for name in ["a", "b/again"] {
            symlink(dir.path(), dir.path().join(name)).unwrap();
        }
        symlink(elsewhere.path(), dir.path().join("linked")).unwrap();
        symlink("gone.png", dir.path().join("b.png")).unwrap();
        let listing = below(dir.path(), "").unwrap();
        assert_eq!(Vec::from_iter(&listing.images), ["b/a.png", "linked/c.png"]);
        let rejected: Vec<_> = listing.rejected.iter().map(|r| r.file.as_str()).collect();
        assert_eq!(rejected, ["b/again", "a", "b.png"]);
    }
}
