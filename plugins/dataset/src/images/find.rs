//! Which image belongs to which record: by its name.

use crate::definition::is_plain_name;
use crate::issue::{Issue, IssueKind};
use atelier_sdk::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Endings of image files, as cameras and shops write them.
const ENDINGS: [&str; 9] = ["jpg", "jpeg", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif"];

/// Images by id.
#[derive(Debug, Default)]
pub struct Found {
    by_id: HashMap<String, PathBuf>,
}

impl Found {
    /// The image of a record.
    pub fn of(&self, id: &str) -> Option<&Path> {
        // A column of file names names the image with its ending.
        self.by_id.get(id).or_else(|| self.by_id.get(stem(id)?)).map(PathBuf::as_path)
    }

    /// Ids that have an image, sorted.
    pub fn ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.by_id.keys().map(String::as_str).collect();
        ids.sort_unstable();
        ids
    }
}

/// The part of a name before the ending of an image file.
fn stem(name: &str) -> Option<&str> {
    let (stem, ending) = name.rsplit_once('.')?;
    ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e)).then_some(stem)
}

/// Looks through folders; the first that has an image for an id wins. Links are followed only to files.
///
/// # Errors
/// A folder cannot be read.
pub fn find(folders: &[PathBuf], issues: &mut Vec<Issue>) -> Result<Found> {
    let mut found = Found::default();
    for folder in folders {
        let say = |e| Error::io(format!("cannot read the folder of images {}", folder.display()), e);
        let mut names: Vec<_> = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(say)? {
            names.push(entry.map_err(say)?.file_name());
        }
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let text = name.to_string_lossy();
            match stem(&text).filter(|s| is_plain_name(s)) {
                Some(id) => drop(found.by_id.entry(id.to_string()).or_insert(path)),
                None if path.is_dir()
                    || text.starts_with('.')
                    || text.ends_with(".json")
                    || text.ends_with(".csv") => {}
                None => issues.push(Issue::new(
                    IssueKind::NotAnImage,
                    text.into_owned(),
                    format!(
                        "images are named <id>.jpg, .png, .webp, .bmp, .tif or .gif (in {})",
                        shown(folder)
                    ),
                )),
            }
        }
    }
    Ok(found)
}

/// The last part of a path, for reports that say the same on every machine.
pub fn shown(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_with_an_image_wins_and_other_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["big/1.jpg", "small/1.png", "small/2.JPEG", "small/notes.txt", "small/a b.png", "big/.hidden"]
        {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let mut issues = Vec::new();
        let found = find(&[dir.path().join("big"), dir.path().join("small")], &mut issues).unwrap();
        assert_eq!(found.ids(), ["1", "2"]);
        assert!(found.of("1").unwrap().ends_with("big/1.jpg") && found.of("2.jpg").is_some());
        let told: Vec<_> = issues.iter().map(|i| i.what.as_str()).collect();
        assert_eq!(told, ["a b.png", "notes.txt"]);
        assert!(find(&[dir.path().join("none")], &mut issues).is_err());
    }
}
