//! `atelier models import`: a description for what is there already.

use super::args::ModelImport;
use super::{Studio, model_inspect, say, say_json};
use crate::{fsx, model_store, paths};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt, key};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Longest key that is made of a name.
const LONGEST_KEY: usize = 48;

/// `atelier models import`.
pub fn run(args: &ModelImport, studio: &Studio) -> Result<()> {
    let path =
        args.path.canonicalize().map_err(|e| Error::io(format!("cannot open {}", args.path.display()), e))?;
    let key = match &args.name {
        Some(name) => name.clone(),
        None => key_of(&path),
    };
    key::check("model", &key)?;
    if let Some(there) = studio.registries.models.find(&key) {
        return Err(Error::invalid(format!("there is a model `{key}` already: {}", there.origin))
            .hint("choose another key with --name"));
    }
    let facts = model_inspect::look(&path, false, args.json, studio)?;
    let Some(architecture) = facts["architecture"].as_str() else { return Err(no_model(&path, &facts)) };
    let description = place_of_descriptions()?.join(format!("{key}.yaml"));
    if description.exists() {
        return Err(Error::invalid(format!("{} exists", description.display())));
    }
    let place = settle(args, &path, &key)?;
    let spec = describe(&key, architecture, &place, &facts)?;
    let text = serde_yaml::to_string(&spec).internal("a description that is not YAML")?;
    let head = "# Written by `atelier models import`. The licence is for you to fill in.\n";
    std::fs::create_dir_all(description.parent().unwrap_or(Path::new(".")))
        .map_err(|e| fsx::cannot_write(&description, e))?;
    fsx::write_atomic(&description, format!("{head}{text}").as_bytes())?;
    if args.json {
        return say_json(&json!({"key": key, "description": description, "path": place, "model": spec}));
    }
    say(format_args!("{key}: {}", facts["what"].as_str().unwrap_or_default()))?;
    say(format_args!("described in {}", description.display()))?;
    say(format_args!("use it with: --model {key}"))
}

/// The end of the path, as far as a key may have it.
fn key_of(path: &Path) -> String {
    let last = if path.is_file() { path.file_stem() } else { path.file_name() };
    let last = last.map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
    let key: String =
        last.chars().map(plain).skip_while(|c| !c.is_ascii_lowercase()).take(LONGEST_KEY).collect();
    if key.is_empty() { "model".into() } else { key }
}

fn no_model(path: &Path, facts: &Value) -> Error {
    let what = facts["what"].as_str().unwrap_or_default();
    let e = Error::new(
        ErrorKind::Unsupported,
        format!("{} is no model that a description is for: it is {what}", path.display()),
    );
    let notes = facts["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    notes.fold(e, |e, note| e.hint(note))
}

/// Descriptions of one's own.
fn place_of_descriptions() -> Result<PathBuf> {
    paths::user_config_dir().map(|d| d.join("models")).ok_or_else(|| {
        Error::new(ErrorKind::Environment, "there is no place for descriptions")
            .hint("set HOME or XDG_CONFIG_HOME")
    })
}

/// Copies or links the files, if that is asked for; says where the model is then.
fn settle(args: &ModelImport, path: &Path, key: &str) -> Result<PathBuf> {
    if !args.copy && !args.link {
        return Ok(path.into());
    }
    let folder = model_store::folder(key)?;
    let place = if path.is_dir() { folder } else { folder.join(path.file_name().unwrap_or_default()) };
    if std::fs::symlink_metadata(&place).is_ok() {
        return Err(
            Error::invalid(format!("{} exists", place.display())).hint("choose another key with --name")
        );
    }
    let parent = place.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| fsx::cannot_write(parent, e))?;
    if args.link {
        link(path, &place)?;
    } else if path.is_dir() {
        copy_folder(path, &place)?;
    } else {
        copy_file(path, &place)?;
    }
    Ok(place)
}

#[cfg(unix)]
fn link(path: &Path, place: &Path) -> Result<()> {
    std::os::unix::fs::symlink(path, place).map_err(|e| fsx::cannot_write(place, e))
}

#[cfg(windows)]
fn link(path: &Path, place: &Path) -> Result<()> {
    use std::os::windows::fs::{symlink_dir, symlink_file};
    let made = if path.is_dir() { symlink_dir(path, place) } else { symlink_file(path, place) };
    made.map_err(|e| fsx::cannot_write(place, e).hint("use --copy"))
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source =
        std::fs::File::open(from).map_err(|e| Error::io(format!("cannot read {}", from.display()), e))?;
    let mut out = atelier_sdk::files::AtomicFile::create(to)?;
    std::io::copy(&mut source, out.file()).map_err(|e| fsx::cannot_write(to, e))?;
    out.commit()
}

/// Under another name first: half a model is none.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let staged = to.with_file_name(format!(".atelier-{}-{name}", std::process::id()));
    let copied = copy_tree(from, &staged)
        .and_then(|()| std::fs::rename(&staged, to).map_err(|e| fsx::cannot_write(to, e)));
    if copied.is_err() {
        let _ = std::fs::remove_dir_all(&staged);
    }
    copied
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| fsx::cannot_write(to, e))?;
    for path in entries(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() { copy_tree(&path, &target)? } else { copy_file(&path, &target)? }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(format!("cannot read {}", folder.display()), e);
    let read = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = read.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn describe(key: &str, architecture: &str, place: &Path, facts: &Value) -> Result<Map<String, Value>> {
    let mut digests = Map::new();
    match place.is_dir() {
        true => digests_below(place, "", &mut digests)?,
        false => {
            let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
            digests.insert(name, json!(crate::digests::read_anew(place)?.0));
        }
    }
    let title = format!("{key}: {}", facts["what"].as_str().unwrap_or_default());
    let mut spec = super::models::map(json!({
        "schema_version": 1, "key": key, "title": title, "architecture": architecture, "path": place,
        "license": "unknown", "sha256": digests,
    }));
    if facts["details"]["prediction"] == "v_prediction" {
        spec.insert("prediction_type".into(), json!("v_prediction"));
    }
    Ok(spec)
}

fn digests_below(folder: &Path, prefix: &str, out: &mut Map<String, Value>) -> Result<()> {
    for path in entries(folder)? {
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            digests_below(&path, &format!("{name}/"), out)?;
        } else {
            out.insert(name, json!(crate::digests::read_anew(&path)?.0));
        }
    }
    Ok(())
}
