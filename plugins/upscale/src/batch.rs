//! The images of a folder, and which of them are done.

use crate::params::Upscale;
use atelier_sdk::{EngineCtx, Error, ErrorKind, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// Endings of image files that are read.
const ENDINGS: [&str; 10] = ["png", "jpg", "jpeg", "jfif", "webp", "bmp", "tif", "tiff", "gif", "apng"];
/// Settings that change nothing about a result.
const WITHOUT_EFFECT: [&str; 4] = ["out", "name", "skip", "memory_limit"];

/// An image of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name in the folder.
    pub file: String,
    /// Its name for the result: without its ending, if no other image has that name.
    pub stem: String,
}

/// The images of a folder by name, without those that are passed over.
///
/// # Errors
/// The folder cannot be read, or has no images; the results would take the places of the images.
pub fn sources(params: &Upscale, ctx: &mut dyn EngineCtx) -> Result<Vec<Source>> {
    let folder = Path::new(&params.folder);
    let skip = if params.skip.is_empty() { BTreeSet::new() } else { skipped(&ctx.input_bytes("skip")?)? };
    let names = names(folder)?;
    if let (Ok(a), Ok(b)) = (folder.canonicalize(), Path::new(&params.out).canonicalize())
        && a == b
    {
        return Err(Error::invalid("the results would take the places of the images: `out` is `folder`")
            .hint("choose another folder for `out`"));
    }
    if names.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("there are no images in {}", folder.display()))
            .hint(format!("images end in: {}", ENDINGS.join(", "))));
    }
    Ok(named(names).into_iter().filter(|source| !skip.contains(&source.file)).collect())
}

/// Each with its stem, or its whole name where several have one stem.
fn named(names: Vec<String>) -> Vec<Source> {
    let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_string();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    // Not every file system tells upper from lower case.
    names.iter().for_each(|name| *times.entry(stem(name).to_lowercase()).or_default() += 1);
    let source = |file: String| {
        let own = stem(&file);
        let alone = times.get(&own.to_lowercase()).is_none_or(|n| *n == 1);
        Source { stem: if alone { own } else { file.clone() }, file }
    };
    names.into_iter().map(source).collect()
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io(format!("cannot read the folder {}", folder.display()), e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name = path.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.'));
        if let Some(name) = name.filter(|_| ENDINGS.contains(&ending.as_str()) && path.is_file()) {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

fn skipped(bytes: &[u8]) -> Result<BTreeSet<String>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "the file of `skip` is no text").because(e))?;
    let line = |line: &str| line.split('#').next().unwrap_or_default().trim().to_string();
    Ok(text.lines().map(line).filter(|name| !name.is_empty()).collect())
}

/// What a result has to be to need no making.
pub struct Wanted<'a> {
    /// The file it is made of.
    pub source: &'a Path,
    /// The model's key.
    pub model: &'a str,
    /// The parameters that its metadata have, as far as they matter.
    pub params: Map<String, Value>,
}

impl Wanted<'_> {
    /// Whether the result stands at its place, made of this very file with these very settings.
    pub fn stands_at(&self, place: &Path) -> bool {
        let sidecar = place.with_extension("json");
        let (Ok(source), Ok(image), Ok(beside)) =
            (self.source.metadata(), place.metadata(), sidecar.metadata())
        else {
            return false;
        };
        let record =
            std::fs::read(&sidecar).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        // The image is written last, and after its source.
        let in_order = later(&image, &beside) && later(&image, &source);
        in_order && record.is_some_and(|record| self.is_told_by(&record, source.len()))
    }

    fn is_told_by(&self, record: &Value, length: u64) -> bool {
        let params = record["params"].as_object().cloned().unwrap_or_default();
        let bytes = record["inputs"]["folder"]["bytes"].as_u64();
        record["model"]["key"] == self.model && bytes == Some(length) && that_matter(params) == self.params
    }
}

fn later(a: &Metadata, b: &Metadata) -> bool {
    matches!((a.modified(), b.modified()), (Ok(a), Ok(b)) if a >= b)
}

/// The parameters that a result depends on.
pub fn that_matter(mut params: Map<String, Value>) -> Map<String, Value> {
    params.retain(|name, _| !WITHOUT_EFFECT.contains(&name.as_str()));
    params
}

/// The file of an image.
pub fn path(params: &Upscale, source: &Source) -> PathBuf {
    Path::new(&params.folder).join(&source.file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_of_one_name_keep_their_endings() {
        let stems = |names: &[&str]| {
            let all = named(names.iter().map(ToString::to_string).collect());
            all.into_iter().map(|s| s.stem).collect::<Vec<_>>()
        };
        assert_eq!(stems(&["a.jpg", "b.v2.png", "c.png"]), ["a", "b.v2", "c"]);
        assert_eq!(stems(&["a.jpg", "A.png", "b.png"]), ["a.jpg", "A.png", "b"]);
    }

    #[test]
    fn only_images_of_the_folder_itself_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.jpeg", ".hidden.png", "notes.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(dir.path().join("more.png")).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["a.jpeg", "b.PNG"]);
        let skip = skipped(b"a.png # blurred\n\n# b.png\n c d.png \n").unwrap();
        assert_eq!(skip.into_iter().collect::<Vec<_>>(), ["a.png", "c d.png"]);
        assert!(skipped(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn a_result_stands_if_it_was_made_of_this_file_with_these_settings() {
        let dir = tempfile::tempdir().unwrap();
        let (source, place) = (dir.path().join("a.jpg"), dir.path().join("out.png"));
        std::fs::write(&source, "12345").unwrap();
        let params = that_matter(json!({"outscale": 2, "skip": "s"}).as_object().cloned().unwrap());
        let wanted = Wanted { source: &source, model: "m", params };
        let record = |bytes: u64, scale: u64| {
            let record = json!({"model": {"key": "m"}, "params": {"outscale": scale, "out": "o"},
                "inputs": {"folder": {"bytes": bytes}}});
            std::fs::write(place.with_extension("json"), record.to_string()).unwrap();
        };
        record(5, 2);
        assert!(!wanted.stands_at(&place), "no image");
        std::fs::write(&place, "png").unwrap();
        assert!(wanted.stands_at(&place));
        record(5, 4);
        std::fs::write(&place, "png").unwrap();
        assert!(!wanted.stands_at(&place), "other settings");
        record(6, 2);
        std::fs::write(&place, "png").unwrap();
        assert!(!wanted.stands_at(&place), "another file");
        record(5, 2);
        std::fs::write(&place, "png").unwrap();
        let other = Wanted { model: "n", params: wanted.params.clone(), ..wanted };
        assert!(!other.stands_at(&place), "another model");
    }
}
