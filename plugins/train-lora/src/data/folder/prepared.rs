//! A part of a set that `dataset prepare` made: `<set>/captions_train.json` beside `<set>/train`.

use super::draft::{Draft, Row};
use super::listing;
use super::table::{self, text_of};
use atelier_sdk::{Error, ErrorKind, Result};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

const METADATA: &str = "metadata.json";

/// The file with the captions of a part.
pub fn captions_of(part: &str) -> String {
    format!("captions_{part}.json")
}

/// The set's folder and the part, when `path` is a part or the whole set, whose `train` is meant then.
pub fn find(path: &Path) -> Option<(PathBuf, String)> {
    if path.join(captions_of("train")).is_file() {
        return Some((path.into(), "train".into()));
    }
    let (root, part) = (path.parent()?, path.file_name()?.to_str()?);
    root.join(captions_of(part)).is_file().then(|| (root.into(), part.into()))
}

/// What the set's metadata say of an image.
type About = (BTreeMap<String, String>, Option<String>);

/// Reads a part.
pub fn read(part: &str, draft: &mut Draft<'_>) -> Result<()> {
    let table = captions_of(part);
    let path = draft.root.join(&table);
    let Value::Array(entries) = table::json(&path)? else {
        return Err(Error::new(ErrorKind::Corrupt, format!("{} is not a list", path.display()))
            .hint("run `dataset prepare` again: it makes only what is missing or changed"));
    };
    let mut about = metadata(part, draft)?;
    for (i, entry) in entries.iter().enumerate() {
        let Some(name) = entry.get("image").and_then(Value::as_str) else {
            draft.reject(&format!("{table} entry {}", i + 1), "it names no image");
            continue;
        };
        let caption = entry.get("caption").and_then(Value::as_str).unwrap_or_default();
        let (attributes, stratum) = about.remove(name).unwrap_or_default();
        draft.row(Row { name, caption, attributes, stratum });
    }
    let listing = listing::below(&draft.root, part)?;
    draft.rejected(listing.rejected);
    draft.unnamed(listing.images, &table);
    draft.others += listing.others;
    Ok(())
}

/// Attributes by image; a set without its metadata is still one to train on.
fn metadata(part: &str, draft: &mut Draft<'_>) -> Result<HashMap<String, About>> {
    let path = draft.root.join(METADATA);
    if path.is_file() {
        return Ok(of_set(&table::json(&path)?));
    }
    let lines = draft.root.join(part).join(table::JSONL);
    if lines.is_file() {
        let rows = table::jsonl(&lines)?.into_iter().filter_map(|(_, row)| row.ok());
        return Ok(rows.map(|row| (format!("{part}/{}", row.file), (row.attributes, None))).collect());
    }
    draft.remark(METADATA, "the set has no metadata.json, hence no attributes to choose by");
    Ok(HashMap::new())
}

fn of_set(metadata: &Value) -> HashMap<String, About> {
    let images = metadata.get("images").and_then(Value::as_array);
    let about = |image: &Value| {
        let fields = image.get("attributes").and_then(Value::as_object).into_iter().flatten();
        let mut attributes: BTreeMap<_, _> =
            fields.filter_map(|(k, v)| Some((k.clone(), text_of(v)?))).collect();
        if let Some(background) = image.get("background").and_then(text_of) {
            attributes.entry("background".into()).or_insert(background);
        }
        let stratum = image.get("stratum").and_then(text_of);
        Some((image.get("file")?.as_str()?.to_string(), (attributes, stratum)))
    };
    images.into_iter().flatten().filter_map(about).collect()
}

#[cfg(test)]
mod tests {
    use crate::data::testing::{Dir, png};
    use crate::data::{Folder, Kind};
    use atelier_sdk::ErrorKind;

    fn set() -> Dir {
        let dir = Dir::new();
        for name in ["train/2.png", "train/10.png", "train/stray.png", "val/3.png"] {
            dir.put(name, png(8, 8));
        }
        dir.put(
            "captions_train.json",
            r#"[{"id":"2","image":"train/2.png","caption":"a red shoe"},
                {"id":"10","image":"train/10.png","caption":"a blue shoe"},
                {"id":"10","image":"train/10.png","caption":"once more"},
                {"id":"4","image":"train/4.png","caption":"gone"},
                {"id":"5","image":"../5.png","caption":"outside"},
                {"id":"6","image":"train/2.png/x","caption":"no folder"},
                {"caption":"of nothing"}, 7]"#,
        );
        dir.put("captions_val.json", r#"[{"id":"3","image":"val/3.png","caption":"a shoe"}]"#);
        dir.put(
            "metadata.json",
            r#"{"images":[{"file":"train/2.png","stratum":"Red","background":"white",
                "attributes":{"baseColour":"Red","year":2012,"brand":null}}]}"#,
        );
        dir
    }

    #[test]
    fn a_part_is_read_by_its_captions_with_attributes() {
        let dir = set();
        let found = Folder::new(dir.path().join("train")).read().unwrap();
        assert_eq!(found.kind, Kind::Prepared { part: "train".into() });
        assert_eq!(found.items.iter().map(|i| &i.name).collect::<Vec<_>>(), ["train/10.png", "train/2.png"]);
        let red = &found.items[1];
        assert_eq!((red.caption.as_str(), red.stratum.as_deref()), ("a red shoe", Some("Red")));
        let attributes: Vec<_> = red.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(attributes, [("background", "white"), ("baseColour", "Red"), ("year", "2012")]);
        assert_eq!(found.kind.sibling(&found.root, "val"), Some(dir.path().join("val")));
        assert_eq!(found.kind.sibling(&found.root, "test"), None);
    }

    #[test]
    fn everything_that_is_left_out_is_told() {
        let found = Folder::new(set().path()).read().unwrap();
        let files: Vec<_> = found.rejected.iter().map(|r| r.file.as_str()).collect();
        assert_eq!(
            files,
            [
                "../5.png",
                "captions_train.json entry 7",
                "captions_train.json entry 8",
                "train/10.png",
                "train/2.png/x",
                "train/4.png",
                "train/stray.png"
            ]
        );
    }

    #[test]
    fn damaged_captions_are_an_error_and_not_another_layout() {
        let dir = set();
        for text in ["[{\"image\": ", "{}", "\u{0}"] {
            dir.put("captions_train.json", text);
            assert_eq!(Folder::new(dir.path()).read().unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }
}
