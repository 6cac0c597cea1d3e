//! The files that a request names: found by its schema, checked before a model is loaded, read for the
//! engine.
//!
//! A field marked with [`X_FILE`] is a path. Engines and plugins get what is in it from here, so that they
//! need no decoder and read nothing that the request does not name.

mod decode;
mod fields;

use atelier_sdk::params::X_FILE;
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Image, Result, Violation};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind as Io, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use decode::MAX_SIDE;

/// Largest file that is read.
pub const MAX_FILE: u64 = 512 << 20;
/// Most entries of a folder that are compared with the name of a missing file.
const MAX_LISTED: usize = 4096;

/// Reads and decodes an image: PNG, JPEG, WebP, BMP, TIFF or GIF, told by its content and not by its name. It
/// is turned as its EXIF orientation says; samples of 16 bits are rounded to 8; of several frames or pages
/// the first counts.
///
/// # Errors
/// - [`ErrorKind::NotFound`]: there is nothing, or something that is not a file;
/// - [`ErrorKind::Environment`]: the machine does not let it be read;
/// - [`ErrorKind::Corrupt`]: empty, cut off, damaged, not an image at all;
/// - [`ErrorKind::Unsupported`]: more than [`MAX_FILE`] bytes or [`MAX_SIDE`] pixels on a side, or an image
///   of a format or kind that is not read.
pub fn read_image(path: &Path) -> Result<Image> {
    decode::decode(&shown(path), &read_file(path)?)
}

/// What the engine may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Get the image in it, or its bytes.
    Image,
    /// Get its bytes.
    Any,
    /// Open it, also if it is a folder.
    Path,
    /// Write it.
    Out,
}

impl Kind {
    /// Whether the host reads the file.
    fn is_read(self) -> bool {
        matches!(self, Self::Image | Self::Any)
    }
}

#[derive(Debug)]
struct FileField {
    kind: Kind,
    /// As in the plan.
    value: Value,
}

impl FileField {
    /// The path, if one is given.
    fn path(&self) -> Option<&str> {
        self.value.as_str().filter(|p| !p.is_empty())
    }
}

/// What a file held when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    sha256: String,
    bytes: usize,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let sha256 = crate::digests::hex(&Sha256::digest(bytes));
        Self { sha256, bytes: bytes.len() }
    }
}

/// The files of a plan. Relative paths are relative to the working directory, and `~` is a name like any
/// other.
///
/// A field is named by its JSON pointer, whose first `/` may be left out: `image`, `controls/0/image`.
#[derive(Debug)]
pub struct Inputs {
    files: BTreeMap<String, FileField>,
    /// By field: what was read, so that the record says what was used and not what the file holds later.
    seen: Mutex<BTreeMap<String, Content>>,
    /// The file of a folder that was read last: the one that the next image is made of.
    inside: Mutex<Option<(String, Value)>>,
}

impl Inputs {
    /// Finds the file fields that `schema` describes, also in nested mappings and lists, and their paths in
    /// `values`. Touches no file.
    pub fn new(schema: &Value, values: &Value) -> Self {
        Self { files: fields::find(schema, values), seen: Mutex::default(), inside: Mutex::default() }
    }

    /// What is wrong with the files that are named, as far as a look at each tells: missing, not a file, not
    /// readable, empty, too large, not an image where there should be one. A field without a file is fine
    /// here.
    pub fn check(&self) -> Vec<Violation> {
        let wrong = |(field, file): (&String, &FileField)| {
            let e = look(file.kind, Path::new(file.path()?)).err()?;
            Some(violation(field, &e))
        };
        self.files.iter().filter_map(wrong).collect()
    }

    /// Whether a field of the request names this path, for the engine to open.
    pub fn names(&self, path: &str) -> bool {
        self.files.values().any(|file| file.kind == Kind::Path && file.path() == Some(path))
    }

    /// The decoded image that an image field names; see [`read_image`].
    ///
    /// # Errors
    /// Those of [`read_image`]; [`ErrorKind::InvalidRequest`] if the field is empty, [`ErrorKind::Internal`]
    /// if the schema has no such field or it is not one for images.
    pub fn read_image(&self, field: &str) -> Result<Image> {
        let (field, file) = self.field(field)?;
        if file.kind != Kind::Image {
            return Err(Error::internal(format!("field `{field}` is a file, but not an image"))
                .hint(format!("mark it with `\"{X_FILE}\": \"image\"` in the schema, or read its bytes")));
        }
        let (path, bytes) = self.read(field, file)?;
        decode::decode(&shown(path), &bytes).map_err(|e| in_field(field, e))
    }

    /// The image that an image field names, or the image `name` in the folder that a path field names, as its file
    /// has it: see [`decode::decode_whole`].
    ///
    /// # Errors
    /// Those of [`Self::read_image`]; [`ErrorKind::Internal`] if `name` is no plain name.
    pub fn read_picture(&self, field: &str, name: &str) -> Result<Image> {
        let (field, file) = self.field(field)?;
        if name.is_empty() && file.kind == Kind::Image {
            let (path, bytes) = self.read(field, file)?;
            return decode::decode_whole(&shown(path), &bytes).map_err(|e| in_field(field, e));
        }
        if file.kind != Kind::Path || !is_plain_name(name) {
            return Err(Error::internal(format!("`{name}` of field `{field}` is no image of a folder")));
        }
        let Some(folder) = file.path() else { return Err(no_path(field, &file.value)) };
        let path = Path::new(folder).join(name);
        let bytes = read_file(&path)?;
        let content = Content::of(&bytes);
        let image = decode::decode_whole(&shown(&path), &bytes)?;
        let entry = json!({"path": path, "sha256": content.sha256, "bytes": content.bytes});
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = Some((field.to_string(), entry));
        Ok(image)
    }

    /// The place `name` in the folder that an out field names.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if there is no such field, it names no folder, or `name` is no plain name.
    pub fn place(&self, field: &str, name: &str) -> Result<PathBuf> {
        let (field, file) = self.field(field)?;
        match file.path().filter(|_| file.kind == Kind::Out && is_plain_name(name)) {
            Some(folder) => Ok(Path::new(folder).join(name)),
            None => Err(Error::internal(format!("`{name}` of field `{field}` is no place for an image"))),
        }
    }

    /// The bytes of the file that a field names.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Environment`], [`ErrorKind::Corrupt`] if it is empty or changed
    /// since it was read before, [`ErrorKind::Unsupported`] if it has more than [`MAX_FILE`] bytes;
    /// [`ErrorKind::InvalidRequest`] if the field is empty, [`ErrorKind::Internal`] if the schema has no such
    /// field.
    pub fn read_bytes(&self, field: &str) -> Result<Vec<u8>> {
        let (field, file) = self.field(field)?;
        if !file.kind.is_read() {
            return Err(Error::internal(format!("field `{field}` is a path that the engine opens itself")));
        }
        Ok(self.read(field, file)?.1)
    }

    /// For the metadata of a run: field → `{path, sha256, bytes}` of every file that is named to be read here. The
    /// path is as it was given; size and digest are those of what was read, or of the file now if it was not read.
    ///
    /// # Errors
    /// Those of [`Self::read_bytes`].
    pub fn record(&self) -> Result<Value> {
        let mut out = Map::new();
        for (field, file) in self.files.iter().filter(|(_, f)| f.kind.is_read() && f.path().is_some()) {
            let content = match self.seen_in(field) {
                Some(content) => content,
                None => Content::of(&self.read(field, file)?.1),
            };
            let entry = json!({"path": file.path(), "sha256": content.sha256, "bytes": content.bytes});
            out.insert(field.clone(), entry);
        }
        out.extend(self.inside.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Ok(Value::Object(out))
    }

    fn field(&self, name: &str) -> Result<(&str, &FileField)> {
        let name = name.strip_prefix('/').unwrap_or(name);
        let found = self.files.get_key_value(name).map(|(k, v)| (k.as_str(), v));
        found.ok_or_else(|| {
            let all: Vec<&str> = self.files.keys().map(String::as_str).collect();
            let all = if all.is_empty() { "none".to_string() } else { all.join(", ") };
            Error::internal(format!("field `{name}` is not a file")).hint(format!("file fields are: {all}"))
        })
    }

    fn read<'a>(&self, field: &str, file: &'a FileField) -> Result<(&'a Path, Vec<u8>)> {
        let Some(path) = file.path().map(Path::new) else { return Err(no_path(field, &file.value)) };
        let bytes = read_file(path).map_err(|e| in_field(field, e))?;
        self.remember(field, path, Content::of(&bytes))?;
        Ok((path, bytes))
    }

    /// One record cannot be true of two contents.
    fn remember(&self, field: &str, path: &Path, content: Content) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(field) {
            Some(before) if *before != content => {
                let changed = format!("{} has changed since the run read it", shown(path));
                let e =
                    Error::new(ErrorKind::Corrupt, changed).hint("run it again, and leave the file alone");
                Err(in_field(field, e))
            }
            Some(_) => Ok(()),
            None => {
                seen.insert(field.to_string(), content);
                Ok(())
            }
        }
    }

    fn seen_in(&self, field: &str) -> Option<Content> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(field).cloned()
    }
}

/// A name in a folder, and not a way out of it.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name)
}

fn no_path(field: &str, value: &Value) -> Error {
    let message = match value {
        Value::Null | Value::String(_) => format!("field `{field}` names no file"),
        other => format!("field `{field}` is {}, not a path", crate::json::brief(other)),
    };
    Error::invalid(message).hint(format!("set `{field}` to the path of a file"))
}

fn in_field(field: &str, e: Error) -> Error {
    e.context(format!("cannot read the file of field `{field}`"))
}

fn violation(field: &str, e: &Error) -> Violation {
    let v = Violation::new(format!("/{field}"), e.chain().join(": "));
    if e.hints().is_empty() { v } else { v.hint(e.hints().join("; ")) }
}

/// Whether a file can be what it should be, as far as a look tells.
fn look(kind: Kind, path: &Path) -> Result<()> {
    match kind {
        Kind::Any => open(path).map(drop),
        Kind::Image => look_for_image(path),
        // Opening a folder for reading tells whether it may be read, as it does for a file.
        Kind::Path if path.is_dir() => std::fs::read_dir(path).map(drop).map_err(|e| cannot_read(path, e)),
        Kind::Path => open_any_length(path).map(drop),
        Kind::Out => crate::fsx::check_writable(folder_of(path)),
    }
}

fn look_for_image(path: &Path) -> Result<()> {
    let mut head = Vec::new();
    open(path)?.take(decode::HEAD as u64).read_to_end(&mut head).map_err(|e| cannot_read(path, e))?;
    decode::sniff(&shown(path), &head).map(drop)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A file may grow while it is read.
    open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| cannot_read(path, e))?;
    check_length(path, bytes.len() as u64)?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<File> {
    let file = open_any_length(path)?;
    check_length(path, file.metadata().map_err(|e| cannot_read(path, e))?.len())?;
    Ok(file)
}

/// Looks before it opens: opening a pipe waits for its other end.
fn open_any_length(path: &Path) -> Result<File> {
    let found = std::fs::metadata(path).map_err(|e| cannot_read(path, e))?;
    if !found.is_file() {
        let what = if found.is_dir() { "a folder" } else { "a device, pipe or socket" };
        return Err(Error::new(ErrorKind::NotFound, format!("{} is {what}, not a file", shown(path)))
            .hint("give the path of a file"));
    }
    File::open(path).map_err(|e| cannot_read(path, e))
}

fn check_length(path: &Path, bytes: u64) -> Result<()> {
    match bytes {
        0 => Err(Error::new(ErrorKind::Corrupt, format!("{} is empty: it has 0 bytes", shown(path)))
            .hint("copy or download it again")),
        n if n > MAX_FILE => {
            Err(Error::new(ErrorKind::Unsupported, format!("{} has {n} bytes", shown(path)))
                .hint(format!("at most {MAX_FILE} are read; is this the right file?")))
        }
        _ => Ok(()),
    }
}

fn cannot_read(path: &Path, e: std::io::Error) -> Error {
    match e.kind() {
        // A name that no file can have is a missing file too.
        Io::NotFound | Io::NotADirectory | Io::InvalidInput | Io::InvalidFilename => {
            Error::new(ErrorKind::NotFound, format!("there is no file {}", shown(path)))
                .hint(whereabouts(path))
        }
        Io::PermissionDenied => Error::new(ErrorKind::Environment, format!("cannot read {}", shown(path)))
            .because(e)
            .hint("check the permissions of the file and of the folders above it"),
        _ => Error::io(format!("cannot read {}", shown(path)), e),
    }
}

/// What to do about a file that is not there.
fn whereabouts(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('~') {
        return "`~` is not expanded: write the path in full".into();
    }
    if text.contains("://") || text.starts_with("data:") {
        return "only files of this machine are read: give a path".into();
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return format!("there is no folder {}", shown(folder));
    }
    if let Some(near) = neighbour(folder, path) {
        return format!("did you mean `{near}`, in the same folder?");
    }
    match std::env::current_dir() {
        Ok(here) if path.is_relative() => format!("it is looked for in {}", here.display()),
        _ => format!("nothing in {} has a name like it", folder.display()),
    }
}

fn neighbour(folder: &Path, path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let entries = std::fs::read_dir(folder).ok()?.take(MAX_LISTED).flatten();
    let names: Vec<String> =
        entries.filter(|e| e.path().is_file()).filter_map(|e| e.file_name().into_string().ok()).collect();
    nearest(wanted, names.iter().map(String::as_str)).map(str::to_string)
}

/// A path for a message. What is pasted where a path should be can be endless.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    match text.char_indices().nth(1024) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"properties": {
            "prompt": {"type": "string"},
            "image": {"type": ["string", "null"], "x-file": "image"},
            "palette": {"type": "string", "x-file": "any"},
        }})
    }

    fn png() -> Vec<u8> {
        let image = Image::new(2, 1, atelier_sdk::PixelFormat::Rgb8, vec![1, 2, 3, 4, 5, 6]).unwrap();
        crate::pngmeta::encode(&image, &[]).unwrap()
    }

    fn inputs(image: &Path, palette: &Path) -> Inputs {
        Inputs::new(&schema(), &json!({"prompt": "shoe", "image": image, "palette": palette}))
    }

    #[test]
    fn images_of_a_folder_and_places_stay_inside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.png"), png()).unwrap();
        let schema = json!({"properties": {"folder": {"x-file": "path"}, "out": {"x-file": "out"}}});
        let values = json!({"folder": dir.path(), "out": dir.path().join("out")});
        let inputs = Inputs::new(&schema, &values);
        assert_eq!(inputs.read_picture("folder", "a.png").unwrap().data(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(inputs.record().unwrap()["folder"]["path"], json!(dir.path().join("a.png")));
        assert_eq!(inputs.place("out", "a.png").unwrap(), dir.path().join("out/a.png"));
        for bad in ["", ".", "..", "../a.png", "b/a.png", "/a.png", "a.png/"] {
            assert_eq!(inputs.read_picture("folder", bad).unwrap_err().kind(), ErrorKind::Internal, "{bad}");
            assert_eq!(inputs.place("out", bad).unwrap_err().kind(), ErrorKind::Internal, "{bad}");
        }
        assert!(inputs.place("folder", "a.png").is_err());
        assert_eq!(inputs.read_picture("folder", "b.png").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_was_read_is_what_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (image, palette) = (dir.path().join("a.png"), dir.path().join("p.bin"));
        std::fs::write(&image, png()).unwrap();
        std::fs::write(&palette, b"abc").unwrap();
        let inputs = inputs(&image, &palette);
        assert_eq!(inputs.check(), []);
        assert_eq!(inputs.read_image("image").unwrap().data(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(inputs.read_bytes("/palette").unwrap(), b"abc");
        // The record tells what the run saw.
        std::fs::write(&palette, b"other").unwrap();
        let record = inputs.record().unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(record["palette"], json!({"path": palette, "sha256": abc, "bytes": 3}));
        assert_eq!(record["image"]["bytes"], png().len());
        assert!(record.get("prompt").is_none());
        let e = inputs.read_bytes("palette").unwrap_err();
        assert!(e.chain().join(": ").contains("has changed"), "{e:?}");
    }

    #[test]
    fn a_file_that_was_not_read_is_recorded_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let palette = dir.path().join("p.bin");
        std::fs::write(&palette, b"abc").unwrap();
        let inputs = Inputs::new(&schema(), &json!({"image": null, "palette": palette}));
        let record = inputs.record().unwrap();
        assert_eq!(record.as_object().unwrap().keys().collect::<Vec<_>>(), ["palette"]);
        assert_eq!(record["palette"]["bytes"], 3);
    }

    #[test]
    fn paths_that_the_engine_opens_may_be_folders_and_are_not_read_here() {
        let dir = tempfile::tempdir().unwrap();
        let schema = json!({"properties": {
            "model": {"type": "string", "x-file": "path"}, "out": {"type": "string", "x-file": "out"},
        }});
        let inputs = |model: &Path, out: &Path| Inputs::new(&schema, &json!({"model": model, "out": out}));
        let good = inputs(dir.path(), &dir.path().join("new/folder/a.png"));
        assert_eq!(good.check(), []);
        assert_eq!(good.record().unwrap(), json!({}));
        assert_eq!(good.read_bytes("model").unwrap_err().kind(), ErrorKind::Internal);
        let bad = inputs(&dir.path().join("none"), Path::new("/proc/none/a.png"));
        let at: Vec<String> = bad.check().into_iter().map(|v| v.pointer).collect();
        assert_eq!(at, ["/model", "/out"]);
    }

    #[test]
    fn every_wrong_file_is_a_violation_at_its_field() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("palette.bin"), b"abc").unwrap();
        let found = inputs(dir.path(), &dir.path().join("pallete.bin")).check();
        let at: Vec<&str> = found.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(at, ["/image", "/palette"]);
        assert!(found[0].message.ends_with("is a folder, not a file"), "{found:?}");
        assert!(found[1].message.starts_with("there is no file"), "{found:?}");
        assert!(found[1].hint.as_ref().unwrap().contains("did you mean `palette.bin`"), "{found:?}");
    }

    #[test]
    fn a_file_that_is_no_image_is_told_before_anything_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let (image, palette) = (dir.path().join("a.png"), dir.path().join("p.bin"));
        std::fs::write(&image, b"<html>\n").unwrap();
        std::fs::write(&palette, b"<html>\n").unwrap();
        let found = inputs(&image, &palette).check();
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("is not an image"), "{found:?}");
        std::fs::write(&image, b"").unwrap();
        assert!(inputs(&image, &palette).check()[0].message.contains("0 bytes"));
    }

    #[test]
    fn fields_that_name_no_file_are_refused_by_name() {
        let none = Inputs::new(&schema(), &json!({"prompt": "shoe", "image": "", "palette": 7}));
        assert_eq!(none.check(), []);
        assert_eq!(none.record().unwrap(), json!({}));
        for (field, kind, words) in [
            ("image", ErrorKind::InvalidRequest, "field `image` names no file"),
            ("palette", ErrorKind::InvalidRequest, "field `palette` is 7, not a path"),
            ("prompt", ErrorKind::Internal, "field `prompt` is not a file"),
            ("imag", ErrorKind::Internal, "field `imag` is not a file"),
        ] {
            let e = none.read_bytes(field).unwrap_err();
            assert_eq!((e.kind(), e.message()), (kind, words));
        }
        let e = none.read_image("palette").unwrap_err();
        assert!(e.message().contains("not an image"), "{e}");
    }

    #[test]
    fn names_that_no_file_has_come_with_what_to_do() {
        for (path, hint) in [
            ("~/a.png", "not expanded"),
            ("https://example.com/a.png", "files of this machine"),
            ("nowhere/a.png", "there is no folder nowhere"),
            ("qqqqqqqq", "it is looked for in"),
            ("a\0b", "looked for"),
        ] {
            let e = read_image(Path::new(path)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotFound, "{path}");
            assert!(e.hints()[0].contains(hint), "{path}: {:?}", e.hints());
        }
        let e = read_image(Path::new(&"x".repeat(100_000))).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(e.message().len() < 2000);
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_may_not_be_read_says_so() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        std::fs::write(&path, png()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Nothing is forbidden to root.
        if File::open(&path).is_err() {
            let e = read_image(&path).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Environment);
            assert!(e.hints()[0].contains("permissions"));
        }
        let e = read_image(Path::new("/dev/null")).unwrap_err();
        assert!(e.message().contains("not a file"), "{e}");
    }

    #[test]
    fn a_file_larger_than_is_read_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(read_image(&path).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
