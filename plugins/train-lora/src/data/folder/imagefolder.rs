//! An image folder of Hugging Face's `datasets`: `metadata.jsonl` or `metadata.csv` above the images.

use super::draft::{Draft, Row};
use super::{listing, table};
use atelier_sdk::Result;
use std::path::{Path, PathBuf};

/// The folder with the table and the table's name, when `path` has one, or its `train`.
pub fn find(path: &Path) -> Option<(PathBuf, String)> {
    let tables = [path.to_path_buf(), path.join("train")].into_iter();
    let mut tables = tables.flat_map(|f| [table::JSONL, table::CSV].map(|t| (f.clone(), t.to_string())));
    tables.find(|(folder, table)| folder.join(table).is_file())
}

/// Reads the folder whose table is `name`.
pub fn read(name: &str, draft: &mut Draft<'_>) -> Result<()> {
    let path = draft.root.join(name);
    let rows = if name == table::CSV { table::csv(&path)? } else { table::jsonl(&path)? };
    for (line, row) in rows {
        match row {
            Err(reason) => draft.reject(&format!("{name} line {line}"), reason),
            Ok(row) => draft.row(Row {
                name: &row.file,
                caption: &row.caption,
                attributes: row.attributes,
                stratum: None,
            }),
        }
    }
    let listing = listing::below(&draft.root, "")?;
    draft.rejected(listing.rejected);
    draft.unnamed(listing.images, name);
    draft.others += listing.others.saturating_sub(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::data::testing::{Dir, png};
    use crate::data::{Folder, Kind};

    #[test]
    fn lines_name_images_also_in_subfolders() {
        let dir = Dir::new();
        dir.put("sub/a.png", png(4, 4));
        dir.put("b.png", png(4, 4));
        dir.put("c.png", png(4, 4));
        dir.put(
            "metadata.jsonl",
            "{\"file_name\":\"./sub/a.png\",\"text\":\"A\",\"colour\":\"Red\"}\n\n\
             {\"file_name\":\"b.png\",\"text\":\" \"}\n{oops\n{\"file_name\":\"/etc/passwd\",\"text\":\"x\"}\n",
        );
        let found = Folder::new(dir.path()).read().unwrap();
        assert_eq!(found.kind, Kind::ImageFolder { table: "metadata.jsonl".into() });
        assert_eq!(found.items.len(), 1);
        assert_eq!((found.items[0].name.as_str(), found.items[0].caption.as_str()), ("sub/a.png", "A"));
        assert_eq!(found.items[0].attributes["colour"], "Red");
        let rejected: Vec<_> = found.rejected.iter().map(|r| (r.file.as_str(), r.reason.as_str())).collect();
        assert_eq!(rejected[1], ("b.png", "it has no caption"));
        assert_eq!(rejected[2], ("c.png", "metadata.jsonl does not name it"));
        assert!(rejected[3].0 == "metadata.jsonl line 4" && rejected[3].1.contains("not JSON"));
        assert_eq!((rejected[0].0, rejected.len()), ("/etc/passwd", 4));
        let found = Folder::new(dir.path()).with_caption(Some("a thing".into())).read().unwrap();
        assert_eq!(found.items[0].caption, "a thing");
    }

    #[test]
    fn a_csv_serves_as_well_and_train_below_is_found() {
        let dir = Dir::new();
        dir.put("train/a.png", png(4, 4));
        dir.put("train/metadata.csv", "file_name,caption,year\na.png,\"red, and blue\",2012\na,b\n");
        let found = Folder::new(dir.path()).read().unwrap();
        assert_eq!(found.root, dir.path().join("train"));
        assert_eq!(
            (found.items[0].caption.as_str(), found.items[0].attributes["year"].as_str()),
            ("red, and blue", "2012")
        );
        assert_eq!(found.rejected[0].file, "metadata.csv line 3");
    }
}
